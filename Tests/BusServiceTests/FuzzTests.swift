import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

/// Numbers that are the same in every run.
struct Dice: RandomNumberGenerator {
    var state: UInt64
    /// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
    mutating func roll(_ sides: Int) -> Int { Int(next() % UInt64(sides)) }
    mutating func pick<T>(_ list: [T]) -> T { list[roll(list.count)] }
}

/// SLIPWAY_FUZZ: how many messages; SLIPWAY_FUZZ_SEED: from where.
@Suite("Hostile clients") struct FuzzTests {
    static let count = ProcessInfo.processInfo.environment["SLIPWAY_FUZZ"].flatMap { Int($0) } ?? 100_000
    static let seed = ProcessInfo.processInfo.environment["SLIPWAY_FUZZ_SEED"].flatMap { UInt64($0) } ?? 20_261_124

    static let peers = ["a", "b", "c", "d"]
    static let users = ["ada", "bob", "eve"]
    static let json = [
        #"{"client":"x"}"#, #"{"client":"x","min":0,"max":2,"features":["y"],"heartbeat_ms":100}"#,
        #"{"client":"x","outbox":"b0b00000-0000-4000-8000-000000000001"}"#, #"{"client":"x","heartbeat_ms":-9223372036854775808}"#,
        #"{"filters":["**"]}"#, #"{"filters":["test.*"],"consumer":"c","from":"first"}"#,
        #"{"filters":["test.**"],"consumer":"g","mode":"group","ack_wait_ms":100,"max_deliver":2,"backoff_ms":[0,1]}"#,
        #"{"filters":["test.*"],"consumer":"p","poison":"park","max_deliver":1,"credit_msgs":3,"credit_bytes":1}"#,
        #"{"filters":["**"],"consumer":"c","credit_msgs":-9223372036854775808,"credit_bytes":9223372036854775807}"#,
        #"{"filters":["**"],"from":{"seq":18446744073709551615}}"#, #"{"filters":["**"],"from":{"time":"9999-12-31T23:59:59Z"}}"#,
        #"{"filters":["**"],"from":{"stream":"x","seq":3}}"#, #"{"service":"echo","idempotent":["*"]}"#, #"{"service":"echo@here"}"#, "{}",
        "[]",
    ].map { Data($0.utf8) }

