import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

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

    @Test("many who stand at the same place get the same, each as far as its credit goes and under its own handle") func together() {
        var bench = bench(events: 10)
        for peer in ["c", "d", "e", "f", "g"] { bench.hello(peer, "bob") }
        bench.flush()
        let last = bench.router.last
        for peer in ["c", "d"] { bench.subscribe(peer, "bob", ["**"], from: .first, messages: 100) }
        bench.subscribe("e", "bob", ["**"], from: .first, messages: 3)
        bench.subscribe("f", "bob", handle: 2, ["**"], from: .first, messages: 100)
        bench.subscribe("g", "bob", ["test.*"], from: .first, messages: 100)
        bench.settle()
        let heard = ["c", "d", "e", "f", "g"].map { peer in bench.heard(peer).filter { $0.known == .events } }
        #expect(Bench.records(heard[0]).map(\.seq) == Array(1...last))
        #expect(heard[0] == heard[1])
        #expect(Bench.records(heard[2]).map(\.seq) == [1, 2, 3])
        #expect(heard[3].allSatisfy { $0.handle == 2 } && heard[3].map(\.body) == heard[0].map(\.body))
        #expect(Bench.records(heard[4]).allSatisfy { $0.topic.hasPrefix("test.") } && Bench.records(heard[4]).count == 10)
        // What was sent is off their credit: 100 less than that, and nothing beyond.
        bench.publish("p", "ada", from: 11, (11...150).map { "\($0)" })
        bench.flush()
        bench.settle()
        for peer in ["c", "d"] { #expect(Bench.records(bench.heard(peer)).map(\.seq) == Array(last + 1...100)) }
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
            let sealed = BatchCodec.seal(batch, time: 1, previousHash: bench.hash)
            bench.log.add(sealed.run)
            bench.router.flushed(.durable(sealed.run, time: 1, hash: sealed.hash), now: bench.now)
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

    @Test("live events keep to the size of a message, and to what an id may be") func liveLimits() throws {
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
}
