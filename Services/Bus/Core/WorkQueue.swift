import HeapModule

/// What a group consumer has been given and not yet settled: several sessions share one name as a work queue.
///
/// Pure; the router tells it the time (milliseconds) and hands it numbers of matching events. Every number below `next` that
/// is not in `items` is settled, so nothing grows with what is done.
///
///     new ──deliver──▶ out ──ack──▶ settled
///                     │ ▲  └─nak, ack wait over, session gone─▶ resting ──due──▶ ready ──deliver──▶ out
///                     │ └──────────────────────────────────────────────────────────────────────────┘
///                     └──terminate, or delivered too often──▶ parked
struct WorkQueue: Sendable {
    struct Policy: Hashable, Sendable {
        /// Milliseconds before an unacknowledged event goes to another session.
        var ackWait: Int64 = 30_000
        /// Deliveries before an event is parked; 0: for ever.
        var maxDeliver = 8
        /// Milliseconds before the second delivery, the third and so on.
        var backoff: [Int64] = [1000, 5000, 30_000, 120_000, 600_000]

        func pause(after deliveries: Int) -> Int64 {
            guard !backoff.isEmpty else { return 0 }
            return backoff[min(max(deliveries - 1, 0), backoff.count - 1)]
        }
    }
    enum Place: Hashable, Sendable {
        case out(SubscriptionKey, until: Int64)
        case resting(until: Int64)
        case ready
    }
    struct Item: Hashable, Sendable {
        var deliveries: Int
        var place: Place
    }
    enum Outcome: Hashable, Sendable {
        case settled
        /// To be delivered again.
        case again
        /// Not to be delivered again; the reason is for people.
        case parked(deliveries: Int, reason: String)
        /// Not this session's to decide: it was given to another meanwhile, or settled.
        case notYours
    }

    /// The next number to look at for the first time.
    var next: UInt64
    var policy = Policy()
    private(set) var items: [UInt64: Item] = [:]
    /// Numbers that were due for another delivery; some may have been settled since.
    private var ready = Heap<UInt64>()
    /// Nothing rests or runs out of time before this.
    private var dueAt = Int64.max

    init(next: UInt64) { self.next = next }

    /// After a restart: what was out is delivered again.
    init(next: UInt64, unsettled: [UInt64: Int]) {
        self.next = next
        for (seq, deliveries) in unsettled where seq < next {
            items[seq] = Item(deliveries: deliveries, place: .ready)
            ready.insert(seq)
        }
    }

    /// What is not settled, with its deliveries: what a restart needs.
    var unsettled: [UInt64: Int] { items.mapValues(\.deliveries) }

    /// Every number up to here is settled.
    var floor: UInt64 { (items.keys.min() ?? next) - 1 }

    /// The lowest number that is due for another delivery.
    mutating func nextReady() -> UInt64? {
        while let seq = ready.min {
            if items[seq]?.place == .ready { return seq }
            ready.removeMin()
        }
        return nil
    }

    /// Marks an event as given to a session; the number of this delivery, from 1.
    @discardableResult
    mutating func deliver(_ seq: UInt64, to key: SubscriptionKey, now: Int64) -> Int {
        let deliveries = (items[seq]?.deliveries ?? 0) + 1
        let until = now + policy.ackWait
        items[seq] = Item(deliveries: deliveries, place: .out(key, until: until))
        dueAt = min(dueAt, until)
        return deliveries
    }

    mutating func acknowledge(_ seq: UInt64, by key: SubscriptionKey) -> Outcome {
        guard holds(seq, key) else { return .notYours }
        items.removeValue(forKey: seq)
        return .settled
    }

    mutating func extend(_ seq: UInt64, by key: SubscriptionKey, now: Int64) -> Outcome {
        guard holds(seq, key) else { return .notYours }
        items[seq]?.place = .out(key, until: now + policy.ackWait)
        return .again
    }

    mutating func refuse(_ seq: UInt64, by key: SubscriptionKey, delay: Int64, now: Int64) -> Outcome {
        guard holds(seq, key) else { return .notYours }
        return putBack(seq, pause: delay > 0 ? delay : nil, reason: "refused by its consumer", now: now)
    }

    mutating func terminate(_ seq: UInt64, by key: SubscriptionKey) -> Outcome {
        guard let item = items[seq], holds(seq, key) else { return .notYours }
        items.removeValue(forKey: seq)
        return .parked(deliveries: item.deliveries, reason: "terminated by its consumer")
    }

    /// Takes an event out that cannot be read any more.
    mutating func drop(_ seq: UInt64) -> Int { items.removeValue(forKey: seq)?.deliveries ?? 0 }

    /// Puts a parked event back in line, as if it were new.
    mutating func retry(_ seq: UInt64) {
        items[seq] = Item(deliveries: 0, place: .ready)
        ready.insert(seq)
    }

    /// A session is gone: what it held goes to the others at once, and the delivery counts, or an event that ends each of its
    /// workers would go round for ever. One that said goodbye gives back what it has not begun. What is parked by it.
    mutating func left(_ key: SubscriptionKey, orderly: Bool) -> [(seq: UInt64, outcome: Outcome)] {
        var parked: [(seq: UInt64, outcome: Outcome)] = []
        for (seq, item) in items {
            guard case .out(key, _) = item.place else { continue }
            if orderly { items[seq]?.deliveries -= 1 }
            let outcome = putBack(seq, pause: 0, reason: "its session ended", now: 0)
            if case .parked = outcome { parked.append((seq, outcome)) }
        }
        return parked.sorted { $0.seq < $1.seq }
    }

    func isDue(_ now: Int64) -> Bool { now >= dueAt }

    /// Moves what is due; what is parked by it.
    mutating func tick(_ now: Int64) -> [(seq: UInt64, outcome: Outcome)] {
        guard now >= dueAt else { return [] }
        var parked: [(seq: UInt64, outcome: Outcome)] = []
        var due = Int64.max
        for (seq, item) in items {
            switch item.place {
            case .out(_, let until) where until <= now:
                let outcome = putBack(seq, pause: 0, reason: "not acknowledged within \(policy.ackWait) ms", now: now)
                if case .parked = outcome { parked.append((seq, outcome)) }
            case .resting(let until) where until <= now:
                items[seq]?.place = .ready
                ready.insert(seq)
            case .out(_, let until), .resting(let until): due = min(due, until)
            case .ready: break
            }
        }
        // `putBack` without a pause sets no time.
        dueAt = due
        return parked.sorted { $0.seq < $1.seq }
    }

    private func holds(_ seq: UInt64, _ key: SubscriptionKey) -> Bool {
        guard case .out(key, _)? = items[seq]?.place else { return false }
        return true
    }

    private mutating func putBack(_ seq: UInt64, pause: Int64?, reason: String, now: Int64) -> Outcome {
        guard let item = items[seq] else { return .notYours }
        if policy.maxDeliver > 0, item.deliveries >= policy.maxDeliver {
            items.removeValue(forKey: seq)
            return .parked(deliveries: item.deliveries, reason: reason)
        }
        let pause = pause ?? policy.pause(after: item.deliveries)
        if pause > 0 {
            items[seq]?.place = .resting(until: now + pause)
            dueAt = min(dueAt, now + pause)
        } else {
            items[seq]?.place = .ready
            ready.insert(seq)
        }
        return .again
    }
}

/// An event that a consumer was given too often; it stays in the log, and waits for a person.
struct Parked: Hashable, Sendable, Codable {
    var seq: UInt64
    var deliveries: Int
    var reason: String
    /// Milliseconds since 1970.
    var at: Int64
}
