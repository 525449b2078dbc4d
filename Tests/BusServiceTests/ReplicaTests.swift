import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

@Suite("A copy of the log, byte for byte") struct ReplicaLogTests {
    private static func replica(_ home: TestLog) throws -> ReplicaLog {
        try FileManager.default.createDirectory(atPath: home.directory, withIntermediateDirectories: true)
        let store = CursorStore(
            store: try .init(path: home.directory + ".sqlite", durability: .normal, migrations: CursorStore.migrations))
        return try ReplicaLog.open(EventLog.Settings(directory: home.directory), store)
    }

    /// All bytes of a log in pieces of that size, as a replica is sent them.
    private static func pieces(_ log: EventLog, from start: RawPosition? = nil, size: Int) throws -> [Data] {
        var at = try #require(start ?? log.rawStart)
        var result: [Data] = []
        while true {
            let (bytes, next) = try log.raw(from: at, bytes: size)
            if bytes.isEmpty { return result }
            result.append(bytes)
            at = next
        }
    }

    private static func filled(_ home: TestLog, batches: Int = 40) throws -> EventLog {
        let (log, _) = try home.open()
        _ = try log.append(Batch(first: 1, events: [], outboxes: [:], epoch: log.epoch), time: Clock.wall())
        for number in 0..<batches { try TestLog.append(log, 5, size: 3000, outbox: UInt64(number + 1)) }
        return log
    }

    @Test("whatever the pieces, the files become the same, also over a break in the middle of a batch", arguments: [1000, 4099, 512 << 10])
    func pieces(_ size: Int) throws {
        let (from, to) = (TestLog(), TestLog())
        let log = try Self.filled(from)
        #expect(log.segments.count > 1)
        var replica = try Self.replica(to)
        var rest = log.segments[0].end + SegmentHeader.length + 200
        for piece in try Self.pieces(log, size: size) where rest > 0 {
            try replica.take(piece.prefix(rest))
            rest -= piece.count
        }
        #expect(replica.segments.count == 2 && replica.last == log.segments[1].first - 1)
        // The connection breaks in the first batch of the second file; it goes on from the last whole batch, also in a fresh process.
        replica = try Self.replica(to)
        let position = try #require(try replica.isEmpty ? log.rawStart : log.position(after: replica.last, hash: replica.hash))
        for piece in try Self.pieces(log, from: position, size: size) { try replica.take(piece) }
        #expect(replica.last == log.last && replica.hash == log.hash && replica.stream == log.stream)
        #expect(try Files.contents(from.directory) == Files.contents(to.directory))
        // And it opens as a bus's own log.
        let (opened, recovered) = try to.open()
        #expect(recovered.damage.isEmpty && opened.last == log.last && opened.hash == log.hash && opened.stream == log.stream)
        #expect(recovered.outboxes == [OutboxKey(producer: "tester", outbox: "box"): 40])
    }

    @Test("bytes that were changed, left out, or are another history's are refused, and nothing of them is written") func refused() throws {
        let (from, to, other) = (TestLog(), TestLog(), TestLog())
        let log = try Self.filled(from, batches: 3)
        var replica = try Self.replica(to)
        for piece in try Self.pieces(log, size: 1 << 20) { try replica.take(piece) }
        let (last, hash) = (replica.last, replica.hash)
        let here = log.rawEnd
        try TestLog.append(log, 5, size: 100)
        let next = try Self.pieces(log, from: here, size: 1 << 20)[0]
        for at in stride(from: 0, to: next.count, by: 41) {
            var bad = next
            bad[at] ^= 0x10
            do {
                try replica.take(bad)
                // A length that grew: more is waited for.
                #expect(replica.last == last)
            } catch is WireError {}
            replica.forget()
            #expect(replica.last == last && replica.hash == hash)
        }
        try TestLog.append(log, 1)
        #expect(throws: WireError.self) { try replica.take(try Self.pieces(log, from: here, size: 1 << 20)[0].dropFirst(next.count)) }
        replica.forget()
        let stranger = try Self.filled(other, batches: 1)
        #expect(throws: WireError.self) { try replica.take(try Self.pieces(stranger, size: 1 << 20)[0]) }
        replica.forget()
        try replica.take(next)
        #expect(replica.last == last + 5)
    }

