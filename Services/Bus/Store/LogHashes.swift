import Foundation
import Wire

/// The hash chain by number, for a consumer that asks whether this log extends what it has seen.
extension EventLog {
    /// The hash of the batch that holds event `seq`, and of the batches without events that follow it, each of which was the log's
    /// hash while `seq` was its last event. For the number before the first, what the first segment says stood before it.
    ///
    /// Empty when the batch's mark is damaged. Throws `Trimmed` and `DiskError`.
    func hashes(at seq: UInt64) throws -> [Data] {
        let (segments, first, last) = shared.withLock { ($0.segments, $0.first, $0.last) }
        guard seq <= last else { return [] }
        guard seq + 1 >= first else { throw Trimmed(wanted: seq, first: first) }
        var hashes: [Data] = []
        var at = segments.lastIndex { $0.first <= seq } ?? 0
        if seq < first, let start = segments.first {
            at = 0
            // Of an empty log: 32 zero bytes.
            if let header = try? SegmentHeader(start.file.read(at: 0, count: SegmentHeader.length)) { hashes.append(header.previousHash) }
        }
        var isOver = false
        for segment in segments.dropFirst(at) where !isOver {
            var offset = segment.offset(near: seq)
            do {
                try LogReading.walk(segment, from: &offset) { found, at, data in
                    guard case .record(let head) = found, head.seq >= seq else { return true }
                    if head.kind == Record.Kind.batchMark.rawValue, let mark = LogScan.record(Data(data[at..<at + head.total]), 0) {
                        if head.seq == seq || hashes.isEmpty, let hash = BatchCodec.readMark(mark.payload)?.hash { hashes.append(hash) }
                        isOver = head.seq > seq
                    } else if head.kind == Record.Kind.event.rawValue, head.seq > seq, !hashes.isEmpty {
                        // The batch after it begins.
                        isOver = true
                    }
                    return !isOver
                }
            } catch let suspicion as LogReading.Suspicion {
                try? examine(suspicion.segment)
                return hashes
            }
        }
        return hashes
    }
}
