import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

/// bus-protocol 2.2 to 2.4, 3.1 and 4.1, sentence by sentence, where no other suite has the sentence.
@Suite("The rules of EB/1") struct WireRulesTests {
    private func hello(_ bench: inout Bench, _ json: String, major: UInt8 = 1) -> Frame? {
        var frame = Frame(.hello, body: Data(json.utf8))
        frame.major = major
        bench.say("p", "ada", frame)
        return bench.heard("p").last
    }
    private func joined() -> Bench {
        var bench = Bench()
        bench.hello("p", "ada")
        _ = bench.heard("p")
        return bench
    }
    /// What a message is answered with.
    private func answer(_ frame: Frame, from user: String = "ada", in bench: inout Bench) -> [Frame] {
        bench.say("p", user, frame)
        return bench.heard("p")
    }

    // MARK: Versions

    @Test(
        "the highest common major is taken",
        arguments: [
            (#"{"client":"x"}"#, 1), (#"{"client":"x","min":1,"max":2}"#, 1), (#"{"client":"x","min":0,"max":9}"#, 1),
            // A newer client that puts its own highest into the header of the first message.
            (#"{"client":"x","min":1,"max":2}"#, 2),
        ] as [(String, UInt8)]) func versions(json: String, major: UInt8) throws
    {
        var bench = Bench()
        let frame = try #require(hello(&bench, json, major: major))
        #expect(frame.known == .welcome && frame.major == 1)
        #expect(try JSONDecoder().decode(Welcome.self, from: frame.body).proto == 1)
    }

    @Test(
        "no common major: 505, with the bus's own range",
        arguments: [
            (#"{"client":"x","min":2,"max":3}"#, 1), (#"{"client":"x","min":0,"max":0}"#, 1), (#"{"client":"x"}"#, 2),
            (#"{"client":"x","min":2,"max":2}"#, 2),
        ] as [(String, UInt8)]) func noVersion(json: String, major: UInt8) throws
    {
        var bench = Bench()
        let frame = try #require(hello(&bench, json, major: major))
        #expect(frame.known == .error && frame.status == 505 && frame.major == 1)
        let body = try JSONDecoder().decode(ErrorBody.self, from: frame.body)
        #expect(body.code == "version" && body.min == 1 && body.max == 1)
        #expect(bench.router.sessions.isEmpty)
    }

    @Test("a message of another major in the middle of a session is refused with 505, and the session goes on") func strangeMajor() {
        var bench = joined()
        var frame = Frame(.ping, a: 5)
        frame.major = 2
        #expect(answer(frame, in: &bench).map(\.status) == [505])
        #expect(answer(Frame(.ping, a: 6), in: &bench).map(\.known) == [.pong])
    }

    @Test("unknown members are ignored, unknown features are not used, and an older client need not name any") func members() throws {
        var bench = Bench()
        let new = #"{"client":"x","min":1,"max":2,"features":["zstd","sharding"],"color":"red","nested":{"a":[1,null]},"heartbeat_ms":500}"#
        let frame = try #require(hello(&bench, new))
        let welcome = try JSONDecoder().decode(Welcome.self, from: frame.body)
        #expect(frame.known == .welcome && welcome.features.isEmpty)
        #expect(bench.router.sessions[Data("p".utf8)]?.heartbeat == 500)
        let sub = #"{"filters":["test.*"],"consumer":"c","color":"red","from":{"seq":1,"shade":2},"mode":"ordered"}"#
        #expect(answer(Frame(.subscribe, handle: 1, body: Data(sub.utf8)), in: &bench).map(\.known) == [.subscribed])
        #expect(answer(Frame(.bye, body: Data(#"{"reason":"x","color":1}"#.utf8)), in: &bench).isEmpty)
        // As small as it gets.
        #expect(hello(&bench, #"{"client":"old"}"#)?.known == .welcome)
    }

    // MARK: Flags and headers

    @Test("low flags that nobody knows are ignored, high ones refused", arguments: 0..<16) func flags(bit: Int) {
        var bench = joined()
        let answers = answer(Frame(.ping, flags: 1 << bit, a: 9), in: &bench)
        #expect(answers.map(\.known) == [bit < 8 ? .pong : .error])
        if bit >= 8 { #expect(answers[0].status == 400 && answers[0].a == 9 && answers[0].b == 3) }
    }

    @Test("what is no frame is answered with 400 and nothing that it could be taken for") func noFrame() {
        var bench = joined()
        for bytes in [Data(), Data([0x45]), Data(count: 28), Frame(.ping).encoded().dropLast()] {
            bench.router.receive(Data(bytes), from: Data("p".utf8), user: "ada", now: bench.now)
            bench.pass(0)
            let answers = bench.heard("p")
            #expect(answers.map(\.status) == [400] && answers[0].a == 0 && answers[0].b == 0)
        }
    }

    @Test("commands that are none and those that only the bus says are refused by name and number", arguments: 0...255)
    func commands(code: Int) {
        var bench = joined()
        var frame = Frame(.ping, handle: 5, a: 77)
        frame.command = UInt8(code)
        let known = Command(rawValue: UInt8(code))
        let fromClients: Set<Command> = [
            .hello, .ping, .pong, .bye, .publish, .emit, .subscribe, .credit, .ack, .ackEach, .unsubscribe, .serve, .request, .part, .reply,
            .cancel,
        ]
        if let known, fromClients.contains(known) { return }
        let answers = answer(frame, in: &bench)
        #expect(answers.map(\.status) == [400] && answers[0].known == .error)
        #expect(answers[0].handle == 5 && answers[0].a == 77 && answers[0].b == UInt64(code))
    }

    @Test(
        "a body that does not parse to its exact end is refused and otherwise ignored",
        arguments: [
            Frame(.publish, a: 1, b: 1, body: Publication.encode([Publication(topic: "test.a", id: "i", payload: Data())]) + Data([0])),
            Frame(.publish, a: 1, b: 2, body: Publication.encode([Publication(topic: "test.a", id: "i", payload: Data())])),
            Frame(.emit, b: 0, body: Data([1])), Frame(.subscribe, handle: 1, body: Data(#"{"filters":["**"]} x"#.utf8)),
            Frame(.subscribe, handle: 1), Frame(.serve, handle: 1, a: 1, body: Data("{}".utf8)),
            Frame(.ackEach, handle: 1, body: Data(count: 17)),
            Frame(.request, a: 1, b: 1, body: Data([0, 1])), Frame(.bye, body: Data("goodbye".utf8)),
            Frame(.credit, handle: 1, body: Data([0])),
        ]) func exact(frame: Frame)
    {
        var bench = joined()
        let answers = answer(frame, in: &bench)
        #expect(answers.map(\.status) == [400] && answers[0].b == UInt64(frame.command), "\(frame)")
        #expect(bench.router.sessions.count == 1 && bench.router.subscriptions.isEmpty && bench.router.pools.isEmpty)
        #expect(bench.flush() <= 1)
    }

    // MARK: Sessions

    @Test("HELLO again on the same connection begins anew: what hung on the old session is over") func twice() {
        var bench = joined()
        bench.subscribe("p", "ada", consumer: "c")
        bench.publish("p", "ada", from: 1, ["a"])
        _ = bench.heard("p")
        bench.hello("p", "ada")
        #expect(bench.heard("p").map(\.known) == [.welcome])
        #expect(bench.router.sessions.count == 1 && bench.router.subscriptions.isEmpty)
        // Numbers begin at 1, and nobody is told of what the session before published.
        bench.flush()
        #expect(bench.heard("p").isEmpty)
        bench.publish("p", "ada", from: 1, ["b"])
        bench.flush()
        #expect(bench.heard("p").first { $0.known == .publishAck }?.a == 1)
    }

    @Test("each side waits three of the other's intervals, whatever its own", arguments: [100, 500, 5000]) func intervals(ms: Int64) {
        var bench = Bench()
        _ = hello(&bench, #"{"client":"x","heartbeat_ms":\#(ms)}"#)
        bench.pass(3 * ms)
        #expect(bench.router.sessions.count == 1)
        bench.pass(1)
        #expect(bench.router.sessions.isEmpty)
    }

    @Test("the bus says PING when it has had nothing else to say for its interval, with the last number and the hash") func ping() {
        var bench = Bench { $0.heartbeat = 400 }
        bench.hello("p", "ada")
        bench.publish("p", "ada", from: 1, ["a"])
        bench.flush()
        bench.sent.removeAll()
        bench.pass(399)
        #expect(bench.sent.isEmpty)
        bench.pass(1)
        let ping = bench.sent.map(\.frame)
        #expect(ping.map(\.known) == [.ping] && ping[0].b == bench.router.last && ping[0].body == bench.router.hash)
        bench.pass(399)
        #expect(bench.sent.count == 1)
    }

    @Test("a client that leaves is answered nothing, whatever status its goodbye has", arguments: [0, 200, 410, 503, 65535] as [UInt16])
    func goodbyes(status: UInt16) {
        var bench = joined()
        #expect(answer(Frame(.bye, status: status), in: &bench).isEmpty)
        #expect(bench.router.sessions.isEmpty)
        #expect(answer(Frame(.ping), in: &bench).map(\.status) == [401])
    }

    // MARK: Handles, credit, acknowledgements

    @Test("a handle that means nothing here is passed over, as one that ended a moment ago must be", arguments: [0, 1, .max] as [UInt32])
    func handles(handle: UInt32) {
        var bench = joined()
        for frame in [
            Frame(.credit, handle: handle, a: 1, b: 1), Frame(.ack, handle: handle, a: 1, b: 1), Frame(.unsubscribe, handle: handle),
            Frame(.ackEach, handle: handle, b: 1, body: Verdict.encode([Verdict(.ack, 1)])), Frame(.cancel, handle: handle, a: 9),
            Frame(.reply, handle: handle, a: 9), Frame(.part, handle: handle, a: 9), Frame(.pong, handle: handle),
        ] { #expect(answer(frame, in: &bench).isEmpty, "\(frame)") }
    }

    @Test("SUB without a handle is refused, and one with a handle in use begins anew under it") func sameHandle() {
        var bench = joined()
        let body = Data(#"{"filters":["test.*"]}"#.utf8)
        #expect(answer(Frame(.subscribe, handle: 0, body: body), in: &bench).map(\.status) == [400])
        for _ in 0..<3 { #expect(answer(Frame(.subscribe, handle: 7, body: body), in: &bench).map(\.known) == [.subscribed]) }
        #expect(bench.router.subscriptions.count == 1 && bench.router.turns.count == 1)
    }

    @Test("credit never goes beyond what WELCOME said, however much is added") func overflow() {
        var bench = joined()
        bench.subscribe("p", "ada", messages: 1, bytes: 1)
        for _ in 0..<3 { #expect(answer(Frame(.credit, handle: 1, a: .max, b: .max), in: &bench).filter { $0.known == .error }.isEmpty) }
        let subscription = bench.router.subscriptions.values.first
        #expect(subscription?.creditMessages == Int64(bench.router.settings.creditMessages))
        #expect(subscription?.creditBytes == Int64(bench.router.settings.creditBytes))
    }

    @Test("an ACK beyond what was sent is refused and moves nothing; SERVE without room is refused") func beyond() {
        var bench = joined()
        bench.publish("p", "ada", from: 1, ["a", "b"])
        bench.flush()
        bench.subscribe("p", "ada", consumer: "c", messages: 1)
        bench.settle()
        let generation = bench.heard("p").first { $0.known == .subscribed }?.b ?? 0
        for number in [3, UInt64.max] {
            let answers = answer(Frame(.ack, handle: 1, a: number, b: generation), in: &bench)
            #expect(answers.map(\.status) == [409] && answers[0].b == 0x24)
        }
        #expect(bench.router.cursors.values.first?.seq == 0)
        bench.hello("w", "bob")
        bench.say("w", "bob", Frame(.serve, handle: 1, a: 0, body: Data(#"{"service":"echo"}"#.utf8)))
        #expect(bench.heard("w").last?.status == 400)
    }

    @Test("too many subscriptions, services: 429") func tooMany() {
        var bench = Bench { $0.subscriptionsPerSession = 2 }
        bench.hello("p", "ada")
        bench.hello("w", "bob")
        for handle in 1...3 { bench.subscribe("p", "ada", handle: UInt32(handle)) }
        #expect(bench.heard("p").last?.status == 429)
        for handle in 1...101 {
            bench.say("w", "bob", Frame(.serve, handle: UInt32(handle), a: 1, body: Data(#"{"service":"echo"}"#.utf8)))
        }
        #expect(bench.heard("w").filter { $0.known == .error }.map(\.status) == [429])
    }

    @Test(
        "live events are refused for what is wrong with them",
        arguments: [("test.a", 0, 0), ("A b", 0, 422), ("git.x", 0, 403), ("test.a", Limits.payload + 1, 413)])
    func emits(topic: String, size: Int, status: Int) {
        var bench = joined()
        let answers = answer(
            Frame(.emit, b: 1, body: Publication.encode([Publication(topic: topic, id: "i", payload: Data(count: size))])), in: &bench)
        #expect(answers.map { Int($0.status) } == (status == 0 ? [] : [status]))
        #expect(bench.flush() <= 2)
    }
}
