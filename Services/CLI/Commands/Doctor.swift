import ArgumentParser
import Contracts
import Foundation
import Kit

/// Finds what is wrong and says the mend.
struct Doctor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Find what is wrong and say the mend.", discussion: "Exit code 0 when nothing is wrong.")
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    struct Finding: Codable {
        /// `ok`, `note` or `wrong`.
        var state: String
        var check: String
        var text: String
        var mend: String?
    }

    mutating func run() async throws {
        let config = try suite.config()
        var findings = Self.programs() + Self.tools() + Self.home(config) + Self.disk(config)
        findings += await Self.components(config)
        if findings.allSatisfy({ $0.state != "wrong" || $0.check == "disk" }) { findings += await apps() }
        if listing.json {
            Terminal.out(try Coding.text(findings))
        } else {
            for finding in findings {
                let tone: Terminal.Tone = finding.state == "ok" ? .good : finding.state == "note" ? .busy : .bad
                let padding = String(repeating: " ", count: max(1, 6 - finding.state.utf8.count))
                Terminal.out("\(Terminal.paint(finding.state, tone))\(padding)\(finding.check): \(Terminal.inert(finding.text))")
                if let mend = finding.mend { Terminal.out("      mend: \(Terminal.inert(mend))") }
            }
        }
        if findings.contains(where: { $0.state == "wrong" }) { throw ExitCode(1) }
    }

    /// Whether something of each live environment is ready, and the ingress answers.
    private func apps() async -> [Finding] {
        guard let status = try? await suite.client().json(.get, "/v1/status") else { return [] }
        var findings: [Finding] = []
        for app in status["apps"]?.items ?? [] {
            for environment in app["environments"]?.items ?? [] where environment["release"]?.int != nil {
                let name = "\(app.shown("name"))/\(environment.shown("name"))"
                let ready = (environment["instances"]?.items ?? []).filter { $0["state"]?.string == "ready" }.count
                findings.append(
                    ready > 0
                        ? Finding(state: "ok", check: name, text: "\(environment.shown("version")), \(ready) ready")
                        : Finding(
                            state: "wrong", check: name, text: "\(environment.shown("version")) is live, but no instance of it is ready",
                            mend: "slipway logs \(app.shown("name")) --env \(environment.shown("name"))"))
            }
        }
        for note in status["notes"]?.items ?? [] where note.string?.hasPrefix("ingress") == true {
            findings.append(Finding(state: "wrong", check: "ingress", text: note.string ?? "", mend: "see HOME/logs/ingress.log"))
        }
        return findings
    }

    private static func programs() -> [Finding] {
        let missing = Component.allCases.map { "slipway-\($0.rawValue)" }.filter { (try? Spawn.sibling($0)) == nil }
        guard !missing.isEmpty else { return [Finding(state: "ok", check: "programs", text: "all eight are beside this one")] }
        return [
            Finding(
                state: "wrong", check: "programs", text: "missing: \(missing.joined(separator: ", "))",
                mend: "install all nine programs into one directory; 'make build' makes them")
        ]
    }

    private static func tools() -> [Finding] {
        let paths = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"]
        func has(_ name: String) -> Bool { paths.contains { access("\($0)/\(name)", X_OK) == 0 } }
        var findings: [Finding] = []
        findings.append(
            has("git")
                ? Finding(state: "ok", check: "git", text: "installed")
                : Finding(state: "wrong", check: "git", text: "not installed: nothing can be pushed", mend: "apt-get install git"))
        findings.append(
            has("haproxy")
                ? Finding(state: "ok", check: "haproxy", text: "installed")
                : Finding(
                    state: "note", check: "haproxy", text: "not installed: instances answer on their own ports only, without host names",
                    mend: "apt-get install haproxy, then slipway down and slipway up"))
        if geteuid() != 0 {
            findings.append(
                Finding(
                    state: "note", check: "user", text: "not root: pushed code is refused unless suite.yml says 'trust: single-user'",
                    mend: "run the suite as root, or trust those who can push"))
        }
        return findings
    }

    private static func home(_ config: SuiteConfig) -> [Finding] {
        let path = config.home.path
        guard access(path, F_OK) == 0 else {
            return [Finding(state: "note", check: "home", text: "\(path) is not there yet", mend: "slipway up")]
        }
        guard access(path, W_OK) == 0 else {
            return [
                Finding(
                    state: "wrong", check: "home", text: "\(path) is not writable",
                    mend: "run this as the user that runs the suite, or give --home")
            ]
        }
        var findings = [Finding(state: "ok", check: "home", text: path)]
        let keys = (try? FileManager.default.contentsOfDirectory(atPath: config.home.keys)) ?? []
        var open: [String] = []
        for name in keys.sorted() {
            var info = stat()
            if stat("\(config.home.keys)/\(name)", &info) == 0, info.st_mode & 0o077 != 0 { open.append("\(config.home.keys)/\(name)") }
        }
        if !open.isEmpty {
            findings.append(
                Finding(
                    state: "wrong", check: "keys", text: "others can read \(open.joined(separator: ", "))",
                    mend: "chmod 600 \(open.joined(separator: " "))"))
        } else if !keys.isEmpty {
            findings.append(Finding(state: "ok", check: "keys", text: "readable by their owner only"))
        }
        return findings
    }

    private static func disk(_ config: SuiteConfig) -> [Finding] {
        var info = statvfs()
        var path = config.home.path
        while access(path, F_OK) != 0, path != "/" { path = (path as NSString).deletingLastPathComponent }
        guard statvfs(path, &info) == 0 else { return [] }
        let free = UInt64(info.f_bavail) * UInt64(info.f_frsize)
        let share = info.f_blocks > 0 ? Double(info.f_bavail) / Double(info.f_blocks) : 1
        let shown = "\(free >> 20) MiB free (\(Int(share * 100)) %)"
        // Below this the bus refuses to take events (bus-protocol, 4.3).
        guard free > 1 << 30, share > 0.05 else {
            return [
                Finding(
                    state: "wrong", check: "disk", text: "\(shown) under \(path): below 1 GiB or 5 % the bus takes no more events",
                    mend: "make room, then it goes on by itself")
            ]
        }
        return [Finding(state: "ok", check: "disk", text: shown)]
    }

    private static func components(_ config: SuiteConfig) async -> [Finding] {
        let isRunning = KeeperRecord.load(config.home)?.keeper.isAlive == true
        guard isRunning || !Processes.components(of: config.home).isEmpty else {
            do {
                try Ports.check(config)
                return [
                    Finding(state: "ok", check: "ports", text: "\(config.port(.api)) to \(config.ingressPort) are free"),
                    Finding(state: "note", check: "suite", text: "not running", mend: "slipway up"),
                ]
            } catch {
                let problem = error as? Problem
                return [Finding(state: "wrong", check: "ports", text: problem?.message ?? "\(error)", mend: problem?.hint)]
            }
        }
        var findings: [Finding] = []
        if !isRunning {
            findings.append(
                Finding(
                    state: "wrong", check: "keeper", text: "components run, but nothing would start the supervisor again",
                    mend: "slipway up: it takes over what runs"))
        }
        for component in Component.allCases {
            switch await Readiness.ask(config, component) {
            case .ready: findings.append(Finding(state: "ok", check: component.rawValue, text: "ready"))
            case .notReady(let why):
                findings.append(
                    Finding(state: "wrong", check: component.rawValue, text: why, mend: "see \(config.home.logs)/\(component.rawValue).log")
                )
            case .silent:
                findings.append(
                    Finding(
                        state: "wrong", check: component.rawValue, text: "does not answer on port \(config.port(component))",
                        mend: "the supervisor starts it again; if it stays so see \(config.home.logs)/\(component.rawValue).log"))
            }
        }
        return findings
    }
}