    static func body(_ dice: inout Dice, _ command: Command?) -> Data {
        var body: Data
        switch (command, dice.roll(4)) {
        case (.publish, 0...2), (.emit, 0...2):
            body = Publication.encode(
                (0..<dice.roll(4)).map { _ in
                    Publication(
                        topic: dice.pick(["test.one", "test.two", "log.x", "git.y", "bad topic", ""]), id: "\(dice.roll(500))",
                        payload: Data(count: dice.roll(300)))
                })
        case (.request, 0...2):
            body = RequestBody(
                method: dice.pick([
                    "echo.say", "echo@here.say", "echo@x.y", "bus.consumers", "bus.lookup", "bus.parked.list", "bus.parked.retry", "@", ".",
                ]),
                key: dice.pick(["", "k", "l"]),
                payload: dice.pick([Data("{}".utf8), Data(#"{"consumer":"g","seq":3}"#.utf8), Data(count: 50)])
            ).encoded()
        case (.ackEach, 0...2):
            body = Verdict.encode(
                (0...dice.roll(4)).map { _ in
                    Verdict(
                        dice.pick([.ack, .nak, .inProgress, .terminate]), number(&dice), delay: UInt32(truncatingIfNeeded: number(&dice)),
                        text: dice.pick(["", "why"]))
                })
        case (.hello, 0...2): body = json[dice.roll(4)]
        case (.subscribe, 0...2): body = json[4 + dice.roll(8)]
        case (.serve, 0...2): body = json[12 + dice.roll(2)]
        case (.part, _), (.reply, _): body = Data(count: dice.roll(40))
        case (_, 0): body = dice.pick(json)
        default: body = Data()
        }
        guard dice.roll(8) == 0 else { return body }
        // Spoil it.
        switch dice.roll(4) {
        case 0 where !body.isEmpty: body[body.startIndex + dice.roll(body.count)] ^= UInt8(1 << dice.roll(8))
        case 1: body = body.prefix(dice.roll(body.count + 1))
        case 2: body.append(UInt8(truncatingIfNeeded: dice.next()))
        default: for _ in 0..<min(4, body.count) { body[body.startIndex + dice.roll(body.count)] = UInt8(truncatingIfNeeded: dice.next()) }
        }
        return Data(body)
    }

    /// How many there are in a body that is whole.
    static func publications(_ body: Data) -> UInt64 {
        for count in 0..<5 where (try? Publication.decode(body, count: UInt64(count))) != nil { return UInt64(count) }
        return 1
    }

    static func number(_ dice: inout Dice) -> UInt64 {
        switch dice.roll(10) {
        case 0: .max - UInt64(dice.roll(3))
        case 1: dice.next()
        case 2: UInt64(1) << UInt64(dice.roll(64))
        default: UInt64(dice.roll(40))
        }
    }

    @Test("random and spoiled messages of four clients never trap, and the books stay right", .timeLimit(.minutes(60))) func router() {
        var dice = Dice(state: Self.seed)
        var bench = Bench {
            $0.waitingCalls = 20
            $0.callBytes = 4000
            $0.subscriptionsPerSession = 5
            $0.unsettled = 50
            $0.parked = 50
        }
        var generations: [String: UInt64] = [:]
        for round in 0..<Self.count {
            let peer = dice.pick(Self.peers)
            // A connection belongs to one key, nearly always.
            let user = dice.roll(200) == 0 ? dice.pick(Self.users) : Self.users[Self.peers.firstIndex(of: peer).map { $0 % 3 } ?? 0]
            let code = dice.roll(30) == 0 ? UInt8(truncatingIfNeeded: dice.next()) : Self.frequent[dice.roll(Self.frequent.count)].rawValue
            let command = Command(rawValue: code)
            var frame = Frame(
                .ping, flags: dice.roll(10) == 0 ? UInt16(truncatingIfNeeded: dice.next()) : UInt16(dice.roll(2)),
                status: UInt16(truncatingIfNeeded: Self.number(&dice)), handle: UInt32(dice.roll(4)), a: Self.number(&dice),
                b: dice.roll(3) == 0 ? generations[peer] ?? 0 : Self.number(&dice), body: Self.body(&dice, command))
            frame.command = code
            if command == .publish || command == .emit, dice.roll(5) > 0 {
                frame.b = Self.publications(frame.body)
                frame.a = UInt64(1 + dice.roll(3))
            }
            if dice.roll(50) == 0 { frame.major = UInt8(truncatingIfNeeded: dice.next()) }
            var message = frame.encoded()
            if dice.roll(100) == 0 { message = Data(message.prefix(dice.roll(message.count + 1))) }
            if dice.roll(100) == 0, !message.isEmpty { message[dice.roll(message.count)] ^= UInt8(1 << dice.roll(8)) }
            bench.router.receive(message, from: Data(peer.utf8), user: dice.roll(500) == 0 ? nil : user, now: bench.now)
            if round % 16 == 0 {
                bench.flush(full: dice.roll(40) == 0)
                bench.settle()
                bench.pass(Int64(dice.roll(60)))
                for (peer, frame) in bench.sent where frame.known == .subscribed {
                    generations[String(decoding: peer, as: UTF8.self)] = frame.b
                }
                check(&bench, round)
                bench.sent.removeAll()
                bench.others.removeAll()
                if dice.roll(60) == 0 { bench.router.unreachable(Data(dice.pick(Self.peers).utf8), now: bench.now) }
                if bench.router.isDraining { bench.router.isDraining = false }
            }
        }
        // When all are gone, nothing of them is left.
        for peer in Self.peers { bench.router.unreachable(Data(peer.utf8), now: bench.now) }
        bench.flush()
        bench.pass(700_000)
        #expect(bench.router.sessions.isEmpty && bench.router.subscriptions.isEmpty && bench.router.turns.isEmpty)
        #expect(bench.router.calls.isEmpty && bench.router.pools.isEmpty && bench.router.callBytes == 0)
        #expect(bench.router.callsByCaller.isEmpty && bench.router.callsByKey.isEmpty)
    }

    private static let frequent: [Command] = [
        .hello, .publish, .publish, .publish, .emit, .subscribe, .subscribe, .credit, .credit, .ack, .ackEach, .ackEach, .unsubscribe,
        .serve,
        .request, .request, .request, .part, .reply, .reply, .cancel, .ping, .pong, .bye,
    ]

    private func check(_ bench: inout Bench, _ round: Int) {
        let router = bench.router
        #expect(router.sessions.count <= Self.peers.count, "\(round)")
        #expect(router.turns.count == router.subscriptions.count, "\(round)")
        #expect(router.callBytes == router.calls.values.reduce(0) { $0 + $1.payload.count }, "\(round)")
        #expect(router.callsByCaller.count == router.calls.count, "\(round)")
        for pool in router.pools.values {
            #expect(pool.waiting == pool.waitingCalls.count, "\(round)")
            for worker in pool.workers {
                #expect(worker.busy == router.calls.values.count { $0.worker == worker.key } && worker.busy <= worker.room, "\(round)")
            }
        }
        for subscription in router.subscriptions.values {
            #expect(subscription.creditMessages <= Int64(router.settings.creditMessages), "\(round)")
            #expect(subscription.next <= router.last + 1 && subscription.unreported <= subscription.next, "\(round)")
        }
        for (key, cursor) in router.cursors { #expect(cursor.seq <= router.last, "\(round): \(key)") }
        for session in router.sessions.values { #expect(session.unackedMessages >= 0 && session.unackedBytes >= 0, "\(round)") }
    }
}
