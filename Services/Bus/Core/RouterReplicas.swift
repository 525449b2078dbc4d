import Contracts
import Foundation
import Wire

/// One who copies the log as it lies in the files: a replica. Positions on the wire are bytes since its SUBOK.
struct ReplicaFeed: Sendable {
    var owner: String
    /// Where the next bytes come from.
    var position: RawPosition
    var sent: UInt64 = 0
    var creditBytes: Int64
    /// What has been sent and not acknowledged: where each message ended, on the wire and in the files.
    var flight: [(sent: UInt64, position: RawPosition)] = []
    /// Everything before this is on the replica's device; nil: nothing was acknowledged yet.
    var durable: RawPosition?
    /// Number of the last event that it has.
    var last: UInt64
}

/// A row of `GET /v1/bus/replicas`.
struct ReplicaStatus: Codable, Hashable, Sendable {
    /// The name of its key.
    var name: String
    /// The last event that it has on its device.
    var last: UInt64
    /// Events behind.
    var lag: UInt64
}

/// Answer to `bus.replica.state`: what a replica needs beside the log, to go on in this bus's place.
struct ReplicaState: Codable, Sendable {
    struct Consumer: Codable, Sendable {
        var owner: String
        var consumer: String
        var seq: UInt64
        var group: Bool
    }
    var stream: String
    /// The number with which the log begins.
    var first: UInt64
    var consumers: [Consumer]
    var parked: [ParkedStatus]
    /// `clients.json`: names, public keys and rights. No secrets.
    var clients: Data
}

extension Router {
    /// Bytes of the log in one message.
    private static let replicaBytes = 512 << 10
    private static let replicaMethod = "bus.replica.state"

    /// `{"mode":"replica","from":"first"}` or `{"mode":"replica","from":{"stream":…,"seq":…,"hash":…}}`.
    private struct ReplicaBody: Decodable {
        struct From: Decodable {
            var stream: String
            var seq: UInt64
            var hash: String
        }
        var from: From?
        var creditBytes: Int