    @Test("a place is found by number and hash, batches without events too, and none that is not in this history") func places() throws {
        let (home, other) = (TestLog(), TestLog())
        let log = try Self.filled(home)
        let stranger = try Self.filled(other)
        var ends: [BatchEnd] = []
        for segment in log.segments {
            for end in try RawBatches.ends(in: segment, from: SegmentHeader.length) {
                ends.append(end)
                let found = try #require(try log.position(after: end.seq, hash: end.hash))
                // The end of one file is the beginning of the next.
                #expect(found == end.position || found.offset == 0)
                #expect(try stranger.position(after: end.seq, hash: end.hash) == nil)
            }
        }
        #expect(ends.count == 41 && ends[0].seq == 0)
        #expect(try log.position(after: 3, hash: ends[0].hash) == nil)
        #expect(try log.position(after: .max, hash: ends[0].hash) == nil)
    }

    @Test(
        "a tail that the other bus never had is set aside, whole and readable, and the log goes on from what both have",
        arguments: [0, 1, 17, 39])
    func aside(_ kept: Int) throws {
        let (from, to) = (TestLog(), TestLog())
        let log = try Self.filled(from)
        var replica = try Self.replica(to)
        for piece in try Self.pieces(log, size: 1 << 20) { try replica.take(piece) }
        let ends = try replica.segments.flatMap { try replica.ends(in: $0) }
        let before = replica.last
        let aside = try replica.setAside(after: ends[kept], to: to.directory + ".diverged", wall: Clock.wall())
        #expect(aside.first == ends[kept].seq + 1 && aside.last == before)
        #expect(replica.last == ends[kept].seq && replica.hash == ends[kept].hash)
        let list = try String(contentsOfFile: aside.directory + "/events.jsonl", encoding: .utf8).split(separator: "\n")
        #expect(list.count == Int(before - ends[kept].seq) && list[0].contains(#""id":"id-\#(ends[kept].seq + 1)""#))
        let (tail, found) = try EventLog.open(
            EventLog.Settings(directory: aside.directory), durable: nil, knowing: { _ in KnownLog(first: aside.first) })
        // A log that begins with event 1 should begin with its first start, which this one does not hold.
        #expect(kept == 0 || found.damage.isEmpty)
        #expect(tail.first == aside.first && tail.last == aside.last)
        let again = try Self.replica(to)
        #expect(again.last == ends[kept].seq && again.hash == ends[kept].hash)
    }
}

extension Files {
    /// The segment files of a directory without the zeros at their ends.
    static func contents(_ directory: String) throws -> [String: Data] {
        var result: [String: Data] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name.hasSuffix(".log") {
            let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))
            result[name] = data.prefix(LogScan.endOfData(data))
        }
        return result
    }
}

/// A bus and one that stands by, each a process in a home of its own.
private struct Pair {
    let first: BusHome
    let second: BusHome

    init(first settings: String = "", second more: String = "") throws {
        first = try BusHome(bus: "bus:\n  segment_bytes: 1MiB\n\(settings)")
        let key = "\(first.config.home.keys)/standby.json"
        second = try BusHome(bus: "bus:\n  segment_bytes: 1MiB\n  replica_of: \(key)\n\(more)")
        try Self.key("standby", first, key)
        for name in ["bus.json", "robots.json", "operator.token"] {
            let data = try Data(contentsOf: URL(fileURLWithPath: "\(first.config.home.keys)/\(name)"))
            try Files.write(data, to: "\(second.config.home.keys)/\(name)", mode: 0o600)
        }
        // Its own components' keys are of another bus.
        try Files.write(Data("[]".utf8), to: Keyring.clientsFile(second.config), mode: 0o600)
    }

    static func key(_ name: String, _ home: BusHome, _ path: String) throws {
        let key = try Keyring.create(name, publish: [], subscribe: [], call: [], serve: [], replicate: true, home.config)
        try Files.write(try Coding.encode(key), to: path, mode: 0o600)
    }

