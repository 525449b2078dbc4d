import Foundation
import Wire

/// Takes events out of a segment file.
enum LogReading {
    private static let chunk = 256 << 10

    /// A record that cannot be read and is not known to be damaged; the segment wants another look.
    struct Suspicion: Error { var segment: Segment }

    /// Appends the events after the run's last one; true when `bytes` is reached. Throws `DamagedRange` when the first wanted event
    /// cannot be read; later damage ends the collection before it. Throws `Suspicion` at damage that nobody has seen yet.
    static func collect(_ segment: Segment, into run: inout EventRun, last: UInt64, bytes: Int) throws -> Bool {
        var isOver = false
        var offset = segment.offset(near: run.lastSeq + 1)
        try walk(segment, from: &offset, ask: bytes) { found, at, data in
            let wanted = run.lastSeq + 1
            let gap: DamagedRange
            switch found {
            case .damage(let damage):
                guard damage.first <= wanted, wanted <= damage.last else { return true }
                gap = DamagedRange(first: damage.first, last: damage.last, place: segment.name)
            case .record(let head):
                guard head.kind == Record.Kind.event.rawValue, head.seq >= wanted else { return true }
                if head.seq == wanted {
                    run.places.append(EventRun.Place(offset: UInt32(run.bytes.count), length: UInt32(head.total)))
                    run.bytes.append(contentsOf: data[at..<at + head.total])
                    isOver = run.bytes.count >= bytes
                    return !isOver && wanted < last
                }
                gap = DamagedRange(first: wanted, last: min(last, head.seq - 1), place: segment.name)
            }
            guard !run.isEmpty else { throw gap }
            isOver = true
            return false
        }
        return isOver
    }

    enum Found {
        case record(RecordHead)
        case damage(Segment.Damage)
    }

    /// Record by record from `offset`, where one begins, each with its CRC checked; until the segment's end, or until `body`, which is
    /// also given where the record lies in which bytes, says false. `offset` is then where it stopped. Throws `Suspicion`, `DiskError`.
    static func walk(
        _ segment: Segment, from offset: inout Int, ask: Int = chunk, _ body: (Found, Int, UnsafeRawBufferPointer) throws -> Bool
    ) throws {
        var ask = min(chunk, max(4096, ask))
        while offset < segment.end {
            let count = min(ask, segment.end - offset)
            let data = try segment.file.read(at: offset, count: count)
            let (at, needed, isOver) = try data.withUnsafeBytes { try walk(segment, $0, at: offset, body) }
            offset += at
            if isOver { return }
            // Once more, with as much as the record takes; unless the file is shorter than it was.
            ask = max(chunk, needed)
            if at == 0, needed <= count || data.count < count { throw Suspicion(segment: segment) }
        }
    }

    /// How far it came, how many bytes the next record takes at least, and whether `body` wants no more.
    private static func walk(
        _ segment: Segment, _ data: UnsafeRawBufferPointer, at offset: Int, _ body: (Found, Int, UnsafeRawBufferPointer) throws -> Bool
    ) throws -> (at: Int, needed: Int, isOver: Bool) {
        var at = 0
        while at < data.count {
            if let damage = segment.damage.first(where: { $0.from == offset + at }) {
                guard try body(.damage(damage), at, data) else { return (at, 0, true) }
                at = damage.to - offset
                continue
            }
            guard let head = RecordHead(data, at: at) else {
                guard data.count - at < Record.fixedLength, offset + data.count < segment.end else { throw Suspicion(segment: segment) }
                return (at, Record.fixedLength, false)
            }
            guard offset + at + head.total <= segment.end else { throw Suspicion(segment: segment) }
            guard at + head.total <= data.count else { return (at, head.total, false) }
            guard LogScan.isSound(data, at, head) else { throw Suspicion(segment: segment) }
            guard try body(.record(head), at, data) else { return (at, 0, true) }
            at += head.total
        }
        return (at, 0, false)
    }
}
