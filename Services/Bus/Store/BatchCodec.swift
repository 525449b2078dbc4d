import Crypto
import Foundation
import Wire

/// A batch as bytes: an epoch mark when a start begins with it, the events, and a batch mark that closes it.
///
/// A batch whose mark is not there or does not fit was never acknowledged. The mark's payload: SHA-256 over the hash of the
/// batch before and all bytes of this batch before the mark (32 bytes); `u16` count of outboxes; for each `u16` + producer,
/// `u16` + outbox, `u64` highest number.
enum BatchCodec {
    /// A sealed batch: its bytes with the marks, and its events in them.
    struct Sealed {
        var run: EventRun
        var hash: Data
    }

    /// Takes over the batch's buffer; a caller that keeps no copy of it pays for none.
    static func seal(_ batch: consuming Batch, time: UInt64, previousHash: Data) -> Sealed {
        let (first, last, outboxes, epoch) = (batch.first, batch.last, batch.outboxes, batch.epoch)
        var records = batch.records
        batch.records = RecordBuffer()
        if let epoch {
            var payload = Writer(capacity: 8)
            payload.u64(epoch)
            let mark = Record(
                seq: first - 1, time: time, kind: .epochMark, flags: Record.batchStart, topic: "", producer: "bus", id: "",
                payload: payload.data)
            records.prepend(mark: mark)
        }
        records.seal(first: first, time: time)
        let hash = chain(previousHash, records.bytes)
        var mark = Data()
        Record(seq: last, time: time, kind: .batchMark, topic: "", producer: "bus", id: "", payload: self.mark(hash, outboxes))
            .encode(into: &mark)
        records.append(mark: mark)
        return Sealed(run: EventRun(firstSeq: first, bytes: records.bytes, places: records.places), hash: hash)
    }

    static func chain(_ previous: Data, _ bytes: some ContiguousBytes) -> Data {
        var hash = SHA256()
        previous.withUnsafeBytes { hash.update(bufferPointer: $0) }
        bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
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
