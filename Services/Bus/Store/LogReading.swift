import Foundation
import Wire

/// Takes events out of a segment file.
enum LogReading {
    private static let chunk = 256 << 10

    /// Appends the events after the run's last one; true when `bytes` is reached. Throws `DamagedRange` when the first wanted event
    /// cannot be read; later damage ends the collection before it.
    static func collect(_ segment: Segment, into run: inout EventRun, last: UInt64, bytes: Int) throws -> Bool {
        var offset = segment.offset(near: run.lastSeq + 1)
        var ask = min(chunk, max(4096, bytes))
        while offset < segment.end, run.lastSeq < last {
            let data = try segment.file.read(at: offset, count: min(ask, segment.end - offset))
            ask = chunk
            var at = 0
            var isCut = false
            while run.lastSeq < last {
                let wanted = run.lastSeq + 1
                if let damage = segment.damage.first(where: { $0.from == offset + at }) {
                    if damage.first <= wanted, wanted <= damage.last {
                        guard run.isEmpty else { return true }
                        throw DamagedRange(first: damage.first, last: damage.last, place: segment.name)
                    }
                    at = damage.to - offset
                    break
                }
                guard let head = data.withUnsafeBytes({ RecordHead($0, at: at) }) else { break }
                if at + head.total > data.count {
                    guard offset + at + head.total <= segment.end else {
                        guard run.isEmpty else { return true }
                        throw DamagedRange(first: wanted, last: wanted, place: "\(segment.name), byte \(offset + at)")
                    }
                    // Once more, with as much as it takes.
                    isCut = true
                    if at == 0 { ask = max(chunk, head.total) }
                    break
                }
                if head.kind == Record.Kind.event.rawValue, head.seq >= wanted {
                    guard head.seq == wanted else {
                        guard run.isEmpty else { return true }
                        throw DamagedRange(first: wanted, last: head.seq - 1, place: segment.name)
                    }
                    run.places.append(EventRun.Place(offset: UInt32(run.bytes.count), length: UInt32(head.total)))
                    data.withUnsafeBytes { run.bytes.append(contentsOf: $0[at..<at + head.total]) }
                    if run.bytes.count >= bytes { return true }
                }
                at += head.total
            }
            // Nothing could be taken from a full read: what stands there is no record.
            if at == 0, !isCut {
                guard run.isEmpty else { return true }
                throw DamagedRange(first: run.lastSeq + 1, last: run.lastSeq + 1, place: "\(segment.name), byte \(offset)")
            }
            offset += at
        }
        return false
    }
}