    /// A client that knows both places.
    func client(_ component: Component) throws -> BusClient {
        let key = try Keyring.load(component.rawValue, first.config)
        var configuration = BusClientConfiguration(
            endpoint: first.config.busEndpoint, serverKey: key.serverKey, publicKey: key.publicKey, secretKey: key.secretKey,
            clientName: component.rawValue, version: "test")
        configuration.alternatives = [second.config.busEndpoint]
        return try BusClient(configuration: configuration, logger: first.logger)
    }

    func start(_ home: BusHome) async throws -> BusProcess {
        let process = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        return process
    }

    /// What a replica says of itself.
    func now() async throws -> ReplicaLink.Now {
        let (status, body) = try await second.http("/v1/bus/replica")
        guard status == 200 else { throw Failure("\(status) \(body)") }
        return try Coding.decode(ReplicaLink.Now.self, from: Data(body.utf8))
    }

    func inStep(within seconds: Double = 30) async throws {
        var seen = ""
        do {
            try await eventually("the replica is in step", within: seconds) {
                let now = try await now()
                let list = try await first.http("/v1/bus/replicas").body
                seen = "\(now) \(list)"
                let rows = try Coding.decode([ReplicaStatus].self, from: Data(list.utf8))
                return now.connected && now.lag == 0 && rows.map(\.lag) == [0] && rows[0].last == now.last && now.last > 0
            }
        } catch {
            throw Failure("\(error): \(seen)")
        }
    }

    func promote(_ home: BusHome, _ body: String = "{}") async throws -> (status: Int, body: String) {
        try await home.http("/v1/bus/promote", ["-H", "Content-Type: application/json", "-d", body])
    }

    static func log(_ home: BusHome) -> String { "\(home.config.home.path)/bus/log" }

    /// The ids of the scheduler's events in a log that nobody has open.
    static func ids(_ home: BusHome) throws -> [String] {
        let directory = log(home)
        var ids: [String] = []
        for (_, data) in try Files.contents(directory).sorted(by: { $0.key < $1.key }) {
            var reader = Reader(data.dropFirst(SegmentHeader.length) + Data(count: 8))
            while let record = try? Record(from: &reader) {
                if record.kind == Record.Kind.event.rawValue, record.producer == "scheduler" { ids.append(record.id) }
            }
        }
        return ids
    }

    func remove() {
        first.remove()
        second.remove()
    }
}

