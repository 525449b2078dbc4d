import Contracts

/// A file of the log, as retention sees it.
struct LogPiece: Hashable, Sendable {
    /// Number of its first event, and of its last (first - 1 when it has none).
    var first: UInt64
    var last: UInt64
    /// Time of its last event in nanoseconds since 1970.
    var newest: UInt64
    var bytes: UInt64
}

/// What of the log may go (bus-protocol.md, 4.3): pieces that are old and that no durable consumer needs any more; and when the
/// log is larger than it may be, the oldest ones in any case.
struct Retention: Hashable, Sendable {
    /// Nanoseconds; nil: age alone removes nothing.
    var maxAge: UInt64?
    /// Nil: no limit.
    var maxBytes: UInt64?

    /// The number with which the log should begin, when it is another one than now. Whole pieces go, oldest first, never the last.
    ///
    /// `needed`: the lowest number that a durable consumer has not done with. `now` in nanoseconds since 1970.
    func beginning(of pieces: [LogPiece], needed: UInt64, now: UInt64) -> UInt64? {
        var bytes = pieces.reduce(UInt64(0)) { $0 + $1.bytes }
        var beginning: UInt64?
        for (piece, following) in zip(pieces, pieces.dropFirst()) {
            let isOld = maxAge.map { piece.newest < now && now - piece.newest > $0 } ?? false
            let isOver = maxBytes.map { bytes > $0 } ?? false
            guard isOver || (isOld && piece.last < needed) else { break }
            bytes -= piece.bytes
            beginning = following.first
        }
        return beginning
    }
}

extension Router {
    /// The lowest number that a durable consumer has not done with; `last` + 1 when all have seen everything.
    var needed: UInt64 {
        cursors.reduce(last + 1) { lowest, entry in min(lowest, (queues[entry.key]?.floor ?? entry.value.seq) + 1) }
    }

    /// The number with which the log should begin from now on; nil when nothing is to go. `wall` in nanoseconds since 1970.
    mutating func trim(wall: UInt64) -> UInt64? {
        guard let beginning = settings.retention.beginning(of: log.pieces, needed: needed, now: wall) else { return nil }
        effects.append(.note(.info, "events before \(beginning) are removed from the log"))
        for (key, cursor) in cursors {
            let seq = queues[key]?.floor ?? cursor.seq
            guard seq + 1 < beginning, seq < last else { continue }
            effects.append(
                .note(
                    .warning,
                    "the log is larger than 'max_bytes': '\(key.name)' of \(key.owner) has read up to \(seq) and loses events up to \(beginning - 1)"
                ))
        }
        return beginning
    }
}
