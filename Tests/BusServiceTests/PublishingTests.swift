import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Publishing") struct PublishingTests {
    @Test("an event is acknowledged after its flush, not before") func afterFlush() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, ["a", "b"])
        let batch = bench.router.takeBatch(bench.now)
        #expect(batch?.records.count == 2)
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

    @Test("numbers that come again in one batch do not change which event PUBACK speaks of") func numbersAgain() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, (1...10).map { "\($0)" })
        bench.publish("p", "ada", from: 1, (1...3).map { "\($0)" })
        bench.flush()
        let answer = bench.heard("p").first
        #expect(answer?.a == 10 && answer?.b == 11)
    }

    @Test("what waits for a slow device is bounded, for all sessions together") func slowDevice() {
        var bench = Bench { $0.batchBytes = 1000 }
        bench.hello("p", "ada")
        bench.hello("q", "bob")
        bench.flush()
        bench.publish("p", "ada", from: 1, ["first"])
        let flying = bench.router.takeBatch(bench.now)
        bench.publish("p", "ada", from: 2, (2...40).map { "\($0)" })
        bench.publish("q", "bob", from: 1, ["other"])
        _ = bench.heard("p")
        flying.map { bench.land($0) }
        bench.flush()
        #expect(Bench.exceptions(bench.heard("q").last) == [1: 429])
        let refused = Bench.exceptions(bench.heard("p").last)
        #expect(refused.values.contains(429) && refused[2] == nil)
        bench.publish("q", "bob", from: 1, ["other"], flags: Router.resume)
        bench.flush()
        #expect(bench.heard("q").last?.a == 1)
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
}
