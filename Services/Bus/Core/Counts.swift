/// What the bus has done since it started: plain numbers, added to where it happens and read by whoever asks.
struct Counts: Codable, Hashable, Sendable {
    /// Events on the device, and their bytes as records.
    var stored: UInt64 = 0
    var storedBytes: UInt64 = 0
    /// Flushes, and how long they took together.
    var batches: UInt64 = 0
    var flushNanoseconds: UInt64 = 0
    /// Events that were sent again and known.
    var duplicates: UInt64 = 0
    /// Events that were refused, by status.
    var refused: [UInt16: UInt64] = [:]
    /// What keys and tokens were not allowed, told or not.
    var denied: UInt64 = 0
    /// Events sent to consumers, live ones not counted.
    var delivered: UInt64 = 0
    /// Those of them that had been delivered before.
    var redelivered: UInt64 = 0
    /// Live events dropped for want of credit.
    var dropped: UInt64 = 0
    /// Events given up by consumers.
    var parked: UInt64 = 0
    /// Answers to calls, by status.
    var calls: [UInt16: UInt64] = [:]

    mutating func decided(_ status: UInt16) {
        if status == 208 { duplicates += 1 } else { refused[status, default: 0] += 1 }
    }
}

/// The reply to `bus.metrics`: counters, and how things stand.
struct Numbers: Codable, Hashable, Sendable {
    var counts: Counts
    var stream: String
    var epoch: UInt64
    var first: UInt64
    var last: UInt64
    var sessions: Int
    /// Keys that have a session.
    var clients: Int
    var subscriptions: Int
    /// Events that wait for the next flush, and that are in the one under way.
    var waitingEvents: Int
    var flyingEvents: Int
    /// Calls that wait for a worker, and that a worker has.
    var waitingCalls: Int
    var runningCalls: Int
    /// Names that are served.
    var services: [String]
    /// Events are refused: the disk is nearly full, or there was no room for the last batch.
    var isFull: Bool
    var consumers: [ConsumerStatus]
}

extension Router {
    func numbers() -> Numbers {
        let waiting = pools.values.reduce(0) { $0 + $1.waiting }
        return Numbers(
            counts: counts, stream: settings.stream, epoch: settings.epoch, first: log.first, last: last, sessions: sessions.count,
            clients: Set(sessions.values.map(\.user)).count, subscriptions: subscriptions.count, waitingEvents: filling.count,
            flyingEvents: flying?.count ?? 0, waitingCalls: waiting, runningCalls: calls.count - min(calls.count, waiting),
            services: pools.filter { !$0.value.workers.isEmpty }.keys.sorted(), isFull: isFull || space.isFull, consumers: consumers())
    }
}
