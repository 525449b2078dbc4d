import ArgumentParser
import Kit
import RegistryService

/// Hosts OCI images and bundles: takes them, keeps them by digest, hands them out.
@main
struct RegistryMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-registry", abstract: "Host OCI images and bundles.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.registry, options) { boot in try await RegistryComponent.services(boot) }
    }
}