@Suite("A bus that stands by", .serialized, .timeLimit(.minutes(5))) struct ReplicaTests {
    static let rounds = ProcessInfo.processInfo.environment["SLIPWAY_REPLICA_ROUNDS"].flatMap { Int($0) } ?? 4

    @Test("`slipway bus promote` says why not: the old bus answers, nobody could come in; with --force it does") func promoted()
        async throws
    {
        let pair = try Pair()
        defer { pair.remove() }
        func promote(_ arguments: String...) async throws -> Finished {
            try await TestKit.run(
                ["\(Platform.binaries)/slipway", "bus", "promote"] + arguments
                    + ["--home", pair.second.config.home.path, "--port-base", "\(pair.second.config.portBase)"], within: 30)
        }
        let first = try await pair.start(pair.first)
        var second: BusProcess? = try await pair.start(pair.second)
        try await pair.inStep()
        try await eventually("the keys have come") { try await pair.now().hasKeys }
        let early = try await promote()
        #expect(early.status != 0 && early.errors.contains("answers") && early.errors.contains("--force"), "\(early)")
        _ = try await first.end(SIGTERM)
        _ = try await second?.end(SIGTERM)
        // The events are here, and who may come in is not.
        let clients = try Data(contentsOf: URL(fileURLWithPath: Keyring.clientsFile(pair.second.config)))
        try Files.write(Data("[]".utf8), to: Keyring.clientsFile(pair.second.config), mode: 0o600)
        second = try await pair.start(pair.second)
        let locked = try await promote()
        #expect(locked.status != 0 && locked.errors.contains("keys of the clients"), "\(locked)")
        _ = try await second?.end(SIGTERM)
        try Files.write(clients, to: Keyring.clientsFile(pair.second.config), mode: 0o600)
        second = try await pair.start(pair.second)
        let done = try await promote()
        #expect(done.status == 0 && done.output.contains("takes over: epoch \(1 << 20)"), "\(done)")
        try await eventually("it serves") { Ports.answers(pair.second.config.busPort) }
        _ = try await second?.end(SIGTERM)
    }

    @Test("killed at random on either side it keeps the same bytes; promoted, it goes on; the old bus stops, and comes back as its replica")
    func life() async throws {
        let pair = try Pair()
        defer { pair.remove() }
        var first: BusProcess? = try await pair.start(pair.first)
        var second: BusProcess? = try await pair.start(pair.second)
        let outbox = MemoryOutbox()
        var sent: [String] = []
        let client = try pair.client(.scheduler)
        client.setOutbox(outbox)
        let running = Task { try await client.run() }
        defer { running.cancel() }
        func publish(_ count: Int) {
            for value in 0..<count { sent.append(outbox.add("run.finished", value, bytes: 2000)) }
            client.outboxChanged()
        }
        func acknowledged() async throws {
            do {
                try await eventually("acknowledged", within: 60) { outbox.state.withLock { $0.settled == $0.last } }
            } catch {
                let (settled, last) = outbox.state.withLock { ($0.settled, $0.last) }
                let why = "\(settled) of \(last); session \(String(describing: client.session)), \(client.lastError ?? "no error")"
                throw Failure("\(error): \(why)")
            }
        }
        publish(300)
        try await acknowledged()
        try await pair.inStep()
        let ready = try await pair.second.http("/ready")
        #expect(ready.status == 503 && ready.body.contains("serves nobody until it is promoted"))
        #expect(!Ports.answers(pair.second.config.busPort))
        var generator = SystemRandomNumberGenerator()
        for round in 0..<Self.rounds {
            publish(400)
            let part = UInt64.random(in: 0..<400, using: &generator)
            try await eventually("some are acknowledged", within: 60) {
                outbox.state.withLock { $0.settled + 400 >= $0.last + part || $0.settled == $0.last }
            }
            if round % 2 == 0 {
                _ = try await second?.end(SIGKILL)
                second = try await pair.start(pair.second)
            } else {
                _ = try await first?.end(SIGKILL)
                first = try await pair.start(pair.first)
            }
        }
        try await acknowledged()
        try await pair.inStep()
        let early = try await pair.promote(pair.second)
        #expect(early.status == 409 && early.body.contains("answers"), "\(early)")
        _ = try await first?.end(SIGTERM)
        try await eventually("it has noticed") { try await !pair.now().connected }
        #expect(try Files.contents(Pair.log(pair.first)) == Files.contents(Pair.log(pair.second)))
        #expect(try Files.contents(Pair.log(pair.first)).count > 1)

        // The failover. Nobody but the operator decides it.
        publish(100)
        let promoted = try await pair.promote(pair.second)
        #expect(promoted.status == 200 && promoted.body.contains(#""epoch":\#(1 << 20)"#), "\(promoted)")
        try await acknowledged()
        #expect(client.session?.epoch == 1 << 20)

        // The old bus is back: it is told, refuses everything, and writes nothing any more; also after another start.
        first = try await pair.start(pair.first)
        for _ in 0..<2 {
            try await eventually("the old bus stops") { try await pair.first.http("/ready").body.contains("has taken over") }
            let refused = try await pair.first.http(
                "/v1/events", ["-H", "Content-Type: application/json", "-d", #"{"type":"test.a","subject":"x","data":1}"#])
            #expect(refused.status == 410 && refused.body.contains("replica.md"), "\(refused)")
            let wire = try await pair.first.wire("git", "hello")
            #expect(wire.status != 0 && wire.description.contains("taken over"), "\(wire)")
            let before = try Files.contents(Pair.log(pair.first))
            _ = try await first?.end(SIGKILL)
            #expect(try Files.contents(Pair.log(pair.first)) == before)
            first = try await pair.start(pair.first)
        }
        _ = try await first?.end(SIGTERM)

        // It comes back as a replica; what it wrote by itself (that it was started, at the least) is set aside, not lost.
        let key = "\(pair.second.config.home.keys)/standby2.json"
        try Pair.key("standby2", pair.second, key)
        try "bus:\n  segment_bytes: 1MiB\n  replica_of: \(key)\n".write(
            toFile: pair.first.config.home.suiteFile, atomically: true, encoding: .utf8)
        publish(100)
        try await acknowledged()
        first = try await pair.start(pair.first)
        try await eventually("it copies") {
            let now = try Coding.decode(ReplicaLink.Now.self, from: Data(try await pair.first.http("/v1/bus/replica").body.utf8))
            return now.connected && now.lag == 0 && now.setAside != nil && now.epoch == 1 << 20
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(pair.first.config.home.path)/bus/diverged").count == 1)
        running.cancel()
        _ = try await second?.end(SIGTERM)
        try await eventually("it has all") {
            try Files.contents(Pair.log(pair.first)) == Files.contents(Pair.log(pair.second))
        }
        _ = try await first?.end(SIGTERM)
        #expect(try Pair.ids(pair.second) == sent)
    }

    @Test("with sync_replica nothing is acknowledged or delivered that is lost when the bus and its disk are gone") func synchronous()
        async throws
    {
        let pair = try Pair(first: "  sync_replica: required\n")
        defer { pair.remove() }
        let first = try await pair.start(pair.first)
        let outbox = MemoryOutbox()
        let client = try pair.client(.scheduler)
        client.setOutbox(outbox)
        let reader = try pair.client(.git)
        let seen = Locked<[String]>([])
        let running = Task { try await client.run() }
        let reading = Task {
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await reader.run() }
                tasks.addTask {
                    for try await delivery in try await reader.subscribe(
                        SubscriptionRequest(consumer: "", filters: ["run.**"], from: .first))
                    {
                        seen.withLock { $0 += delivery.events.map(\.id.text) }
                    }
                }
                try await tasks.waitForAll()
            }
        }
        defer {
            running.cancel()
            reading.cancel()
        }
        var sent: [String] = []
        for value in 0..<50 { sent.append(outbox.add("run.finished", value)) }
        client.outboxChanged()
        try await eventually("it says what it waits for") { try await pair.first.http("/ready").body.contains("sync_replica is required") }
        #expect(outbox.state.withLock(\.settled) == 0 && seen.withLock(\.isEmpty))
        let post = try await pair.first.http(
            "/v1/events", ["-H", "Content-Type: application/json", "-d", #"{"type":"test.a","subject":"x","data":1}"#])
        #expect(post.status == 503 && post.body.contains("no replica"), "\(post)")
        let second = try await pair.start(pair.second)
        try await eventually("acknowledged") { outbox.state.withLock { $0.settled == $0.last } }
        try await eventually("delivered") { seen.withLock(\.count) == 50 }
        #expect(try await pair.first.http("/ready").status == 200)
        for value in 0..<2000 { sent.append(outbox.add("run.finished", value)) }
        client.outboxChanged()
        try await eventually("some more are acknowledged") { outbox.state.withLock { $0.settled > 300 } }
        _ = try await first.end(SIGKILL)
        running.cancel()
        reading.cancel()
        try FileManager.default.removeItem(atPath: "\(pair.first.config.home.path)/bus")
        let settled = Int(outbox.state.withLock(\.settled))
        try await eventually("it has noticed") { try await !pair.now().connected }
        #expect(try await pair.promote(pair.second).status == 200)
        try await eventually("it serves") { Ports.answers(pair.second.config.busPort) }
        _ = try await second.end(SIGTERM)
        let kept = try Pair.ids(pair.second)
        #expect(settled > 300 && Array(kept.prefix(settled)) == Array(sent.prefix(settled)))
        #expect(Set(seen.withLock { $0 }).isSubset(of: Set(kept)))
    }

    @Test("a key without the right to copy the log gets none of it, and is told so") func forbidden() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        _ = bench.heard("p")
        bench.say("p", "ada", Frame(.subscribe, handle: 3, body: Data(#"{"mode":"replica","filters":["**"],"from":"first"}"#.utf8)))
        let answer = try #require(bench.heard("p").last)
        #expect(answer.known == .error && answer.status == 403 && answer.handle == 3)
        bench.say(
            "p", "ada", Frame(.request, a: 1, b: 1000, body: RequestBody(method: "bus.replica.state", key: "", payload: Data()).encoded()))
        #expect(bench.heard("p").contains { ($0.known == .error || $0.known == .reply) && $0.status == 403 })
    }
}
