import Foundation

/// A connection: the routing id that ROUTER made up for it.
typealias Peer = Data

/// What the bus knows of a client between its HELLO and its end.
struct Session: Sendable {
    var user: String
    /// The public key that stood for the name at HELLO.
    var key: String
    var id: String
    /// The client's own heartbeat, in milliseconds; three without a sign and the session is over.
    var heartbeat: Int64
    var heardAt: Int64
    var sentAt: Int64
    /// When set, numbers in PUB are this outbox's and are taken once, for ever.
    var outbox: OutboxKey?
    /// The number that the next event must have, when there is no outbox.
    var nextNumber: UInt64 = 1
    /// The first number that was refused for now: everything is refused until a PUB says `resume`, and begins again there.
    var refusedFrom: UInt64?
    var isBlocked: Bool { refusedFrom != nil }
    /// `a` of the last PUBACK, which never goes back but by `resume`.
    var acknowledged: UInt64 = 0
    var unackedMessages = 0
    var unackedBytes = 0
    /// The name, as records carry it.
    let producer: [UInt8]
    /// Whether it may publish a topic, as far as it was asked.
    var mayPublish = TopicVerdicts()
    var subscriptions: Set<UInt32> = []
    /// Bytes sent to it since it last showed that it reads.
    var unread = 0
    /// A PING that is under way to find out: its value, and the bytes sent after it.
    var probe: (value: UInt64, after: Int)?
    /// Handles of subscriptions that were ended with BYE 410; a late ACK is told so again.
    var fenced: Set<UInt32> = []
    /// Handles of served names, with the name (`git`, or `git@host2` for one instance alone).
    var served: [UInt32: String] = [:]
}

/// What the shell has to do for the router, in order.
enum Effect: Sendable {
    case send(Peer, Data)
    /// Outcome of a publication from within this process.
    case published(ticket: UInt64, [LocalDecision])
    /// Answer to a request from within this process.
    case replied(ticket: UInt64, status: UInt16, payload: Data)
    case note(Level, String)
    /// A bus of that epoch has taken over. To be written down, for good.
    case superseded(by: UInt64)

    enum Level: Sendable { case debug, info, notice, warning }
}

/// What became of an event that was published from within this process.
struct LocalDecision: Hashable, Sendable {
    /// 200 stored, else as in PUBACK.
    var status: UInt16
    /// The event's number; for a duplicate the original's, 0 when it is not known any more.
    var seq: UInt64
}
