import ArgumentParser
import BusService
import Kit

/// The bus without encryption, for `make bench-bus`: some of the peers are measured in the clear. Never installed.
@main
struct PlainBus: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-bus-plain", abstract: "The bus without encryption; everybody is the client 'bench'. For benchmarks only.",
        version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.bus, options) { boot in try await BusComponent.services(boot, unencryptedAs: "bench") }
    }
}
