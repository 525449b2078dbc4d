import Crypto
import Foundation
import Wire

/// A batch as bytes: an epoch mark when a start begins with it, the events, and a batch mark that closes it.
///
/// A batch whose mark is not there or does not fit was never acknowledged. The mark's payload: SHA-256 over the hash of the
/// batch before and all bytes of this batch before the mark (32 bytes); `u16` count of outboxes; for each `u16` + producer,
/// `u16` + outbox, `u64` highest number.
enum BatchCodec {
    struct Encoded {
        var bytes: Data
        var records: [StoredRecord]
        var hash: Data
    }

    static func encode(_ batch: Batch, time: UInt64, previousHash: Data) -> Encoded {
        var bytes = Data()
        bytes.reserveCapacity(batch.events.reduce(256) { $0 + $1.size + 8 })
        if let epoch = batch.epoch {
            var payload = Writer(capacity: 8)
            payload.u64(epoch)
            Record(
                seq: batch.first - 1, time: time, kind: .epochMark, flags: Record.batchStart, topic: "", producer: "bus", id: "",
                payload: payload.data
            ).encode(into: &bytes)
        }
        var ranges: [Range<Int>] = []
        ranges.reserveCapacity(batch.events.count)
        for (index, event) in batch.events.enumerated() {
            let start = bytes.count
            Record(
                seq: batch.first + UInt64(index), time: time, flags: start == 0 ? Record.batchStart : 0, topic: event.topic,
                producer: event.producer, id: event.id, payload: event.payload
            ).encode(into: &bytes)
            ranges.append(start..<bytes.count)
        }
        let hash = chain(previousHash, bytes)
        let body = Data(bytes)
        Record(
            seq: batch.last, time: time, kind: .batchMark, topic: "", producer: "bus", id: "", payload: mark(hash, batch.outboxes)
        ).encode(into: &bytes)
        let records = zip(ranges, batch.events).enumerated().map { index, pair in
            StoredRecord(seq: batch.first + UInt64(index), topic: pair.1.topic, bytes: body[pair.0])
        }
        return Encoded(bytes: bytes, records: records, hash: hash)
    }

    static func chain(_ previous: Data, _ bytes: Data) -> Data {
        var hash = SHA256()
        hash.update(data: previous)
        hash.update(data: bytes)
        return Data(hash.finalize())
    }

    private static func mark(_ hash: Data, _ outboxes: [OutboxKey: UInt64]) -> Data {
        var writer = Writer(capacity: 34 + outboxes.count * 64)
        writer.bytes(hash)
        writer.u16(UInt16(clamping: outboxes.count))
        for (key, number) in outboxes {
            writer.u16(UInt16(clamping: key.producer.utf8.count))
            writer.text(key.producer)
            writer.u16(UInt16(clamping: key.outbox.utf8.count))
            writer.text(key.outbox)
            writer.u64(number)
        }
        return writer.data
    }

    /// Reads a mark's payload; nil when it does not parse exactly to its end.
    static func readMark(_ payload: Data) -> (hash: Data, outboxes: [OutboxKey: UInt64])? {
        var reader = Reader(payload)
        guard let hash = reader.bytes(32), let count = reader.u16() else { return nil }
        var outboxes: [OutboxKey: UInt64] = [:]
        for _ in 0..<count {
            guard let producerLength = reader.u16(), let producer = reader.text(Int(producerLength)), let outboxLength = reader.u16(),
                let outbox = reader.text(Int(outboxLength)), let number = reader.u64()
            else { return nil }
            outboxes[OutboxKey(producer: producer, outbox: outbox.lowercased())] = number
        }
        return reader.remaining == 0 ? (Data(hash), outboxes) : nil
    }
}
