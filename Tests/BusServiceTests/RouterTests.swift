import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

/// A log in memory.
final class MemoryLog: LogView {
    private let records = Locked<[StoredRecord]>([])
    var first: UInt64 { 1 }
    func add(_ new: [StoredRecord]) { records.withLock { $0 += new } }
    func read(from seq: UInt64, bytes: Int) throws -> [StoredRecord] {
        records.withLock { all in
            var total = 0
            return Array(
                all.filter { $0.seq >= seq }.prefix { record in
                    defer { total += record.bytes.count }
                    return total < bytes
                })
        }
    }
    func firstSeq(since time: UInt64) throws -> UInt64 { 1 }
    func bytes(after seq: UInt64) -> UInt64 {
        records.withLock { $0.reduce(0) { $0 + ($1.seq > seq ? UInt64($1.bytes.count) : 0) } }
    }
}

/// A router with a clock, a device and clients that exist only here.
struct Bench {
    var router: Router
    let log = MemoryLog()
    var now: Int64 = 1000
    var hash = Data(count: 32)
    var sent: [(peer: Peer, frame: Frame)] = []
    var others: [Effect] = []
    static let box = "b0b00000-0000-4000-8000-000000000001"

    init(
        records: ConsumerRecords = ConsumerRecords(), outboxes: [OutboxKey: UInt64] = [:],
        change: (inout Router.Settings) -> Void = { _ in }
    ) {
        var settings = Router.Settings(stream: "5" + String(repeating: "0", count: 31), epoch: 3, host: "here")
        change(&settings)
        let counter = Locked(0)
        router = Router(settings: settings, log: log, last: 0, hash: hash, outboxes: outboxes, consumers: records) {
            counter.withLock { count in
                count += 1
                return "00000000-0000-7000-8000-" + String(repeating: "0", count: 12 - "\(count)".count) + "\(count)"
            }
        }
        func rights(_ publish: [String], _ subscribe: [String] = ["**"], call: [String] = ["*.*", "bus.**"], serve: [String] = []) -> Rights
        {
            Rights.parse(publish: publish, subscribe: subscribe, call: call, serve: serve).0
        }
        router.setRights(
            [
                "ada": rights(["test.**", "log.**"]), "bob": rights(["test.**"], serve: ["echo"]), "eve": rights([], ["test.*"], call: []),
            ], now: now)
    }

    mutating func say(_ peer: String, _ user: String?, _ frame: Frame) {
        router.receive(frame.encoded(), from: Data(peer.utf8), user: user, now: now)
        collect()
    }

    mutating func hello(_ peer: String, _ user: String, outbox: String? = nil) {
        let body = (try? Coding.encode(Hello(client: "test", version: "1", outbox: outbox))) ?? Data()
        say(peer, user, Frame(.hello, body: body))
    }

    mutating func publish(
        _ peer: String, _ user: String, from number: UInt64, _ ids: [String], topic: String = "test.one", flags: UInt16 = 0
    ) {
        let events = ids.map { Publication(topic: topic, id: $0, payload: Data("{}".utf8)) }
        say(peer, user, Frame(.publish, flags: flags, a: number, b: UInt64(ids.count), body: Publication.encode(events)))
    }

    mutating func subscribe(
        _ peer: String, _ user: String, handle: UInt32 = 1, consumer: String = "", _ filters: [String] = ["**"], from: Position? = nil,
        messages: Int = 100, bytes: Int = 1 << 20
    ) {
        let body = SubscribeBody(consumer: consumer, filters: filters, from: from, credit_msgs: messages, credit_bytes: bytes)
        say(peer, user, Frame(.subscribe, handle: handle, body: (try? Coding.encode(body)) ?? Data()))
    }

    /// Lets one batch reach the device.
    @discardableResult
    mutating func flush(full: Bool = false) -> Int {
        guard let batch = router.takeBatch(now) else {
            collect()
            return 0
        }
        land(batch, full: full)
        return batch.events.count
    }

    mutating func land(_ batch: Batch, full: Bool = false) {
        if full {
            router.flushed(.full("no room"), now: now)
        } else {
            let encoded = BatchCodec.encode(batch, time: 1, previousHash: hash)
            hash = encoded.hash
            log.add(encoded.records)
            router.flushed(.durable(encoded.records, hash: hash), now: now)
        }
        collect()
        settle()
    }

