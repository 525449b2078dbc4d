import Foundation

/// Reads numbers in network order, each read checked against the end: nil there, never a trap.
public struct Reader: Sendable {
    private let data: Data
    private var at: Data.Index

    public init(_ data: Data) {
        self.data = data
        at = data.startIndex
    }

    /// Bytes not yet read.
    public var remaining: Int { data.endIndex - at }
    /// How many bytes have been read.
    public var position: Int { at - data.startIndex }

    public mutating func u8() -> UInt8? { integer(UInt8.self) }
    public mutating func u16() -> UInt16? { integer(UInt16.self) }
    public mutating func u32() -> UInt32? { integer(UInt32.self) }
    public mutating func u64() -> UInt64? { integer(UInt64.self) }

    /// The next `count` bytes, or nil when there are not that many.
    public mutating func bytes(_ count: Int) -> Data? {
        guard count >= 0, count <= remaining else { return nil }
        defer { at += count }
        return data[at..<at + count]
    }

    /// The next `count` bytes as UTF-8; nil when they are not.
    public mutating func text(_ count: Int) -> String? { bytes(count).flatMap { String(data: $0, encoding: .utf8) } }

    public mutating func rest() -> Data {
        defer { at = data.endIndex }
        return data[at...]
    }

    private mutating func integer<T: FixedWidthInteger>(_ type: T.Type) -> T? {
        let size = MemoryLayout<T>.size
        guard size <= remaining else { return nil }
        defer { at += size }
        return data.withUnsafeBytes { buffer in
            T(bigEndian: buffer.loadUnaligned(fromByteOffset: at - data.startIndex, as: T.self))
        }
    }
}

/// Writes numbers in network order.
public struct Writer: Sendable {
    public private(set) var data: Data

    public init(capacity: Int = 0) {
        data = Data()
        data.reserveCapacity(capacity)
    }

    public mutating func u8(_ value: UInt8) { data.append(value) }
    public mutating func u16(_ value: UInt16) { integer(value) }
    public mutating func u32(_ value: UInt32) { integer(value) }
    public mutating func u64(_ value: UInt64) { integer(value) }
    public mutating func bytes(_ bytes: Data) { data.append(bytes) }
    public mutating func text(_ text: String) { data.append(contentsOf: text.utf8) }

    private mutating func integer<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { data.append(contentsOf: $0) }
    }
}
