import Contracts
import Foundation
import Testing
import Wire

@testable import BusClient

struct Tick: Event {
    static let type: EventType = "log.tick"
    var n: Int
    var subject: String { "tick" }
}

struct Double2: Query {
    static let method = "calc.double"
    struct Reply: Codable, Sendable { var value: Int }
    var value: Int
}

@Suite("the bus client", .timeLimit(.minutes(1))) struct BusClientTests {
    @Test("joins, says who the bus is, and leaves with a goodbye") func joins() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            #expect(!client.isConnected || client.session != nil)
            #expect(await client.connected(within: 5))
            #expect(client.session?.name == "test")
        }
        try await eventually("BYE 200") { bus.heard(.bye).first?.status == 200 }
    }

    @Test("a bus that is not there is no error, and is joined when it comes") func late() async throws {
        let bus = FakeBus()
        bus.stop()
        try await withClient(bus.configuration()) { client in
            #expect(await !client.connected(within: 0.3))
            bus.start()
            #expect(await client.connected(within: 10))
        }
    }

    @Test("a wrong server key is told in words") func wrongKey() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration(server: FakeBus.pair().0)) { client in
            try await eventually("an error") { client.lastError != nil }
            #expect(!client.isConnected)
        }
    }

    @Test("a key that is none is refused before anything is opened") func noKey() throws {
        let configuration = BusClientConfiguration(
            endpoint: "tcp://127.0.0.1:1", serverKey: "x", publicKey: "y", secretKey: "z", clientName: "t", version: "0")
        #expect(throws: Problem.self) { try configuration.check() }
    }

    @Test("a client goes to the bus's other endpoint when the first one is gone, tells it what it saw, and leaves a bus that was replaced")
    func failover() async throws {
        let pair = FakeBus.pair()
        let first = FakeBus(key: pair)
        let second = FakeBus(key: pair)
        second.state.withLock { $0.epoch = 1 << 20 }
        var configuration = first.configuration()
        configuration.alternatives = [second.endpoint]
        try await withClient(configuration) { client in
            #expect(await client.connected(within: 10))
            #expect(client.session?.epoch == 1)
            first.stop()
            try await eventually("a session with the second") { client.session?.epoch == 1 << 20 }
            let hello = try #require(second.heard(.hello).last)
            #expect(try JSONDecoder().decode(Hello.self, from: hello.body).epoch == 1)
            // The old one is back, and the new one away: no session, however long it offers one.
            first.start()
            second.stop()
            try await eventually("the old one is told of the new epoch") {
                try first.heard(.hello).contains {
                    let hello = try JSONDecoder().decode(Hello.self, from: $0.body)
                    return hello.epoch == 1 << 20 && hello.witness == "witness of \(1 << 20)"
                }
            }
            try await eventually("why") { client.lastError?.contains("does not extend") == true }
            #expect(!client.isConnected)
            second.start()
            try await eventually("a session with the new one") { client.session?.epoch == 1 << 20 }
        }
    }

    @Test("everything in the outbox arrives once and in order, whatever happens to the session") func outbox() async throws {
        let bus = FakeBus()
        let outbox = MemoryOutbox()
        for _ in 0..<100 { outbox.add() }
        try await withClient(bus.configuration(), outbox: outbox) { client in
            for round in 0..<5 {
                for _ in 0..<100 { outbox.add(skipping: round == 2 ? 1 : 0) }
                client.outboxChanged()
                switch round {
                case 0: bus.state.withLock { $0.forgetSessions = true }
                case 1: bus.state.withLock { $0.swallowAcks = true }
                case 2:
                    bus.stop()
                    bus.state.withLock { $0.swallowAcks = false }
                    bus.start()
                case 3: bus.state.withLock { $0.refusePublications = 3 }
                default: bus.state.withLock { $0.sayGoodbye = true }
                }
                try await Task.sleep(for: .milliseconds(50))
            }
            outbox.state.withLock { $0.failSettle = 1 }
            outbox.add()
            client.outboxChanged()
            try await eventually("all settled", within: 20) { outbox.state.withLock { $0.entries.isEmpty } }
        }
        let numbers = bus.state.withLock { $0.log.compactMap { try? Coding.decode(Envelope.self, from: $0.payload).data["n"]?.int } }
        #expect(numbers.count == 601)
        #expect(numbers == numbers.sorted() && Set(numbers).count == numbers.count)
        #expect(outbox.state.withLock { $0.refused.isEmpty })
    }

    @Test("an event that the bus will never take is set aside, those after it go on") func refused() async throws {
        let bus = FakeBus()
        bus.state.withLock { $0.forbidden = [2] }
        let outbox = MemoryOutbox()
        outbox.add()
        outbox.add()
        outbox.add(payload: Data(count: Limits.payload + 1))
        outbox.add()
        try await withClient(bus.configuration(), outbox: outbox) { _ in
            try await eventually("all settled") { outbox.state.withLock { $0.settled == 4 } }
        }
        #expect(outbox.state.withLock { $0.refused.map(\.status) } == [403, 413])
        #expect(bus.state.withLock { $0.log.count } == 2)
    }

    @Test("a subscription goes on over restarts without a gap and without a repeat") func follows() async throws {
        let bus = FakeBus()
        for n in 0..<300 {
            bus.append(
                n % 3 == 0 ? "git.push.received" : "deploy.started",
                payload: envelope(n % 3 == 0 ? "git.push.received" : "deploy.started", Int64(n)))
        }
        try await withClient(bus.configuration()) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(consumer: "t", filters: ["git.**"], from: .first))
            #expect(!subscription.stream.isEmpty)
            var seen: [UInt64] = []
            for try await delivery in subscription {
                seen += delivery.events.map(\.seq)
                subscription.ack(delivery.last)
                if seen.count == 100 {
                    bus.stop()
                    for n in 300..<400 { bus.append("git.push.received", payload: envelope("git.push.received", Int64(n))) }
                    bus.start()
                }
                if seen.count >= 200 { break }
            }
            #expect(seen.count == 200)
            #expect(seen == seen.sorted() && Set(seen).count == seen.count)
            try await eventually("the last ACK") { bus.state.withLock { $0.acks.last == 400 } }
        }
        // A machine that stops for a moment brings more sessions than the two; each goes on from where the reader is.
        let again = bus.heard(.subscribe).dropFirst().compactMap { try? JSONDecoder().decode(SubscribeBody.self, from: $0.body).from }
        #expect(again.contains(.seq(301, stream: bus.state.withLock(\.stream))))
    }

    @Test("a reader that does not take gets no more than its credit, and then all of it") func credit() async throws {
        let bus = FakeBus()
        for n in 0..<5000 { bus.append("a.b", payload: envelope("a.b", Int64(n))) }
        var configuration = bus.configuration()
        configuration.creditMessages = 200
        try await withClient(configuration) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(filters: ["a.b"], from: .first))
            try await Task.sleep(for: .milliseconds(200))
            #expect(bus.state.withLock { $0.credits.isEmpty })
            var count = 0
            for try await delivery in subscription {
                #expect(delivery.events.count <= 200)
                count += delivery.events.count
                if count == 5000 { break }
            }
            #expect(count == 5000)
        }
    }

    @Test("an event that cannot be read is skipped and counted, the stream goes on") func unreadable() async throws {
        let bus = FakeBus()
        bus.append("a.b", payload: Data("nonsense".utf8))
        bus.append("a.b", payload: envelope("c.d"))
        bus.append("a.b", payload: envelope("a.b"))
        try await withClient(bus.configuration()) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(filters: ["**"], from: .first))
            var iterator = subscription.makeAsyncIterator()
            let delivery = try await iterator.next()
            #expect(delivery?.events.map(\.sequence) == [Envelope.digits(3)])
            #expect(subscription.unreadable == 2)
        }
    }

    @Test("a long stretch without a match is told of, and acknowledged when the reader is done") func silence() async throws {
        let bus = FakeBus()
        for _ in 0..<600 { bus.append("x.y", payload: envelope("x.y")) }
        var configuration = bus.configuration()
        configuration.heartbeat = 100
        try await withClient(configuration) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(consumer: "t", filters: ["a.b"], from: .first))
            var iterator = subscription.makeAsyncIterator()
            let delivery = try await iterator.next()
            #expect(delivery?.events.isEmpty == true && (delivery?.last ?? 0) >= 256)
            subscription.ack(delivery?.last ?? 0)
            for _ in 0..<10 { bus.append("x.y", payload: envelope("x.y")) }
            try await eventually("the cursor moves on") { bus.state.withLock { $0.acks.last == 610 } }
            subscription.cancel()
        }
    }

    @Test("a reader that waits to have caught up is told, even when nothing matched") func caughtUp() async throws {
        let bus = FakeBus()
        for _ in 0..<10 { bus.append("x.y", payload: envelope("x.y")) }
        try await withClient(bus.configuration()) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(filters: ["a.b"], from: .first))
            #expect(subscription.head == 10)
            var iterator = subscription.makeAsyncIterator()
            let delivery = try await iterator.next()
            #expect(delivery?.events.isEmpty == true && delivery?.last == 10)
        }
    }

    @Test("what is lost, fenced or forbidden ends the sequence with a problem that names it") func ends() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            let lost = try await client.subscribe(SubscriptionRequest(filters: ["a.b"], from: .new))
            bus.state.withLock { $0.loseSubscriptions = true }
            let gone = await #expect(throws: Problem.self) { for try await _ in lost {} }
            #expect(gone?.code == .gone && gone?.message.contains("event 5") == true)
            let fenced = try await client.subscribe(SubscriptionRequest(consumer: "t", filters: ["a.b"], from: .new))
            bus.state.withLock { $0.fence = true }
            #expect(await #expect(throws: Problem.self) { for try await _ in fenced {} }?.code == .conflict)
            let forbidden = await #expect(throws: Problem.self) {
                try await client.subscribe(SubscriptionRequest(filters: ["secret.**"], from: .new))
            }
            #expect(forbidden?.code == .forbidden)
            let malformed = await #expect(throws: Problem.self) {
                try await client.subscribe(SubscriptionRequest(filters: ["a..b"], from: .new))
            }
            #expect(malformed?.code == .malformed)
        }
    }

    @Test("a cancelled reader ends quietly") func cancelled() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(filters: ["a.b"], from: .new))
            let reader = Task { for try await _ in subscription {} }
            try await Task.sleep(for: .milliseconds(20))
            reader.cancel()
            try await reader.value
        }
    }

    @Test("live events reach who listens") func emits() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            let subscription = try await client.subscribe(SubscriptionRequest(filters: ["log.**"], from: .new))
            client.emit(Tick(n: 7), source: "test@here")
            var iterator = subscription.makeAsyncIterator()
            let delivery = try await iterator.next()
            #expect(delivery?.first == 0 && delivery?.events.first?.as(Tick.self)?.n == 7)
        }
    }

    @Test("a query is answered, its problem is the server's, large replies come in parts") func queries() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            client.serve(
                "calc",
                QueryRoutes().on(Double2.self) { query, caller in
                    guard query.value >= 0 else { throw Problem(.invalid, "\(caller) asks for a negative number", hint: "ask for another") }
                    return .init(value: query.value * 2)
                })
            client.serve("big", concurrency: 1) { _, _, _ in Data(repeating: 7, count: 3_000_000) }
            #expect(await client.connected(within: 5))
            #expect(try await client.call(Double2(value: 21), timeout: 5).value == 42)
            let problem = await #expect(throws: Problem.self) { try await client.call(Double2(value: -1), timeout: 5) }
            #expect(problem == Problem(.invalid, "test asks for a negative number", hint: "ask for another"))
            #expect(try await client.call("big.one", Data(), timeout: 5).count == 3_000_000)
            let unknown = await #expect(throws: Problem.self) { try await client.call("calc.nothing", Data("{}".utf8), timeout: 5) }
            #expect(unknown?.code == .notFound)
            let many = try await withThrowingTaskGroup(of: Int.self) { group in
                for n in 0..<200 { group.addTask { try await client.call(Double2(value: n), timeout: 10).value } }
                return try await group.reduce(0, +)
            }
            #expect(many == 39800)
        }
    }

    @Test("queries end by their deadline with a problem that says why") func deadlines() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            #expect(await client.connected(within: 5))
            bus.state.withLock { $0.requestStatuses = [0] }
            let silent = await #expect(throws: Problem.self) { try await client.call(Double2(value: 1), timeout: 0.2) }
            #expect(silent?.code == .timeout)
            let nobody = await #expect(throws: Problem.self) { try await client.call(Double2(value: 1), timeout: 3) }
            #expect(nobody?.code == .unavailable)
            bus.stop()
            let away = await #expect(throws: Problem.self) { try await client.call(Double2(value: 1), timeout: 0.2) }
            #expect(away?.code == .unavailable)
            let hurried = Task { try await client.call(Double2(value: 1), timeout: 60) }
            hurried.cancel()
            await #expect(throws: Problem.self) { try await hurried.value }
        }
    }

    @Test("an open query is repeated under the same key when its server or the bus went away") func repeats() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            client.serve("calc", QueryRoutes().on(Double2.self) { query, _ in .init(value: query.value * 2) })
            #expect(await client.connected(within: 5))
            bus.state.withLock { $0.requestStatuses = [502, 502, 0] }
            async let reply = client.call(Double2(value: 4), timeout: 10)
            try await eventually("three attempts") { bus.heard(.request).count >= 3 }
            bus.stop()
            bus.start()
            #expect(try await reply.value == 8)
            let keys = Set(bus.heard(.request).compactMap { try? RequestBody($0.body).key })
            #expect(keys.count == 1)
        }
    }

    @Test("a bus that falls silent is noticed, and joined again when it speaks") func silent() async throws {
        let bus = FakeBus()
        try await withClient(bus.configuration()) { client in
            #expect(await client.connected(within: 5))
            bus.state.withLock { $0.silent = true }
            try await eventually("noticed") { !client.isConnected }
            #expect(client.lastError?.contains("silent") == true)
            bus.state.withLock { $0.silent = false }
            #expect(await client.connected(within: 10))
        }
    }
}
