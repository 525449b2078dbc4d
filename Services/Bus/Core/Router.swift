import Contracts
import Foundation
import Wire

/// What the bus decides: sessions, publishing, subscriptions, calls. No socket, no clock, no disk except through `LogView`.
///
/// The shell (`BrokerThread`) feeds it messages, outcomes of flushes and the time in milliseconds of a clock that never goes
/// back, and carries out its effects in order.
///
///     PUB ──▶ filling batch ──takeBatch──▶ flying batch ──flushed──▶ PUBACK, tail, EVENTS
///
/// One batch flies at a time; what arrives meanwhile fills the next one. So the batch grows exactly as fast as the device is
/// slow, and there is no timer to tune.
struct Router: Sendable {
    struct Settings: Sendable {
        var heartbeat: Int64 = 1000
        var windowMessages = 1024
        var windowBytes = 4 << 20
        /// Bytes that wait for the flush under way; the batch after it.
        var batchBytes = 64 << 20
        /// Bytes under way to a session after which it is asked whether it reads; is fed no more events; is ended.
        var unread = (ask: 4 << 20, hold: 32 << 20, end: 64 << 20)
        var creditMessages = 4096
        var creditBytes = 16 << 20
        var subscriptionsPerSession = 1000
        var filtersPerSubscription = 100
        /// Calls that wait for a worker of one service.
        var waitingCalls = 1000
        /// Bytes of payloads that open calls may hold together.
        var callBytes = 64 << 20
        var lag = LagWatch.Limits()
        var retention = Retention()
        /// Events of a group that are delivered and not settled; beyond that only redeliveries go out.
        var unsettled = 10_000
        /// Events parked for one consumer; beyond that its group gets no new ones.
        var parked = 10_000
        /// How long a client may be away before the others are told, in milliseconds.
        var leftAfter: Int64 = 3000
        var stream: String
        var epoch: UInt64
        /// This machine's name, for the source of the bus's own events.
        var host: String
        /// Confirms epochs; nil: none is confirmed.
        var witness: Witness?
    }

    let settings: Settings
    let log: any LogView
    /// Fresh event ids.
    let makeID: @Sendable () -> String

    /// Number and hash of the last durable event.
    var last: UInt64
    var hash: Data
    var rights: [String: Rights] = [:]
    var sessions: [Peer: Session] = [:]
    var sessionCount: UInt64 = 0
    var effects: [Effect] = []
    /// When a peer without a session was last told so.
    var strangers: [Peer: Int64] = [:]
    var probeCount: UInt64 = 0
    /// Clients whose last session ended, with when and why; told to the others after a while.
    var leaving: [String: (at: Int64, reason: String)] = [:]
    /// Clients whose joining has been published, with their version.
    var joined: Set<String> = []
    /// When a client without a session was last heard.
    var seen: [String: Int64] = [:]
    var denials = Denials()
    var counts = Counts()
    /// There was no room for the last batch.
    var isFull = false
    var lag = LagWatch()
    var lagAt = Int64.min / 2
    /// Somebody who may has asked the bus to end in order, and to be started again.
    var isDraining = false
    var space = SpaceWatch()
    /// The epoch of the bus that has taken over; this one then refuses everything.
    var supersededBy: UInt64?
    /// Those who copy the log.
    var replicas: [SubscriptionKey: ReplicaFeed] = [:]
    /// `clients.json`, for replicas.
    var keyFile = Data()

    // Publishing
    var filling: FillingBatch
    var topics = TopicTable()
    var flying: FillingBatch?
    var isFlying: Bool { flying != nil }
    var taken: [OutboxKey: UInt64]
    var durableTaken: [OutboxKey: UInt64]
    var recent: RecentIDs
    /// Outboxes from which more was taken since they were last stored.
    var changedOutboxes: Set<OutboxKey> = []
    var tail = Tail()
    /// Nil once the log is longer: then a longer message can be made.
    var latest: LatestMessage?

    // Consuming
    var subscriptions: [SubscriptionKey: Subscription] = [:]
    /// Whose turn it is to be fed, round and round.
    var turns: [SubscriptionKey] = []
    var turn = 0
    /// Messages given to members of groups.
    var feedings: UInt64 = 0
    var cursors: [ConsumerKey: Cursor]
    var changedCursors: Set<ConsumerKey> = []
    /// Who reads an ordered consumer.
    var active: [ConsumerKey: SubscriptionKey] = [:]
    /// Group consumers, and the sessions that share each.
    var queues: [ConsumerKey: WorkQueue]
    var members: [ConsumerKey: [SubscriptionKey]] = [:]
    var changedQueues: Set<ConsumerKey> = []
    var parked: [ConsumerKey: [UInt64: Parked]]
    var changedParked: [ConsumerKey: Set<UInt64>] = [:]
    /// Consumers that are to be forgotten on disk, too.
    var forgotten: Set<ConsumerKey> = []

    // Calls
    var calls: [UInt64: Call] = [:]
    var callCount: UInt64 = 0
    var callsByCaller: [Caller: UInt64] = [:]
    var callsByKey: [CallKey: UInt64] = [:]
    /// By the name of the service.
    var pools: [String: Pool] = [:]
    var callTimes = CallTimes()
    /// What the payloads of open calls take.
    var callBytes = 0