    /// Acknowledgements that need no flush, and all deliveries.
    mutating func settle() {
        while router.deliver(messages: 10, now: now) { collect() }
        collect()
    }

    mutating func pass(_ milliseconds: Int64) {
        now += milliseconds
        router.tick(now)
        collect()
    }

    private mutating func collect() {
        for effect in router.takeEffects() {
            if case .send(let peer, let data) = effect, let frame = try? Frame(data) {
                sent.append((peer, frame))
            } else {
                others.append(effect)
            }
        }
    }

    /// What a peer was sent since the last look, PINGs left out.
    mutating func heard(_ peer: String) -> [Frame] {
        let mine = sent.filter { $0.peer == Data(peer.utf8) }.map(\.frame).filter { $0.known != .ping }
        sent.removeAll { $0.peer == Data(peer.utf8) }
        return mine
    }

    static func records(_ frames: [Frame]) -> [Record] {
        frames.filter { $0.known == .events }.flatMap { (try? Record.decodeAll($0.body)) ?? [] }
    }
    static func exceptions(_ frame: Frame?) -> [UInt64: UInt16] {
        let list = frame.flatMap { try? PublishException.decode($0.body) } ?? []
        return Dictionary(list.map { ($0.number, $0.status) }) { first, _ in first }
    }
}

@Suite("Sessions") struct SessionTests {
    @Test("who only publishes is heard, and stays") func publishingOnly() {
        var bench = Bench()
        bench.hello("p", "ada")
        for number in 1...20 {
            bench.pass(500)
            bench.publish("p", "ada", from: UInt64(number), ["e\(number)"])
            bench.flush()
        }
        #expect(!bench.heard("p").contains { $0.known == .error })
        // One more: that it joined.
        #expect(bench.router.last == 21)
    }

    @Test("what may not be published is refused again when the acknowledgement was lost, and never taken for stored") func refusedAgain() {
        var bench = Bench()
        for peer in ["p", "q"] {
            bench.hello(peer, "ada", outbox: Bench.box)
            bench.publish(peer, "ada", from: 1, ["one"], topic: "git.push.received")
            bench.publish(peer, "ada", from: 2, ["two"])
            bench.flush()
            bench.settle()
            let answer = bench.heard(peer).last { $0.known == .publishAck }
            #expect(Bench.exceptions(answer) == (peer == "p" ? [1: 403] : [1: 403, 2: 208]))
        }
        #expect(bench.router.last == 3)
    }

