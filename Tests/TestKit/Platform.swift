import AsyncHTTPClient
import Contracts
import Foundation
import Kit

/// A whole suite of real components in a temporary home on free ports.
public final class Platform: Sendable {
    public let home: String
    public let portBase: Int
    /// Where the programs under test lie.
    public static let binaries: String = {
        if let given = ProcessInfo.processInfo.environment["SLIPWAY_BIN"] { return given }
        return root + "/.build/debug"
    }()
    /// The checkout.
    public static let root: String = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
    public static var slipway: String { binaries + "/slipway" }

    private init(home: String, portBase: Int) {
        self.home = home
        self.portBase = portBase
    }

    /// Starts a suite, hands it over, and stops it whatever happens. When the body fails the ends of the logs are printed.
    public static func run(_ body: @Sendable (Platform) async throws -> Void) async throws {
        let platform = try prepare()
        do {
            let up = try await TestKit.run(
                [slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"], within: 90)
            guard up.status == 0 else { throw TestFailure("slipway up failed: \(up)") }
            try await body(platform)
        } catch {
            print(platform.logEnds())
            await platform.stop()
            throw error
        }
        await platform.stop()
    }

    /// A home and ports that nothing uses yet; nothing is started.
    public static func prepare() throws -> Platform {
        let home = "/tmp/slipway-test-\(UUID().uuidString.prefix(8).lowercased())"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        return Platform(home: home, portBase: try Ports.freeBase())
    }

    public func stop() async {
        _ = try? await TestKit.run([Self.slipway, "down", "--home", home], within: 40)
        // Whatever is left by now is a defect of 'down', but it must not outlive the test.
        for pid in pids(matching: home) where pid != getpid() { kill(pid, SIGKILL) }
        try? FileManager.default.removeItem(atPath: home)
    }

    // MARK: Using it

    /// `slipway ARGUMENTS --home HOME`.
    @discardableResult
    public func slipway(_ arguments: String..., in directory: String? = nil, input: String? = nil, within seconds: Double = 120)
        async throws -> Finished
    {
        try await TestKit.run([Self.slipway] + arguments + ["--home", home], in: directory, input: input, within: seconds)
    }

    public func port(_ component: Component) -> Int { portBase + component.httpOffset }
    public var ingressPort: Int { portBase + 80 }
    public var dnsPort: Int { portBase + 53 }
    public var busPort: Int { portBase + 10 }
    /// The operator's token of this home.
    public func operatorToken() throws -> String {
        try String(contentsOfFile: "\(home)/keys/operator.token", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Creates the app and a working copy with the files of a fixture in it, ready to push.
    public func app(_ name: String, from fixture: String) async throws -> WorkingCopy {
        let copy = try WorkingCopy(platform: self, app: name)
        try await copy.git("init", "-q", "-b", "main")
        try copy.copy(fixture: fixture)
        let created = try await slipway("app", "create", name, in: copy.path)
        guard created.status == 0 else { throw TestFailure("app create: \(created)") }
        return copy
    }

    /// One GET through the ingress with the app's host name; status 0 when nobody answered.
    public func get(_ host: String, _ path: String = "/", timeout seconds: Double = 5) async -> (status: Int, body: String) {
        await fetch("http://127.0.0.1:\(ingressPort)\(path)", host: host, timeout: seconds)
    }

    /// What the app's front page says, or its status when that is not 200.
    public func page(_ app: String) async -> String {
        let answer = await get("\(app).localhost")
        return answer.status == 200 ? answer.body.trimmingCharacters(in: .whitespacesAndNewlines) : "status \(answer.status)"
    }

    /// An HTTP request to a component with the operator's token; the body as text.
    public func ask(_ component: Component, _ path: String, method: String = "GET", json: String? = nil, token: String?? = nil) async throws
        -> (
            status: Int, body: String
        )
    {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port(component))\(path)")
        request.method = .RAW(value: method)
        if let token = try token ?? .some(operatorToken()) { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if let json {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(Data(json.utf8))
        }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(30))
        let body = try await response.body.collect(upTo: 16 << 20)
        return (Int(response.status.code), String(buffer: body))
    }

    /// All events of the log from a sequence number on, read through `slipway events --json`.
    public func events(since seq: Int = 1) async throws -> [Envelope] {
        let listed = try await slipway("events", "--since", "\(seq)", "--json")
        guard listed.status == 0 else { throw TestFailure("events: \(listed)") }
        let text = listed.output.trimmingCharacters(in: .whitespacesAndNewlines)
        if text.hasPrefix("[") { return try Coding.decode([Envelope].self, from: Data(text.utf8)) }
        return try text.split(separator: "\n").map { try Coding.decode(Envelope.self, from: Data($0.utf8)) }
    }

    // MARK: Breaking it

    /// The pids of a component's processes in this home.
    public func pids(of component: Component) -> [Int32] {
        pids(matching: home).filter { Self.commandLine($0).first?.split(separator: "/").last == "slipway-\(component.rawValue)" }
    }

    /// `kill -9`, and waits until the process is gone. Throws when there was none.
    public func kill9(_ component: Component) async throws {
        let victims = pids(of: component)
        guard !victims.isEmpty else { throw TestFailure("no \(component.rawValue) runs in \(home)") }
        for pid in victims { kill(pid, SIGKILL) }
        try await eventually(within: 10, "the end of \(component.rawValue)") { victims.allSatisfy { !Self.isAlive($0) } }
    }

    /// Waits until all eight say that they are ready.
    public func ready(within seconds: Double = 40) async throws {
        try await eventually(within: seconds, "readiness of all eight") {
            for component in Component.allCases {
                let answer = await fetch("http://127.0.0.1:\(self.port(component))/ready", host: "localhost", timeout: 2)
                guard answer.status == 200 else { throw TestFailure("\(component.rawValue): \(answer.status) \(answer.body)") }
            }
            return true
        }
    }

    /// The pids of every process that names this home in its arguments or environment.
    func pids(matching text: String) -> [Int32] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { Int32($0) }.filter { pid in
            for file in ["cmdline", "environ"] {
                if let data = Self.procFile(pid, file), String(decoding: data, as: UTF8.self).contains(text) {
                    return true
                }
            }
            return false
        }
    }

    static func commandLine(_ pid: Int32) -> [String] {
        guard let data = procFile(pid, "cmdline") else { return [] }
        return data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Files in /proc say that they are empty, so they are read until their end.
    private static func procFile(_ pid: Int32, _ name: String) -> Data? {
        let descriptor = open("/proc/\(pid)/\(name)", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var data = Data()
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while case let count = read(descriptor, &buffer, buffer.count), count > 0 { data.append(contentsOf: buffer[..<count]) }
        return data
    }

    /// True while it runs; a zombie that nobody has reaped yet counts as gone.
    static func isAlive(_ pid: Int32) -> Bool {
        guard let data = procFile(pid, "stat") else { return false }
        let text = String(decoding: data, as: UTF8.self)
        guard let close = text.lastIndex(of: ")") else { return false }
        return text[text.index(close, offsetBy: 2)...].first != "Z"
    }

    private func logEnds() -> String {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: "\(home)/logs")) ?? []
        return files.sorted().map { file in
            let text = (try? String(contentsOfFile: "\(home)/logs/\(file)", encoding: .utf8)) ?? ""
            return "── \(file)\n\(text.split(separator: "\n").suffix(25).joined(separator: "\n"))\n"
        }.joined()
    }
}

/// A clone of an app's repository, as its developer has it.
public struct WorkingCopy: Sendable {
    public let platform: Platform
    public let app: String
    public let path: String

    init(platform: Platform, app: String) throws {
        self.platform = platform
        self.app = app
        path = "\(platform.home)-work-\(app)-\(UUID().uuidString.prefix(4))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    @discardableResult
    public func git(_ arguments: String..., within seconds: Double = 120) async throws -> Finished {
        try await run(["git"] + arguments, in: path, within: seconds)
    }

    /// Copies a sample app of Tests/Fixtures/apps into the working tree.
    public func copy(fixture: String) throws {
        let source = "\(Platform.root)/Tests/Fixtures/apps/\(fixture)"
        for entry in try FileManager.default.contentsOfDirectory(atPath: source) {
            try? FileManager.default.removeItem(atPath: "\(path)/\(entry)")
            try FileManager.default.copyItem(atPath: "\(source)/\(entry)", toPath: "\(path)/\(entry)")
        }
    }

    public func write(_ text: String, to file: String) throws {
        try text.write(toFile: "\(path)/\(file)", atomically: true, encoding: .utf8)
    }

    /// Commits all that changed. Gives the commit's id.
    @discardableResult
    public func commit(_ message: String) async throws -> String {
        try await git("add", "-A")
        let done = try await git("commit", "-q", "--allow-empty", "-m", message)
        guard done.status == 0 else { throw TestFailure("git commit: \(done)") }
        return try await git("rev-parse", "HEAD").output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// `git push slipway main` with more arguments, such as `-o detach`.
    public func push(_ arguments: String..., within seconds: Double = 120) async throws -> Finished {
        try await run(["git", "push"] + arguments + ["slipway", "main"], in: path, within: seconds)
    }

    public func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// Ports that nothing listens on.
public enum Ports {
    /// A base whose every offset that the suite uses is free now.
    public static func freeBase() throws -> Int {
        for _ in 0..<200 {
            let base = Int.random(in: 11_000..<19_000)
            if ([0, 1, 2, 3, 4, 5, 6, 7, 10, 53, 80].allSatisfy { isFree(base + $0) }) { return base }
        }
        throw TestFailure("no free ports")
    }

    /// Whether somebody takes connections there. (Not `isFree`: that binds, and would be in the way of the one that is waited for.)
    public static func answers(_ port: Int) -> Bool { attempt(port, connect) }

    public static func isFree(_ port: Int) -> Bool { attempt(port, bind) }

    private static func attempt(_ port: Int, _ call: (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                call(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}

/// One GET without a token; status 0 with the error as body when nobody answered.
public func fetch(_ url: String, host: String, timeout seconds: Double = 5) async -> (status: Int, body: String) {
    var request = HTTPClientRequest(url: url)
    request.headers.replaceOrAdd(name: "Host", value: host)
    do {
        let response = try await HTTPClient.shared.execute(request, timeout: .milliseconds(Int64(seconds * 1000)))
        return (Int(response.status.code), String(buffer: try await response.body.collect(upTo: 1 << 20)))
    } catch {
        return (0, "\(error)")
    }
}
