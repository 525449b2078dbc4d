import APIService
import ArgumentParser
import Kit

/// Serves the public HTTP API and the console, and keeps tokens.
@main
struct APIMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-api", abstract: "Serve the public HTTP API and the console; keep tokens.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.api, options) { boot in try await APIComponent.services(boot) }
    }
}