    @Test("live events keep to the size of a message, and to what an id may be") func live() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.hello("s", "ada")
        bench.subscribe("s", "ada", ["test.**"], from: .new, messages: 1000, bytes: 8 << 20)
        _ = bench.heard("s")
        let small = (0..<300).map { Publication(topic: "test.one", id: "\($0)", payload: Data("{}".utf8)) }
        let large = Publication(topic: "test.one", id: "large", payload: Data(count: (1 << 20) - 100))
        bench.say("p", "ada", Frame(.emit, b: 301, body: Publication.encode(small + [large])))
        let frames = bench.heard("s").filter { $0.known == .events }
        #expect(Bench.records(frames).count == 301)
        for frame in frames {
            #expect(
                Bench.records([frame]).count <= Limits.packedEvents
                    && (frame.body.count <= Limits.packedBytes || Bench.records([frame]).count == 1))
        }
        for id in ["", String(repeating: "x", count: 60_000)] {
            let wrong = Publication(topic: "test.one", id: id, payload: Data())
            bench.say("p", "ada", Frame(.emit, b: 1, body: Publication.encode([wrong])))
            #expect(bench.heard("p").last?.status == 422)
        }
    }

    @Test("a subscription from a year that nanoseconds cannot hold is answered") func farFuture() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.subscribe("p", "ada", from: .time("9999-01-01T00:00:00Z"))
        #expect(bench.sent.last?.frame.known == .subscribed)
    }

    @Test("nothing is done for one who has not said HELLO") func stranger() {
        var bench = Bench()
        bench.publish("p", "ada", from: 1, ["a"])
        let answer = bench.heard("p")
        #expect(answer.map(\.status) == [401] && answer[0].known == .error && answer[0].b == 0x10 && answer[0].a == 1)
        bench.hello("p", "ada")
        #expect(bench.heard("p").first?.known == .welcome)
    }

    @Test("a key that is not known, and one that was revoked, are refused") func revoked() {
        var bench = Bench()
        bench.hello("p", "mallory")
        #expect(bench.heard("p").map(\.status) == [403])
        bench.hello("q", "ada")
        _ = bench.heard("q")
        bench.router.setRights([:], now: bench.now)
        bench.pass(1)
        #expect(bench.heard("q").first?.status == 403)
        bench.publish("q", "ada", from: 1, ["a"])
        #expect(bench.heard("q").map(\.status) == [403])
    }

    @Test("WELCOME tells what a client needs to know") func welcome() throws {
        var bench = Bench(outboxes: [OutboxKey(producer: "ada", outbox: Bench.box): 41])
        bench.hello("p", "ada", outbox: Bench.box)
        let frame = try #require(bench.heard("p").first)
        let body = try JSONDecoder().decode(Welcome.self, from: frame.body)
        #expect(frame.a == 3 && body.outbox_last == 41 && body.you == "ada" && body.proto == 1 && body.hash?.count == 64)
    }

    @Test("silence for three heartbeats ends a session, any word keeps it") func heartbeats() {
        var bench = Bench()
        bench.hello("p", "ada")
        for _ in 0..<5 {
            bench.pass(2000)
            bench.say("p", "ada", Frame(.ping, a: 7))
        }
        #expect(bench.heard("p").filter { $0.known == .pong && $0.a == 7 }.count == 5)
        bench.pass(3001)
        bench.say("p", "ada", Frame(.ping))
        #expect(bench.heard("p").last?.status == 401)
    }

    @Test("joining and leaving are published once, and a short reconnect is neither") func news() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        bench.router.unreachable(Data("p".utf8), now: bench.now)
        bench.pass(500)
        bench.hello("q", "ada")
        bench.flush()
        bench.pass(2000)
        bench.say("q", "ada", Frame(.bye))
        bench.pass(3100)
        bench.flush()
        let types = (try? bench.log.read(from: 1, bytes: 1 << 20))?.map(\.topic)
        #expect(types == ["component.joined", "component.left"])
    }

    @Test(
        "commands that are none, bodies that cannot be read and flags that may not be ignored are answered",
        arguments: [
            (Frame(.welcome), 400), (Frame(.publish, a: 1, b: 2, body: Data([1])), 400),
            (Frame(.subscribe, handle: 1, body: Data("[]".utf8)), 400),
            (Frame(.ping, flags: 0x100), 400), (Frame(.subscribe, handle: 1, body: Data(#"{"filters":["**"],"mode":"group"}"#.utf8)), 400),
            (Frame(.ackEach, handle: 1), 400), (Frame(.request, a: 1, b: 1, body: Data([0, 9])), 400),
        ] as [(Frame, UInt16)]) func malformed(frame: Frame, status: UInt16)
    {
        var bench = Bench()
        bench.hello("p", "ada")
        _ = bench.heard("p")
        bench.say("p", "ada", frame)
        let answer = bench.heard("p")
        #expect(answer.map(\.status) == [status] && answer.first?.known == .error && answer.first?.b == UInt64(frame.command))
    }

    @Test("another major gets 505") func version() {
        var bench = Bench()
        bench.say("p", "ada", Frame(.hello, body: Data(#"{"client":"x","min":2,"max":3}"#.utf8)))
        #expect(bench.heard("p").map(\.status) == [505])
    }

    @Test("100 000 random messages after HELLO never trap", .timeLimit(.minutes(5))) func fuzz() {
        var bench = Bench()
        bench.hello("p", "bob")
        bench.subscribe("p", "bob")
        var state: UInt64 = 7
        func random() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 20
        }
        let commands: [Command] = [
            .ping, .pong, .publish, .emit, .subscribe, .credit, .ack, .ackEach, .unsubscribe, .serve, .request, .part, .reply, .cancel,
            .lost,
        ]
        let bodies = [
            Data(), Data(#"{"filters":["**"],"consumer":"c","credit_msgs":-5,"credit_bytes":99999999999}"#.utf8),
            Data(#"{"service":"echo"}"#.utf8),
            Publication.encode([Publication(topic: "test.a", id: "i", payload: Data())]),
            RequestBody(method: "echo.x", key: "", payload: Data()).encoded(), Data([0, 0, 0, 0, 0, 0, 0, 0]),
        ]
        for round in 0..<100_000 {
            var frame = Frame(
                commands[Int(random() % UInt64(commands.count))], flags: UInt16(random() % 3), handle: UInt32(random() % 3),
                a: random() % 5 == 0 ? .max : random() % 6, b: random() % 5 == 0 ? .max : random() % 3,
                body: bodies[Int(random() % UInt64(bodies.count))])
            if random() % 20 == 0 { frame.command = UInt8(truncatingIfNeeded: random()) }
            if frame.known == .bye || frame.known == .hello { continue }
            bench.say("p", "bob", frame)
            if round % 50 == 0 {
                bench.flush()
                bench.settle()
                bench.pass(10)
                bench.sent.removeAll()
                bench.others.removeAll()
            }
        }
    }
}

@Suite("Publishing") struct PublishingTests {
    @Test("an event is acknowledged after its flush, not before") func afterFlush() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, ["a", "b"])
        let batch = bench.router.takeBatch(bench.now)
        #expect(batch?.events.count == 2)
        bench.pass(1)
        #expect(bench.heard("p").isEmpty)
        batch.map { bench.land($0) }
        let answers = bench.heard("p")
        #expect(answers.count == 1 && answers[0].known == .publishAck && answers[0].a == 2 && answers[0].b == 3 && answers[0].body.isEmpty)
    }

    @Test("what comes during a flush is the next batch, with one acknowledgement") func groupCommit() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        bench.publish("p", "ada", from: 1, ["a"])
        let first = bench.router.takeBatch(bench.now)
        for number in 2...50 as ClosedRange<UInt64> { bench.publish("p", "ada", from: number, ["\(number)"]) }
        #expect(bench.router.takeBatch(bench.now) == nil)
        _ = bench.heard("p")
        first.map { bench.land($0) }
        #expect(bench.heard("p").map(\.a) == [1])
        #expect(bench.flush() == 49)
        #expect(bench.heard("p").map(\.a) == [50])
    }

    @Test("an outbox's numbers are taken once, for ever") func outbox() {
        var bench = Bench(outboxes: [OutboxKey(producer: "ada", outbox: Bench.box): 10])
        bench.hello("p", "ada", outbox: Bench.box)
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 9, ["i", "j", "k", "l"])
        #expect(bench.flush() == 2)
        let answer = bench.heard("p").first
        #expect(answer?.a == 12 && Bench.exceptions(answer) == [9: 208, 10: 208])
        // The same again, from a new session, while the first is still flying.
        bench.publish("p", "ada", from: 13, ["m"])
        let batch = bench.router.takeBatch(bench.now)
        bench.hello("q", "ada", outbox: Bench.box)
        bench.publish("q", "ada", from: 13, ["m", "n"])
        _ = bench.heard("q")
        batch.map { bench.land($0) }
        #expect(bench.flush() == 1)
        let second = bench.heard("q").last
        #expect(second?.a == 14 && Bench.exceptions(second) == [13: 208])
        #expect(bench.router.durableTaken[OutboxKey(producer: "ada", outbox: Bench.box)] == 14)
    }

    @Test("without an outbox an id is stored once, and the duplicate is told the original's number") func ids() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        bench.publish("p", "ada", from: 1, ["same"])
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 2, ["same"])
        #expect(bench.flush() == 0)
        let answer = bench.heard("p").first
        #expect(answer?.a == 2 && answer?.b == 2 && Bench.exceptions(answer) == [2: 208])
        // Another's event with that id is another event.
        bench.hello("q", "bob")
        bench.publish("q", "bob", from: 1, ["same"])
        #expect(bench.flush() == 2)
    }

    @Test("what a key may not say, what is no topic and what is too large is refused by itself") func refusals() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        let events = [
            Publication(topic: "test.ok", id: "1", payload: Data()), Publication(topic: "git.push", id: "2", payload: Data()),
            Publication(topic: "Test", id: "3", payload: Data()),
            Publication(topic: "test.ok", id: "4", payload: Data(count: (1 << 20) + 1)),
            Publication(topic: "test.ok", id: "", payload: Data()), Publication(topic: "test.ok", id: "6", payload: Data()),
        ]
        bench.say("p", "ada", Frame(.publish, a: 1, b: 6, body: Publication.encode(events)))
        // And one that tells of the refusal.
        #expect(bench.flush() == 3)
        let answer = bench.heard("p").first
        #expect(answer?.a == 6 && answer?.b == 4 && Bench.exceptions(answer) == [2: 403, 3: 422, 4: 413, 5: 422])
    }

    @Test("beyond the window everything is refused until the publisher resumes") func window() {
        var bench = Bench { $0.windowMessages = 3 }
        bench.hello("p", "ada", outbox: Bench.box)
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, ["1", "2", "3", "4", "5"])
        bench.flush()
        var answer = bench.heard("p").first
        #expect(Bench.exceptions(answer) == [4: 429, 5: 425])
        bench.publish("p", "ada", from: 6, ["6"])
        bench.flush()
        answer = bench.heard("p").first
        #expect(Bench.exceptions(answer) == [6: 425])
        bench.publish("p", "ada", from: 4, ["4", "5", "6"], flags: 1)
        #expect(bench.flush() == 3)
        answer = bench.heard("p").first
        #expect(answer?.a == 6 && answer?.body.isEmpty == true)
    }

    @Test("a full disk refuses what flew and what waited, and nothing counts as taken") func full() {
        var bench = Bench()
        bench.hello("p", "ada", outbox: Bench.box)
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, ["1", "2"])
        let batch = bench.router.takeBatch(bench.now)
        bench.publish("p", "ada", from: 2, ["2", "3"])
        batch.map { bench.land($0, full: true) }
        let answers = bench.heard("p")
        #expect(answers.map { Bench.exceptions($0) } == [[1: 507, 2: 507], [2: 425, 3: 425]])
        bench.publish("p", "ada", from: 1, ["1", "2", "3"], flags: 1)
        #expect(bench.flush() == 3)
        #expect(bench.heard("p").first?.body.isEmpty == true)
        #expect(bench.router.last == 4)
    }
}

