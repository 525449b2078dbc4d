import Contracts
import Foundation
import Wire

/// One EVENTS message that waits for its reader, still encoded.
struct Batch: Sendable {
    /// Records as they lie in the log.
    var body: Data
    var count: Int
    /// Every record is preceded by a delivery count (redelivery).
    var counted: Bool
    var first: UInt64
    var last: UInt64
    /// Records below this have been delivered before.
    var floor: UInt64
    var stream: String
    /// What of its credit it took: the records without what precedes them.
    var weight: Int { body.count - (counted ? 4 * count : 0) }

    struct Decoded {
        var events: [Envelope] = []
        var deliveries: [Int] = []
        var refused: [(seq: UInt64, reason: String)] = []
        var unreadable: Int { refused.count }
        /// Why the last unreadable one was; for people.
        var reason = ""
    }

    /// Throws `WireError` when a record is damaged; a payload that is no envelope is only counted.
    func decoded() throws -> Decoded {
        var result = Decoded()
        result.events.reserveCapacity(count)
        var reader = Reader(body)
        while reader.remaining > 0 {
            let deliveries = counted ? reader.u32().map { Int($0) } ?? 1 : 1
            let record = try Record(from: &reader)
            guard record.kind == Record.Kind.event.rawValue, record.seq == 0 || record.seq >= floor else { continue }
            do {
                var envelope = try Coding.decode(Envelope.self, from: record.payload)
                guard envelope.type.text == record.topic else {
                    throw Problem(.malformed, "type \(Problem.quote(envelope.type.text)) under topic \(Problem.quote(record.topic))")
                }
                // Never the publisher's word: the number is the bus's to give.
                envelope.sequence = record.seq == 0 ? nil : Envelope.digits(record.seq)
                result.events.append(envelope)
                result.deliveries.append(deliveries)
            } catch {
                result.reason = "\(Problem.quote(record.topic)): \(error)"
                result.refused.append((record.seq, result.reason))
            }
        }
        return result
    }

    /// How many records the body of an EVENTS message holds, nil when their lengths do not add up.
    static func count(_ body: Data, counted: Bool) -> Int? { numbers(body, counted: counted)?.count }

    /// The numbers of its records.
    static func numbers(_ body: Data, counted: Bool) -> [UInt64]? {
        var reader = Reader(body)
        var numbers: [UInt64] = []
        while reader.remaining > 0 {
            if counted, reader.u32() == nil { return nil }
            guard let length = reader.u32(), length >= 8, reader.u32() != nil, let seq = reader.u64(),
                reader.bytes(Int(length) - 8 + (8 - (8 + Int(length)) % 8) % 8) != nil
            else { return nil }
            numbers.append(seq)
        }
        return numbers
    }
}

/// Between the bus thread and one reader: what arrived and is not yet taken. Bounded by the credit that was given for it.
final class Mailbox: Sendable {
    private struct State: Sendable {
        var batches: [Batch] = []
        var reader: CheckedContinuation<Batch?, any Error>?
        var ended = false
        var problem: Problem?
        /// Arrived and not taken; taken and not given back as credit.
        var heldMessages = 0
        var heldBytes = 0
        var takenMessages = 0
        var takenBytes = 0
        /// Counts the times that credit began anew.
        var epoch: UInt64 = 0
        var acknowledged: UInt64 = 0
        var ackPending = false
        var unreadable = 0
        var late = 0
        var stream = ""
        /// At the last SUBOK: the newest event, and the first that this subscription examines.
        var head: UInt64 = 0
        var position: UInt64 = 0
    }
    private let state = Locked(State())

    var unreadable: Int { state.withLock(\.unreadable) }
    var late: Int { state.withLock(\.late) }
    var stream: String { state.withLock(\.stream) }

    var head: UInt64 { state.withLock(\.head) }
    var position: UInt64 { state.withLock(\.position) }

