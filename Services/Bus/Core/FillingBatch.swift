import Foundation

/// Events that wait for their flush, and who is to be told of it.
struct FillingBatch: Sendable {
    /// A position in the batch, by which a number is known once the batch is sealed.
    struct Acknowledgement: Sendable {
        /// Session at the time; a later one of the same connection is not told.
        var session: String
        var upTo: UInt64
        /// Where the event with number `upTo` lies in the batch, when it was stored.
        var index: Int?
        /// For a duplicate: by what its original is found.
        var duplicate: RecentIDs.Key?
        var messages = 0
        var bytes = 0
        var exceptions: [(number: UInt64, status: UInt16)] = []
        /// Numbers that are in the batch.
        var stored: [UInt64] = []
        /// Duplicates whose original flies or waits, too.
        var uncertain: Set<UInt64> = []
    }
    enum Local: Sendable {
        case stored(index: Int)
        case duplicate(RecentIDs.Key)
        case refused(UInt16)
    }

    var events: [BatchEvent] = []
    var first: UInt64 = 0
    var outboxes: [OutboxKey: UInt64] = [:]
    var acknowledgements: [Peer: Acknowledgement] = [:]
    var locals: [(ticket: UInt64, decisions: [Local])] = []
    /// Ids that count as recent once the batch is durable.
    var ids: [(key: RecentIDs.Key, index: Int)] = []

    @discardableResult
    mutating func add(_ event: BatchEvent) -> Int {
        events.append(event)
        return events.count - 1
    }
}
