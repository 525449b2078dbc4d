import BusClient
import Contracts
import Foundation
import Logging
import Storage
import Synchronization
import TestKit
import Testing

@testable import Kit

/// A core that counts: every `add` is stored, announced, and leads to one effect whose result is stored too.
enum Counting: Core {
    struct State: CoreState {
        var counts = Table<Int>()
        mutating func tables(_ visit: inout some TableVisitor) throws { try visit.table("counts", &counts) }
    }
    struct Effect: Codable, Hashable, Sendable { var name: String }
    enum Notice: Codable, Sendable { case add(String), done(String), wakeAfter(Double) }
    static let filters = ["git.**"]

    static func lane(_ effect: Effect) -> String? { "one" }

    static func handle(_ input: Input<Notice>, _ state: inout State, _ step: inout Step<Effect>) {
        switch input {
        case .notice(.add(let name)):
            state.counts[name] = (state.counts[name] ?? 0) + 1
            step.publish(ComponentLeft(component: "git", reason: name))
            step.perform(Effect(name: name))
        case .notice(.done(let name)): state.counts["done:\(name)"] = (state.counts["done:\(name)"] ?? 0) + 1
        case .notice(.wakeAfter(let seconds)): step.wake("tick", after: seconds)
        case .timer(let key): state.counts["timer:\(key)"] = (state.counts["timer:\(key)"] ?? 0) + 1
        case .event: break
        }
    }
}

@Suite("The loop") struct LoopTests {
    static func boot() throws -> (Boot, String) {
        let home = NSTemporaryDirectory() + "slipway-kit-\(UUID().uuidString)"
        let config = try SuiteConfig.load(ComponentOptions(home: home), environment: [:])
        try Keyring.prepare(config)
        return (try Boot.make(.git, config, Logger(label: "test")), home)
    }

    @Test("state, event and effect are there after a crash, and the effect is done exactly until it is recorded") func crash() async throws
    {
        let (boot, home) = try Self.boot()
        defer { try? FileManager.default.removeItem(atPath: home) }
        let store = try boot.openStore(durability: .normal)
        // The first process decides and dies before any effect begins: run() was never called.
        let first = Loop(Counting.self, boot: boot, store: store, perform: { effect, _ in .done(effect.name) })
        for name in ["a", "b", "a"] { try await first.submit(.add(name)) }
        #expect(try await store.db.read { try Outbox.counts(in: $0).waiting } == 3)
        #expect(try await store.db.read { try Journal.all(in: $0).count } == 3)

        let performed = Mutex<[String]>([])
        let second = Loop(
            Counting.self, boot: boot, store: store,
            perform: { effect, context in
                if context.attempt == 1, effect.name == "b" { throw Problem(.unavailable, "not yet") }
                performed.withLock { $0.append(effect.name) }
                return .done(effect.name)
            })
        let running = Task { try await second.run() }
        defer { running.cancel() }
        try await eventually(within: 20, "the effects that were left") {
            try await second.read { $0.counts["done:a"] == 2 && $0.counts["done:b"] == 1 }
        }
        #expect(performed.withLock { $0 } == ["a", "b", "a"])
        #expect(try await second.read { $0.counts["a"] } == 2)
        #expect(try await store.db.read { try Journal.all(in: $0).isEmpty })
    }

    @Test("handling the same cause twice makes the same events") func derived() throws {
        func events() throws -> [EventID] {
            var state = Counting.State()
            var step = Step<Counting.Effect>(
                now: Timestamp(milliseconds: 0), host: try HostName("h"), cause: try EventID("01900000-0000-7000-8000-000000000000"),
                actor: nil,
                component: "git")
            Counting.handle(.notice(.add("x")), &state, &step)
            return step.events.map(\.id) + step.effects.map(\.id)
        }
        #expect(try events() == events())
        #expect(Set(try events()).count == 2)
    }

    @Test("a timer that an edge sets before the loop runs is kept") func earlyTimer() async throws {
        let (boot, home) = try Self.boot()
        defer { try? FileManager.default.removeItem(atPath: home) }
        let store = try boot.openStore(durability: .normal)
        let loop = Loop(Counting.self, boot: boot, store: store, perform: { _, _ in nil })
        _ = try await loop.read { $0.counts["a"] }
        try await loop.submit(.wakeAfter(0.01))
        let running = Task { try await loop.run() }
        defer { running.cancel() }
        try await eventually(within: 20, "the timer") { try await loop.read { $0.counts["timer:tick"] == 1 } }
    }

    @Test("a timer outlives the process that set it") func timer() async throws {
        let (boot, home) = try Self.boot()
        defer { try? FileManager.default.removeItem(atPath: home) }
        let store = try boot.openStore(durability: .normal)
        try await Loop(Counting.self, boot: boot, store: store, perform: { _, _ in nil }).submit(.wakeAfter(0.01))
        let second = Loop(Counting.self, boot: boot, store: store, perform: { _, _ in nil })
        let running = Task { try await second.run() }
        defer { running.cancel() }
        try await eventually(within: 20, "the timer") { try await second.read { $0.counts["timer:tick"] == 1 } }
        #expect(try await store.db.read { try Timers.all(in: $0).isEmpty })
    }
}
