import ArgumentParser
import DiscoveryService
import Kit

/// Knows which instances there are: answers DNS from that, and leads the ingress's host names to them.
@main
struct DiscoveryMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-discovery", abstract: "Keep the catalogue, answer DNS, lead the ingress.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.discovery, options) { boot in try await DiscoveryComponent.services(boot) }
    }
}
