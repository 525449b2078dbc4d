import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Rights that change, and words that are none") struct RightsTests {
    private static func rights(
        _ publish: [String] = ["**"], _ subscribe: [String] = ["**"], serve: [String] = ["echo"], key: String = ""
    ) -> Rights {
        var rights = Rights.parse(publish: publish, subscribe: subscribe, call: ["*.*"], serve: serve).0
        rights.key = key
        return rights
    }

    @Test("narrowed rights end the subscriptions and the services that they no longer allow, and those alone") func narrowed() {
        var bench = Bench()
        bench.hello("b", "bob")
        bench.hello("a", "ada")
        bench.subscribe("b", "bob", handle: 1, ["test.**"])
        bench.subscribe("b", "bob", handle: 2, ["log.one"])
        bench.say("b", "bob", Frame(.serve, handle: 9, a: 4, body: Data(#"{"service":"echo"}"#.utf8)))
        bench.say("a", "ada", Frame(.request, a: 5, b: 1000, body: RequestBody(method: "echo.x", key: "", payload: Data()).encoded()))
        _ = bench.heard("a")
        _ = bench.heard("b")
        bench.router.setRights(["bob": Self.rights(["**"], ["log.*"], serve: []), "ada": Self.rights()], now: bench.now)
        bench.pass(1)
        let told = bench.heard("b").filter { $0.known == .error }
        #expect(told.map(\.status) == [403, 403] && Set(told.map(\.handle)) == [1, 9])
        #expect(told.first { $0.handle == 1 }?.b == 0x20 && told.first { $0.handle == 9 }?.b == 0x30)
        #expect(bench.router.subscriptions.keys.map(\.handle) == [2])
        #expect(bench.heard("a").first { $0.known == .reply }?.status == 502)
        bench.say("a", "ada", Frame(.request, a: 6, b: 1000, body: RequestBody(method: "echo.x", key: "", payload: Data()).encoded()))
        #expect(bench.heard("a").first { $0.known == .reply }?.status == 503)
    }

    @Test("a name whose key was replaced loses the sessions of the old key, and the old key gets no new one") func replaced() {
        var bench = Bench()
        bench.router.setRights(["ada": Self.rights(key: "old")], now: bench.now)
        let hello = Frame(.hello, body: Data(#"{"client":"x"}"#.utf8)).encoded()
        bench.router.receive(hello, from: Data("p".utf8), user: "ada", key: "old", now: bench.now)
        bench.pass(1)
        #expect(bench.heard("p").first?.known == .welcome)
        bench.router.setRights(["ada": Self.rights(key: "new")], now: bench.now)
        bench.pass(1)
        #expect(bench.heard("p").first?.status == 403 && bench.router.sessions.isEmpty)
        bench.router.receive(hello, from: Data("p".utf8), user: "ada", key: "old", now: bench.now)
        bench.router.receive(hello, from: Data("q".utf8), user: "ada", key: "new", now: bench.now)
        bench.pass(1)
        #expect(bench.heard("p").map(\.status) == [403])
        #expect(bench.heard("q").first?.known == .welcome)
    }

    @Test("a refusal is told to the operator once a minute, in the log and as an event") func denials() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        for number in 1...5 as ClosedRange<UInt64> { bench.publish("p", "ada", from: number, ["\(number)"], topic: "git.push") }
        bench.subscribe("p", "ada", [])
        #expect(bench.flush() == 1)
        let record = (try? bench.log.read(from: 2, bytes: 1 << 20))?.first
        #expect(record?.topic == "bus.denied")
        let notes = bench.others.filter { if case .note(.notice, _) = $0 { true } else { false } }
        #expect(notes.count == 1)
        bench.pass(60_001)
        bench.hello("q", "ada")
        bench.publish("q", "ada", from: 1, ["6"], topic: "git.push")
        bench.flush()
        let types = (try? bench.log.read(from: 1, bytes: 1 << 20))?.map(\.topic).filter { $0 == "bus.denied" }
        #expect(types?.count == 2)
    }

    @Test(
        "a body where none belongs, and a BYE that is no JSON, are refused",
        arguments: [.ping, .credit, .ack, .unsubscribe, .cancel, .bye] as [Command]) func bodies(command: Command)
    {
        var bench = Bench()
        bench.hello("p", "ada")
        _ = bench.heard("p")
        bench.say("p", "ada", Frame(command, handle: 1, body: Data("x".utf8)))
        #expect(bench.heard("p").map(\.status) == [400] && bench.router.sessions.count == 1)
    }

    @Test("HELLO is told which member is wrong; an outbox's UUID may be in any spelling") func helloErrors() throws {
        var bench = Bench(outboxes: [OutboxKey(producer: "ada", outbox: Bench.box): 7])
        for (body, word) in [
            ("{}", "client"), (#"{"client":"x","heartbeat_ms":"y"}"#, "heartbeat_ms"), (#"{"client":"x","outbox":"a box"}"#, "outbox"),
        ] {
            bench.say("p", "ada", Frame(.hello, body: Data(body.utf8)))
            let answer = try #require(bench.heard("p").first)
            #expect(answer.status == 400 && String(decoding: answer.body, as: UTF8.self).contains("'\(word)'"))
        }
        bench.hello("p", "ada", outbox: Bench.box.uppercased())
        let welcome = try JSONDecoder().decode(Welcome.self, from: try #require(bench.heard("p").first).body)
        #expect(welcome.outbox_last == 7)
    }

    @Test("PING from the bus carries the log's hash") func hash() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        bench.sent.removeAll()
        bench.pass(1500)
        let ping = try #require(bench.sent.first { $0.frame.known == .ping }?.frame)
        #expect(ping.body == bench.hash && ping.b == 1)
    }
}

@Suite("Numbers and duplicates") struct NumberTests {
    @Test("a number may come again, the id decides what is new, and an acknowledgement never goes back") func reused() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.publish("p", "ada", from: 1, ["a", "b", "c"])
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 2, ["new"])
        #expect(bench.flush() == 1)
        let stored = bench.heard("p").first
        #expect(stored?.a == 3 && Bench.exceptions(stored).isEmpty)
        bench.publish("p", "ada", from: 1, ["a"])
        #expect(bench.flush() == 0)
        let answer = bench.heard("p").first
        #expect(answer?.a == 3 && Bench.exceptions(answer) == [1: 208])
        #expect(bench.router.last == 5)
    }

    @Test("an id or a topic that is no UTF-8 is refused by itself") func notText() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        var body = Publication.encode([Publication(topic: "test.a", id: "1", payload: Data())])
        body += Data([0, 6, 0, 1, 0, 0, 0, 0]) + Data("test.b".utf8) + Data([0xFF])
        body += Data([0, 2, 0, 1, 0, 0, 0, 0]) + Data([0xC3, 0x28]) + Data("3".utf8)
        body += Publication.encode([Publication(topic: "test.d", id: "4", payload: Data())])
        bench.say("p", "ada", Frame(.publish, a: 1, b: 4, body: body))
        #expect(bench.flush() == 2)
        #expect(Bench.exceptions(bench.heard("p").first) == [2: 422, 3: 422])
    }

    @Test("more events than an answer can name are refused, and many exceptions come in several answers") func many() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        bench.publish("p", "ada", from: 1, (0...4096).map { "\($0)" })
        #expect(bench.heard("p").map(\.status) == [400])
        for round in 0..<20 as Range<UInt64> {
            bench.publish("p", "ada", from: 1 + round * 4096, (0..<4096).map { "\(round)-\($0)" }, topic: "Wrong")
        }
        bench.flush()
        let answers = bench.heard("p").filter { $0.known == .publishAck }
        #expect(answers.count == 3 && answers.last?.a == 20 * 4096)
        #expect(answers.allSatisfy { $0.body.count < Limits.message })
        #expect(answers.reduce(0) { $0 + $1.body.count / 12 } == 20 * 4096)
        #expect(zip(answers, answers.dropFirst()).allSatisfy { $0.a < $1.a })
    }

    @Test("a full disk concerns those alone who had something to store") func bystander() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.hello("q", "bob")
        bench.flush()
        bench.publish("p", "ada", from: 1, ["a"])
        bench.publish("q", "bob", from: 1, ["b"], topic: "git.push")
        _ = bench.heard("p")
        _ = bench.heard("q")
        bench.router.takeBatch(bench.now).map { bench.land($0, full: true) }
        #expect(Bench.exceptions(bench.heard("p").first) == [1: 507])
        #expect(Bench.exceptions(bench.heard("q").first) == [1: 403])
        bench.publish("q", "bob", from: 2, ["c"])
        bench.flush()
        #expect(bench.heard("q").last?.body.isEmpty == true)
    }

    @Test("an id that was stored through an outbox is known to a session without one, and to bus.lookup") func lookup() throws {
        var bench = Bench()
        bench.hello("p", "ada", outbox: Bench.box)
        bench.flush()
        bench.publish("p", "ada", from: 1, ["same"])
        bench.flush()
        bench.hello("q", "ada")
        _ = bench.heard("q")
        bench.publish("q", "ada", from: 1, ["same"])
        #expect(bench.flush() == 0)
        let answer = bench.heard("q").first
        #expect(Bench.exceptions(answer) == [1: 208] && answer?.b == 2)
        func ask(_ user: String, _ peer: String, _ payload: String) -> Frame? {
            bench.say(
                peer, user,
                Frame(.request, a: 9, b: 100, body: RequestBody(method: "bus.lookup", key: "", payload: Data(payload.utf8)).encoded()))
            return bench.heard(peer).last
        }
        let found = try #require(ask("ada", "q", #"{"id":"same"}"#))
        #expect(found.status == 200 && String(decoding: found.body, as: UTF8.self) == #"{"seq":2}"#)
        bench.hello("b", "bob")
        #expect(ask("bob", "b", #"{"id":"same"}"#)?.status == 404)
        #expect(ask("bob", "b", "[]")?.status == 400)
    }

    @Test("the last million ids are remembered, and younger ones as far as memory allows", .timeLimit(.minutes(1))) func window() {
        var ids = RecentIDs(least: 1000, most: 1500)
        let second: UInt64 = 1_000_000_000
        func key(_ number: Int) -> RecentIDs.Key { IDHash().key("ada", "\(number)") }
        for number in 0..<5000 { ids.insert(key(number), seq: UInt64(number), time: 10 * second) }
        // All within the hour: as many as there is room for.
        #expect(ids.count == 1500)
        for number in 0..<5000 { #expect((ids.seq(key(number)) == nil) == (number < 3500)) }
        ids.insert(key(5000), seq: 5000, time: 4000 * second)
        #expect(ids.count == 1000)
        for number in 0...5000 { #expect((ids.seq(key(number)) == nil) == (number < 4001)) }
        // The first number stays.
        ids.insert(key(5000), seq: 9999, time: 4000 * second)
        #expect(ids.seq(key(5000)) == 5000)
    }

    @Test("what could not be stored is stored with the next attempt") func putBack() {
        var bench = Bench()
        bench.hello("p", "ada", outbox: Bench.box)
        bench.publish("p", "ada", from: 1, ["a", "b", "c"])
        bench.flush()
        bench.subscribe("p", "ada", consumer: "worker")
        bench.settle()
        let consumer = ConsumerKey(owner: "ada", name: "worker")
        let generation = bench.heard("p").first { $0.known == .subscribed }?.b ?? 0
        bench.say("p", "ada", Frame(.ack, handle: 1, a: 2, b: generation))
        let lost = bench.router.takeChanges()
        #expect(lost.outboxes == [OutboxKey(producer: "ada", outbox: Bench.box): 3] && !bench.router.hasChanges)
        bench.say("p", "ada", Frame(.ack, handle: 1, a: 3, b: generation))
        bench.router.putBack(lost)
        let again = bench.router.takeChanges()
        #expect(again.cursors[consumer]?.seq == 3 && again.outboxes == lost.outboxes)
        bench.router.putBack(again)
        #expect(bench.router.takeChanges().cursors == again.cursors)
    }

    @Test("a late ACK of a session that was fenced is told so, and one of another generation ends the deliveries") func lateAcks() {
        var bench = Bench()
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", consumer: "worker")
        let old = bench.heard("c").first { $0.known == .subscribed }?.b ?? 0
        // Above everything that an earlier start can have given out.
        #expect(old == 3 << 32 + 1)
        bench.hello("d", "bob")
        bench.subscribe("d", "bob", handle: 4, consumer: "worker")
        _ = bench.heard("c")
        bench.say("c", "bob", Frame(.ack, handle: 1, a: 1, b: old))
        let bye = bench.heard("c")
        #expect(bye.map(\.known) == [.bye] && bye[0].status == 410 && bye[0].handle == 1)
        bench.say("d", "bob", Frame(.ack, handle: 4, a: 1, b: old))
        #expect(bench.heard("d").last?.status == 410)
        bench.publish("d", "bob", from: 1, ["x"])
        bench.flush()
        bench.pass(300)
        #expect(!bench.heard("d").contains { $0.known == .events })
    }
}

@Suite("Consumers that fall behind") struct LagTests {
    @Test("far behind is told once, by events, by bytes or by time, and again after it had caught up", arguments: 0..<3) func lag(
        by kind: Int
    ) {
        var bench = Bench {
            $0.windowMessages = 10_000
            $0.lag = LagWatch.Limits(
                events: kind == 0 ? 100 : 1_000_000, bytes: kind == 1 ? 5000 : 1 << 40, milliseconds: kind == 2 ? 60_000 : 1 << 40)
        }
        bench.hello("p", "ada")
        bench.hello("c", "bob")
        bench.subscribe("c", "bob", consumer: "worker", messages: 4096)
        let generation = bench.heard("c").first { $0.known == .subscribed }?.b ?? 0
        var told: Int { (try? bench.log.read(from: 1, bytes: 1 << 22))?.count { $0.topic == "bus.consumer.lagging" } ?? 0 }
        var next: UInt64 = 1
        for round in 1...2 {
            bench.publish("p", "ada", from: next, (0..<120).map { "\(round)-\($0)" })
            next += 120
            for _ in 0..<40 {
                bench.flush()
                bench.pass(2000)
                bench.say("p", "ada", Frame(.ping))
                bench.say("c", "bob", Frame(.ping))
            }
            bench.flush()
            #expect(told == round)
            bench.say("c", "bob", Frame(.ack, handle: 1, a: bench.router.last, b: generation))
            bench.pass(2000)
            bench.flush()
        }
    }
}
