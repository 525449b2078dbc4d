import Foundation
import Wire

/// Takes events out of a segment file.
enum LogReading {
    private static let chunk = 256 << 10

    /// Appends events from `wanted` on; true when `bytes` is reached. Throws `DamagedRange` when the first wanted event cannot
    /// be read; later damage ends the collection before it.
    static func collect(
        _ segment: Segment, _ wanted: inout UInt64, last: UInt64, bytes: Int, _ total: inout Int, _ result: inout [StoredRecord]
    ) throws -> Bool {
        var offset = segment.offset(near: wanted)
        var ask = min(chunk, max(4096, bytes))
        while offset < segment.end, wanted <= last {
            let data = try segment.file.read(at: offset, count: min(ask, segment.end - offset))
            ask = chunk
            var at = 0
            var isCut = false
            while wanted <= last {
                if let damage = segment.damage.first(where: { $0.from == offset + at }) {
                    if damage.first <= wanted, wanted <= damage.last {
                        guard result.isEmpty else { return true }
                        throw DamagedRange(first: damage.first, last: damage.last, place: segment.name)
                    }
                    at = damage.to - offset
                    break
                }
                guard let head = data.withUnsafeBytes({ RecordHead($0, at: at) }) else { break }
                if at + head.total > data.count {
                    guard offset + at + head.total <= segment.end else {
                        guard result.isEmpty else { return true }
                        throw DamagedRange(first: wanted, last: wanted, place: "\(segment.name), byte \(offset + at)")
                    }
                    // Once more, with as much as it takes.
                    isCut = true
                    if at == 0 { ask = max(chunk, head.total) }
                    break
                }
                if head.kind == Record.Kind.event.rawValue, head.seq >= wanted {
                    guard head.seq == wanted else {
                        guard result.isEmpty else { return true }
                        throw DamagedRange(first: wanted, last: head.seq - 1, place: segment.name)
                    }
                    let record = data[at..<at + head.total]
                    let topic = record.dropFirst(Record.fixedLength).prefix(head.topicLength)
                    result.append(StoredRecord(seq: head.seq, topic: String(decoding: topic, as: UTF8.self), bytes: record))
                    wanted += 1
                    total += head.total
                    if total >= bytes { return true }
                }
                at += head.total
            }
            // Nothing could be taken from a full read: what stands there is no record.
            if at == 0, !isCut {
                guard result.isEmpty else { return true }
                throw DamagedRange(first: wanted, last: wanted, place: "\(segment.name), byte \(offset)")
            }
            offset += at
        }
        return false
    }
}
