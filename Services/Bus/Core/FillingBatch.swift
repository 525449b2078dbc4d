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
        /// Numbers that are in the batch, in runs.
        var stored: [ClosedRange<UInt64>] = []
        /// Duplicates whose original flies or waits, too.
        var uncertain: Set<UInt64> = []
    }
    enum Local: Sendable {
        case stored(index: Int)
        case duplicate(RecentIDs.Key)
        case refused(UInt16)
    }

    /// Empty while the batch flies: they are with the appending thread then.
    var records = RecordBuffer()
    var first: UInt64 = 0
    var count = 0
    var outboxes: [OutboxKey: UInt64] = [:]
    var acknowledgements: [Peer: Acknowledgement] = [:]
    var locals: [(ticket: UInt64, decisions: [Local])] = []
    /// The part of `RecentIDs` that is this batch's: it counts once the batch is durable, and goes should there be no room.
    var ids: Range<Int>

    init(idsFrom: Int) { ids = idsFrom..<idsFrom }
}

extension FillingBatch.Acknowledgement {
    /// Numbers come in order, so most make the last run longer.
    mutating func note(stored number: UInt64) {
        if let last = stored.last, last.upperBound < number, number - last.upperBound == 1 {
            stored[stored.count - 1] = last.lowerBound...number
        } else {
            stored.append(number...number)
        }
    }
}