    init(
        settings: Settings, log: any LogView, last: UInt64, hash: Data, outboxes: [OutboxKey: UInt64] = [:],
        recent: RecentIDs = RecentIDs(), consumers: ConsumerRecords = ConsumerRecords(), makeID: @escaping @Sendable () -> String
    ) {
        self.settings = settings
        self.log = log
        self.last = last
        self.hash = hash
        self.recent = recent
        filling = FillingBatch(idsFrom: recent.end)
        cursors = consumers.cursors
        queues = consumers.queues
        parked = consumers.parked
        self.makeID = makeID
        taken = outboxes
        durableTaken = outboxes
    }

    /// The effects so far, in order; the shell empties the list.
    mutating func takeEffects() -> [Effect] {
        defer { effects.removeAll(keepingCapacity: true) }
        return effects
    }

    /// A message from the socket. `user` and `key` are whom ZAP let in, and by which public key.
    mutating func receive(_ message: Data, from peer: Peer, user: String?, key: String = "", now: Int64) {
        guard let frame = try? Frame(message) else {
            refuse(peer, nil, 400, "malformed", "not an EB/1 message", now)
            return
        }
        guard let user, let allowed = rights[user], allowed.key == key else {
            if sessions[peer] != nil { end(peer, reason: "key revoked", now: now) }
            deny(user ?? "", .hello, "the key is not known", now)
            refuse(peer, frame, 403, "forbidden", "this key is not known to the bus", now)
            return
        }
        if let supersededBy { return refuseSuperseded(peer, frame, supersededBy, now) }
        // HELLO says itself which majors its sender speaks.
        guard frame.major == 1 || frame.known == .hello else { return refuseVersion(peer, frame, now) }
        guard frame.flags & 0xFF00 == 0 else {
            refuse(peer, frame, 400, "malformed", "unknown flags \(String(frame.flags, radix: 16)) that may not be ignored", now)
            return
        }
        if frame.known == .hello {
            hello(frame, peer, user, now)
            return
        }
        guard let session = sessions[peer], session.user == user else {
            // The normal sign of a restart or a silent reconnect; told once in a while, not once a message.
            if let told = strangers[peer], now - told < 100 { return }
            strangers[peer] = now
            refuse(peer, frame, 401, "no-session", "say HELLO first", now)
            return
        }
        sessions[peer]?.heardAt = now
        guard frame.body.isEmpty || frame.known?.hasNoBody != true else {
            refuse(peer, frame, 400, "malformed", "command \(frame.command) has no body, found \(frame.body.count) bytes", now)
            return
        }
        do {
            try dispatch(frame, peer, session, allowed, now)
        } catch let error as WireError {
            refuse(peer, frame, 400, "malformed", error.description, now)
        } catch let error as DecodingError {
            refuse(peer, frame, 400, "malformed", Self.explain(error), now)
        } catch {
            refuse(peer, frame, 500, "failed", "\(error)", now)
        }
    }

    private mutating func dispatch(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        switch frame.known {
        case .ping: send(peer, Frame(.pong, a: frame.a, b: last), now)
        case .pong: proved(peer, by: frame.a)
        case .bye: try leave(frame, peer, now)
        case .publish: try publish(frame, peer, session, allowed, now)
        case .emit: try emit(frame, peer, session, allowed, now)
        case .subscribe: try subscribe(frame, peer, session, allowed, now)
        case .credit: credit(frame, peer, now)
        case .ack: acknowledge(frame, peer, now)
        case .ackEach: try acknowledgeEach(frame, peer, now)
        case .unsubscribe: unsubscribe(frame, peer, now)
        case .serve: try serve(frame, peer, session, allowed, now)
        case .request: try request(frame, peer, session, allowed, now)
        case .part, .reply: answer(frame, peer, now)
        case .cancel: cancel(frame, peer, now)
        case .hello, .welcome, .error, .publishAck, .subscribed, .events, .lost, .call:
            refuse(peer, frame, 400, "malformed", "command \(frame.command) goes from the bus to a client", now)
        case nil:
            refuse(peer, frame, 400, "unsupported", "command \(frame.command) is not known here", now)
        }
    }

    mutating func send(_ peer: Peer, _ frame: Frame, _ now: Int64) { send(peer, frame.encoded(), now) }

    /// A message that is encoded already.
    mutating func send(_ peer: Peer, _ message: Data, _ now: Int64) {
        effects.append(.send(peer, message))
        guard let index = sessions.index(forKey: peer) else { return }
        sessions.values[index].sentAt = now
        probe(index, sent: message.count)
    }

    mutating func refuse(_ peer: Peer, _ frame: Frame?, _ status: UInt16, _ code: String, _ message: String, _ now: Int64) {
        let body = (try? Coding.encode(ErrorBody(code: code, message: message))) ?? Data()
        send(
            peer,
            Frame(.error, status: status, handle: frame?.handle ?? 0, a: frame?.a ?? 0, b: UInt64(frame?.command ?? 0), body: body), now)
    }

    /// No common major.
    mutating func refuseVersion(_ peer: Peer, _ frame: Frame, _ now: Int64) {
        let body = ErrorBody(code: "version", message: "this bus speaks EB 1 to 1", min: 1, max: 1)
        send(
            peer,
            Frame(
                .error, status: 505, handle: frame.handle, a: frame.a, b: UInt64(frame.command), body: (try? Coding.encode(body)) ?? Data()),
            now)
    }

    /// What is wrong with a JSON body, without echoing it.
    static func explain(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, _): "'\(key.stringValue)' is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' has another type"
        case .dataCorrupted(let context):
            context.codingPath.isEmpty
                ? "the body is not JSON" : "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' cannot be read"
        @unknown default: "the body cannot be read"
        }
    }
}
