import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

@Suite("A copy of the log in a directory", .serialized, .timeLimit(.minutes(3))) struct CopyTests {
    private static func fresh(_ name: String) -> String { NSTemporaryDirectory() + "slipway-\(name)-\(UUID().uuidString.prefix(8))" }

    @Test("what is finished is copied once, checked, gone on with after a break, and never written over") func copies() throws {
        var home = TestLog()
        home.segmentBytes = 64 << 10
        home.firstSegmentBytes = 64 << 10
        let (log, _) = try home.open()
        for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
        let store = CursorStore(store: try .init(path: home.directory + ".sqlite", durability: .normal, migrations: CursorStore.migrations))
        let health = Health()
        let target = Self.fresh("copies")
        let copier = SegmentCopier(log: log, store: store, copyTo: target, health: health, logger: .init(label: "test"))
        let copies = "\(target)/\(log.stream)"
        try FileManager.default.createDirectory(atPath: copies, withIntermediateDirectories: true)
        let segments = log.segments
        func path(_ index: Int) -> String { "\(copies)/\(SegmentHeader.fileName(segments[index].first))" }
        // Two attempts that broke off: one with the right beginning, one with another's.
        try segments[0].file.read(at: 0, count: 10_000).write(to: URL(fileURLWithPath: path(0) + ".part"))
        try Data(repeating: 7, count: 5000).write(to: URL(fileURLWithPath: path(1) + ".part"))
        copier.turn(now: 0)
        #expect(health.reasons.count == 1 && health.reasons[0].contains(copies))
        copier.turn(now: 0)
        #expect(health.reasons == [])
        let original = try Files.contents(home.directory).filter { $0.key != SegmentHeader.fileName(segments.last?.first ?? 0) }
        #expect(original.count > 3)
        #expect(try Files.contents(copies) == original)
        #expect(try FileManager.default.contentsOfDirectory(atPath: copies).count == original.count + 1)
        #expect(FileManager.default.fileExists(atPath: copies + "/state.sqlite"))
        // Rot in a copy is noticed at the next start, told, and left for a person.
        var rotten = try Data(contentsOf: URL(fileURLWithPath: path(1)))
        rotten[5000] ^= 1
        try rotten.write(to: URL(fileURLWithPath: path(1)))
        SegmentCopier(log: log, store: store, copyTo: target, health: health, logger: .init(label: "test")).turn(now: 0)
        #expect(health.reasons.count == 1)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path(1))) == rotten)
    }

    @Test("the restore that the manual describes works: the same log to the last finished file, a new term, and LOST for who is beyond it")
    func restore() async throws {
        let target = Self.fresh("copies")
        let home = try BusHome(bus: "bus:\n  segment_bytes: 1MiB\n  copy_to: \(target)\n")
        defer {
            home.remove()
            try? FileManager.default.removeItem(atPath: target)
        }
        let outbox = MemoryOutbox()
        for value in 0..<1500 { outbox.add("run.finished", value, bytes: 3000) }
        try await home.run { home in
            try await home.client(.scheduler, outbox: outbox) { client in
                client.outboxChanged()
                try await eventually("acknowledged", within: 60) { outbox.state.withLock { $0.settled == $0.last } }
            }
            try await eventually("copied") {
                let log = try Files.contents("\(home.config.home.path)/bus/log")
                guard log.count > 3, let stream = try? FileManager.default.contentsOfDirectory(atPath: target).first else { return false }
                let directory = "\(target)/\(stream)"
                return try Files.contents(directory).count == log.count - 1
                    && FileManager.default.fileExists(atPath: "\(directory)/state.sqlite")
            }
            let first = try await home.http("/v1/events?since=1&limit=1")
            #expect(first.status == 200)
        }
        let stream = try #require(try FileManager.default.contentsOfDirectory(atPath: target).first)
        // The very commands of the manual, but for those that stop and start a suite.
        let manual = try String(contentsOfFile: "\(Platform.root)/docs/replica.md", encoding: .utf8)
        let block = try #require(manual.split(separator: "```sh\n").first { $0.hasPrefix("slipway down\nmv HOME/bus") }).prefix {
            $0 != "`"
        }
        let commands = block.split(separator: "\n").filter { !$0.hasPrefix("slipway ") }.joined(separator: "\n")
            .replacing("/mnt/backup/slipway", with: target).replacing("STREAM", with: stream).replacing("HOME", with: home.config.home.path)
        let done = try await TestKit.run(["sh", "-euc", commands])
        #expect(done.status == 0, "\(commands)\n\(done)")
        let copied = try #require(try Files.contents("\(target)/\(stream)").max { $0.key < $1.key })
        try await home.run { home in
            try await home.client(.git) { client in
                let session = try #require(client.session)
                #expect(session.stream == stream && session.epoch == 1 << 20)
                #expect(session.first == 1 && session.last >= UInt64(copied.key.dropLast(4)) ?? 0)
                await #expect(throws: Problem.self) {
                    for try await _ in try await client.subscribe(
                        SubscriptionRequest(consumer: "", filters: ["**"], from: .seq(session.last + 100, stream: stream)))
                    {}
                }
            }
            let parked = try await home.http("/ready")
            #expect(parked.status == 200, "\(parked)")
        }
    }
}

