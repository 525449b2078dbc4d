import ArgumentParser
import Contracts
import Foundation

/// The command of a component: its options, and one clear line with exit code 2 when they are wrong.
public protocol ComponentCommand: AsyncParsableCommand {}

extension ComponentCommand {
    public static func main() async { await runAsComponent() }

    /// What `main` does; for a component whose `main` looks at the arguments first.
    public static func runAsComponent() async {
        do {
            var command = try parseAsRoot()
            if var component = command as? any AsyncParsableCommand {
                try await component.run()
            } else {
                try command.run()
            }
        } catch {
            if error is ExitCode || exitCode(for: error) == .success { exit(withError: error) }
            guard exitCode(for: error) == .validationFailure else {
                StandardError.write("\(configuration.commandName ?? "slipway"): \(error)\n")
                Foundation.exit(1)
            }
            // ArgumentParser's own words go on with the usage; one line and the way to it is enough.
            let first = message(for: error).split(separator: "\n").first.map(String.init) ?? "wrong usage"
            let name = configuration.commandName ?? "slipway"
            StandardError.write("\(name): \(first)\n  hint: \(name) --help\n")
            Foundation.exit(2)
        }
    }
}
