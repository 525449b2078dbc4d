import Foundation

/// A connection: the routing id that ROUTER made up for it.
typealias Peer = Data

/// What the bus knows of a client between its HELLO and its end.
struct Session: Sendable {
    var user: String
    var id: String
    /// The client's own heartbeat, in milliseconds; three without a sign and the session is over.
    var heartbeat: Int64
    var heardAt: Int64
    var sentAt: Int64
    /// When set, numbers in PUB are this outbox's and are taken once, for ever.
    var outbox: OutboxKey?
    /// The number that the next event must have, when there is no outbox.
    var nextNumber: UInt64 = 1
    /// After a temporary refusal everything is refused until a PUB says `resume`.
    var blocked = false
    var unackedMessages = 0
    var unackedBytes = 0
    var subscriptions: Set<UInt32> = []
    /// Handles of served names, with the name.
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

    enum Level: Sendable { case debug, info, warning }
}

/// What became of an event that was published from within this process.
struct LocalDecision: Hashable, Sendable {
    /// 200 stored, else as in PUBACK.
    var status: UInt16
    /// The event's number; for a duplicate the original's, 0 when it is not known any more.
    var seq: UInt64
}
