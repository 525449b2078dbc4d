import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Clients that do not read") struct ReadingTests {
    private func bench(hold: Int = 3000, end: Int = 6000) -> Bench {
        var bench = Bench {
            $0.unread = (ask: 1000, hold: hold, end: end)
            $0.windowMessages = 10_000
        }
        bench.hello("p", "ada")
        bench.hello("c", "bob")
        bench.flush()
        _ = bench.sent
        return bench
    }
    private func probe(_ bench: inout Bench, _ peer: String) -> UInt64? {
        defer { bench.sent.removeAll() }
        return bench.sent.last { $0.peer == Data(peer.utf8) && $0.frame.known == .ping && $0.frame.a >> 63 == 1 }?.frame.a
    }

    @Test("many subscriptions of one session get no more than it reads, and go on when it does") func held() {
        var bench = bench(hold: 20_000, end: 40_000)
        for handle in 1...50 as ClosedRange<UInt32> { bench.subscribe("c", "bob", handle: handle, from: .new) }
        bench.settle()
        while let value = probe(&bench, "c") { bench.say("c", "bob", Frame(.pong, a: value)) }
        for number in 1...100 as ClosedRange<UInt64> {
            bench.publish("p", "ada", from: number, ["\(number)"])
            bench.flush()
        }
        func size(_ bench: Bench) -> Int { bench.sent.reduce(0) { $0 + ($1.peer == Data("c".utf8) ? $1.frame.body.count : 0) } }
        #expect(size(bench) > 10_000 && size(bench) < 40_000)
        // Nobody is ended for what was fed against credit.
        bench.pass(1)
        #expect(bench.router.sessions[Data("c".utf8)] != nil)
        var rounds = 0
        var seen: [UInt32: [UInt64]] = [:]
        while rounds < 1000, seen.values.reduce(0, { $0 + $1.count }) < 5000 {
            rounds += 1
            for (_, frame) in bench.sent where frame.known == .events {
                seen[frame.handle, default: []] += Bench.records([frame]).filter { $0.topic == "test.one" }.map(\.seq)
            }
            guard let value = probe(&bench, "c") else { break }
            bench.say("c", "bob", Frame(.pong, a: value))
            bench.settle()
        }
        for (_, frame) in bench.sent where frame.known == .events {
            seen[frame.handle, default: []] += Bench.records([frame]).filter { $0.topic == "test.one" }.map(\.seq)
        }
        #expect(seen.count == 50 && seen.values.allSatisfy { $0.count == 100 && $0 == $0.sorted() })
    }

    @Test("credit shows as well that a client reads, for one that answers no PING") func byCredit() {
        var bench = bench()
        bench.subscribe("c", "bob", from: .new, messages: 4096, bytes: 16 << 20)
        bench.settle()
        bench.sent.removeAll()
        var got = 0
        for number in 1...300 as ClosedRange<UInt64> {
            bench.publish("p", "ada", from: number, ["\(number)"])
            bench.flush()
            let frames = bench.heard("c").filter { $0.known == .events }
            got += Bench.records(frames).count { $0.topic == "test.one" }
            let bytes = frames.reduce(0) { $0 + $1.body.count + Frame.headerLength }
            bench.say("c", "bob", Frame(.credit, handle: 1, a: UInt64(frames.count), b: UInt64(bytes)))
            bench.settle()
        }
        got += Bench.records(bench.heard("c")).count { $0.topic == "test.one" }
        #expect(got == 300)
    }

    @Test("one that asks and asks and reads no answer is ended; one that answers PING is not") func asks() {
        for reads in [true, false] {
            var bench = bench()
            bench.sent.removeAll()
            let id = RequestBody(method: "bus.consumers", key: "", payload: Data()).encoded()
            for number in 1...500 as ClosedRange<UInt64> {
                bench.say("c", "bob", Frame(.request, a: number, b: 1000, body: id))
                bench.say("p", "ada", Frame(.request, a: number, b: 1000, body: id))
                if reads, let value = probe(&bench, "p") { bench.say("p", "ada", Frame(.pong, a: value)) }
                bench.pass(10)
                bench.say("p", "ada", Frame(.ping))
            }
            #expect((bench.router.sessions[Data("p".utf8)] != nil) == reads)
            #expect(bench.router.sessions[Data("c".utf8)] == nil)
        }
    }
}
