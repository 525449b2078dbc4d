import Foundation
import Wire

/// An event on its way into the log; its number is given when its batch is sealed.
struct BatchEvent: Hashable, Sendable {
    var topic: String
    /// The authenticated name of the publisher's key.
    var producer: String
    var id: String
    var payload: Data
}

/// An outbox of a publisher: what exact dedupe counts by.
struct OutboxKey: Hashable, Sendable {
    var producer: String
    var outbox: String
}

/// What goes to the device with one flush.
struct Batch: Sendable {
    /// Number of the first event.
    var first: UInt64
    /// The events; numbers, time and CRCs are filled in when the batch is sealed.
    var records: RecordBuffer
    /// The highest number taken from each outbox in this batch.
    var outboxes: [OutboxKey: UInt64]
    /// When set, the batch begins with an epoch mark.
    var epoch: UInt64?
    /// The number of the last event, or of the last before it when the batch has none.
    var last: UInt64 { first + UInt64(records.count) - 1 }

    init(first: UInt64, records: RecordBuffer, outboxes: [OutboxKey: UInt64], epoch: UInt64? = nil) {
        self.first = first
        self.records = records
        self.outboxes = outboxes
        self.epoch = epoch
    }

    init(first: UInt64, events: [BatchEvent], outboxes: [OutboxKey: UInt64], epoch: UInt64? = nil) {
        var records = RecordBuffer()
        for event in events { records.append(event) }
        self.init(first: first, records: records, outboxes: outboxes, epoch: epoch)
    }
}

/// Records one after another, as they will lie in the log. One buffer a batch and no object an event: an event is copied once
/// from the message that brought it, and from here to the device and to the consumers.
struct RecordBuffer: Sendable {
    private(set) var bytes: [UInt8] = []
    private(set) var places: [EventRun.Place] = []

    var count: Int { places.count }
    var isEmpty: Bool { places.isEmpty }

    init() {}
    /// With room for as much as another one holds.
    init(like other: RecordBuffer) {
        bytes.reserveCapacity(other.bytes.count + 4096)
        places.reserveCapacity(other.places.count)
    }

    mutating func append(_ event: BatchEvent) {
        var (topic, producer, id) = (event.topic, event.producer, event.id)
        topic.withUTF8 { topic in
            producer.withUTF8 { producer in
                id.withUTF8 { id in
                    event.payload.withUnsafeBytes { payload in
                        append(topic: .init(topic), .none, producer: .init(producer), id: .init(id), payload: payload)
                    }
                }
            }
        }
    }

    /// The lengths must have been checked against `Limits`.
    mutating func append(
        topic: UnsafeRawBufferPointer, _ topicID: TopicID, producer: UnsafeRawBufferPointer, id: UnsafeRawBufferPointer,
        payload: UnsafeRawBufferPointer
    ) {
        let length = 24 + topic.count + producer.count + id.count + payload.count
        let padding = (8 - (8 + length) % 8) % 8
        let offset = bytes.count
        if bytes.capacity < offset + 8 + length + padding { bytes.reserveCapacity(max(bytes.capacity * 2, offset + 8 + length + padding)) }
        withUnsafeTemporaryAllocation(byteCount: Record.fixedLength, alignment: 8) { head in
            head.initializeMemory(as: UInt8.self, repeating: 0)
            head.storeBytes(of: UInt32(clamping: length).bigEndian, as: UInt32.self)
            head[24] = Record.Kind.event.rawValue
            head.storeBytes(of: UInt16(clamping: topic.count).bigEndian, toByteOffset: 26, as: UInt16.self)
            head.storeBytes(of: UInt16(clamping: producer.count).bigEndian, toByteOffset: 28, as: UInt16.self)
            head.storeBytes(of: UInt16(clamping: id.count).bigEndian, toByteOffset: 30, as: UInt16.self)
            bytes.append(contentsOf: UnsafeRawBufferPointer(head))
        }
        bytes.append(contentsOf: topic)
        bytes.append(contentsOf: producer)
        bytes.append(contentsOf: id)
        bytes.append(contentsOf: payload)
        if padding > 0 { bytes.append(contentsOf: repeatElement(0, count: padding)) }
        places.append(EventRun.Place(offset: UInt32(offset), length: UInt32(8 + length + padding), topic: topicID))
    }

