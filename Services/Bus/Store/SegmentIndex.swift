import Foundation
import Wire

/// What a start would otherwise find out by reading a segment: written beside it while it grows, as `NUMBER.index`, and the ids
/// of its events as `NUMBER.ids`.
///
/// Only a shortcut: it is never flushed, and what is missing or wrong in it is read from the segment again. A segment in which
/// damage was found has none, so that it is looked at, and named, at each start.
///
/// The index is a list of chunks, each for the bytes of the segment after those of the chunk before, up to the end of a batch. A
/// chunk: `u32` length of what follows the CRC, `u32` CRC32C of it, then stream (16 bytes), and as `u64` each: first number of the
/// segment, first byte, end byte, last number, its time, epoch; the chain's hash there (32 bytes); `u64` where its ids begin in the
/// other file, `u32` how many, `u32` their CRC32C; `u32` count of outboxes, each `u16` + producer, `u16` + outbox, `u64` highest number;
/// `u32` count of entries, each `u64` number, offset, time; `u64` mark of the secret under which its ids were hashed. An id: 16 bytes of its hash, `u32` number less the segment's first, `u32`
/// seconds since 1970.
struct SegmentIndex: Sendable {
    struct Chunk: Hashable, Sendable {
        var stream: Data
        var first: UInt64
        var from: Int
        var to: Int
        var last: UInt64
        var time: UInt64
        var epoch: UInt64
        var hash: Data
        /// `IDHash.mark`.
        var mark: UInt64
        var idsAt = 0
        var ids = 0
        var idsCRC: UInt32 = 0
        var outboxes: [OutboxKey: UInt64]
        var entries: [Segment.IndexEntry]
    }
    static let idLength = 24

    var chunks: [Chunk] = []
    /// Where the next chunk goes.
    var length = 0

    static func path(_ log: String) -> String { log.dropLast(4) + ".index" }
    static func idsPath(_ log: String) -> String { log.dropLast(4) + ".ids" }

    /// The chunks that are right and follow each other from the segment's first byte on. Nil when there are none. `mark` nil: under
    /// whichever secret.
    init?(of log: String, stream: Data, first: UInt64, mark: UInt64?, disk: Disk) {
        let path = Self.path(log)
        guard let file = try? DiskFile(path, readOnly: true, disk: disk), let size = try? file.size(), size <= 256 << 20,
            let data = try? file.read(at: 0, count: size)
        else { return nil }
        var reader = Reader(data)
        while let length = reader.u32(), let crc = reader.u32(), let body = reader.bytes(Int(length)) {
            guard CRC32C.checksum(body) == crc, let chunk = Self.decode(body), chunk.stream == stream, chunk.first == first,
                chunk.mark == mark ?? chunk.mark,
                chunk.from == chunks.last?.to ?? SegmentHeader.length, chunk.to > chunk.from
            else { break }
            chunks.append(chunk)
            self.length += 8 + Int(length)
        }
        if chunks.isEmpty { return nil }
    }

    static func encode(_ chunk: Chunk) -> Data {
        var writer = Writer(capacity: 160 + chunk.entries.count * 24)
        writer.bytes(chunk.stream)
        for number in [chunk.first, UInt64(chunk.from), UInt64(chunk.to), chunk.last, chunk.time, chunk.epoch] { writer.u64(number) }
        writer.bytes(chunk.hash)
        writer.u64(UInt64(chunk.idsAt))
        writer.u32(UInt32(chunk.ids))
        writer.u32(chunk.idsCRC)
        writer.u32(UInt32(chunk.outboxes.count))
        for (key, number) in chunk.outboxes {
            writer.u16(UInt16(clamping: key.producer.utf8.count))
            writer.text(key.producer)
            writer.u16(UInt16(clamping: key.outbox.utf8.count))
            writer.text(key.outbox)
            writer.u64(number)
        }
        writer.u32(UInt32(chunk.entries.count))
        for entry in chunk.entries {
            writer.u64(entry.seq)
            writer.u64(UInt64(entry.offset))
            writer.u64(entry.time)
        }
        writer.u64(chunk.mark)
        var framed = Writer(capacity: writer.data.count + 8)
        framed.u32(UInt32(writer.data.count))
        framed.u32(CRC32C.checksum(writer.data))
        framed.bytes(writer.data)
        return framed.data
    }