/// Two network namespaces with a cable between them: two hosts, as far as TCP is concerned.
private struct TwoHosts {
    let names: [String]
    let addresses: [String]

    static let isPossible =
        geteuid() == 0 && ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].contains { FileManager.default.isExecutableFile(atPath: $0) }

    init() async throws {
        let id = UInt8.random(in: 1...250)
        let tag = String(UUID().uuidString.prefix(6).lowercased())
        names = ["sl\(tag)a", "sl\(tag)b"]
        addresses = ["10.231.\(id).1", "10.231.\(id).2"]
        for name in names { try await Self.ip("netns", "add", name) }
        try await Self.ip("link", "add", "sv0", "netns", names[0], "type", "veth", "peer", "name", "sv0", "netns", names[1])
        for (name, address) in zip(names, addresses) {
            try await Self.ip("-n", name, "addr", "add", "\(address)/30", "dev", "sv0")
            try await Self.ip("-n", name, "link", "set", "sv0", "up")
            try await Self.ip("-n", name, "link", "set", "lo", "up")
        }
    }

    private static func ip(_ arguments: String...) async throws {
        let done = try await TestKit.run(["ip"] + arguments)
        guard done.status == 0 else { throw Failure("ip \(arguments.joined(separator: " ")): \(done)") }
    }

    func command(_ host: Int, _ arguments: [String]) -> [String] { ["ip", "netns", "exec", names[host]] + arguments }

    func remove() async { for name in names { _ = try? await TestKit.run(["ip", "netns", "del", name]) } }
}

@Suite("Components on another host", .serialized, .timeLimit(.minutes(2)), .enabled(if: TwoHosts.isPossible, "needs root and ip(8)"))
struct OtherHostTests {
    @Test("a component and a program join the bus over the network with their key files, and a key that is not known does not") func join()
        async throws
    {
        let hosts = try await TwoHosts()
        let platform = try Platform.prepare()
        let port = platform.portBase + 10
        try """
        listen: \(hosts.addresses[0])
        insecure: true
        bus:
          endpoints: ["tcp://\(hosts.addresses[0]):\(port)"]
        """.write(toFile: platform.home + "/suite.yml", atomically: true, encoding: .utf8)
        let config = try SuiteConfig.load(ComponentOptions(home: platform.home, portBase: platform.portBase), environment: [:])
        try Keyring.prepare(config)
        let other = platform.home + "-other"
        try Files.makeDirectory(other + "/keys", mode: 0o700)
        // Nothing but its key file and where the bus is.
        try FileManager.default.copyItem(atPath: "\(config.home.keys)/deployer.json", toPath: other + "/keys/deployer.json")
        try "bus:\n  endpoints: [\"tcp://\(hosts.addresses[0]):\(port)\"]\n".write(
            toFile: other + "/suite.yml", atomically: true, encoding: .utf8)
        let key = try Keyring.create("script", publish: ["test.**"], subscribe: ["**"], call: [], serve: [], config)
        #expect(key.endpoint == "tcp://\(hosts.addresses[0]):\(port)")
        try Files.write(try Coding.encode(key), to: other + "/keys/script.json", mode: 0o600)
        let arguments = ["--port-base", "\(platform.portBase)", "--log-level", "warning"]
        let bus = try Background(hosts.command(0, ["\(Platform.binaries)/slipway-bus", "--home", platform.home] + arguments))
        let deployer = try Background(hosts.command(1, ["\(Platform.binaries)/slipway-deployer", "--home", other] + arguments))
        var failure: (any Error)?
        do {
            try await eventually("the component is ready") {
                let asked = try await TestKit.run(
                    hosts.command(1, ["curl", "-s", "-m", "3", "http://127.0.0.1:\(platform.portBase + 2)/ready"]), within: 10)
                return asked.output.contains("ready\"")
            }
            let wire = hosts.command(1, ["/usr/bin/python3", "\(Platform.root)/Tests/Conformance/wire.py", other + "/keys/script.json"])
            let published = try await TestKit.run(wire + ["publish", "test.hello", "x", "{}"], within: 30)
            #expect(published.status == 0, "\(published)")
            var stranger = key
            (stranger.publicKey, stranger.secretKey) = try Self.pair()
            try Files.write(try Coding.encode(stranger), to: other + "/keys/script.json", mode: 0o600)
            let refused = try await TestKit.run(wire + ["publish", "test.hello", "x", "{}"], within: 60)
            #expect(refused.status != 0, "\(refused)")
        } catch { failure = error }
        for process in [deployer, bus] {
            process.send(signal: SIGTERM)
            _ = try? await process.finish(within: 20)
        }
        await hosts.remove()
        for path in [platform.home, other] { try? FileManager.default.removeItem(atPath: path) }
        if let failure { throw Failure("\(failure)\nbus: \(bus.text)\ndeployer: \(deployer.text)") }
    }

    private static func pair() throws -> (String, String) {
        let home = try BusHome()
        defer { home.remove() }
        let key = try Keyring.load("git", home.config)
        return (key.publicKey, key.secretKey)
    }
}
