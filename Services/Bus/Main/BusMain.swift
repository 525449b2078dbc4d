import ArgumentParser
import BusService
import Kit

/// Keeps the log, and carries every event, live stream and query of the suite.
@main
struct BusMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-bus", abstract: "Keep the log and carry events, streams and queries between the components.",
        version: Version.text, subcommands: [Fsck.self])
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.bus, options) { boot in try await BusComponent.services(boot) }
    }
}
