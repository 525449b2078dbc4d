/// The last events, in memory, so that consumers at the tail are not fed from disk.
struct Tail: Sendable {
    private static let byteLimit = 8 << 20
    private var runs: [EventRun] = []
    private var start = 0
    private var bytes = 0

    /// The first number held.
    var first: UInt64? { start < runs.count ? runs[start].firstSeq : nil }

    /// The batch that holds the event, and its place in there.
    func find(_ seq: UInt64) -> (run: EventRun, index: Int)? {
        guard let first, seq >= first, let last = runs.last, seq <= last.lastSeq else { return nil }
        var low = start
        var high = runs.count
        // Most are near the end.
        if seq >= last.firstSeq { low = runs.count - 1 }
        while high - low > 1 {
            let middle = (low + high) / 2
            if runs[middle].firstSeq <= seq { low = middle } else { high = middle }
        }
        return (runs[low], Int(seq - runs[low].firstSeq))
    }

    func record(_ seq: UInt64) -> StoredRecord? { find(seq).map { $0.run[$0.index] } }

    mutating func append(_ run: EventRun) {
        guard !run.isEmpty else { return }
        runs.append(run)
        bytes += run.bytes.count
        while bytes > Self.byteLimit, start < runs.count {
            bytes -= runs[start].bytes.count
            runs[start].bytes = []
            start += 1
        }
        if start > 1024, start > runs.count / 2 {
            runs.removeFirst(start)
            start = 0
        }
    }
}
