import Foundation

/// Removal of whole segments from the beginning of the log.
///
/// First the bookkeeping database learns with which number the log begins, durably; then readers do; then the files go. Should
/// the bus die in between, the next start finishes it.
extension EventLog {
    var pieces: [LogPiece] {
        shared.withLock { shared in
            shared.segments.map {
                LogPiece(
                    first: $0.first, last: $0.last, newest: $0.time,
                    bytes: UInt64($0.capacity + $0.covered.indexLength + $0.covered.idsLength))
            }
        }
    }

    /// What cannot be read, as far as that is known: each range is found when the log is opened, or by the first who reads it.
    var damage: [DamagedRange] { shared.withLock(\.damage) }

    /// Removes the segments whose events all come before `first`, which must be where a segment begins and must be written down.
    /// Throws `DiskError` when a file cannot be removed; the others are, and readers have been told all the same.
    func trim(before first: UInt64) throws {
        let gone = shared.withLock { shared -> [Segment] in
            guard let keep = shared.segments.firstIndex(where: { $0.first == first }), keep > 0 else { return [] }
            defer {
                shared.segments.removeFirst(keep)
                shared.first = first
                shared.damage.removeAll { $0.last < first }
            }
            return Array(shared.segments[..<keep])
        }
        var failure: (any Error)?
        for segment in gone {
            do { try settings.disk.remove(segment.file.path) } catch { failure = error }
            forgetIndex(segment.file.path)
        }
        if let failure { throw failure }
        if !gone.isEmpty { try directory.sync() }
    }

    /// What an earlier run did not come to: files that lie wholly before the number with which the log begins.
    static func finishTrimming(_ names: [String], _ settings: Settings, first: UInt64) throws -> [String] {
        let numbers = names.map { UInt64($0.dropLast(4)) ?? .max }
        // Only when a segment begins exactly there: a number that was spoiled must not cost a file.
        guard let keep = numbers.firstIndex(of: first) else { return names }
        for name in names[..<keep] {
            let path = "\(settings.directory)/\(name)"
            try settings.disk.remove(path)
            for path in [SegmentIndex.path(path), SegmentIndex.idsPath(path)] where access(path, F_OK) == 0 {
                try? settings.disk.remove(path)
            }
        }
        return Array(names[keep...])
    }
}
