import Foundation
import Wire

/// A place in the files of a log: where one who copies them goes on.
struct RawPosition: Hashable, Comparable, Sendable {
    /// First number of the segment, which names its file.
    var segment: UInt64
    /// Bytes from the start of the file; its header counts.
    var offset: Int

    static func < (a: Self, b: Self) -> Bool { (a.segment, a.offset) < (b.segment, b.offset) }
}

/// The end of a batch: what a copy that ends there says of itself.
struct BatchEnd: Hashable, Sendable {
    /// Number of the last event up to there.
    var seq: UInt64
    /// The hash chain there.
    var hash: Data
    var position: RawPosition
}

/// The log as the bytes of its files, one file after the other, each up to its last durable batch.
protocol RawLogView: LogView {
    /// Where the bytes after that batch begin; nil when no batch of this log ends so: it is not the same history.
    func position(after seq: UInt64, hash: Data) throws -> RawPosition?
    /// The first byte that is kept; nil in an empty log.
    var rawStart: RawPosition? { get }
    /// One past the last durable byte.
    var rawEnd: RawPosition { get }
    /// At most so many bytes from there on, and where they end; none when there are no more. Throws `DamagedRange` when they
    /// cannot be read, `DiskError`, and `RawGone` when that segment is not kept any more.
    func raw(from position: RawPosition, bytes: Int) throws -> (Data, RawPosition)
}

/// The segment has been removed.
struct RawGone: Error {}

extension EventLog: RawLogView {
    var rawStart: RawPosition? { segments.first.map { RawPosition(segment: $0.first, offset: 0) } }
    var rawEnd: RawPosition {
        let mark = mark
        return RawPosition(segment: mark.segment, offset: mark.offset)
    }

    func raw(from position: RawPosition, bytes: Int) throws -> (Data, RawPosition) {
        let all = segments
        guard let at = all.firstIndex(where: { $0.first == position.segment }) else { throw RawGone() }
        var segment = all[at]
        var offset = position.offset
        if offset >= segment.end {
            guard at + 1 < all.count else { return (Data(), position) }
            segment = all[at + 1]
            offset = 0
        }
        var end = min(segment.end, offset + bytes)
        if let damage = segment.damage.first(where: { $0.to > offset && $0.from < end }) {
            guard damage.from > offset else { throw DamagedRange(first: damage.first, last: damage.last, place: segment.name) }
            end = damage.from
        }
        let data = try segment.file.read(at: offset, count: end - offset)
        guard !data.isEmpty else { return (data, position) }
        return (data, RawPosition(segment: segment.first, offset: offset + data.count))
    }

    func position(after seq: UInt64, hash: Data) throws -> RawPosition? {
        // A batch without events lies where the event after it would be, perhaps at the start of the next segment.
        let all = segments
        guard let start = all.lastIndex(where: { $0.first <= max(seq, 1) }) ?? (all.isEmpty ? nil : 0) else { return nil }
        for segment in all[start...] where segment.first <= seq &+ 1 {
            if segment.first == seq &+ 1, let header = try? SegmentHeader(segment.file.read(at: 0, count: SegmentHeader.length)),
                header.previousHash == hash
            {
                return RawPosition(segment: segment.first, offset: 0)
            }
            for end in try RawBatches.ends(in: segment, from: segment.offset(near: seq), while: { $0 <= seq }) {
                if end.seq == seq, end.hash == hash { return end.position }
            }
        }
        return nil
    }
}

/// Batches as they lie in the files.
enum RawBatches {
    /// The ends of the batches of a segment from an offset on, as long as the numbers of the records satisfy the condition.
    /// Stops before what cannot be read.
    static func ends(in segment: Segment, from start: Int, while condition: (UInt64) -> Bool = { _ in true }) throws -> [BatchEnd] {
        var result: [BatchEnd] = []
        var offset = start
        while offset < segment.end {
            let data = try segment.file.read(at: offset, count: min(RecordHead.longest + 64, segment.end - offset))
            var at = 0
            while let head = data.withUnsafeBytes({ RecordHead($0, at: at) }), at + head.total <= data.count {
                // A record with a later number ends the search, but for the marks: those of an empty batch repeat the number.
                guard condition(head.seq) else { return result }
                if head.kind == Record.Kind.batchMark.rawValue {
                    guard let mark = LogScan.record(data, at), let (hash, _) = BatchCodec.readMark(mark.payload) else { return result }
                    result.append(
                        BatchEnd(
                            seq: head.seq, hash: hash, position: RawPosition(segment: segment.first, offset: offset + at + head.total)))
                }
                at += head.total
            }
            if at == 0 { return result }
            offset += at
        }
        return result
    }

    /// How many bytes the first batch takes, from its first record to its mark; nil when it is not all there. `from` is where
    /// an earlier look ended. Throws `WireError` when what stands there cannot be a record.
    static func length(_ data: Data, from: inout Int) throws -> Int? {
        try data.withUnsafeBytes { bytes in
            while bytes.count - from >= Record.fixedLength {
                guard let head = RecordHead(bytes, at: from) else { throw WireError("no record where one should be") }
                guard bytes.count - from >= head.total else { return nil }
                from += head.total
                if head.kind == Record.Kind.batchMark.rawValue {
                    defer { from = 0 }
                    return from
                }
            }
            return nil
        }
    }

    struct Checked: Sendable {
        var last: UInt64
        var hash: Data
        var time: UInt64
        var epoch: UInt64?
        var outboxes: [OutboxKey: UInt64]
        /// First event of the batch, with its place in it.
        var firstEvent: (seq: UInt64, offset: Int)?
    }

    /// Whether a batch extends what ends with that number and hash. Throws `WireError` that says why not.
    static func check(_ data: Data, after last: UInt64, hash: Data) throws -> Checked {
        var result = Checked(last: last, hash: hash, time: 0, outboxes: [:])
        var reader = Reader(data)
        while reader.remaining > 0 {
            let at = reader.position
            let record = try Record(from: &reader)
            guard (record.flags & Record.batchStart != 0) == (at == 0) else { throw WireError("a batch does not begin where it should") }
            result.time = max(result.time, record.time)
            switch Record.Kind(rawValue: record.kind) {
            case .event:
                guard record.seq == result.last &+ 1 else { throw WireError("event \(record.seq) follows \(result.last)") }
                if result.firstEvent == nil { result.firstEvent = (record.seq, at) }
                result.last = record.seq
            case .epochMark:
                guard record.seq == result.last else { throw WireError("an epoch mark with number \(record.seq) follows \(result.last)") }
                var payload = Reader(record.payload)
                result.epoch = payload.u64()
            case .batchMark:
                guard reader.remaining == 0, record.seq == result.last, let (mark, outboxes) = BatchCodec.readMark(record.payload) else {
                    throw WireError("a batch mark that does not fit after event \(result.last)")
                }
                guard BatchCodec.chain(hash, data[data.startIndex..<data.startIndex + at]) == mark else {
                    throw WireError("the batch after event \(last) does not extend the hash chain")
                }
                result.hash = mark
                result.outboxes = outboxes
                return result
            case nil:
                // Of a later version: kept as it is.
                guard record.seq == result.last else { throw WireError("a record with number \(record.seq) follows \(result.last)") }
            }
        }
        throw WireError("a batch without its mark")
    }
}
