import ArgumentParser
import Kit
import SupervisorService

/// The agent on a host: runs and supervises the suite's programs, apps' instances and jobs.
@main
struct SupervisorMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-supervisor", abstract: "Run and supervise the suite's programs, the instances of apps, and jobs.",
        version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.supervisor, options) { boot in try await SupervisorComponent.services(boot) }
    }
}
