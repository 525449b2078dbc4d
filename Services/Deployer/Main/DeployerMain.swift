import ArgumentParser
import DeployerService
import Kit

/// Carries out plans: starts the new instances, moves traffic, drains the old ones.
@main
struct DeployerMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-deployer", abstract: "Carry out deployment plans.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.deployer, options) { boot in try await DeployerComponent.services(boot) }
    }
}
