import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

extension Bench {
    /// SUB with the members that only some modes have; the generation when it was accepted.
    @discardableResult
    mutating func join(
        _ peer: String, _ user: String = "bob", handle: UInt32 = 1, mode: String = "group", filters: [String] = ["test.**"],
        messages: Int = 100, change: (inout SubscribeBody) -> Void = { _ in }
    ) -> UInt64? {
        var body = SubscribeBody(consumer: "jobs", filters: filters, mode: mode, credit_msgs: messages)
        change(&body)
        say(peer, user, Frame(.subscribe, handle: handle, body: (try? Coding.encode(body)) ?? Data()))
        return sent.last { $0.peer == Data(peer.utf8) && $0.frame.known == .subscribed && $0.frame.handle == handle }?.frame.b
    }

    mutating func verdict(_ peer: String, _ generation: UInt64?, _ verdicts: [Verdict]) {
        say(peer, "bob", Frame(.ackEach, handle: 1, b: generation ?? 0, body: Verdict.encode(verdicts)))
    }

    /// Numbers and counts of deliveries; 0 where none was said.
    mutating func given(_ peer: String) -> [[UInt64]] {
        heard(peer).filter { $0.known == .events }.flatMap { frame -> [[UInt64]] in
            var result: [[UInt64]] = []
            var reader = Reader(frame.body)
            while reader.remaining > 0 {
                let count = frame.flags & 1 != 0 ? reader.u32() ?? 0 : 0
                guard let record = try? Record(from: &reader) else { break }
                result.append([record.seq, UInt64(count)])
            }
            return result
        }
    }

    var topics: [String] { (try? log.read(from: 1, bytes: 1 << 22))?.map(\.topic) ?? [] }
}

@Suite("Groups") struct GroupTests {
    @Test("events that come one by one go to the members in turn, whoever else reads") func turns() {
        var bench = bench(events: 1)
        bench.hello("o", "bob")
        bench.subscribe("o", "bob", consumer: "reader", messages: 1000)
        for name in ["a", "b", "c"] {
            bench.hello(name, "bob")
            bench.join(name, "bob")
        }
        bench.settle()
        for name in ["a", "b", "c", "o"] { _ = bench.heard(name) }
        for number in 2...31 as ClosedRange<UInt64> {
            bench.publish("p", "ada", from: number, ["\(number)"])
            bench.flush()
        }
        #expect(["a", "b", "c"].map { Bench.records(bench.heard($0)).count { $0.topic == "test.one" } } == [10, 10, 10])
    }

    /// Events 2 to count + 1 are of type test.one; 1 tells that ada joined.
    private func bench(events count: Int, records: ConsumerRecords = ConsumerRecords()) -> Bench {
        var bench = Bench(records: records) { $0.windowMessages = 100_000 }
        bench.hello("p", "ada")
        bench.flush()
        bench.publish("p", "ada", from: 1, (1...count).map { "\($0)" })
        bench.flush()
        for peer in ["c", "d"] { bench.hello(peer, "bob") }
        _ = bench.heard("p")
        return bench
    }
    private let key = ConsumerKey(owner: "bob", name: "jobs")

