import Contracts

/// What the bookkeeping database holds of consumers.
struct ConsumerRecords: Sendable {
    var cursors: [ConsumerKey: Cursor] = [:]
    var queues: [ConsumerKey: WorkQueue] = [:]
    var parked: [ConsumerKey: [UInt64: Parked]] = [:]
    /// Rows that are not what was written, for people; what they said is forgotten.
    var spoiled: [String] = []
}

/// What the bookkeeping database has to learn.
struct Changes: Sendable {
    var cursors: [ConsumerKey: Cursor] = [:]
    /// The highest number taken from each outbox.
    var outboxes: [OutboxKey: UInt64] = [:]
    /// Nil: to be deleted, as below.
    var queues: [ConsumerKey: WorkQueue?] = [:]
    var parked: [ConsumerKey: [UInt64: Parked?]] = [:]
    /// Of which nothing remains but what the members above say; they are younger.
    var forgotten: Set<ConsumerKey> = []
}

/// A row of `GET /v1/consumers/parked`.
struct ParkedStatus: Codable, Hashable, Sendable {
    var owner: String
    var consumer: String
    /// The event's number; it stays in the log.
    var seq: UInt64
    var deliveries: Int
    var reason: String
    var at: Timestamp
}

/// A row of `GET /v1/consumers`.
struct ConsumerStatus: Codable, Hashable, Sendable {
    var owner: String
    /// Empty: ephemeral.
    var consumer: String
    var mode = "ordered"
    /// Every event up to here is done.
    var cursor: UInt64
    /// Events behind the head, foreign ones included.
    var lag: UInt64
    var connected: Bool
    /// Sessions that read it now.
    var sessions = 0
    /// Group mode: delivered and not settled.
    var unsettled = 0
    var parked = 0
    var generation: UInt64
    var filters: [String]
    /// Live events dropped for want of credit.
    var dropped: UInt64
}

extension Router {
    /// What changed since the last call, for the bookkeeping database.
    mutating func takeChanges() -> Changes {
        defer {
            changedCursors.removeAll(keepingCapacity: true)
            changedOutboxes.removeAll(keepingCapacity: true)
            changedQueues.removeAll(keepingCapacity: true)
            changedParked.removeAll(keepingCapacity: true)
            forgotten.removeAll()
        }
        var changes = Changes(outboxes: changedOutboxes.reduce(into: [:]) { $0[$1] = durableTaken[$1] })
        changes.forgotten = forgotten
        for consumer in changedQueues {
            changes.queues[consumer] = .some(queues[consumer])
            guard let queue = queues[consumer], cursors[consumer]?.seq != queue.floor else { continue }
            cursors[consumer, default: Cursor()].seq = queue.floor
            changedCursors.insert(consumer)
        }
        for consumer in changedCursors { changes.cursors[consumer] = cursors[consumer] }
        for (consumer, seqs) in changedParked {
            for seq in seqs { changes.parked[consumer, default: [:]][seq] = .some(parked[consumer]?[seq]) }
        }
        return changes
    }

    /// What could not be stored goes with the next attempt, as it is then.
    mutating func putBack(_ changes: Changes) {
        changedCursors.formUnion(changes.cursors.keys)
        changedOutboxes.formUnion(changes.outboxes.keys)
        changedQueues.formUnion(changes.queues.keys)
        for (consumer, seqs) in changes.parked { changedParked[consumer, default: []].formUnion(seqs.keys) }
        forgotten.formUnion(changes.forgotten)
    }

    /// Whether something changed that should not wait; outboxes are in the log as well.
    var hasChanges: Bool { !changedCursors.isEmpty || !changedQueues.isEmpty || !changedParked.isEmpty || !forgotten.isEmpty }

    func consumers() -> [ConsumerStatus] {
        let durable = cursors.map { key, cursor in
            let queue = queues[key]
            let seq = queue?.floor ?? cursor.seq
            let keys = members[key] ?? active[key].map { [$0] } ?? []
            return ConsumerStatus(
                owner: key.owner, consumer: key.name, mode: queue == nil ? "ordered" : "group", cursor: seq, lag: last - min(last, seq),
                connected: !keys.isEmpty, sessions: keys.count, unsettled: queue?.items.count ?? 0, parked: parked[key]?.count ?? 0,
                generation: cursor.generation, filters: keys.first.flatMap { subscriptions[$0]?.filters.map(\.text) } ?? [], dropped: 0)
        }
        let live = subscriptions.values.filter { $0.consumer == nil }.map { subscription in
            ConsumerStatus(
                owner: subscription.owner, consumer: "", cursor: subscription.unreported - 1,
                lag: last - min(last, subscription.unreported - 1), connected: true, sessions: 1, generation: 0,
                filters: subscription.filters.map(\.text), dropped: subscription.dropped)
        }
        return (durable + live).sorted { ($0.owner, $0.consumer, $0.cursor) < ($1.owner, $1.consumer, $1.cursor) }
    }
}
