import ArgumentParser
import Contracts
import Foundation
import Kit

/// The command line client: talks to the suite on this machine, or to the one it logged in to.
@main
struct Slipway: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway",
        abstract: "Push code with git; Slipway tests it, builds it, and runs it on your own machines.",
        discussion: "Start here:  slipway up    then, in a repository:  slipway app create NAME && git push slipway main",
        version: Version.text,
        subcommands: [
            Up.self, Down.self, Status.self, Doctor.self, App.self, Deploy.self, Wait.self, Plan.self, Rollback.self, Releases.self,
            Ps.self,
            Logs.self, Events.self, Publish.self, Why.self, BusCommand.self, TokenCommand.self, Login.self, Logout.self, Whoami.self,
            KeyCommand.self,
            GitCredential.self,
        ])

    /// Everything goes through here, so that every failure is one sentence and one of the documented exit codes.
    static func main() async {
        // A reader that goes away (`slipway events | head`) is no error: writing then fails quietly in Terminal.
        signal(SIGPIPE, SIG_IGN)
        let arguments = Arguments.withGlobalsLast(Array(CommandLine.arguments.dropFirst()))
        do {
            try Arguments.checkCommand(arguments, of: Slipway.self)
            var command = try parseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch {
            Glibc.exit(Failure.report(error, arguments))
        }
    }
}

/// Turns whatever a command throws into lines on standard error and an exit code: 0 done, 1 failed, 2 wrong usage or
/// configuration, 75 temporarily unable.
enum Failure {
    static func report(_ error: any Error, _ arguments: [String]) -> Int32 {
        switch error {
        case let code as ExitCode: return code.rawValue
        case let problem as Problem:
            say(problem)
            return code(of: problem)
        case is CancellationError: return 1
        default: break
        }
        let message = Slipway.fullMessage(for: error)
        if Slipway.exitCode(for: error) == .success {
            Terminal.out(message)
            return 0
        }
        // ArgumentParser's errors end with the usage; one line and the way to it is enough.
        let first = Slipway.message(for: error).split(separator: "\n").first.map(String.init) ?? "that went wrong"
        let isUsage = Slipway.exitCode(for: error) == .validationFailure
        let help = "slipway \((["help"] + Arguments.command(arguments)).joined(separator: " "))"
        // ArgumentParser takes such a word for options, and then misses the value.
        let dashed = arguments.first { $0.hasPrefix("-") && !$0.hasPrefix("--") && $0.count > 1 }
        let isMissing = first.hasPrefix("Missing")
        let words = isMissing ? dashed.map { "\(first) (\(Problem.quote($0)) was taken for an option)" } ?? first : first
        say(Problem(isUsage ? .usage : .failed, words, hint: isUsage ? help : nil))
        return isUsage ? 2 : 1
    }

    static func say(_ problem: Problem) {
        Terminal.err("slipway: \(Terminal.inert(problem.message))")
        if let hint = problem.hint { Terminal.err("  hint: \(Terminal.inert(hint))") }
    }

    static func code(of problem: Problem) -> Int32 {
        switch problem.code {
        case .usage, .configuration, .invalid, .invalidName, .malformed: 2
        case .unavailable: 75
        default: 1
        }
    }
}

/// What ArgumentParser leaves to us.
enum Arguments {
    private static let globals = ["--home", "--port-base"]

    /// `slipway --home D status` means `slipway status --home D`.
    static func withGlobalsLast(_ arguments: [String]) -> [String] {
        var rest = arguments[...]
        var moved: [String] = []
        while let first = rest.first, globals.contains(where: { first == $0 || first.hasPrefix($0 + "=") }) {
            moved.append(rest.removeFirst())
            if !first.contains("="), let value = rest.popFirst() { moved.append(value) }
        }
        return Array(rest) + moved
    }

    /// The words that name the command: `app create` of `app create shop --json`.
    static func command(_ arguments: [String]) -> [String] {
        var command: any ParsableCommand.Type = Slipway.self
        var words: [String] = []
        for word in arguments {
            guard let child = command.configuration.subcommands.first(where: { $0.configuration.commandName == word }) else { break }
            words.append(word)
            command = child
        }
        return words
    }

    /// Throws `Problem` (`usage`) with the nearest command when there is none of that name.
    static func checkCommand(_ arguments: [String], of command: any ParsableCommand.Type, path: String = "slipway") throws {
        let children = command.configuration.subcommands
        guard !children.isEmpty, let word = arguments.first, !word.hasPrefix("-"), word != "help" else { return }
        let names = children.filter { $0.configuration.shouldDisplay }.compactMap { $0.configuration.commandName }
        guard let child = children.first(where: { $0.configuration.commandName == word }) else {
            let near =
                Nearest.to(word, among: names).map { "did you mean '\(path) \($0)'?" } ?? "\(path) knows: \(names.joined(separator: ", "))"
            throw Problem(.usage, "\(path) has no command \(Problem.quote(word))", hint: near)
        }
        try checkCommand(Array(arguments.dropFirst()), of: child, path: "\(path) \(word)")
    }
}
