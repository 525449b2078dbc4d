import CSys
import Foundation

/// A record of the log: the same bytes on disk and in EVENTS (docs/wire.md, *Record*).
///
/// `u32` length of what follows the CRC, `u32` CRC32C of what follows, then seq, time, kind, flags, the lengths of topic,
/// producer and id, those three, and the payload; zero padding to a multiple of 8.
public struct Record: Hashable, Sendable {
    public enum Kind: UInt8, Sendable { case event = 1, epochMark = 2, batchMark = 3 }
    /// Bytes of the fixed part: length and CRC, then 24.
    public static let fixedLength = 32
    /// First record of a flush batch.
    public static let batchStart: UInt8 = 1

    public var seq: UInt64
    /// Bus time in nanoseconds since 1970, never decreasing.
    public var time: UInt64
    public var kind: UInt8
    public var flags: UInt8
    public var topic: String
    /// The authenticated name of the publisher's key, written by the bus.
    public var producer: String
    public var id: String
    public var payload: Data

    public init(
        seq: UInt64, time: UInt64, kind: Kind = .event, flags: UInt8 = 0, topic: String, producer: String, id: String, payload: Data
    ) {
        self.seq = seq
        self.time = time
        self.kind = kind.rawValue
        self.flags = flags
        self.topic = topic
        self.producer = producer
        self.id = id
        self.payload = payload
    }

    /// Appends the record's bytes.
    public func encode(into data: inout Data) {
        let length = 24 + topic.utf8.count + producer.utf8.count + id.utf8.count + payload.count
        var writer = Writer(capacity: length)
        writer.u64(seq)
        writer.u64(time)
        writer.u8(kind)
        writer.u8(flags)
        writer.u16(UInt16(clamping: topic.utf8.count))
        writer.u16(UInt16(clamping: producer.utf8.count))
        writer.u16(UInt16(clamping: id.utf8.count))
        writer.text(topic)
        writer.text(producer)
        writer.text(id)
        writer.bytes(payload)
        var head = Writer(capacity: 8)
        head.u32(UInt32(clamping: length))
        head.u32(CRC32C.checksum(writer.data))
        data.append(head.data)
        data.append(writer.data)
        let padding = (8 - (8 + length) % 8) % 8
        if padding > 0 { data.append(Data(count: padding)) }
    }

    /// Bytes of the record with its padding.
    public var encodedLength: Int {
        let length = 32 + topic.utf8.count + producer.utf8.count + id.utf8.count + payload.count
        return length + (8 - length % 8) % 8
    }

    /// Reads the record at the reader's position. Throws `WireError` when it is cut short or its CRC is wrong.
    public init(from reader: inout Reader) throws {
        guard let length = reader.u32(), let crc = reader.u32() else { throw WireError("record head is cut short") }
        guard length >= 24, let body = reader.bytes(Int(length)) else { throw WireError("record of \(length) bytes is cut short") }
        guard CRC32C.checksum(body) == crc else { throw WireError("record fails its CRC") }
        let padding = (8 - (8 + Int(length)) % 8) % 8
        guard reader.bytes(padding) != nil else { throw WireError("record lacks its padding") }
        var fields = Reader(body)
        guard let seq = fields.u64(), let time = fields.u64(), let kind = fields.u8(), let flags = fields.u8(),
            let topicLength = fields.u16(), let producerLength = fields.u16(), let idLength = fields.u16(),
            let topic = fields.text(Int(topicLength)), let producer = fields.text(Int(producerLength)),
            let id = fields.text(Int(idLength))
        else { throw WireError("record fields are cut short") }
        self.seq = seq
        self.time = time
        self.kind = kind
        self.flags = flags
        self.topic = topic
        self.producer = producer
        self.id = id
        self.payload = fields.rest()
    }

    /// All records of an EVENTS body.
    public static func decodeAll(_ body: Data) throws -> [Record] {
        var reader = Reader(body)
        var result: [Record] = []
        while reader.remaining > 0 { result.append(try Record(from: &reader)) }
        return result
    }
}

/// CRC-32C (Castagnoli), as in RFC 3720, appendix B.4; reflected polynomial 0x82F63B78.
public enum CRC32C {
    public static func checksum(_ data: Data) -> UInt32 { data.withUnsafeBytes { checksum($0) } }

    public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 { csys_crc32c(bytes.baseAddress, bytes.count) }
}