@Suite("Consuming") struct ConsumingTests {
    private func bench(events count: Int) -> Bench {
        var bench = Bench { $0.windowMessages = 100_000 }
        bench.hello("p", "ada")
        bench.flush()
        bench.publish("p", "ada", from: 1, (1...count).map { "\($0)" })
        bench.flush()
        _ = bench.heard("p")
        return bench
    }

    @Test("events come in order, from where was asked, in ranges without a gap") func ordered() {
        var bench = bench(events: 400)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", ["test.**"], from: .seq(5, stream: nil), messages: 1000)
        bench.flush()
        bench.settle()
        bench.pass(300)
        let frames = bench.heard("c").filter { $0.known == .events }
        var next: UInt64 = 5
        for frame in frames {
            #expect(frame.a == next)
            next = frame.b + 1
        }
        #expect(next == bench.router.last + 1)
        #expect(Bench.records(frames).map(\.seq) == Array(5...401))
        #expect(frames.allSatisfy { ((try? Record.decodeAll($0.body))?.count ?? 0) <= Limits.packedEvents })
    }

    @Test("nothing is sent without credit, in messages or in bytes") func credit() {
        var bench = bench(events: 10)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", ["test.**"], from: .first, messages: 3)
        bench.settle()
        #expect(Bench.records(bench.heard("c")).count == 3)
        bench.say("c", "bob", Frame(.credit, handle: 1, a: 2, b: 1 << 20))
        bench.settle()
        #expect(Bench.records(bench.heard("c")).map(\.seq) == [5, 6])
        bench.subscribe("c", "bob", handle: 2, ["test.**"], from: .first, bytes: 1)
        bench.settle()
        // One may always overdraw, or a large event could never be sent.
        #expect(Bench.records(bench.heard("c")).count == 1)
        bench.settle()
        #expect(bench.heard("c").isEmpty)
    }

