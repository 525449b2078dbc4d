import Foundation
import Wire

/// The last message that was made for somebody who wants everything. Many such stand at the same place at the end of the log, and
/// then theirs is the same to the byte.
struct LatestMessage: Sendable {
    var handle: UInt32
    /// The first number that was examined for it.
    var start: UInt64
    var frame: Frame
    var count: Int64
    var size: Int
    var message: Data
}

/// The body of an EVENTS message on its way to a client: records one after another behind room for the header, so that they are
/// copied once from the log's buffer.
struct EventsMessage {
    private var data = Data()
    /// Bytes of records that are admitted.
    private(set) var size = 0
    private let credit: (messages: Int64, bytes: Int64)
    /// Records in it.
    private(set) var count: Int64 = 0

    init(credit: (messages: Int64, bytes: Int64)) { self.credit = credit }

    /// Makes room for a record of that length, which `append` then brings. False when the message is full or credit is used up. The
    /// first record is taken whatever its size, or a large one would never come.
    mutating func admit(_ length: Int) -> Bool {
        let after = size + length
        guard count < credit.messages, count < Limits.packedEvents, count == 0 || (after <= Limits.packedBytes && after <= credit.bytes)
        else { return false }
        count += 1
        size = after
        return true
    }

    /// One or several records that were admitted.
    mutating func append(_ records: UnsafeRawBufferPointer) {
        if data.isEmpty {
            data.reserveCapacity(Frame.headerLength + records.count)
            data.append(Data(count: Frame.headerLength))
        }
        data.append(contentsOf: records)
    }

    /// The whole message under that header, whose own body is empty.
    consuming func finish(_ header: Frame) -> Data {
        data.replaceSubrange(0..<Frame.headerLength, with: header.encoded())
        return data
    }
}
