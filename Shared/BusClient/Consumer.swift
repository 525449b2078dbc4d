import Contracts
import Foundation
import Wire

/// The bus thread's side of one subscription: where it stands in the log, and what it has told the bus.
struct Consumer {
    /// What `subscribe` hands to the bus thread.
    struct Registration: Sendable {
        var handle: UInt32
        var request: SubscriptionRequest
        var mailbox: Mailbox
        /// Told once: when the bus has said yes, or has refused.
        var answered: Answer<Void>
    }

    /// How far the log may run on without a match before the reader is told.
    static let silentStretch: UInt64 = 256

    let registration: Registration
    /// SUBOK has come in this session.
    private(set) var active = false
    private(set) var generation: UInt64 = 0
    private(set) var stream: String?
    /// The next number to be examined; nil before the first SUBOK.
    private(set) var expected: UInt64?
    /// Where a stretch without a match began.
    private var silentSince: UInt64?
    /// The end of the last batch that held events, and the last ACK sent in this session.
    private var delivered: UInt64 = 0
    private var sentAck: UInt64 = 0
    /// How far this session's bus has come with us. Its cursor may be behind what we had before; an ACK beyond that is refused.
    private var shown: UInt64 = 0
    private(set) var creditEpoch: UInt64 = 0
    private var gaps = 0
    /// Work queue: what was delivered in this session and is not settled, and verdicts that are to be sent.
    private var held: Set<UInt64> = []
    private var verdicts: [Verdict] = []
    /// The newest event when the bus said yes: a reader that waits to have caught up is told when it is passed.
    private var head: UInt64 = 0

    init(_ registration: Registration) { self.registration = registration }

    var isDurable: Bool { !registration.request.consumer.isEmpty }
    private var isGroup: Bool { registration.request.mode != .ordered }

    /// SUB for a session that has just begun: from the own position once there is one.
    mutating func subscribe(_ configuration: BusClientConfiguration, _ welcome: Welcome, _ memory: LogMemory?) throws -> Frame {
        closed()
        sentAck = 0
        silentSince = nil
        let credit = registration.mailbox.beginCredit()
        creditEpoch = credit.epoch
        var from = registration.request.from
        // A reader that leaves its position to the bus goes on where it acknowledged; what it had already is left out on arrival.
        if from != .cursor || !isDurable, !isGroup, let expected, let stream { from = .seq(expected, stream: stream) }
        var policy = WorkPolicy()
        if case .group(let asked) = registration.request.mode { policy = asked }
        let body = SubscribeBody(
            consumer: registration.request.consumer, filters: registration.request.filters, from: from,
            mode: isGroup ? "group" : "ordered",
            credit_msgs: max(1, min(configuration.creditMessages, welcome.max_credit_msgs) - credit.heldMessages),
            credit_bytes: max(1, min(configuration.creditBytes, welcome.max_credit_bytes) - credit.heldBytes),
            ack_wait_ms: policy.ackWait, max_deliver: policy.maxDeliver, backoff_ms: policy.backoff)
        return Frame(.subscribe, handle: registration.handle, body: try Coding.encode(body))
    }

    mutating func closed() {
        active = false
        // What was delivered in that session is the bus's to give to others now.
        held = []
        verdicts = []
    }

    /// SUBOK: `a` is the cursor, everything up to it is behind us.
    mutating func subscribed(_ frame: Frame) throws -> Frame? {
        let body = try Coding.decode(SubscribedBody.self, from: frame.body)
        active = true
        generation = frame.b
        stream = body.stream
        shown = frame.a
        if expected == nil, !isGroup { expected = frame.a &+ 1 }
        head = body.last
        registration.mailbox.opened(body.stream, head: body.last, position: frame.a &+ 1)
        registration.answered.resolve(.success(()))
        return acknowledge()
    }

    enum Arrival { case nothing, batch(Batch), gap(expected: UInt64, got: UInt64), damaged(String) }

    /// EVENTS: `a` to `b` is the range that was examined.
    mutating func arrived(_ frame: Frame) -> Arrival {
        guard active else { return .nothing }
        let counted = frame.flags & 1 != 0
        guard let numbers = Batch.numbers(frame.body, counted: counted) else { return .damaged("record lengths do not add up") }
        let count = numbers.count
        if isGroup {
            guard count > 0 else { return .nothing }
            held.formUnion(numbers)
            return .batch(
                Batch(
                    body: frame.body, count: count, counted: counted, first: frame.a, last: frame.b, floor: 0, stream: stream ?? ""))
        }
        if frame.a == 0, frame.b == 0 {
            guard count > 0 else { return .nothing }
            return .batch(Batch(body: frame.body, count: count, counted: counted, first: 0, last: 0, floor: 0, stream: stream ?? ""))
        }
        guard frame.a <= frame.b else { return .damaged("range \(frame.a) to \(frame.b)") }
        let next = expected ?? frame.a
        if frame.a > next {
            gaps += 1
            return .gap(expected: next, got: frame.a)
        }
        gaps = 0
        shown = max(shown, frame.b)
        expected = max(next, frame.b + 1)
        let first = silentSince ?? max(frame.a, next)
        guard count > 0 else {
            let caughtUp = next <= head && head <= frame.b
            if frame.b >= first, caughtUp || frame.b - first + 1 >= Self.silentStretch {
                silentSince = nil
                delivered = frame.b
                return .batch(
                    Batch(body: Data(), count: 0, counted: false, first: first, last: frame.b, floor: 0, stream: stream ?? ""))
            }
            silentSince = first
            return .nothing
        }
        silentSince = nil
        delivered = max(delivered, frame.b)
        return .batch(
            Batch(body: frame.body, count: count, counted: counted, first: first, last: frame.b, floor: next, stream: stream ?? ""))
    }

    /// Keeps a verdict for the next ACKX; false when the event is not this session's to settle.
    mutating func settle(_ verdict: Verdict) -> Bool {
        guard active, held.contains(verdict.seq) else { return false }
        if verdict.verb != .inProgress { held.remove(verdict.seq) }
        verdicts.append(verdict)
        return true
    }

    /// ACKX with the verdicts so far, at most as many as one message should hold.
    mutating func settlement() -> Frame? {
        guard active, !verdicts.isEmpty else { return nil }
        let some = Array(verdicts.prefix(1024))
        verdicts.removeFirst(some.count)
        return Frame(.ackEach, handle: registration.handle, b: generation, body: Verdict.encode(some))
    }

    /// More gaps in a row than a reconnect explains.
    var isBroken: Bool { gaps > 3 }

    /// ACK when the reader has acknowledged more than was sent.
    mutating func acknowledge() -> Frame? {
        guard active, isDurable, !isGroup else { return nil }
        let seq = min(registration.mailbox.acknowledged(), shown)
        guard seq > sentAck else { return nil }
        sentAck = seq
        return Frame(.ack, handle: registration.handle, a: seq, b: generation)
    }

    /// ACK for a stretch without a match when the reader is done with all before it: keeps the lag that the bus shows honest.
    mutating func acknowledgeSilence() -> Frame? {
        guard active, isDurable, !isGroup, let expected, expected > 1, expected - 1 > sentAck, expected - 1 <= shown
        else { return nil }
        guard registration.mailbox.acknowledged() >= delivered else { return nil }
        sentAck = expected - 1
        return Frame(.ack, handle: registration.handle, a: sentAck, b: generation)
    }
}