    /// Gives the records their numbers from `first` on, their time and their CRCs.
    mutating func seal(first: UInt64, time: UInt64) {
        bytes.withUnsafeMutableBytes { bytes in
            var seq = first
            for place in places {
                let record = UnsafeMutableRawBufferPointer(rebasing: bytes[Int(place.offset)..<Int(place.offset + place.length)])
                record.storeBytes(of: seq.bigEndian, toByteOffset: 8, as: UInt64.self)
                record.storeBytes(of: time.bigEndian, toByteOffset: 16, as: UInt64.self)
                if place.offset == 0 { record[25] = Record.batchStart }
                let length = Int(UInt32(bigEndian: record.loadUnaligned(as: UInt32.self)))
                let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: record[8..<8 + length]))
                record.storeBytes(of: crc.bigEndian, toByteOffset: 4, as: UInt32.self)
                seq += 1
            }
        }
    }

    /// Puts the mark of a start before the events, of which there are few then.
    mutating func prepend(mark: Record) {
        var head = Data()
        mark.encode(into: &head)
        bytes.insert(contentsOf: head, at: 0)
        for index in places.indices { places[index].offset += UInt32(head.count) }
    }

    /// Adds what closes the batch.
    mutating func append(mark: Data) { bytes.append(contentsOf: mark) }
}

/// An event as it lies in the log.
struct StoredRecord: Hashable, Sendable {
    var seq: UInt64
    var topic: String
    /// The record, with its padding.
    var bytes: Data
}

/// Consecutive events as they lie in the log, together with the bytes between them.
struct EventRun: Sendable {
    /// Where an event lies: from its head to the end of its padding.
    struct Place: Hashable, Sendable {
        var offset: UInt32
        var length: UInt32
        /// `none` when nobody has looked yet.
        var topic = TopicID.none
    }
    /// Number of the first one.
    var firstSeq: UInt64
    var bytes: [UInt8]
    var places: [Place]
    /// Number of the last one; `firstSeq` - 1 when there is none.
    var lastSeq: UInt64 { firstSeq + UInt64(places.count) - 1 }
}

extension EventRun: RandomAccessCollection {
    var startIndex: Int { 0 }
    var endIndex: Int { places.count }

    subscript(index: Int) -> StoredRecord {
        let place = places[index]
        return bytes.withUnsafeBytes { bytes in
            let record = UnsafeRawBufferPointer(rebasing: bytes[Int(place.offset)..<Int(place.offset + place.length)])
            return StoredRecord(
                seq: firstSeq + UInt64(index), topic: String(decoding: Self.topic(record), as: UTF8.self), bytes: Data(record))
        }
    }

    /// The bytes of a record's topic; empty when its lengths do not add up.
    static func topic(_ record: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard record.count >= Record.fixedLength else { return UnsafeRawBufferPointer(rebasing: record[0..<0]) }
        let length = Int(UInt16(bigEndian: record.loadUnaligned(fromByteOffset: 26, as: UInt16.self)))
        guard Record.fixedLength + length <= record.count else { return UnsafeRawBufferPointer(rebasing: record[0..<0]) }
        return UnsafeRawBufferPointer(rebasing: record[Record.fixedLength..<Record.fixedLength + length])
    }
}

/// The outcome of a flush.
enum FlushResult: Sendable {
    /// On the device: the batch's events as they lie there, the time they were given, and the chain's hash after them.
    case durable(EventRun, time: UInt64, hash: Data)
    /// Nothing was written, because there is no room.
    case full(String)
}

/// Numbers that the log should hold and that cannot be read.
struct DamagedRange: Error, Hashable, Sendable, CustomStringConvertible {
    var first: UInt64
    var last: UInt64
    var place: String
    var description: String { "events \(first) to \(last) cannot be read (\(place))" }
}

/// An event that retention has removed.
struct Trimmed: Error, Hashable, Sendable, CustomStringConvertible {
    var wanted: UInt64
    /// The number with which the log begins now.
    var first: UInt64
    var description: String { "event \(wanted) is no longer kept; the log begins with \(first)" }
}

/// What the routing needs to see of the log. Only durable events are there.
protocol LogView: Sendable {
    /// Number of the first event that is kept; last + 1 when there is none.
    var first: UInt64 { get }
    /// Its files, oldest first.
    var pieces: [LogPiece] { get }
    /// The chain's hashes while that was the last event, and of the batch that holds it; none when they cannot be read.
    func hashes(at seq: UInt64) throws -> [Data]
    /// About how many bytes the events after `seq` take.
    func bytes(after seq: UInt64) -> UInt64
    /// Consecutive events from `seq` on, at least one when `seq` is in the log. Throws `DamagedRange`, `Trimmed`,
    /// `DiskError`.
    func read(from seq: UInt64, bytes: Int) throws -> EventRun
    /// Number of the first event at or after a time in nanoseconds since 1970; last + 1 when there is none.
    func firstSeq(since time: UInt64) throws -> UInt64
}
