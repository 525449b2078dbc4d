import Foundation
import Wire

/// The body of an EVENTS message on its way to a client: records one after another behind room for the header, so that they are
/// copied once from the log's buffer.
struct EventsMessage {
    private var data = Data()
    private let credit: (messages: Int64, bytes: Int64)
    /// Records in it.
    private(set) var count: Int64 = 0
    /// Bytes of them.
    var size: Int { data.isEmpty ? 0 : data.count - Frame.headerLength }

    init(credit: (messages: Int64, bytes: Int64)) { self.credit = credit }

    /// False when it is full or credit is used up. The first record is taken whatever its size, or a large one would never come.
    mutating func add(_ record: UnsafeRawBufferPointer) -> Bool {
        let after = size + record.count
        guard count < credit.messages, count < Limits.packedEvents, count == 0 || (after <= Limits.packedBytes && after <= credit.bytes)
        else { return false }
        if count == 0 {
            data.reserveCapacity(Frame.headerLength + max(record.count, min(Int(clamping: credit.messages), 16) * record.count))
            data.append(Data(count: Frame.headerLength))
        }
        data.append(contentsOf: record)
        count += 1
        return true
    }

    /// The whole message under that header, whose own body is empty.
    consuming func finish(_ header: Frame) -> Data {
        data.replaceSubrange(0..<Frame.headerLength, with: header.encoded())
        return data
    }
}
