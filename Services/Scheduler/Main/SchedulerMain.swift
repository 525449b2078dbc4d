import ArgumentParser
import Kit
import SchedulerService

/// Turns pushes into runs, releases and orders to deploy.
@main
struct SchedulerMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-scheduler", abstract: "Turn pushes into runs, releases and deployments.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.scheduler, options) { boot in try await SchedulerComponent.services(boot) }
    }
}