    @Test("a durable consumer goes on after its last acknowledgement") func cursor() {
        var bench = bench(events: 10)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", consumer: "worker", ["test.**"])
        bench.settle()
        let generation = bench.heard("c").first { $0.known == .subscribed }?.b ?? 0
        bench.say("c", "bob", Frame(.ack, handle: 1, a: 6, b: generation))
        #expect(bench.router.takeChanges().cursors == [ConsumerKey(owner: "bob", name: "worker"): Cursor(seq: 6, generation: generation)])
        bench.router.unreachable(Data("c".utf8), now: bench.now)
        bench.hello("d", "bob")
        bench.subscribe("d", "bob", consumer: "worker", ["test.**"])
        bench.settle()
        let frames = bench.heard("d")
        #expect(frames.first { $0.known == .subscribed }?.a == 6)
        #expect(Bench.records(frames).first?.seq == 7)
    }

    @Test("a second session takes a consumer over, and the first cannot move the cursor any more") func fencing() {
        var bench = bench(events: 10)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", consumer: "worker")
        let old = bench.heard("c").first { $0.known == .subscribed }?.b ?? 0
        bench.hello("d", "bob")
        bench.subscribe("d", "bob", handle: 4, consumer: "worker")
        let bye = bench.heard("c").first { $0.known == .bye }
        #expect(bye?.status == 410 && bye?.handle == 1)
        let new = bench.heard("d").first { $0.known == .subscribed }?.b ?? 0
        #expect(new == old + 1)
        bench.settle()
        bench.say("c", "bob", Frame(.ack, handle: 1, a: 9, b: old))
        #expect(bench.router.cursors[ConsumerKey(owner: "bob", name: "worker")]?.seq == 0)
        bench.say("d", "bob", Frame(.ack, handle: 4, a: 9, b: old))
        #expect(bench.heard("d").last?.status == 410)
        // Another user's consumer of that name is another consumer.
        bench.hello("a", "ada")
        bench.subscribe("a", "ada", consumer: "worker")
        #expect(bench.router.active.count == 1)
    }

