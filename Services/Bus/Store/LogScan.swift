import Foundation
import Wire

/// Looks for records in the bytes of a segment. Offsets count from the first byte of the file.
enum LogScan {
    private static let block = 4096
    private static let zeros = [UInt8](repeating: 0, count: block)

    /// The record there, when it is whole and its CRC is right.
    static func record(_ data: Data, _ offset: Int) -> Record? {
        guard data.withUnsafeBytes({ RecordHead($0, at: offset) }) != nil else { return nil }
        var reader = Reader(data[(data.startIndex + offset)...])
        return try? Record(from: &reader)
    }

    /// Whether the record there, whose head is that, fits its CRC. All of it must be in the buffer.
    static func isSound(_ bytes: UnsafeRawBufferPointer, _ at: Int, _ head: RecordHead) -> Bool {
        let crc = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self))
        return CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[(at + 8)..<(at + 8 + head.length)])) == crc
    }

    /// The next readable record that satisfies the condition; records are aligned to 8 bytes.
    static func next(_ data: Data, from start: Int, where condition: (Record) -> Bool) -> (Int, Record)? {
        var at = (start + 7) & ~7
        while at + Record.fixedLength <= data.count {
            if at % block == 0, isZero(data, from: at, to: min(at + block, data.count)) {
                at += block
                continue
            }
            if let record = record(data, at), condition(record) { return (at, record) }
            at += 8
        }
        return nil
    }

    static func isZero(_ data: Data, from start: Int) -> Bool { isZero(data, from: start, to: data.count) }

    static func isZero(_ data: Data, from start: Int, to end: Int) -> Bool {
        data.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            var at = start
            while at < end {
                let count = min(block, end - at)
                if memcmp(base + at, zeros, count) != 0 { return false }
                at += count
            }
            return true
        }
    }

    /// One past the last byte that is not zero.
    static func endOfData(_ data: Data) -> Int {
        data.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return 0 }
            var end = bytes.count
            while end > 0 {
                let count = min(block, end)
                if memcmp(base + end - count, zeros, count) != 0 { break }
                end -= count
            }
            while end > 0, bytes[end - 1] == 0 { end -= 1 }
            return end
        }
    }
}

extension Record {
    /// Zeros after it.
    var padding: Int { encodedLength - 32 - topic.utf8.count - producer.utf8.count - id.utf8.count - payload.count }
}
