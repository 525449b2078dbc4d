import ArgumentParser
import Foundation
import Kit
import SupervisorService

/// The agent on a host: runs and supervises the suite's programs, apps' instances and jobs. Called as supervisord is, it is that.
@main
struct SupervisorMain: ComponentCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway-supervisor", abstract: "Run and supervise the suite's programs, the instances of apps, and jobs.",
        discussion: """
            Called by the name supervisord, or with supervisord's options (-n -c FILE …), it stands in for supervisord instead: no bus, no \
            suite, just the programs of that file, driven by supervisorctl. See docs/supervisord.md; its options: supervisord -h.
            """,
        version: Version.text)
    @OptionGroup var options: ComponentOptions

    static func main() async {
        Supervisord.becomeIfMeant(CommandLine.arguments)
        await runAsComponent()
    }

    mutating func run() async throws {
        try await Bootstrap.run(.supervisor, options) { boot in try await SupervisorComponent.services(boot) }
    }
}

/// The program that stands in for supervisord; a small one of its own, because it is to need less memory than what it replaces.
private enum Supervisord {
    static let program = "slipway-supervisord"
    private static let longOptions = [
        "configuration", "nodaemon", "silent", "user", "umask", "directory", "logfile", "logfile_maxbytes", "logfile_backups", "loglevel",
        "pidfile", "identifier", "childlogdir", "nocleanup", "minfds", "minprocs", "strip_ansi",
    ]

    private static func isMeant(_ arguments: [String]) -> Bool {
        if (arguments.first as NSString?)?.lastPathComponent == "supervisord" { return true }
        return arguments.dropFirst().contains { argument in
            if argument.hasPrefix("--") {
                let name = argument.dropFirst(2).prefix { $0 != "=" }
                return longOptions.contains { $0 == name }
            }
            // All of the component's own are long, but for -h.
            return argument.hasPrefix("-") && argument != "-h" && argument.count > 1
        }
    }

    /// Does not come back when it is.
    static func becomeIfMeant(_ arguments: [String]) {
        guard isMeant(arguments) else { return }
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))?.replacing(" (deleted)", with: "") ?? ""
        let path = "\((own as NSString).deletingLastPathComponent)/\(program)"
        let texts = arguments.map { strdup($0) } + [nil]
        execv(path, texts)
        StandardError.write(
            "slipway-supervisor: cannot run \(path): \(String(cString: strerror(errno)))\n  hint: install all programs of Slipway into one directory\n"
        )
        exit(2)
    }
}