    @Test("an acknowledgement of what was never sent is refused") func tooFar() {
        var bench = bench(events: 10)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", consumer: "worker", messages: 1)
        bench.settle()
        let generation = bench.heard("c").first { $0.known == .subscribed }?.b ?? 0
        bench.say("c", "bob", Frame(.ack, handle: 1, a: 9, b: generation))
        #expect(bench.heard("c").last?.status == 409)
    }

    @Test("another log, and a place beyond its end, are told as lost") func lost() {
        var bench = bench(events: 3)
        bench.hello("c", "bob")
        _ = bench.heard("c")
        bench.subscribe("c", "bob", from: .seq(2, stream: "other"))
        bench.subscribe("c", "bob", from: .seq(9, stream: nil))
        let frames = bench.heard("c")
        #expect(frames.map(\.known) == [.lost, .lost] && frames.map(\.status) == [409, 409] && frames.map(\.a) == [2, 9])
        #expect(bench.router.subscriptions.isEmpty)
    }

    @Test("a subscription must lie inside what the key may see") func permission() {
        var bench = bench(events: 3)
        bench.hello("e", "eve")
        _ = bench.heard("e")
        for filter in ["**", "test.**", "git.push"] { bench.subscribe("e", "eve", [filter]) }
        #expect(bench.heard("e").map(\.status) == [403, 403, 403])
        bench.subscribe("e", "eve", ["test.*"], from: .first)
        bench.settle()
        #expect(Bench.records(bench.heard("e")).count == 3)
    }

    @Test("ranges that hold nothing for a consumer are named all the same") func ranges() {
        var bench = bench(events: 20)
        bench.hello("c", "bob")
        bench.flush()
        bench.subscribe("c", "bob", ["git.**"], from: .first)
        _ = bench.heard("c")
        bench.settle()
        bench.pass(250)
        let frames = bench.heard("c")
        #expect(frames.map(\.a) == [1] && frames.map(\.b) == [bench.router.last] && frames.allSatisfy { $0.body.isEmpty })
    }

    @Test("one that replays does not hold up the others") func fairness() {
        var bench = bench(events: 3000)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", handle: 1, ["test.**"], from: .first, messages: 4096, bytes: 16 << 20)
        bench.subscribe("c", "bob", handle: 2, ["test.**"], from: .new)
        _ = bench.heard("c")
        bench.publish("p", "ada", from: 3001, ["live"])
        if let batch = bench.router.takeBatch(bench.now) {
            let encoded = BatchCodec.encode(batch, time: 1, previousHash: bench.hash)
            bench.log.add(encoded.records)
            bench.router.flushed(.durable(encoded.records, hash: encoded.hash), now: bench.now)
        }
        let more = bench.router.deliver(messages: 2, now: bench.now)
        #expect(more)
        bench.pass(1)
        #expect(bench.heard("c").contains { $0.handle == 2 && $0.known == .events })
    }