        private enum Keys: String, CodingKey { case from, credit_bytes }
        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: Keys.self)
            creditBytes = try container.decodeIfPresent(Int.self, forKey: .credit_bytes) ?? 1 << 20
            if let text = try? container.decode(String.self, forKey: .from) {
                guard text == "first" else { throw WireError("mode replica: 'from' is first, or {stream, seq, hash}") }
            } else {
                from = try container.decode(From.self, forKey: .from)
            }
        }
    }

    mutating func subscribeReplica(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        guard frame.handle != 0 else { throw WireError("SUB needs a handle other than 0") }
        guard allowed.mayReplicate else {
            deny(session.user, .subscribe, "mode replica", now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not copy the log: its key lacks 'replicate'", now)
        }
        let body = try JSONDecoder().decode(ReplicaBody.self, from: frame.body)
        guard let log = log as? any RawLogView else {
            return refuse(peer, frame, 501, "unsupported", "this log cannot be copied", now)
        }
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        drop(key)
        guard session.subscriptions.count < settings.subscriptionsPerSession else {
            return refuse(peer, frame, 429, "too_many", "at most \(settings.subscriptionsPerSession) subscriptions a session", now)
        }
        let before = (body.from?.seq ?? log.first) &- 1
        let position: RawPosition?
        if let from = body.from {
            guard let hash = Data(hex: from.hash), hash.count == 32, from.seq > 0 else {
                throw WireError("mode replica: 'hash' is 64 hexadecimal digits, 'seq' the next event's number")
            }
            position = from.stream == settings.stream ? try log.position(after: before, hash: hash) : nil
        } else {
            position = log.rawStart
        }
        guard let position else {
            let status: UInt16 = before &+ 1 < log.first && body.from?.stream == settings.stream ? 410 : 409
            return send(peer, Frame(.lost, status: status, handle: frame.handle, a: before &+ 1, b: log.first), now)
        }
        replicas[key] = ReplicaFeed(
            owner: session.user, position: position, creditBytes: Int64(min(max(body.creditBytes, 0), settings.creditBytes)), last: before)
        // By the hash it has proved that it has all up to there, and opening its log has flushed that; there may be nothing more to send.
        if body.from != nil { replicas[key]?.durable = position }
        sessions[peer]?.subscriptions.insert(frame.handle)
        effects.append(.note(.notice, "'\(session.user)' copies the log from event \(before &+ 1) on"))
        let answer = SubscribedBody(stream: settings.stream, first: log.first, last: last, pending: last - min(last, before))
        send(peer, Frame(.subscribed, handle: frame.handle, a: before, body: try Coding.encode(answer)), now)
    }

    /// CREDIT of a replica; false when the handle is none's.
    mutating func creditReplica(_ key: SubscriptionKey, bytes: UInt64) -> Bool {
        guard var feed = replicas[key] else { return false }
        let most = settings.creditBytes
        feed.creditBytes = min(feed.creditBytes + Int64(clamping: min(bytes, UInt64(most))), Int64(most))
        replicas[key] = feed
        return true
    }

    /// ACK of a replica: the last event, and the bytes, that are on its device.
    mutating func acknowledgeReplica(_ key: SubscriptionKey, _ frame: Frame, _ now: Int64) -> Bool {
        guard var feed = replicas[key] else { return false }
        guard frame.b <= feed.sent else {
            refuse(key.peer, frame, 409, "conflict", "ACK of \(frame.b) bytes, but only \(feed.sent) were sent", now)
            return true
        }
        feed.last = max(feed.last, frame.a)
        var done = 0
        while done < feed.flight.count, feed.flight[done].sent <= frame.b {
            feed.durable = feed.flight[done].position
            done += 1
        }
        feed.flight.removeFirst(done)
        replicas[key] = feed
        return true
    }

    /// True when it was a replica.
    mutating func dropReplica(_ key: SubscriptionKey) -> Bool {
        guard let feed = replicas.removeValue(forKey: key) else { return false }
        sessions[key.peer]?.subscriptions.remove(key.handle)
        effects.append(.note(.notice, "'\(feed.owner)' copies the log no more; it has all up to event \(feed.last)"))
        return true
    }

    /// One message for each replica that has credit; true when more could be sent at once.
    mutating func feedReplicas(_ now: Int64) -> Bool {
        guard !replicas.isEmpty, let log = log as? any RawLogView else { return false }
        var more = false
        for (key, old) in replicas where old.creditBytes > 0 && old.position != log.rawEnd {
            var feed = old
            do {
                let (bytes, end) = try log.raw(from: feed.position, bytes: min(Self.replicaBytes, Int(clamping: feed.creditBytes)))
                guard !bytes.isEmpty else { continue }
                let from = feed.sent
                feed.sent &+= UInt64(bytes.count)
                feed.position = end
                feed.creditBytes -= Int64(bytes.count)
                feed.flight.append((feed.sent, end))
                replicas[key] = feed
                send(key.peer, Frame(.events, flags: Frame.raw, handle: key.handle, a: from, b: feed.sent, body: bytes), now)
                more = more || feed.creditBytes > 0
            } catch is RawGone {
                send(key.peer, Frame(.lost, status: 410, handle: key.handle, a: feed.last &+ 1, b: log.first), now)
                drop(key)
            } catch {
                effects.append(.note(.warning, "a replica, '\(feed.owner)', comes to what cannot be read: \(error)"))
                let lost = error as? DamagedRange
                refuse(
                    key.peer, Frame(.subscribe, handle: key.handle, a: lost?.first ?? feed.last &+ 1), 500, "damaged",
                    lost?.description ?? "the log cannot be read after \(feed.last)", now)
                drop(key)
            }
        }
        return more
    }

    /// Up to where some replica has the log on its device.
    var replicated: RawPosition? { replicas.values.compactMap(\.durable).max() }

    func replicaList() -> [ReplicaStatus] {
        replicas.values.map { ReplicaStatus(name: $0.owner, last: $0.last, lag: last - min(last, $0.last)) }.sorted { $0.name < $1.name }
    }

    /// What is beyond these bounds is not told: those consumers then read again what they had, and no more.
    private static let stateRows = 4000

    /// Whether the call is the one that a replica makes; its right is that to copy the log.
    func isReplicaCall(_ method: String, _ allowed: Rights) -> Bool { method == Self.replicaMethod && allowed.mayReplicate }

    func replicaState(_ call: Call) throws -> Data {
        guard rights[call.name]?.mayReplicate == true else {
            throw Problem(.forbidden, "'\(call.name)' may not copy the log: its key lacks 'replicate'")
        }
        let consumers = cursors.map { key, cursor in
            ReplicaState.Consumer(
                owner: key.owner, consumer: key.name, seq: queues[key]?.floor ?? cursor.seq, group: queues[key] != nil)
        }
        return try Coding.encode(
            ReplicaState(
                stream: settings.stream, first: log.first, consumers: Array(consumers.prefix(Self.stateRows)),
                parked: Array(parkedList(owner: nil, consumer: nil).prefix(Self.stateRows)), clients: keyFile))
    }
}