    func opened(_ stream: String, head: UInt64, position: UInt64) {
        state.withLock { ($0.stream, $0.head, $0.position) = (stream, head, position) }
    }

    func put(_ batch: Batch) {
        let reader = state.withLock { state -> CheckedContinuation<Batch?, any Error>? in
            guard !state.ended else { return nil }
            state.heldMessages += batch.count
            state.heldBytes += batch.weight
            if let reader = state.reader {
                state.reader = nil
                return reader
            }
            state.batches.append(batch)
            return nil
        }
        reader?.resume(returning: batch)
    }

    /// The reader sees nothing after this but what had arrived before a failure.
    func finish(_ problem: Problem?) {
        let reader = state.withLock { state -> CheckedContinuation<Batch?, any Error>? in
            guard !state.ended else { return nil }
            state.ended = true
            state.problem = problem
            if problem == nil { state.batches = [] }
            defer { state.reader = nil }
            return state.reader
        }
        if let problem { reader?.resume(throwing: problem) } else { reader?.resume(returning: nil) }
    }

    /// The next batch; nil at the end and when the task is cancelled.
    func take() async throws -> Batch? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Batch?, any Error>) in
                let known: Result<Batch?, any Error>? = state.withLock { state in
                    if !state.batches.isEmpty { return .success(state.batches.removeFirst()) }
                    if let problem = state.problem { return .failure(problem) }
                    if state.ended { return .success(nil) }
                    guard state.reader == nil else {
                        return .failure(Problem(.conflict, "a bus subscription has one reader at a time"))
                    }
                    state.reader = continuation
                    return nil
                }
                if let known {
                    continuation.resume(with: known)
                } else if Task.isCancelled {
                    // Cancelled before it was stored: the handler found nothing to resume.
                    dismissReader()
                }
            }
        } onCancel: {
            dismissReader()
        }
    }

    private func dismissReader() {
        let reader = state.withLock { state in
            defer { state.reader = nil }
            return state.reader
        }
        reader?.resume(returning: nil)
    }

    /// The reader has these now. Returns the credit to give back once that is at least half of what there is.
    func taken(messages: Int, bytes: Int, half: (messages: Int, bytes: Int)) -> (epoch: UInt64, messages: Int, bytes: Int)? {
        state.withLock { state in
            state.heldMessages -= messages
            state.heldBytes -= bytes
            state.takenMessages += messages
            state.takenBytes += bytes
            guard state.takenMessages > 0, state.takenMessages >= half.messages || state.takenBytes >= half.bytes else { return nil }
            defer { (state.takenMessages, state.takenBytes) = (0, 0) }
            return (state.epoch, state.takenMessages, state.takenBytes)
        }
    }

    /// A new session begins with new credit: what is held here is already spent, what was taken is free again.
    func beginCredit() -> (epoch: UInt64, heldMessages: Int, heldBytes: Int) {
        state.withLock { state in
            state.epoch += 1
            (state.takenMessages, state.takenBytes) = (0, 0)
            return (state.epoch, state.heldMessages, state.heldBytes)
        }
    }

    /// True when the bus thread must be told; it is not told again before it has looked.
    func acknowledge(_ seq: UInt64) -> Bool {
        state.withLock { state in
            guard seq > state.acknowledged else { return false }
            state.acknowledged = seq
            defer { state.ackPending = true }
            return !state.ackPending
        }
    }

    func acknowledged() -> UInt64 {
        state.withLock { state in
            state.ackPending = false
            return state.acknowledged
        }
    }

    /// Verdicts that came too late; true the first time.
    func tooLate(_ count: Int) -> Bool {
        state.withLock { state in
            defer { state.late += count }
            return state.late == 0
        }
    }

    /// Counts what could not be read; true the first time.
    func skip(_ count: Int) -> Bool {
        state.withLock { state in
            defer { state.unreadable += count }
            return state.unreadable == 0
        }
    }
}
