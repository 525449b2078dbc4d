import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

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
}
