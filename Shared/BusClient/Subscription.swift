import Contracts
import Logging
import Wire

/// What to listen to, and from where.
public struct SubscriptionRequest: Sendable {
    /// Durable name within this client's key; empty: ephemeral, and live streams (EMIT) are delivered too.
    public var consumer: String
    /// Topic filters: `*` is one token, `**` at the end one or more.
    public var filters: [String]
    public var from: Position
    public var mode: Mode
    public init(consumer: String = "", filters: [String], from: Position, mode: Mode = .ordered) {
        self.consumer = consumer
        self.filters = filters
        self.from = from
        self.mode = mode
    }

    public enum Mode: Sendable, Hashable {
        /// One reader, all events in the order of the log, acknowledged up to a number.
        case ordered
        /// A work queue that several programs with this key share: each event goes to one of them and is settled by itself.
        case group(WorkPolicy = WorkPolicy())
    }
}

/// How the bus deals with the events of a work queue; nil is the bus's default (docs/wire.md, *SUB and SUBOK*).
public struct WorkPolicy: Sendable, Hashable {
    /// Milliseconds that an event may stay unsettled before another reader gets it.
    public var ackWait: Int?
    /// Deliveries before it is parked; 0: for ever.
    public var maxDeliver: Int?
    /// Milliseconds before the second delivery, the third and so on.
    public var backoff: [Int]?
    public init(ackWait: Int? = nil, maxDeliver: Int? = nil, backoff: [Int]? = nil) {
        self.ackWait = ackWait
        self.maxDeliver = maxDeliver
        self.backoff = backoff
    }
}

/// Events that arrived together.
public struct Delivery: Sendable {
    /// In the order of the log; may be empty, when a long stretch of it held nothing that matched.
    public var events: [Envelope]
    /// How often each of them was delivered, this time included; more than 1 only in a work queue.
    public var deliveries: [Int]
    /// The range of the log that was examined; 0…0 for live streams.
    public var first: UInt64
    public var last: UInt64
    /// The id of the log they come from.
    public var stream: String
    public init(events: [Envelope], deliveries: [Int]? = nil, first: UInt64, last: UInt64, stream: String = "") {
        self.events = events
        self.deliveries = deliveries ?? events.map { _ in 1 }
        self.first = first
        self.last = last
        self.stream = stream
    }
}

/// A subscription, for one reader at a time. It outlives reconnects: nothing of the range is missed and nothing comes twice. In a
/// work queue what was not settled when a session ended comes again, here or elsewhere.
///
/// Ends when it or the client is cancelled, or the reading task is. Throws a `Problem` when the bus cannot go on with it: `gone`
/// when the log no longer reaches back to where it should continue, `conflict` when the log is another one or another process has
/// taken the consumer's name, `forbidden` when the key may not read this, `failed` when a record was damaged on its way.
public final class BusSubscription: AsyncSequence, Sendable {
    public typealias Element = Delivery

    let handle: UInt32
    private let mailbox: Mailbox
    private let inbox: Inbox
    private let logger: Logger
    private let half: (messages: Int, bytes: Int)
    private let isGroup: Bool

    init(handle: UInt32, isGroup: Bool, mailbox: Mailbox, inbox: Inbox, logger: Logger, configuration: BusClientConfiguration) {
        self.handle = handle
        self.isGroup = isGroup
        self.mailbox = mailbox
        self.inbox = inbox
        self.logger = logger
        half = (configuration.creditMessages / 2, configuration.creditBytes / 2)
    }

    deinit { inbox.post(.unsubscribe(handle: handle)) }

    /// Everything up to `seq` is done with: the durable cursor on the bus moves there. In a work queue: that event is done with.
    /// Cheap; may be called for each delivery.
    public func ack(_ seq: UInt64) {
        if isGroup { return settle(Verdict(.ack, seq)) }
        if mailbox.acknowledge(seq) { inbox.post(.ack(handle: handle)) }
    }

    /// Work queue: the event could not be dealt with, and is to be delivered again, to whoever is free: after `milliseconds` or,
    /// when that is 0, after the pause of the policy. `why` is for whoever finds it parked in the end. Nothing for other subscriptions.
    public func nak(_ seq: UInt64, after milliseconds: UInt32 = 0, why: String = "") {
        settle(Verdict(.nak, seq, delay: milliseconds, text: why))
    }

    /// Work queue: it is still being worked on; the wait for its settlement begins again.
    public func inProgress(_ seq: UInt64) { settle(Verdict(.inProgress, seq)) }

    /// Work queue: never again. The event is parked.
    public func terminate(_ seq: UInt64, why: String = "") { settle(Verdict(.terminate, seq, text: why)) }

    private func settle(_ verdict: Verdict) {
        if isGroup { inbox.post(.settle(handle: handle, verdict)) }
    }

    /// Work queue: how many verdicts came too late, because the event had been given to another meanwhile, or the session in
    /// which it was delivered is over. They count for nothing, and the work may be done twice.
    public var late: Int { mailbox.late }

    /// Ends the subscription and the sequence.
    public func cancel() {
        mailbox.finish(nil)
        inbox.post(.unsubscribe(handle: handle))
    }

    /// The id of the log it reads; empty before the bus has said yes.
    public var stream: String { mailbox.stream }
    /// The number of the newest event in the log when the bus last said yes; 0: it had none.
    public var head: UInt64 { mailbox.head }
    /// The first number that was examined then.
    public var position: UInt64 { mailbox.position }

    /// How many events were not CloudEvents of ours. They are skipped; in a work queue they are refused with the reason, so that
    /// they come to lie where people see them.
    public var unreadable: Int { mailbox.unreadable }

    public func makeAsyncIterator() -> Iterator { Iterator(subscription: self) }

    public struct Iterator: AsyncIteratorProtocol {
        let subscription: BusSubscription
        public mutating func next() async throws -> Delivery? { try await subscription.next() }
    }

    fileprivate func next() async throws -> Delivery? {
        guard let batch = try await mailbox.take() else { return nil }
        // Decoding happens here, on the reader's task, so that a slow reader never slows the bus thread.
        let decoded: Batch.Decoded
        do {
            decoded = try batch.decoded()
        } catch {
            let problem = Problem(
                .failed, "events \(batch.first) to \(batch.last) arrived damaged: \(error)", hint: "run 'slipway doctor'")
            mailbox.finish(problem)
            inbox.post(.unsubscribe(handle: handle))
            throw problem
        }
        if decoded.unreadable > 0, mailbox.skip(decoded.unreadable) {
            // Once a subscription: a foreign publisher that writes nonsense must not fill the log.
            logger.warning(
                "events that cannot be read are skipped",
                metadata: ["first": "\(batch.first)", "last": "\(batch.last)", "why": "\(decoded.reason)"])
        }
        for refused in decoded.refused { nak(refused.seq, why: refused.reason) }
        if let due = mailbox.taken(messages: batch.count, bytes: batch.weight, half: half) {
            inbox.post(.credit(handle: handle, epoch: due.epoch, messages: due.messages, bytes: due.bytes))
        }
        return Delivery(
            events: decoded.events, deliveries: decoded.deliveries, first: batch.first, last: batch.last, stream: batch.stream)
    }
}
