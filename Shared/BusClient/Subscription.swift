import Contracts
import Logging

/// What to listen to, and from where.
public struct SubscriptionRequest: Sendable {
    /// Durable name within this client's key; empty: ephemeral, and live streams (EMIT) are delivered too.
    public var consumer: String
    /// Topic filters: `*` is one token, `**` at the end one or more.
    public var filters: [String]
    public var from: Position
    public init(consumer: String = "", filters: [String], from: Position) {
        self.consumer = consumer
        self.filters = filters
        self.from = from
    }
}

/// Events that arrived together.
public struct Delivery: Sendable {
    /// In the order of the log; may be empty, when a long stretch of it held nothing that matched.
    public var events: [Envelope]
    /// The range of the log that was examined; 0…0 for live streams.
    public var first: UInt64
    public var last: UInt64
    /// The id of the log they come from.
    public var stream: String
    public init(events: [Envelope], first: UInt64, last: UInt64, stream: String = "") {
        self.events = events
        self.first = first
        self.last = last
        self.stream = stream
    }
}

/// A subscription, for one reader at a time. It outlives reconnects: nothing of the range is missed and nothing comes twice.
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

    init(handle: UInt32, mailbox: Mailbox, inbox: Inbox, logger: Logger, configuration: BusClientConfiguration) {
        self.handle = handle
        self.mailbox = mailbox
        self.inbox = inbox
        self.logger = logger
        half = (configuration.creditMessages / 2, configuration.creditBytes / 2)
    }

    deinit { inbox.post(.unsubscribe(handle: handle)) }

    /// Everything up to `seq` is done with: the durable cursor on the bus moves there. Cheap; may be called for each delivery.
    public func ack(_ seq: UInt64) {
        if mailbox.acknowledge(seq) { inbox.post(.ack(handle: handle)) }
    }

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

    /// How many events were skipped because they were not CloudEvents of ours.
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
        if let due = mailbox.taken(messages: batch.count, bytes: batch.body.count, half: half) {
            inbox.post(.credit(handle: handle, epoch: due.epoch, messages: due.messages, bytes: due.bytes))
        }
        return Delivery(events: decoded.events, first: batch.first, last: batch.last, stream: batch.stream)
    }
}
