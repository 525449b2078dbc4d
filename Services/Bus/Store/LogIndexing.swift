import Foundation
import Wire

/// Writes the index beside the segments while they grow, so that a start need not read them (`SegmentIndex`).
///
/// Nothing here is flushed and nothing is fatal: what is missing is read again.
extension EventLog {
    /// So many bytes are read at a start at most, apart from what comes with the last second.
    static let coverEvery = 2 << 20

    /// What is to be written of one segment.
    struct Cover: Sendable {
        var path: String
        var chunk: SegmentIndex.Chunk
        var before: Segment.Covered
    }

    /// What the index lacks, when it is much or when `always`; nil also when the log is not at `last`, because the ids of the
    /// events in between are not known yet. `all`: looks at every segment, not at the newest alone.
    func covers(at last: UInt64, all: Bool, always: Bool = false) -> [Cover]? {
        shared.withLock { shared in
            guard shared.last == last else { return nil }
            let newest = all ? shared.segments[...] : shared.segments.suffix(2)
            // Asked after each flush, so nothing is copied before it is known to be wanted.
            var bytes = 0
            for at in newest.indices where !newest[at].isSuspect { bytes += newest[at].end - newest[at].covered.end }
            guard always || bytes >= Self.coverEvery else { return nil }
            return newest.filter { $0.end > $0.covered.end && !$0.isSuspect }.map { segment in
                Cover(
                    path: segment.file.path,
                    chunk: SegmentIndex.Chunk(
                        stream: streamBytes, first: segment.first, from: segment.covered.end, to: segment.end, last: segment.last,
                        time: segment.time, epoch: epoch, hash: segment.hash, mark: settings.ids.mark, idsAt: segment.covered.idsLength,
                        outboxes: segment.covered.outboxes, entries: Array(segment.index.dropFirst(segment.covered.entries))),
                    before: segment.covered)
            }
        }
    }

    /// Writes them, with the ids that are remembered of their events, which are sorted by number. Throws `DiskError`.
    func write(_ covers: [Cover], ids: [RecentIDs.Remembered]) throws {
        var rest = ids[...]
        for cover in covers {
            var chunk = cover.chunk
            rest = rest.drop { $0.seq <= cover.before.last }
            let mine = rest.prefix { $0.seq <= chunk.last }
            rest = rest.dropFirst(mine.count)
            let data = SegmentIndex.encode(mine, first: chunk.first)
            chunk.ids = mine.count
            chunk.idsCRC = CRC32C.checksum(data)
            if !mine.isEmpty { try file(SegmentIndex.idsPath(cover.path), cover.before.idsLength).write(data, at: chunk.idsAt) }
            let encoded = SegmentIndex.encode(chunk)
            try file(SegmentIndex.path(cover.path), cover.before.indexLength).write(encoded, at: cover.before.indexLength)
            let isGone = shared.withLock { shared -> Bool in
                guard let at = shared.segments.lastIndex(where: { $0.first == chunk.first }), !shared.segments[at].isSuspect else {
                    return true
                }
                var covered = shared.segments[at].covered
                covered.end = chunk.to
                covered.last = chunk.last
                covered.entries += chunk.entries.count
                covered.indexLength += encoded.count
                covered.idsLength += data.count
                for (key, number) in chunk.outboxes where covered.outboxes[key] == number { covered.outboxes[key] = nil }
                shared.segments[at].covered = covered
                return false
            }
            if isGone { forgetIndex(cover.path) }
        }
        try forgetOldIDs()
    }

    private func file(_ path: String, _ length: Int) throws -> DiskFile {
        try DiskFile(path, create: length == 0, disk: settings.disk)
    }

    /// Removes what stands beside a segment.
    func forgetIndex(_ log: String) {
        for path in [SegmentIndex.path(log), SegmentIndex.idsPath(log)] where access(path, F_OK) == 0 { try? settings.disk.remove(path) }
    }

    /// Ids of events that are too old to be remembered need no room.
    private func forgetOldIDs() throws {
        let old = shared.withLock { shared -> [String] in
            var after = 0
            var old: [String] = []
            for at in shared.segments.indices.reversed() {
                if after > RecentIDs.most, shared.segments[at].covered.idsLength > 0, shared.segments[at].last < shared.last {
                    old.append(shared.segments[at].file.path)
                    shared.segments[at].covered.idsLength = 0
                }
                after += shared.segments[at].covered.idsLength / SegmentIndex.idLength
            }
            return old
        }
        for path in old where access(SegmentIndex.idsPath(path), F_OK) == 0 { try settings.disk.remove(SegmentIndex.idsPath(path)) }
    }

    /// Something in that segment cannot be read: looks at it once more, names what is found, and gives its index up. Throws
    /// `DiskError`.
    func examine(_ segment: Segment) throws {
        let (examined, found) = try LogRecovery.examine(segment, disk: settings.disk)
        let news = shared.withLock { shared -> [DamagedRange] in
            guard let at = shared.segments.lastIndex(where: { $0.first == segment.first }) else { return [] }
            shared.segments[at].index = examined.index + shared.segments[at].index.filter { $0.offset >= segment.end }
            shared.segments[at].damage = examined.damage
            shared.segments[at].isSuspect = shared.segments[at].isSuspect || !found.isEmpty
            let news = found.filter { !shared.damage.contains($0) }
            shared.damage += news
            return news
        }
        guard !found.isEmpty else { return }
        forgetIndex(segment.file.path)
        for damage in news { settings.found(damage) }
    }
}
