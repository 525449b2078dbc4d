import Foundation
import Wire

/// One file of the log, as much of it as is durable.
struct Segment: Sendable {
    /// Where an event lies; one such entry about every 64 KiB.
    struct IndexEntry: Hashable, Sendable {
        var seq: UInt64
        var offset: Int
        var time: UInt64
    }
    /// Bytes that cannot be read, and the numbers that went with them (none when first > last).
    struct Damage: Hashable, Sendable {
        var from: Int
        var to: Int
        var first: UInt64
        var last: UInt64
    }
    static let indexEvery = 64 << 10

    var file: DiskFile
    var first: UInt64
    /// End of the last durable batch: where the next one goes.
    var end: Int
    /// Bytes that are allocated and zero-filled.
    var capacity: Int
    var index: [IndexEntry] = []
    var damage: [Damage] = []
    /// Number and time of its last event; `first` - 1 and 0 when it has none.
    var last: UInt64
    var time: UInt64 = 0
    /// The chain's hash at `end`.
    var hash = Data(count: 32)
    /// How much of it is in the file of its index.
    var covered: Covered
    /// Damage was found in it: it is read again at each start, and has no index file.
    var isSuspect = false

    /// How far a segment's index file goes.
    struct Covered: Hashable, Sendable {
        var end = SegmentHeader.length
        var last: UInt64
        /// Entries of `index` that are in it.
        var entries = 0
        /// Bytes of the two files that count.
        var indexLength = 0
        var idsLength = 0
        /// Outboxes from which something was taken after it.
        var outboxes: [OutboxKey: UInt64] = [:]
    }

    init(file: DiskFile, first: UInt64, end: Int = SegmentHeader.length, capacity: Int) {
        self.file = file
        self.first = first
        self.end = end
        self.capacity = capacity
        last = first == 0 ? 0 : first - 1
        covered = Covered(last: last)
    }

    var name: String { file.path.split(separator: "/").last.map(String.init) ?? file.path }

    mutating func note(_ seq: UInt64, at offset: Int, time: UInt64) {
        guard index.last.map({ offset - $0.offset >= Self.indexEvery }) ?? true else { return }
        index.append(IndexEntry(seq: seq, offset: offset, time: time))
    }

    /// The same for all events of a batch that lies at `offset`.
    mutating func note(_ run: EventRun, at offset: Int, time: UInt64) {
        var next = index.last.map { $0.offset + Self.indexEvery } ?? 0
        for (number, place) in run.places.enumerated() where offset + Int(place.offset) >= next {
            index.append(IndexEntry(seq: run.firstSeq + UInt64(number), offset: offset + Int(place.offset), time: time))
            next = offset + Int(place.offset) + Self.indexEvery
        }
    }

    /// Where to begin looking for `seq`.
    func offset(near seq: UInt64) -> Int {
        var low = 0
        var high = index.count
        while low < high {
            let middle = (low + high) / 2
            if index[middle].seq <= seq { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? SegmentHeader.length : index[low - 1].offset
    }
}

/// The fixed part of a record, read without checking the CRC: who consumes the record checks it, end to end.
struct RecordHead {
    var length: Int
    var seq: UInt64
    var time: UInt64
    var kind: UInt8
    var flags: UInt8
    var topicLength: Int
    /// The longest event, or a batch mark that names a few ten thousand outboxes.
    static let longest = 4 << 20

    /// Bytes with the padding.
    var total: Int { (8 + length + 7) & ~7 }

    /// Nil when the buffer holds no whole head there, or one that cannot be.
    init?(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard offset >= 0, bytes.count - offset >= Record.fixedLength else { return nil }
        func u32(_ at: Int) -> UInt32 { UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + at, as: UInt32.self)) }
        func u64(_ at: Int) -> UInt64 { UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + at, as: UInt64.self)) }
        func u16(_ at: Int) -> Int { Int(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + at, as: UInt16.self))) }
        length = Int(u32(0))
        seq = u64(8)
        time = u64(16)
        kind = bytes[offset + 24]
        flags = bytes[offset + 25]
        topicLength = u16(26)
        let names = topicLength + u16(28) + u16(30)
        guard length >= 24 + names, length <= Self.longest, kind > 0 else { return nil }
    }
}
