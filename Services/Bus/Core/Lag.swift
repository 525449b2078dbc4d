import Contracts

/// Tells when a durable consumer falls far behind: once when it does, and again only after it had caught up by half.
struct LagWatch: Sendable {
    struct Limits: Sendable {
        var events: UInt64 = 10_000
        var bytes: UInt64 = 64 << 20
        var milliseconds: Int64 = 300_000
    }
    /// An event that was the newest at that moment. A consumer that has not come there since is that long behind.
    private struct Milestone {
        var head: UInt64
        var at: Int64
    }

    private var milestones: [ConsumerKey: Milestone] = [:]
    private var lagging: Set<ConsumerKey> = []

    /// True when this look finds the consumer beyond a limit for the first time.
    mutating func look(
        _ key: ConsumerKey, cursor: UInt64, head: UInt64, bytes: UInt64, _ limits: Limits, _ now: Int64
    ) -> (isNew: Bool, milliseconds: Int64) {
        if let known = milestones[key], cursor < known.head {} else { milestones[key] = Milestone(head: head, at: now) }
        guard cursor < head else {
            lagging.remove(key)
            return (false, 0)
        }
        let behind = now - (milestones[key]?.at ?? now)
        let events = head - cursor
        if events >= limits.events || bytes >= limits.bytes || behind >= limits.milliseconds {
            return (lagging.insert(key).inserted, behind)
        }
        if events < limits.events / 2, bytes < limits.bytes / 2, behind < limits.milliseconds / 2 { lagging.remove(key) }
        return (false, behind)
    }
}

extension Router {
    /// Once a second is often enough for minutes and megabytes.
    mutating func watchLag(_ now: Int64) {
        guard now - lagAt >= 1000 else { return }
        lagAt = now
        for (key, cursor) in cursors {
            let seq = queues[key]?.floor ?? cursor.seq
            let bytes = log.bytes(after: seq)
            let found = lag.look(key, cursor: seq, head: last, bytes: bytes, settings.lag, now)
            guard found.isNew else { continue }
            announce(
                ConsumerLagging(
                    owner: key.owner, consumer: key.name, events: last - seq, bytes: bytes, seconds: Int(found.milliseconds / 1000)))
            effects.append(.note(.warning, "'\(key.name)' of \(key.owner) is \(last - seq) events behind"))
        }
    }
}
