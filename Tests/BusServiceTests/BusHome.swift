import BusClient
import Contracts
import Foundation
import Kit
import Logging
import ServiceLifecycle
import TestKit
import Wire

@testable import BusService

struct Failure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// A home with keys, and the real bus in it: its thread, its log, its HTTP.
struct BusHome: Sendable {
    let config: SuiteConfig
    let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// `bus`: what stands in suite.yml.
    init(bus: String? = nil) throws {
        let platform = try Platform.prepare()
        if let bus { try bus.write(toFile: platform.home + "/suite.yml", atomically: true, encoding: .utf8) }
        config = try SuiteConfig.load(ComponentOptions(home: platform.home, portBase: platform.portBase), environment: [:])
        try Keyring.prepare(config)
    }

    var operatorToken: String {
        get throws {
            try String(contentsOfFile: Keyring.operatorTokenFile(config), encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    /// Runs the bus beside `body`, and ends it as SIGTERM would.
    func run<Result: Sendable>(_ body: @Sendable (BusHome) async throws -> Result) async throws -> Result {
        let boot = try Boot.make(.bus, config, logger)
        let services = try await BusComponent.services(boot)
        let group = ServiceGroup(configuration: ServiceGroupConfiguration(services: services, logger: logger))
        return try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            let result: Swift.Result<Result, any Error>
            do {
                try await eventually("HTTP listens") { Ports.answers(config.port(.bus)) }
                result = .success(try await body(self))
            } catch { result = .failure(error) }
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
            return try result.get()
        }
    }

    /// Joins as a component beside `body`.
    func client<Result: Sendable>(
        _ component: Component, outbox: MemoryOutbox? = nil, _ body: @Sendable (BusClient) async throws -> Result
    ) async throws -> Result {
        let client = try Boot.make(component, config, logger).bus
        if let outbox { client.setOutbox(outbox) }
        return try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await client.run() }
            defer { tasks.cancelAll() }
            guard await client.connected(within: 10) else { throw Failure("no session with the bus within 10 s") }
            return try await body(client)
        }
    }

    /// curl with the operator's token; the status and the body.
    func http(_ path: String, _ arguments: [String] = []) async throws -> (status: Int, body: String) {
        let finished = try await TestKit.run(
            ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", "-H", "Authorization: Bearer \(try operatorToken)"] + arguments
                + ["http://127.0.0.1:\(config.port(.bus))\(path)"], within: 30)
        let lines = finished.output.split(separator: "\n", omittingEmptySubsequences: false)
        return (lines.last.flatMap { Int($0) } ?? 0, lines.dropLast().joined(separator: "\n"))
    }

    func wire(_ key: String, _ arguments: String...) async throws -> Finished {
        try await TestKit.run(
            ["/usr/bin/python3", "\(Platform.root)/Tests/Conformance/wire.py", "\(config.home.keys)/\(key).json"] + arguments, within: 60)
    }

    func remove() { try? FileManager.default.removeItem(atPath: config.home.path) }
}

/// An outbox in memory.
final class MemoryOutbox: OutboxSource {
    struct State: Sendable {
        var entries: [OutboxEntry] = []
        var settled: UInt64 = 0
        var last: UInt64 = 0
        var refused: [Wire.PublishException] = []
    }
    let id = UUID()
    let state = Locked(State())

    @discardableResult
    func add(_ topic: String, _ value: Int, bytes: Int = 0) -> String {
        let id = EventID.fresh().text
        let payload = Data(
            #"{"specversion":"1.0","id":"\#(id)","source":"test@here","type":"\#(topic)","subject":"shop","data":{"n":\#(value),"fill":"\#(String(repeating: "x", count: bytes))"}}"#
                .utf8)
        state.withLock { state in
            state.last += 1
            state.entries.append(OutboxEntry(number: state.last, topic: topic, id: id, payload: payload))
        }
        return id
    }
    func pending(after number: UInt64, limit: Int) async throws -> [OutboxEntry] {
        state.withLock { state in Array(state.entries.lazy.filter { $0.number > number }.prefix(limit)) }
    }
    func settle(upTo number: UInt64, refused: [Wire.PublishException]) async throws {
        state.withLock { state in
            state.entries.removeAll { $0.number <= number }
            state.settled = max(state.settled, number)
            state.refused += refused
        }
    }
}

/// A bus in a process of its own, to be killed.
final class BusProcess {
    private let process = Process()
    /// `descriptors`: how many it may have, hard limit.
    init(_ config: SuiteConfig, descriptors: Int? = nil, prefix: [String] = []) throws {
        let program = "\(Platform.binaries)/slipway-bus"
        let arguments = ["--home", config.home.path, "--port-base", "\(config.portBase)", "--log-level", "error"]
        if let launcher = prefix.first {
            process.executableURL = URL(fileURLWithPath: launcher)
            process.arguments = prefix.dropFirst() + [program] + arguments
        } else if let descriptors {
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
            process.arguments = ["-c", "ulimit -n \(descriptors); exec \"$0\" \"$@\"", program] + arguments
        } else {
            process.executableURL = URL(fileURLWithPath: program)
            process.arguments = arguments
        }
        process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) { _, new in new }
        try process.run()
    }
    var pid: Int32 { process.processIdentifier }
    /// How many descriptors a process has open.
    static func descriptors(of pid: Int32) -> Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count) ?? 0 }

    /// The exit status, or the signal's number.
    func end(_ signal: Int32, within seconds: Double = 15) async throws -> Int32 {
        kill(process.processIdentifier, signal)
        try await eventually("slipway-bus ends", within: seconds) { !process.isRunning }
        return process.terminationStatus
    }
    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
}

func eventually(_ what: String, within seconds: Double = 20, _ condition: () async throws -> Bool) async throws {
    let deadline = Clock.monotonic() + Int64(seconds * 1000)
    while try await !condition() {
        guard Clock.monotonic() < deadline else { throw Failure("not within \(seconds) s: \(what)") }
        try await Task.sleep(for: .milliseconds(10))
    }
}

extension Ports {
    /// A TCP connection to this machine, or -1.
    static func connect(_ port: Int) -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        _ = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return descriptor
    }
}
