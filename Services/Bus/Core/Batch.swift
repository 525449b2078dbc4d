import Foundation

/// An event on its way into the log; its number is given when its batch is sealed.
struct BatchEvent: Hashable, Sendable {
    var topic: String
    /// The authenticated name of the publisher's key.
    var producer: String
    var id: String
    var payload: Data
    var size: Int { 40 + topic.utf8.count + producer.utf8.count + id.utf8.count + payload.count }
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
    var events: [BatchEvent]
    /// The highest number taken from each outbox in this batch.
    var outboxes: [OutboxKey: UInt64]
    /// When set, the batch begins with an epoch mark.
    var epoch: UInt64?
    /// The number of the last event, or of the last before it when the batch has none.
    var last: UInt64 { first + UInt64(events.count) - 1 }
}

/// An event as it lies in the log.
struct StoredRecord: Hashable, Sendable {
    var seq: UInt64
    var topic: String
    /// The record, with its padding.
    var bytes: Data
}

/// The outcome of a flush.
enum FlushResult: Sendable {
    /// On the device: the batch's events as records, and the chain's hash after it.
    case durable([StoredRecord], hash: Data)
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
    /// About how many bytes the events after `seq` take.
    func bytes(after seq: UInt64) -> UInt64
    /// Consecutive events from `seq` on, at least one when `seq` is in the log. Throws `DamagedRange`, `Trimmed`,
    /// `DiskError`.
    func read(from seq: UInt64, bytes: Int) throws -> [StoredRecord]
    /// Number of the first event at or after a time in nanoseconds since 1970; last + 1 when there is none.
    func firstSeq(since time: UInt64) throws -> UInt64
}
