import ArgumentParser
import Contracts
import Foundation
import Kit

/// The eight components, hosts and apps at a glance.
struct Status: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the eight components, hosts and apps.",
        discussion: "Exit code 0 when all components are ready.")
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions
    @Flag(help: "Show it again every two seconds until Ctrl-C.")
    var watch = false

    mutating func run() async throws {
        guard watch else {
            if try await !show() { throw ExitCode(1) }
            return
        }
        while true {
            if Terminal.isTerminal, !listing.json { Terminal.out("\u{1B}[H\u{1B}[2J") }
            do { _ = try await show() } catch let problem as Problem { Failure.say(problem) }
            try await Task.sleep(for: .seconds(2))
        }
    }

    /// True when all are ready.
    private func show() async throws -> Bool {
        let client = try suite.client()
        let status: JSON
        do {
            status = try await client.json(.get, "/v1/status")
        } catch let problem as Problem where problem.code == .unavailable && client.isLocal {
            return try await showWithoutAPI(problem)
        }
        if listing.json {
            Terminal.out(try Coding.text(status))
            return status["ready"]?.bool ?? false
        }
        Self.components(status)
        Self.hosts(status)
        Self.apps(status)
        for note in status["notes"]?.items ?? [] { Terminal.out(Terminal.paint("note: ", .busy) + Terminal.inert(note.string ?? "")) }
        return status["ready"]?.bool ?? false
    }

    private static func components(_ status: JSON) {
        let rows = (status["components"]?.items ?? []).map { one -> [String] in
            let state = one.shown("state")
            let tone: Terminal.Tone = state == "ready" ? .good : state == "down" ? .bad : .busy
            return [
                one.shown("name"), Terminal.paint(state, tone), one.shown("version"), one.shown("port"), one.shown("pid"), one.age("since"),
                one.shown("restarts"), one["reason"] == nil ? "" : one.shown("reason", limit: 200),
            ]
        }
        Terminal.table(["COMPONENT", "STATE", "VERSION", "PORT", "PID", "UP", "RESTARTS", ""], rows)
    }

    private static func hosts(_ status: JSON) {
        let hosts = status["hosts"]?.items ?? []
        guard !hosts.isEmpty else { return }
        Terminal.out("")
        Terminal.table(
            ["HOST", "ADDRESS", "MODE", "CORES", "MEMORY", "SINCE"],
            hosts.map { host in
                let memory = host["memory"]?.int.map { "\($0 >> 20) MiB" } ?? "-"
                return [host.shown("name"), host.shown("address"), host.shown("mode"), host.shown("cores"), memory, host.age("since")]
            })
    }

    static func apps(_ status: JSON) {
        let apps = status["apps"]?.items ?? []
        Terminal.out("")
        guard !apps.isEmpty else {
            Terminal.out("No apps yet. In a git repository:  slipway app create NAME")
            return
        }
        Terminal.table(["APP", "ENVIRONMENT", "STATE", "RELEASE", "READY", "SINCE", "URL"], AppCommands.rows(apps))
    }

    /// The api is what is missing: the components themselves still tell.
    private func showWithoutAPI(_ problem: Problem) async throws -> Bool {
        let config = try suite.config()
        guard KeeperRecord.load(config.home)?.keeper.isAlive == true || !Processes.components(of: config.home).isEmpty else {
            throw Problem(.unavailable, "Slipway is not running in \(config.home.path)", hint: "slipway up")
        }
        var rows: [[String]] = []
        var views: [JSON] = []
        for component in Component.allCases {
            let (state, reason): (String, String) =
                switch await Readiness.ask(config, component) {
                case .ready: ("ready", "")
                case .notReady(let why): ("not ready", why)
                case .silent: ("down", "does not answer on port \(config.port(component))")
                }
            rows.append([component.rawValue, Terminal.paint(state, state == "ready" ? .good : .bad), "\(config.port(component))", reason])
            views.append(
                .object([
                    "name": .string(component.rawValue), "state": .string(state), "ready": .bool(state == "ready"),
                    "port": .int(Int64(config.port(component))), "reason": reason.isEmpty ? .null : .string(reason),
                ]))
        }
        if listing.json {
            Terminal.out(
                try Coding.text(JSON.object(["ready": .bool(false), "components": .array(views), "apps": .array([]), "notes": .array([])])))
        } else {
            Terminal.table(["COMPONENT", "STATE", "PORT", ""], rows)
            Terminal.out(Terminal.paint("note: ", .busy) + "the api cannot be asked: \(problem.message)")
        }
        return false
    }
}