    private static func decode(_ body: Data) -> Chunk? {
        var reader = Reader(body)
        guard let stream = reader.bytes(16), let first = reader.u64(), let from = reader.u64().flatMap({ Int(exactly: $0) }),
            let to = reader.u64().flatMap({ Int(exactly: $0) }), let last = reader.u64(), let time = reader.u64(),
            let epoch = reader.u64(), let hash = reader.bytes(32), let idsAt = reader.u64().flatMap({ Int(exactly: $0) }),
            let ids = reader.u32(), let idsCRC = reader.u32(), let boxes = reader.u32()
        else { return nil }
        var outboxes: [OutboxKey: UInt64] = [:]
        for _ in 0..<boxes {
            guard let producerLength = reader.u16(), let producer = reader.text(Int(producerLength)), let outboxLength = reader.u16(),
                let outbox = reader.text(Int(outboxLength)), let number = reader.u64()
            else { return nil }
            outboxes[OutboxKey(producer: producer, outbox: outbox)] = number
        }
        guard let count = reader.u32(), Int(count) <= reader.remaining / 24 else { return nil }
        var entries: [Segment.IndexEntry] = []
        entries.reserveCapacity(Int(count))
        for _ in 0..<count {
            guard let seq = reader.u64(), let offset = reader.u64().flatMap({ Int(exactly: $0) }), let time = reader.u64() else {
                return nil
            }
            entries.append(Segment.IndexEntry(seq: seq, offset: offset, time: time))
        }
        guard let mark = reader.u64(), reader.remaining == 0, last &+ 1 >= first,
            entries.allSatisfy({ $0.offset >= from && $0.offset < to })
        else { return nil }
        return Chunk(
            stream: Data(stream), first: first, from: from, to: to, last: last, time: time, epoch: epoch, hash: Data(hash), mark: mark,
            idsAt: idsAt,
            ids: Int(ids), idsCRC: idsCRC, outboxes: outboxes, entries: entries)
    }

    static func encode(_ ids: ArraySlice<RecentIDs.Remembered>, first: UInt64) -> Data {
        var data = Data(count: ids.count * idLength)
        data.withUnsafeMutableBytes { bytes in
            for (index, id) in ids.enumerated() {
                let at = index * idLength
                bytes.storeBytes(of: id.key.high.bigEndian, toByteOffset: at, as: UInt64.self)
                bytes.storeBytes(of: id.key.low.bigEndian, toByteOffset: at + 8, as: UInt64.self)
                bytes.storeBytes(of: UInt32(clamping: id.seq - first).bigEndian, toByteOffset: at + 16, as: UInt32.self)
                bytes.storeBytes(of: id.seconds.bigEndian, toByteOffset: at + 20, as: UInt32.self)
            }
        }
        return data
    }

    /// The ids of a chunk; nil when they are not there or not right.
    static func ids(_ chunk: Chunk, in file: DiskFile) -> [RecentIDs.Remembered]? {
        guard let data = try? file.read(at: chunk.idsAt, count: chunk.ids * idLength), data.count == chunk.ids * idLength,
            CRC32C.checksum(data) == chunk.idsCRC
        else { return nil }
        return data.withUnsafeBytes { bytes in
            (0..<chunk.ids).map { index in
                let at = index * idLength
                let offset = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 16, as: UInt32.self))
                return RecentIDs.Remembered(
                    key: RecentIDs.Key(
                        high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)),
                        low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self))),
                    seq: chunk.first &+ UInt64(offset),
                    seconds: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 20, as: UInt32.self)))
            }
        }
    }
}
