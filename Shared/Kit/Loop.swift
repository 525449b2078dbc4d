import BusClient
import Contracts
import Dispatch
import Foundation
import GRDB
import Logging
import ServiceLifecycle
import Storage

/// What an adapter knows about the effect it performs.
public struct EffectContext: Sendable {
    /// Stable over crashes: what the effect makes can be found by it.
    public let id: EventID
    /// From 1.
    public let attempt: Int
    public let cause: EventID
    public let actor: String?
    public init(id: EventID, attempt: Int, cause: EventID, actor: String?) {
        self.id = id
        self.attempt = attempt
        self.cause = cause
        self.actor = actor
    }
}

/// The one loop of every component: takes an input, lets the core decide, commits state, outgoing events, effects, timers and
/// cursor in one transaction, then performs the effects, whose results come back as notices.
///
/// At start: state is loaded, effects left in the journal are performed again, reconcile compares with the world, and only
/// then the log is read on from the cursor. The actor runs on a queue of its own, because SQLite blocks.
public final actor Loop<C: Core>: Service {
    public typealias Perform = @Sendable (C.Effect, EffectContext) async throws -> C.Notice?
    public typealias Reconcile = @Sendable (C.State) async throws -> [C.Notice]

    private let boot: Boot
    private let store: Store
    private let perform: Perform
    private let reconcile: Reconcile
    private let executor: QueueExecutor

    private var state = C.State()
    private var loaded = false
    private var cursor: Storage.Cursor?
    private var timers: [String: Timers.Entry] = [:]
    private var timerTasks: [String: Task<Void, Never>] = [:]
    /// The effect that was begun last in each lane.
    private var lanes: [String: (id: EventID, last: Task<Void, Never>)] = [:]
    private var running: [EventID: Task<Void, Never>] = [:]
    private var started = false
    private var settling: Task<Void, Never>?

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// `perform` does an effect: a notice to hand to the core, nil when there is nothing to tell; what it throws is logged and
    /// tried again with growing pauses. `reconcile` compares the state with the world once at start.
    public init(
        _ core: C.Type, boot: Boot, store: Store, perform: @escaping Perform, reconcile: @escaping Reconcile = { _ in [] }
    ) {
        self.boot = boot
        self.store = store
        self.perform = perform
        self.reconcile = reconcile
        executor = QueueExecutor(label: "slipway.\(boot.component.rawValue).loop")
    }

    // MARK: Edges

    /// Hands news to the core; durable when it returns. Throws when the state cannot be written.
    public func submit(_ notice: C.Notice, actor: String? = nil, id: EventID? = nil) async throws {
        try load()
        try take(.notice(notice), cause: id ?? .fresh(boot.now()), actor: actor, traceparent: nil)
    }

    /// A look at the state.
    public func read<T: Sendable>(_ body: @Sendable (C.State) throws -> T) async throws -> T {
        try load()
        return try body(state)
    }

    /// Publishes an edge's own event through the outbox; durable when it returns.
    @discardableResult
    public func publish<E: Event>(_ event: E, actor: String?) async throws -> EventID {
        let envelope = Envelope(
            id: .fresh(boot.now()), source: boot.source, type: E.type, subject: event.subject, time: boot.now(), data: try event.json(),
            actor: actor)
        try await publish(envelope)
        return envelope.id
    }

    /// Publishes an envelope as it is through the outbox; durable when it returns.
    public func publish(_ envelope: Envelope) async throws {
        try store.db.writeInPlace { db in try Outbox.append(envelope, in: db) }
        boot.bus.outboxChanged()
    }

    // MARK: Running

    public func run() async throws {
        try load()
        let left = try store.db.writeInPlace { db in try Journal.all(in: db) }
        started = true
        for entry in left { begin(entry) }
        for notice in try await reconcile(state) { try take(.notice(notice), cause: .fresh(boot.now()), actor: nil, traceparent: nil) }
        // Only now: what became due while this was away may not be, when the core knows that it was away.
        for entry in timers.values where timerTasks[entry.key] == nil { arm(entry) }
        boot.bus.outboxChanged()
        await cancelWhenGracefulShutdown { await self.consume() }
        for task in running.values { task.cancel() }
        for task in timerTasks.values { task.cancel() }
        settling?.cancel()
        await settling?.value
    }

    private func consume() async {
        var pause = 0.05
        while !Task.isCancelled {
            do {
                // After a failed commit this goes back to what is written, so that nothing is skipped.
                try load()
                let from: Position = cursor.map { .seq($0.seq + 1, stream: $0.stream) } ?? .first
                let subscription = try await boot.bus.subscribe(
                    SubscriptionRequest(consumer: boot.component.rawValue, filters: C.filters, from: from))
                defer { subscription.cancel() }
                boot.health.set("log", problem: nil)
                for try await delivery in subscription {
                    if try take(delivery, stream: delivery.stream) {
                        subscription.ack(delivery.last)
                    } else {
                        settleLater(subscription)
                    }
                    pause = 0.05
                }
            } catch is CancellationError {
                return
            } catch {
                if Task.isCancelled { return }
                boot.health.set("log", problem: "cannot read the log: \(error)")
                boot.logger.error("cannot read the log", metadata: ["error": "\(error)"])
            }
            try? await Task.sleep(for: .seconds(pause))
            pause = min(pause * 2, 5)
        }
    }

    /// True when everything up to the delivery's end is written down, and may be acknowledged.
    private func take(_ delivery: Delivery, stream: String) throws -> Bool {
        try load()
        guard delivery.last > (cursor?.seq ?? 0) || cursor?.stream != stream else { return true }
        var steps: [Step<C.Effect>] = []
        for event in delivery.events where event.seq > (cursor?.seq ?? 0) || cursor?.stream != stream {
            var step = step(cause: event.id, actor: event.actor, traceparent: event.traceparent)
            C.handle(.event(event), &state, &step)
            steps.append(step)
        }
        cursor = Storage.Cursor(stream: stream, seq: delivery.last)
        // A stretch of the log that concerned nobody here needs no commit of its own each time.
        guard !steps.isEmpty else { return false }
        try commit(steps)
        return true
    }

    /// Writes the cursor down a second later, and acknowledges only then: the bus keeps every event that was not acknowledged, and
    /// may remove the others, so what it was told must never be ahead of what a restart will ask for.
    private func settleLater(_ subscription: BusSubscription) {
        guard settling == nil else { return }
        settling = Task {
            try? await Task.sleep(for: .seconds(1))
            settling = nil
            guard loaded, let cursor, (try? store.db.writeInPlace({ db in try cursor.save(in: db) })) != nil else { return }
            subscription.ack(cursor.seq)
        }
    }

    private func take(
        _ input: Input<C.Notice>, cause: EventID, actor: String?, traceparent: String?, finished: EventID? = nil, fired: String? = nil
    )
        throws
    {
        var step = step(cause: cause, actor: actor, traceparent: traceparent)
        C.handle(input, &state, &step)
        try commit([step], finished: finished, fired: fired)
    }

    private func step(cause: EventID, actor: String?, traceparent: String?) -> Step<C.Effect> {
        Step(
            now: boot.now(), host: boot.config.host, cause: cause, actor: actor, component: boot.component.rawValue,
            traceparent: traceparent)
    }

    private func commit(_ steps: [Step<C.Effect>], finished: EventID? = nil, fired: String? = nil) throws {
        var begun: [Journal.Entry] = []
        var armed: [String: Timers.Entry?] = [:]
        if let fired { armed[fired] = .some(nil) }
        var published = false
        do {
            var collector = ChangeCollector()
            try state.tables(&collector)
            try store.db.writeInPlace { db in
                for change in collector.changes { try StateRows.save(change.name, change.key, change.body, in: db) }
                if let finished { try Journal.remove(finished, in: db) }
                if let fired { try Timers.remove(fired, in: db) }
                for step in steps {
                    for envelope in step.events {
                        try Outbox.append(envelope, in: db)
                        published = true
                    }
                    for (id, effect) in step.effects {
                        let entry = Journal.Entry(id: id, cause: step.cause, actor: step.actor, effect: try Coding.encode(effect))
                        try Journal.append(entry, in: db)
                        begun.append(entry)
                    }
                    for (key, seconds) in step.wakes {
                        if let seconds {
                            let entry = Timers.Entry(
                                key: key, due: step.now.adding(seconds: seconds), seconds: seconds, cause: step.cause, actor: step.actor)
                            try Timers.set(entry, in: db)
                            armed[key] = entry
                        } else {
                            try Timers.remove(key, in: db)
                            armed[key] = .some(nil)
                        }
                    }
                }
                try cursor?.save(in: db)
            }
        } catch {
            // Memory is ahead of the file now; what was written is what counts.
            loaded = false
            boot.health.set("store", problem: "cannot write the state: \(error)")
            throw error
        }
        boot.health.set("store", problem: nil)
        for step in steps { for note in step.notes { boot.logger.info("\(note)", metadata: ["cause": "\(step.cause)"]) } }
        if published { boot.bus.outboxChanged() }
        for (key, entry) in armed {
            timerTasks.removeValue(forKey: key)?.cancel()
            timers[key] = entry
            if started, let entry { arm(entry) }
        }
        // Before the start, `run` finds them in the journal.
        guard started else { return }
        for entry in begun { begin(entry) }
    }

    private func load() throws {
        guard !loaded else { return }
        var fresh = C.State()
        let (position, entries) = try store.db.writeInPlace { db in
            var loader = RowLoader(db: db)
            try fresh.tables(&loader)
            return (try Storage.Cursor.load(in: db), try Timers.all(in: db))
        }
        state = fresh
        cursor = position
        timers = Dictionary(uniqueKeysWithValues: entries.map { ($0.key, $0) })
        loaded = true
    }

    // MARK: Effects and timers

    private func begin(_ entry: Journal.Entry) {
        guard running[entry.id] == nil else { return }
        let effect: C.Effect
        do {
            effect = try Coding.decode(C.Effect.self, from: entry.effect)
        } catch {
            boot.logger.critical(
                "an effect in the journal cannot be read and is left there", metadata: ["id": "\(entry.id)", "error": "\(error)"])
            return
        }
        let lane = C.lane(effect)
        let before = lane.flatMap { lanes[$0]?.last }
        let task = Task {
            await before?.value
            await attempt(effect, entry)
            if let lane, lanes[lane]?.id == entry.id { lanes[lane] = nil }
        }
        running[entry.id] = task
        if let lane { lanes[lane] = (entry.id, task) }
    }

    private func attempt(_ effect: C.Effect, _ entry: Journal.Entry) async {
        var number = 1
        var pause = 0.05
        defer { running[entry.id] = nil }
        while !Task.isCancelled {
            do {
                let notice = try await perform(
                    effect, EffectContext(id: entry.id, attempt: number, cause: entry.cause, actor: entry.actor))
                try load()
                if let notice {
                    try take(.notice(notice), cause: entry.id, actor: entry.actor, traceparent: nil, finished: entry.id)
                } else {
                    try store.db.writeInPlace { db in try Journal.remove(entry.id, in: db) }
                }
                return
            } catch is CancellationError where Task.isCancelled {
                return
            } catch {
                boot.logger.warning(
                    "an effect failed and is tried again", metadata: ["effect": "\(entry.id)", "attempt": "\(number)", "error": "\(error)"])
            }
            try? await Task.sleep(for: .seconds(pause))
            pause = min(pause * 2, 5)
            number += 1
        }
    }

    private func arm(_ entry: Timers.Entry) {
        // The wall clock only says how much is left after a restart; it can shorten the wait, never lengthen it.
        let left = min(max(0, entry.due.seconds(since: boot.now())), entry.seconds)
        timerTasks[entry.key] = Task {
            do { try await Task.sleep(for: .seconds(left)) } catch { return }
            fire(entry)
        }
    }

    private func fire(_ entry: Timers.Entry) {
        guard timers[entry.key] == entry, !Task.isCancelled else { return }
        timers[entry.key] = nil
        timerTasks[entry.key] = nil
        do {
            try load()
            try take(
                .timer(entry.key), cause: .derived(from: "\(entry.cause)/\(entry.key)/\(entry.due)"), actor: entry.actor, traceparent: nil,
                fired: entry.key)
        } catch {
            timers[entry.key] = entry
            timerTasks[entry.key] = Task {
                do { try await Task.sleep(for: .seconds(1)) } catch { return }
                fire(entry)
            }
        }
    }
}

/// Runs an actor on a dispatch queue of its own, so that waiting for the disk blocks none of the shared threads.
final class QueueExecutor: SerialExecutor {
    private let queue: DispatchQueue
    init(label: String) { queue = DispatchQueue(label: label) }

    func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        queue.async { unowned.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }
    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}

extension DatabaseQueue {
    /// A synchronous write, also where an asynchronous one would be chosen by the compiler.
    func writeInPlace<T>(_ body: (Database) throws -> T) throws -> T { try write(body) }
}

private struct ChangeCollector: TableVisitor {
    var changes: [(name: String, key: String, body: Data?)] = []
    mutating func table<Value>(_ name: String, _ table: inout Table<Value>) throws {
        for change in try table.takeChanges() { changes.append((name, change.key, change.body)) }
    }
}

private struct RowLoader: TableVisitor {
    let db: Database
    mutating func table<Value>(_ name: String, _ table: inout Table<Value>) throws {
        for row in try StateRows.load(name, in: db) { try table.load(row.key, row.body) }
    }
}