    @Test("members share the work: each event goes to one of them, against credit, and is settled one by one") func shared() {
        var bench = bench(events: 10)
        let c = bench.join("c", messages: 3)
        let d = bench.join("d", messages: 4)
        bench.settle()
        let first = bench.given("c").map { $0[0] }
        let second = bench.given("d").map { $0[0] }
        #expect(first.count == 3 && second.count == 4 && Set(first + second).count == 7)
        bench.verdict("c", c, first.map { Verdict(.ack, $0) })
        bench.verdict("d", d, second.map { Verdict(.ack, $0) })
        bench.settle()
        #expect(bench.given("c").isEmpty && bench.given("d").isEmpty)
        bench.say("d", "bob", Frame(.credit, handle: 1, a: 50, b: 1 << 20))
        bench.settle()
        let rest = bench.given("d").map { $0[0] }
        #expect(Set(first + second + rest) == Set(2...11))
        bench.verdict("d", d, rest.map { Verdict(.ack, $0) })
        bench.flush()
        bench.settle()
        #expect(
            bench.router.consumers().first { $0.consumer == "jobs" }.map { [$0.cursor, UInt64($0.sessions)] } == [bench.router.last, 2])
    }

    @Test("what a member refuses, holds too long or leaves behind comes again, with its count") func again() {
        var bench = bench(events: 3)
        let c = bench.join("c") {
            $0.ack_wait_ms = 1000
            $0.backoff_ms = [500]
        }
        bench.settle()
        #expect(bench.given("c") == [[2, 0], [3, 0], [4, 0]])
        bench.verdict("c", c, [Verdict(.nak, 2), Verdict(.inProgress, 3), Verdict(.ack, 4)])
        bench.pass(499)
        bench.settle()
        #expect(bench.given("c").isEmpty)
        bench.pass(1)
        bench.settle()
        #expect(bench.given("c") == [[2, 2]])
        let d = bench.join("d") { $0.ack_wait_ms = 1000 }
        bench.pass(500)
        bench.settle()
        let late = bench.given("c") + bench.given("d")
        #expect(late == [[3, 2]])
        // The first session is gone: what it held goes to the other.
        bench.router.unreachable(Data("c".utf8), now: bench.now)
        bench.settle()
        #expect(Set(bench.given("d")).isSubset(of: [[2, 3], [3, 3], [3, 2]]))
        bench.verdict("d", d, [Verdict(.ack, 2), Verdict(.ack, 3)])
        #expect(bench.router.queues[key]?.items.isEmpty == true)
    }

    @Test("a late verdict is refused by name, and one of another generation ends the subscription") func late() {
        var bench = bench(events: 2)
        let c = bench.join("c") { $0.ack_wait_ms = 100 }
        bench.settle()
        bench.pass(200)
        _ = bench.heard("c")
        bench.verdict("c", c, [Verdict(.ack, 2), Verdict(.ack, 3)])
        let answer = bench.heard("c")
        #expect(answer.map(\.status) == [409] && answer.first?.a == 2 && answer.first?.b == 0x25 && answer.first?.handle == 1)
        bench.verdict("c", (c ?? 0) + 1, [Verdict(.ack, 2)])
        #expect(bench.heard("c").map(\.status) == [410])
        bench.settle()
        #expect(bench.given("c").isEmpty)
    }

    @Test("delivered too often: parked, told, and the queue goes on; a person has it delivered again, or drops it") func parked() throws {
        var bench = bench(events: 3)
        let c = bench.join("c") {
            $0.max_deliver = 2
            $0.backoff_ms = []
        }
        bench.settle()
        bench.verdict("c", c, [Verdict(.nak, 2), Verdict(.ack, 3), Verdict(.terminate, 4)])
        bench.settle()
        bench.verdict("c", c, [Verdict(.nak, 2)])
        bench.flush()
        #expect(bench.topics.filter { $0 == "bus.message.parked" }.count == 2)
        _ = bench.heard("c")
        func ask(_ method: String, _ payload: String, _ user: String = "bob", _ peer: String = "c") throws -> (UInt16, String) {
            bench.say(
                peer, user,
                Frame(.request, a: 9, b: 100, body: RequestBody(method: method, key: "", payload: Data(payload.utf8)).encoded()))
            let reply = try #require(bench.heard(peer).last)
            return (reply.status, String(decoding: reply.body, as: UTF8.self))
        }
        let list = try ask("bus.parked.list", "{}")
        #expect(list.0 == 200 && list.1.contains(#""seq":2"#) && list.1.contains(#""seq":4"#))
        #expect(bench.router.parkedList(owner: "ada", consumer: nil).isEmpty)
        let changes = bench.router.takeChanges()
        #expect(changes.parked[key]?.keys.sorted() == [2, 4] && changes.queues[key] != nil)
        try bench.router.unpark(key, 2, retry: true)
        try bench.router.unpark(key, 4, retry: false)
        #expect(throws: Problem.self) { try bench.router.unpark(key, 4, retry: true) }
        bench.settle()
        #expect(bench.given("c") == [[2, 1]])
        #expect(bench.router.takeChanges().parked[key]?.values.allSatisfy { $0 == nil } == true)
    }

    @Test("one name is read in one mode, with one set of filters") func conflicts() {
        var bench = bench(events: 2)
        bench.join("c")
        _ = bench.heard("d")
        bench.join("d", mode: "ordered")
        bench.join("d", filters: ["test.one"])
        #expect(bench.heard("d").map(\.status) == [409, 409])
        bench.say("c", "bob", Frame(.unsubscribe, handle: 1))
        bench.join("d", mode: "ordered")
        _ = bench.heard("c")
        bench.join("c")
        #expect(bench.heard("c").map(\.status) == [409])
        for (member, value) in [
            ("ack_wait_ms", "5"), ("max_deliver", "-1"), ("backoff_ms", "[-1]"), ("poison", "\"x\""), ("mode", "\"x\""),
        ] {
            bench.say(
                "c", "bob", Frame(.subscribe, handle: 3, body: Data(#"{"consumer":"x","filters":["test.*"],"\#(member)":\#(value)}"#.utf8)))
            #expect(bench.heard("c").map(\.status) == [400], "\(member)")
        }
    }

    @Test("a queue outlives the bus: unsettled work comes again and counts on") func restart() {
        var first = bench(events: 4)
        let c = first.join("c")
        first.settle()
        first.verdict("c", c, [Verdict(.ack, 3), Verdict(.terminate, 4)])
        first.flush()
        let saved = first.router.takeChanges()
        let records = ConsumerRecords(
            cursors: saved.cursors,
            queues: saved.queues.compactMapValues { $0.map { WorkQueue(next: $0.next, unsettled: $0.unsettled) } },
            parked: saved.parked.mapValues { $0.compactMapValues { $0 } })
        var second = bench(events: 9, records: records)
        second.join("c")
        second.settle()
        let given = second.given("c")
        #expect(given.contains([2, 2]) && given.contains([5, 2]) && !given.contains { $0[0] == 3 || $0[0] == 4 })
        #expect(second.router.parked[key]?.keys.sorted() == [4])
    }

    @Test(
        "an ordered consumer gets what it refused again, before what follows; then it stops, or parks and goes on",
        arguments: ["stop", "park"])
    func poison(policy: String) {
        var bench = bench(events: 4)
        let c = bench.join("c", mode: "ordered") {
            $0.poison = policy
            $0.max_deliver = 3
            $0.backoff_ms = [100]
        }
        bench.settle()
        #expect(bench.given("c").map { $0[0] } == [2, 3, 4, 5])
        bench.say("c", "bob", Frame(.ack, handle: 1, a: 2, b: c ?? 0))
        for delivery in [2, 3] as [UInt64] {
            bench.verdict("c", c, [Verdict(.nak, 3)])
            bench.settle()
            #expect(bench.given("c").isEmpty)
            bench.pass(100)
            bench.settle()
            #expect(bench.given("c") == [[3, delivery], [4, 0], [5, 0]])
        }
        bench.verdict("c", c, [Verdict(.nak, 3)])
        bench.flush()
        bench.settle()
        if policy == "stop" {
            let answer = bench.heard("c").last { $0.known == .error }
            #expect(answer?.status == 500 && answer?.a == 3 && answer?.handle == 1)
            #expect(bench.topics.contains("bus.consumer.stopped") && bench.router.subscriptions.isEmpty)
            #expect(bench.router.cursors[key]?.seq == 2)
        } else {
            #expect(bench.given("c").map { $0[0] } == [4, 5])
            #expect(bench.topics.contains("bus.message.parked") && bench.router.parked[key]?.keys.sorted() == [3])
            #expect(throws: Problem.self) { try bench.router.unpark(key, 3, retry: true) }
        }
    }

    @Test("refusals in order are counted on after a restart, and nobody gets by refusing what he may not see") func strikes() {
        var bench = bench(events: 4)
        let c = bench.join("c", mode: "ordered")
        bench.settle()
        bench.pass(300)
        _ = bench.heard("c")
        // Event 1 is of a type outside the filters.
        bench.verdict("c", c, [Verdict(.nak, 1)])
        #expect(bench.heard("c").map(\.status) == [409])
        bench.verdict("c", c, [Verdict(.nak, 4, delay: 10)])
        bench.pass(10)
        bench.settle()
        #expect(bench.given("c") == [[4, 2], [5, 0]])
        let saved = bench.router.takeChanges()
        #expect(saved.cursors[key]?.strike == Strike(seq: 4, deliveries: 2))
        var second = self.bench(events: 4, records: ConsumerRecords(cursors: saved.cursors))
        second.join("d", mode: "ordered")
        second.settle()
        #expect(second.given("d") == [[2, 0], [3, 0], [4, 3], [5, 0]])
    }
}
