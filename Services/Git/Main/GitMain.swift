import ArgumentParser
import GitService
import Kit

/// Takes pushes over smart HTTP, keeps repositories, and tells what moved in them.
@main
struct GitMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-git", abstract: "Git over HTTP: takes pushes and tells what moved.", version: Version.text)
    @OptionGroup var options: ComponentOptions

    mutating func run() async throws {
        try await Bootstrap.run(.git, options) { boot in try await GitComponent.services(boot) }
    }
}
