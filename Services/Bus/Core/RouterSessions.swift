import Contracts
import Foundation
import Wire

extension Router {
    mutating func hello(_ frame: Frame, _ peer: Peer, _ user: String, _ now: Int64) {
        let hello: Hello
        do {
            hello = try JSONDecoder().decode(Hello.self, from: frame.body)
        } catch {
            let why = (error as? DecodingError).map(Self.explain) ?? "the body cannot be read"
            refuse(peer, frame, 400, "malformed", "HELLO: \(why)", now)
            return
        }
        // The header may name any major of the range: a newer client cannot know yet which one will be spoken.
        guard hello.min <= 1, hello.max >= 1, hello.min <= frame.major, hello.max >= frame.major else {
            return refuseVersion(peer, frame, now)
        }
        if let outbox = hello.outbox, !(1...64).contains(outbox.utf8.count) || !outbox.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) {
            refuse(peer, frame, 400, "malformed", "HELLO: 'outbox' is a UUID, or another name of 1 to 64 printable ASCII characters", now)
            return
        }
        guard admits(hello, frame, peer, user, now) else { return }
        if sessions[peer] != nil { end(peer, reason: "said HELLO again", now: now) }
        strangers.removeValue(forKey: peer)
        sessionCount += 1
        // A UUID in one spelling, whatever the client's.
        let box = hello.outbox.map { OutboxKey(producer: user, outbox: UUID(uuidString: $0)?.uuidString.lowercased() ?? $0) }
        let session = Session(
            user: user, key: rights[user]?.key ?? "", id: "\(settings.epoch)-\(sessionCount)",
            heartbeat: Int64(min(max(hello.heartbeat_ms, 100), 60_000)), heardAt: now,
            sentAt: now, outbox: box, producer: Array(user.utf8))
        sessions[peer] = session
        let welcome = Welcome(
            session: session.id, stream: settings.stream, first: log.first, last: last, window_msgs: settings.windowMessages,
            window_bytes: settings.windowBytes, max_credit_msgs: settings.creditMessages, max_credit_bytes: settings.creditBytes,
            heartbeat_ms: Int(settings.heartbeat), you: user, outbox_last: box.map { durableTaken[$0] ?? 0 }, hash: Self.hex(hash),
            witness: settings.witness?.text(stream: settings.stream, epoch: settings.epoch))
        send(peer, Frame(.welcome, a: settings.epoch, b: last, body: (try? Coding.encode(welcome)) ?? Data()), now)
        leaving.removeValue(forKey: user)
        effects.append(.note(.info, "\(user): session \(session.id) of \(Problem.quote(hello.client)) begins"))
        if joined.insert(user).inserted {
            announce(ComponentJoined(component: user, version: String(hello.version.prefix(64))))
        }
    }

    /// Ends a session and everything that hung on it.
    mutating func end(_ peer: Peer, reason: String, orderly: Bool = false, now: Int64) {
        guard let session = sessions.removeValue(forKey: peer) else { return }
        for handle in session.subscriptions { drop(SubscriptionKey(peer: peer, handle: handle), orderly: orderly) }
        endCalls(of: peer, session, now)
        seen[session.user] = session.heardAt
        effects.append(.note(.info, "\(session.user): session \(session.id) ended: \(reason)"))
        if !sessions.values.contains(where: { $0.user == session.user }) { leaving[session.user] = (now, reason) }
    }

    /// The socket has no way to that peer, or its queue is full although credit keeps it nearly empty.
    mutating func unreachable(_ peer: Peer, now: Int64) { end(peer, reason: "connection lost", now: now) }

    /// Rights as they stand in the key file now. Sessions of names that are gone, or whose key is another one now, end; of the
    /// others what is no longer allowed.
    mutating func setRights(_ new: [String: Rights], now: Int64) {
        rights = new
        seen = seen.filter { new[$0.key] != nil }
        for (peer, session) in sessions {
            guard let allowed = new[session.user], allowed.key == session.key else {
                let why = new[session.user] == nil ? "key revoked" : "key replaced"
                bye(peer, 403, why, retry: nil, now)
                end(peer, reason: why, now: now)
                continue
            }
            sessions[peer]?.mayPublish = TopicVerdicts()
            for handle in session.subscriptions {
                let key = SubscriptionKey(peer: peer, handle: handle)
                if replicas[key] != nil, !allowed.mayReplicate {
                    drop(key)
                    refuse(
                        peer, Frame(.subscribe, handle: handle), 403, "forbidden", "'\(session.user)' may no longer copy the log", now)
                    continue
                }
                guard let subscription = subscriptions[key], let lost = allowed.lost(subscription) else { continue }
                drop(key)
                deny(session.user, .subscribe, lost, now)
                refuse(
                    peer, Frame(.subscribe, handle: handle), 403, "forbidden",
                    "'\(session.user)' may no longer subscribe to \(Problem.quote(lost))", now)
            }
            for (handle, service) in session.served where Address(service).map({ allowed.mayServe($0.service) }) != true {
                stopServing(peer, handle, now)
                deny(session.user, .serve, service, now)
                refuse(
                    peer, Frame(.serve, handle: handle), 403, "forbidden", "'\(session.user)' may no longer serve '\(service)'", now)
            }
        }
    }

    /// BYE of a client. Its reason is for people, but what is no JSON object is no BYE.
    mutating func leave(_ frame: Frame, _ peer: Peer, _ now: Int64) throws {
        if !frame.body.isEmpty {
            guard case .object? = try? Coding.decode(JSON.self, from: frame.body) else {
                throw WireError("BYE: the body is no JSON object")
            }
        }
        end(peer, reason: "left", orderly: true, now: now)
    }

    /// The bus was not scheduled for a while: that is not the clients' fault.
    mutating func forgive(_ milliseconds: Int64) {
        for peer in sessions.keys { sessions[peer]?.heardAt += milliseconds }
    }

    /// What time alone brings: heartbeats, deadlines, news of who left.
    mutating func tick(_ now: Int64) {
        for (peer, session) in sessions {
            if now - session.heardAt > 3 * session.heartbeat {
                end(peer, reason: "no sign of life for \(3 * session.heartbeat) ms", now: now)
            } else if now - session.sentAt >= settings.heartbeat {
                send(peer, Frame(.ping, a: UInt64(clamping: now), b: last, body: hash), now)
            }
        }
        endTheMute(now)
        expireCalls(now)
        denials.tick(now)
        expireDeliveries(now)
        reportRanges(now)
        watchLag(now)
        for (user, left) in leaving where now - left.at >= settings.leftAfter {
            leaving.removeValue(forKey: user)
            joined.remove(user)
            announce(ComponentLeft(component: user, reason: left.reason))
        }
        if strangers.count > 10_000 { strangers.removeAll() }
        strangers = strangers.filter { now - $0.value < 10_000 }
    }

    /// Tells everybody that the bus is about to restart.
    mutating func sayGoodbye(_ now: Int64) {
        for peer in sessions.keys { bye(peer, 503, "the bus restarts", retry: 100, now) }
    }

    mutating func bye(_ peer: Peer, handle: UInt32 = 0, _ status: UInt16, _ reason: String, retry: Int?, _ now: Int64) {
        let body = (try? Coding.encode(ByeBody(reason: reason, retry_ms: retry))) ?? Data()
        send(peer, Frame(.bye, status: status, handle: handle, body: body), now)
    }

    /// An event of the bus's own.
    mutating func announce(_ event: some Event) {
        let type = type(of: event).type
        guard let id = try? EventID(makeID()), let data = try? event.json() else { return }
        let envelope = Envelope(
            id: id, source: "bus@\(settings.host)", type: type, subject: event.subject, time: Self.time(of: id), data: data,
            actor: "bus")
        guard let payload = try? Coding.encode(envelope) else { return }
        add(BatchEvent(topic: type.text, producer: "bus", id: id.text, payload: payload))
    }

    /// The time in a UUID of version 7 (RFC 9562, section 5.7): its first 48 bits are milliseconds since 1970.
    static func time(of id: EventID) -> Timestamp? {
        Int64(id.text.replacing("-", with: "").prefix(12), radix: 16).map { Timestamp(milliseconds: $0) }
    }

    static func hex(_ data: Data) -> String { data.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
}
