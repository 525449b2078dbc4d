import Foundation
import Wire

/// The first 96 bytes of a segment file.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | magic `SLIPWLOG` |
/// | 8 | 4 | format version, 1 |
/// | 12 | 4 | zero |
/// | 16 | 16 | stream id |
/// | 32 | 8 | number of the first event |
/// | 40 | 8 | epoch in which the segment was begun |
/// | 48 | 32 | hash of the batch before the first |
/// | 80 | 12 | zero |
/// | 92 | 4 | CRC32C of the 92 bytes before |
struct SegmentHeader: Hashable, Sendable {
    static let length = 96
    static let magic = Data("SLIPWLOG".utf8)
    static let version: UInt32 = 1

    var stream: Data
    var first: UInt64
    var epoch: UInt64
    var previousHash: Data

    func encoded() -> Data {
        var writer = Writer(capacity: Self.length)
        writer.bytes(Self.magic)
        writer.u32(Self.version)
        writer.u32(0)
        writer.bytes(stream)
        writer.u64(first)
        writer.u64(epoch)
        writer.bytes(previousHash)
        writer.bytes(Data(count: 12))
        writer.u32(CRC32C.checksum(writer.data))
        return writer.data
    }

    init(stream: Data, first: UInt64, epoch: UInt64, previousHash: Data) {
        self.stream = stream
        self.first = first
        self.epoch = epoch
        self.previousHash = previousHash
    }

    /// Throws `WireError` that says what is wrong with it.
    init(_ data: Data) throws {
        var reader = Reader(data)
        guard let magic = reader.bytes(8), let version = reader.u32(), reader.u32() != nil, let stream = reader.bytes(16),
            let first = reader.u64(), let epoch = reader.u64(), let hash = reader.bytes(32), reader.bytes(12) != nil, let crc = reader.u32()
        else { throw WireError("shorter than its header") }
        guard magic == Self.magic else { throw WireError("not a segment of the log") }
        guard version == Self.version else { throw WireError("format version \(version); this build reads \(Self.version)") }
        guard CRC32C.checksum(data.prefix(92)) == crc else { throw WireError("header fails its CRC") }
        self.init(stream: Data(stream), first: first, epoch: epoch, previousHash: Data(hash))
    }

    /// The file's name: the first number as 20 digits.
    static func fileName(_ first: UInt64) -> String {
        let digits = String(first)
        return String(repeating: "0", count: 20 - digits.utf8.count) + digits + ".log"
    }
}