    @Test("live events reach ephemeral subscriptions with credit, and nobody else") func live() {
        var bench = bench(events: 1)
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", handle: 1, ["log.**"], from: .new)
        bench.subscribe("c", "bob", handle: 2, consumer: "durable", ["log.**"], from: .new)
        bench.subscribe("c", "bob", handle: 3, ["test.**"], from: .new)
        bench.subscribe("c", "bob", handle: 4, ["log.**"], from: .new, messages: 1)
        bench.flush()
        bench.settle()
        _ = bench.heard("c")
        let events = (1...2).map { Publication(topic: "log.lines", id: "\($0)", payload: Data("{}".utf8)) }
        bench.say("p", "ada", Frame(.emit, b: 2, body: Publication.encode(events)))
        let frames = bench.heard("c")
        #expect(Set(frames.map(\.handle)) == [1, 4] && frames.allSatisfy { $0.a == 0 && $0.b == 0 })
        #expect(Bench.records(frames.filter { $0.handle == 1 }).map(\.seq) == [0, 0])
        #expect(Bench.records(frames.filter { $0.handle == 4 }).count == 1)
        #expect(bench.router.last == 3)
    }
}

@Suite("Calls") struct CallTests {
    private func bench() -> Bench {
        var bench = Bench()
        bench.hello("c", "ada")
        bench.hello("w", "bob")
        _ = bench.heard("c")
        _ = bench.heard("w")
        return bench
    }
    private func serve(_ bench: inout Bench, _ peer: String = "w", credit: UInt64 = 2) {
        bench.say(peer, "bob", Frame(.serve, handle: 9, a: credit, body: Data(#"{"service":"echo"}"#.utf8)))
    }
    private func ask(_ bench: inout Bench, _ number: UInt64, _ method: String = "echo.say", within: UInt64 = 1000) {
        bench.say(
            "c", "ada",
            Frame(.request, a: number, b: within, body: RequestBody(method: method, key: "k", payload: Data("?".utf8)).encoded()))
    }

    @Test("a call goes to the worker and its reply to the caller, each under its own number") func roundTrip() throws {
        var bench = bench()
        serve(&bench)
        ask(&bench, 77)
        let call = try #require(bench.heard("w").first)
        let body = try CallBody(call.body)
        #expect(call.known == .call && call.handle == 9 && body.method == "echo.say" && body.payload == Data("?".utf8))
        #expect(body.about.contains(#""caller":"ada""#))
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0, body: Data("1".utf8)))
        bench.say("w", "bob", Frame(.reply, status: 200, a: call.a, b: 1, body: Data("2".utf8)))
        let answers = bench.heard("c")
        #expect(answers.map(\.known) == [.part, .reply] && answers.map(\.a) == [77, 77] && answers[1].status == 200)
        // A second reply goes nowhere.
        bench.say("w", "bob", Frame(.reply, status: 200, a: call.a))
        #expect(bench.heard("c").isEmpty)
    }

    @Test("nobody serves: 503; too late: 504 and CANCEL; the worker is gone: 502, which may have run") func failures() {
        var bench = bench()
        ask(&bench, 1)
        #expect(bench.heard("c").map(\.status) == [503])
        serve(&bench)
        ask(&bench, 2, within: 100)
        bench.pass(101)
        #expect(bench.heard("c").map(\.status) == [504])
        #expect(bench.heard("w").map(\.known) == [.call, .cancel])
        ask(&bench, 3)
        bench.router.unreachable(Data("w".utf8), now: bench.now)
        bench.pass(0)
        let answer = bench.heard("c")
        #expect(answer.map(\.status) == [502] && answer.first?.flags == 1)
        #expect(bench.router.calls.isEmpty && bench.router.workers.isEmpty)
    }

    @Test("a worker gets no more at once than it asked for") func credit() {
        var bench = bench()
        serve(&bench, credit: 1)
        ask(&bench, 1)
        ask(&bench, 2)
        let calls = bench.heard("w")
        #expect(calls.count == 1)
        bench.say("w", "bob", Frame(.reply, status: 200, a: calls[0].a))
        #expect(bench.heard("w").count == 1)
    }

    @Test("a client that is no worker cannot answer, and a call nobody may make is refused") func forged() {
        var bench = bench()
        serve(&bench)
        ask(&bench, 1)
        bench.say("c", "ada", Frame(.reply, status: 200, a: 1, body: Data("forged".utf8)))
        #expect(bench.heard("c").isEmpty)
        bench.hello("e", "eve")
        _ = bench.heard("e")
        bench.say("e", "eve", Frame(.request, a: 1, b: 100, body: RequestBody(method: "echo.say", key: "", payload: Data()).encoded()))
        #expect(bench.heard("e").map(\.status) == [403])
        bench.say("c", "ada", Frame(.serve, handle: 1, a: 1, body: Data(#"{"service":"git"}"#.utf8)))
        #expect(bench.heard("c").map(\.status) == [403])
    }
}
