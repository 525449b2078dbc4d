import Contracts
import Foundation
import Wire

extension Router {
    mutating func subscribe(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let body = try JSONDecoder().decode(SubscribeBody.self, from: frame.body)
        let isGroup: Bool
        switch body.mode {
        case "replica": return try subscribeReplica(frame, peer, session, allowed, now)
        case nil, "ordered": isGroup = false
        case "group": isGroup = true
        case let mode?: throw WireError("mode \(Problem.quote(mode)): expected ordered or group")
        }
        let (policy, poison) = try Self.policy(body)
        guard frame.handle != 0 else { throw WireError("SUB needs a handle other than 0") }
        guard !body.filters.isEmpty, body.filters.count <= settings.filtersPerSubscription, body.consumer.utf8.count <= 200 else {
            throw WireError("SUB: 1 to \(settings.filtersPerSubscription) filters and a consumer of at most 200 bytes")
        }
        let filters = try body.filters.map { try Filter($0) }
        if let refused = filters.first(where: { !allowed.maySubscribe($0) }) {
            deny(session.user, .subscribe, refused.text, now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not subscribe to '\(refused.text)'", now)
        }
        guard body.consumer.isEmpty || allowed.mayUse(consumer: body.consumer) else {
            deny(session.user, .subscribe, "consumer \(body.consumer)", now)
            return refuse(
                peer, frame, 403, "forbidden", "'\(session.user)' may not use the consumer \(Problem.quote(body.consumer))", now)
        }
        guard session.subscriptions.count < settings.subscriptionsPerSession || session.subscriptions.contains(frame.handle) else {
            return refuse(peer, frame, 429, "too_many", "at most \(settings.subscriptionsPerSession) subscriptions a session", now)
        }
        let consumer = body.consumer.isEmpty ? nil : ConsumerKey(owner: session.user, name: body.consumer)
        if let consumer {
            guard isGroup ? active[consumer] == nil : members[consumer] == nil else {
                let mode = isGroup ? "ordered" : "group"
                return refuse(peer, frame, 409, "conflict", "\(Problem.quote(consumer.name)) is read in mode \(mode) now", now)
            }
        } else if isGroup {
            throw WireError("SUB: mode group needs a consumer's name")
        }
        if isGroup, let consumer {
            if let older = members[consumer]?.first(where: { $0 != SubscriptionKey(peer: peer, handle: frame.handle) }),
                let theirs = subscriptions[older]?.filters, Set(theirs) != Set(filters)
            {
                // An event that one of them examines and does not want would be lost to the others.
                return refuse(
                    peer, frame, 409, "conflict", "\(Problem.quote(consumer.name)) is read with other filters now", now)
            }
        }
        let next: UInt64
        switch try isGroup ? startGroup(body.from, consumer) : start(body.from ?? .cursor, consumer) {
        case .at(let seq): next = seq
        case .lost(let status, let wanted):
            return send(peer, Frame(.lost, status: status, handle: frame.handle, a: wanted, b: log.first), now)
        case .damaged(let damage):
            return refuse(peer, frame, 500, "damaged", damage.description, now)
        }
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        if subscriptions[key] != nil { drop(key) }
        var subscription = Subscription(
            owner: session.user, consumer: consumer, filters: filters, generation: 0, next: next,
            creditMessages: Int64(min(max(body.credit_msgs, 0), settings.creditMessages)),
            creditBytes: Int64(min(max(body.credit_bytes, 0), settings.creditBytes)), now: now)
        subscription.policy = policy
        subscription.poison = poison
        if isGroup, let consumer { return try join(key, subscription, consumer, now) }
        if let consumer {
            if let older = active[consumer] {
                // One at a time: whoever held it, perhaps a process that slept, cannot move the cursor any more.
                fence(older, "another session took over '\(consumer.name)'", now)
            }
            // A queue that was left behind under this name ends: the ordered reader begins where it says.
            if queues.removeValue(forKey: consumer) != nil { changedQueues.insert(consumer) }
            subscription.generation = nextGeneration(consumer, seq: next - 1)
            active[consumer] = key
        }
        try begin(key, subscription, from: next - 1, now)
    }

    /// Raises the consumer's generation, and writes down how far it is.
    mutating func nextGeneration(_ consumer: ConsumerKey, seq: UInt64) -> UInt64 {
        var cursor = cursors[consumer] ?? Cursor()
        // Above all of earlier starts, also of one that died before it could write down what it had given out.
        cursor.generation = max(cursor.generation, settings.epoch << 32) + 1
        cursor.seq = seq
        if let strike = cursor.strike, strike.seq <= seq { cursor.strike = nil }
        cursors[consumer] = cursor
        changedCursors.insert(consumer)
        return cursor.generation
    }

    mutating func begin(_ key: SubscriptionKey, _ subscription: Subscription, from seq: UInt64, _ now: Int64) throws {
        subscriptions[key] = subscription
        sessions[key.peer]?.subscriptions.insert(key.handle)
        sessions[key.peer]?.fenced.remove(key.handle)
        turns.append(key)
        let answer = SubscribedBody(
            stream: settings.stream, first: log.first, last: last, pending: last - min(last, seq),
            parked: subscription.consumer.flatMap { parked[$0]?.count } ?? 0)
        send(key.peer, Frame(.subscribed, handle: key.handle, a: seq, b: subscription.generation, body: try Coding.encode(answer)), now)
    }

    private static func policy(_ body: SubscribeBody) throws -> (WorkQueue.Policy, Poison) {
        var policy = WorkQueue.Policy()
        if let wait = body.ack_wait_ms {
            guard (100...86_400_000).contains(wait) else { throw WireError("'ack_wait_ms': expected 100 to 86400000") }
            policy.ackWait = Int64(wait)
        }
        if let most = body.max_deliver {
            guard (0...1_000_000).contains(most) else { throw WireError("'max_deliver': expected 0 (for ever) to 1000000") }
            policy.maxDeliver = most
        }
        if let pauses = body.backoff_ms {
            guard pauses.count <= 64, pauses.allSatisfy({ (0...86_400_000).contains($0) }) else {
                throw WireError("'backoff_ms': at most 64 pauses of 0 to 86400000")
            }
            policy.backoff = pauses.map { Int64($0) }
        }
        switch body.poison {
        case nil, "stop": return (policy, .stop)
        case "park": return (policy, .park)
        case let other?: throw WireError("poison \(Problem.quote(other)): expected stop or park")
        }
    }

    private enum Start { case at(UInt64), lost(status: UInt16, wanted: UInt64), damaged(DamagedRange) }

    private func start(_ from: Position, _ consumer: ConsumerKey?) throws -> Start {
        switch from {
        case .first: return .at(log.first)
        case .new: return .at(last + 1)
        case .cursor:
            guard let consumer, let cursor = cursors[consumer] else { return .at(log.first) }
            if cursor.seq > last { return .lost(status: 409, wanted: cursor.seq + 1) }
            return cursor.seq + 1 < log.first ? .lost(status: 410, wanted: cursor.seq + 1) : .at(cursor.seq + 1)
        case .seq(let seq, let stream, let hash):
            if let stream, stream != settings.stream { return .lost(status: 409, wanted: seq) }
            if seq > last + 1 { return .lost(status: 409, wanted: seq) }
            // Whoever has seen nothing has nothing to compare.
            if seq <= 1 { return .at(log.first) }
            guard seq >= log.first else { return .lost(status: 410, wanted: seq) }
            return try hash.map { try compare($0, before: seq) } ?? .at(seq)
        case .time(let text):
            guard let time = Timestamp(text), time.milliseconds >= 0 else { throw WireError("'time' is not RFC 3339") }
            do {
                // A year that nanoseconds cannot hold is later than every event.
                let (nanoseconds, overflow) = UInt64(time.milliseconds).multipliedReportingOverflow(by: 1_000_000)
                return .at(try log.firstSeq(since: overflow ? .max : nanoseconds))
            } catch let damage as DamagedRange {
                return .damaged(damage)
            }
        }
    }

    /// Whether the log extends what the consumer saw: a backup of this log that was restored and written on has the same numbers,
    /// and another chain.
    private func compare(_ hash: String, before seq: UInt64) throws -> Start {
        let known = try log.hashes(at: seq - 1).map(Self.hex)
        if known.contains(hash.lowercased()) { return .at(seq) }
        // The batch that it names may have been removed, and only one without events behind it was kept.
        if seq == log.first { return .lost(status: 410, wanted: seq) }
        // None: its mark is damaged, which was told. Nobody can compare.
        return known.isEmpty ? .at(seq) : .lost(status: 409, wanted: seq)
    }

    /// A queue that exists goes on where it is, whatever the newest member would like; unless the log has left it behind.
    private mutating func startGroup(_ from: Position?, _ consumer: ConsumerKey?) throws -> Start {
        guard let consumer, let queue = queues[consumer] else { return try start(from ?? .cursor, consumer) }
        if case .seq(let seq, let stream?, _)? = from, stream != settings.stream { return .lost(status: 409, wanted: seq) }
        let isLost = queue.next > last + 1 || queue.next < log.first
        guard isLost else { return .at(queue.next) }
        guard let from, from != .cursor else { return .lost(status: queue.next > last + 1 ? 409 : 410, wanted: queue.next) }
        let start = try start(from, consumer)
        if case .at = start, members[consumer] == nil { queues.removeValue(forKey: consumer) }
        return start
    }

    mutating func credit(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        // Unknown: it ended a moment ago, and its client has not heard yet.
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        if creditReplica(key, bytes: frame.b) { return }
        guard var subscription = subscriptions[key] else { return }
        let messages = Int64(clamping: min(frame.a, UInt64(settings.creditMessages)))
        let bytes = Int64(clamping: min(frame.b, UInt64(settings.creditBytes)))
        subscription.creditMessages = min(subscription.creditMessages + messages, Int64(settings.creditMessages))
        subscription.creditBytes = min(subscription.creditBytes + bytes, Int64(settings.creditBytes))
        subscriptions[key] = subscription
        proved(peer, bytes: bytes)
    }

    mutating func acknowledge(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        if acknowledgeReplica(key, frame, now) { return }
        if sessions[peer]?.fenced.contains(frame.handle) == true {
            return bye(peer, handle: frame.handle, 410, "generation \(frame.b) is over", retry: nil, now)
        }
        guard let subscription = subscriptions[key], let consumer = subscription.consumer else { return }
        guard !subscription.isMember else {
            return refuse(peer, frame, 409, "conflict", "a group settles each event, with ACKX", now)
        }
        // Whoever does not know that another took over in between must not go on either.
        guard frame.b == subscription.generation else { return fence(key, "generation \(frame.b) is over", now) }
        guard frame.a < subscription.unreported else {
            return refuse(peer, frame, 409, "conflict", "ACK of \(frame.a), but only \(subscription.unreported - 1) was sent", now)
        }
        // Cumulative: an older number says nothing new.
        guard var cursor = cursors[consumer], frame.a > cursor.seq else { return }
        cursor.seq = frame.a
        if let strike = cursor.strike, strike.seq <= frame.a { cursor.strike = nil }
        cursors[consumer] = cursor
        changedCursors.insert(consumer)
    }

    /// Ends a subscription whose consumer is another's now; its client is told, and told again when it acknowledges.
    mutating func fence(_ key: SubscriptionKey, _ reason: String, _ now: Int64) {
        drop(key)
        // A client that keeps taking over from itself under new handles is no reason to grow.
        if sessions[key.peer]?.fenced.count ?? 0 >= settings.subscriptionsPerSession { sessions[key.peer]?.fenced.removeAll() }
        sessions[key.peer]?.fenced.insert(key.handle)
        bye(key.peer, handle: key.handle, 410, reason, retry: nil, now)
    }

    mutating func unsubscribe(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        if subscriptions[key] != nil || replicas[key] != nil { drop(key, orderly: true) }
        if sessions[peer]?.served[frame.handle] != nil { stopServing(peer, frame.handle, now) }
    }

    /// `orderly`: its client said so, and gives back what it has not begun.
    mutating func drop(_ key: SubscriptionKey, orderly: Bool = false) {
        if dropReplica(key) { return }
        guard let subscription = subscriptions.removeValue(forKey: key) else { return }
        sessions[key.peer]?.subscriptions.remove(key.handle)
        if let consumer = subscription.consumer {
            if subscription.isMember { leave(consumer, key, orderly: orderly) }
            if active[consumer] == key { active.removeValue(forKey: consumer) }
        }
        if let at = turns.firstIndex(of: key) {
            turns.remove(at: at)
            if turn > at { turn -= 1 }
        }
    }

    // MARK: Delivery

    /// Feeds subscriptions in turn, one message each, so that a replay from the beginning cannot starve the others. True when
    /// more could be sent at once.
    mutating func deliver(messages: Int, now: Int64) -> Bool {
        var sent = 0
        var idle = 0
        while idle < turns.count {
            if sent >= messages { return true }
            if turn >= turns.count { turn = 0 }
            let key = turns[turn]
            turn += 1
            if feed(key, now) {
                sent += 1
                idle = 0
            } else {
                idle += 1
            }
        }
        return false
    }

    /// One message, or one stretch of the log that holds nothing for it; false when there is nothing to do.
    private mutating func feed(_ key: SubscriptionKey, _ now: Int64) -> Bool {
        guard var subscription = subscriptions[key], mayFeed(key, subscription) else { return false }
        if subscription.isMember { return feedMember(key, subscription, now) }
        guard subscription.next <= last, now >= subscription.restsUntil else { return false }
        if let consumer = subscription.consumer, let strike = cursors[consumer]?.strike, strike.seq == subscription.next {
            do {
                return try deliverAgain(key, subscription, strike, now)
            } catch {
                return halt(key, subscription, error, now)
            }
        }
        if resend(key, &subscription, now) { return true }
        var message = EventsMessage(credit: (subscription.creditMessages, subscription.creditBytes))
        // An event that was refused goes alone, with its count.
        let start = subscription.next
        let refused = subscription.consumer.flatMap { cursors[$0]?.strike?.seq } ?? 0
        let end = refused > start ? min(refused, start + 4096) : start + 4096
        do {
            while subscription.next <= last, subscription.next < end {
                let next = subscription.next
                let (run, index) = try events(from: next, bytes: Limits.packedBytes)
                subscription.next = collect(run, from: index, before: end, &subscription, into: &message)
                // The message is full; or the disk was asked, and others have their turn first.
                if subscription.next <= run.lastSeq || tail.first ?? .max > next { break }
            }
        } catch {
            // What was found before it goes out first.
            guard message.count > 0 || subscription.next > start else { return halt(key, subscription, error, now) }
        }
        guard subscription.next > start else { return false }
        if message.count > 0 {
            subscription.creditMessages -= message.count
            subscription.creditBytes -= Int64(message.size)
            let frame = Frame(.events, handle: key.handle, a: subscription.unreported, b: subscription.next - 1)
            counts.delivered += UInt64(message.count)
            let (count, size) = (message.count, message.size)
            let finished = message.finish(frame)
            if subscription.matchesAll {
                latest = LatestMessage(handle: key.handle, start: start, frame: frame, count: count, size: size, message: finished)
            }
            send(key.peer, finished, now)
            subscription.unreported = subscription.next
            subscription.reportedAt = now
        }
        subscriptions[key] = subscription
        return true
    }

    /// The message that was made last goes out again, when it is the very one that this subscription is due.
    private mutating func resend(_ key: SubscriptionKey, _ subscription: inout Subscription, _ now: Int64) -> Bool {
        guard let latest, latest.start == subscription.next, latest.frame.a == subscription.unreported, latest.handle == key.handle,
            subscription.matchesAll, latest.count <= subscription.creditMessages, latest.size <= subscription.creditBytes,
            subscription.consumer.flatMap({ cursors[$0]?.strike }) == nil
        else { return false }
        subscription.creditMessages -= latest.count
        subscription.creditBytes -= Int64(latest.size)
        subscription.next = latest.frame.b + 1
        subscription.unreported = subscription.next
        subscription.reportedAt = now
        subscriptions[key] = subscription
        counts.delivered += UInt64(latest.count)
        send(key.peer, latest.message, now)
        return true
    }

    /// The event with that number and those after it, from memory or from disk, and its place among them.
    func events(from seq: UInt64, bytes: Int) throws -> (run: EventRun, index: Int) {
        if let found = tail.find(seq) { return found }
        return (try log.read(from: seq, bytes: bytes), 0)
    }

    /// Adds what matches, until the message is full, the run ends, or `end` is reached. The number of the first event not examined.
    private func collect(
        _ run: EventRun, from index: Int, before end: UInt64, _ subscription: inout Subscription, into message: inout EventsMessage
    ) -> UInt64 {
        let topics = topics
        return run.bytes.withUnsafeBytes { bytes in
            var seq = run.firstSeq + UInt64(index)
            // Neighbours are copied together.
            var wanted = 0..<0
            func flush() { if !wanted.isEmpty { message.append(UnsafeRawBufferPointer(rebasing: bytes[wanted])) } }
            for place in run.places[index...] {
                if seq >= end { break }
                let range = Int(place.offset)..<Int(place.offset + place.length)
                if subscription.matchesAll
                    || subscription.wants(UnsafeRawBufferPointer(rebasing: bytes[range]), place.topic, topics)
                {
                    guard message.admit(range.count) else { break }
                    if wanted.upperBound == range.lowerBound, !wanted.isEmpty {
                        wanted = wanted.lowerBound..<range.upperBound
                    } else {
                        flush()
                        wanted = range
                    }
                }
                seq += 1
            }
            flush()
            return seq
        }
    }

    /// The consumer has come to something that cannot be read: it is told which numbers, and decides itself where to go on.
    mutating func halt(_ key: SubscriptionKey, _ subscription: Subscription, _ error: any Error, _ now: Int64) -> Bool {
        effects.append(.note(.warning, "\(subscription.owner): \(error)"))
        if subscription.next > subscription.unreported {
            send(key.peer, Frame(.events, handle: key.handle, a: subscription.unreported, b: subscription.next - 1), now)
        }
        if let trimmed = error as? Trimmed {
            lose(key, subscription, trimmed, now)
            return true
        }
        let lost = error as? DamagedRange
        let body = ErrorBody(code: "damaged", message: lost?.description ?? "the log cannot be read at \(subscription.next)")
        send(
            key.peer,
            Frame(
                .error, status: 500, handle: key.handle, a: lost?.first ?? subscription.next, b: UInt64(Command.subscribe.rawValue),
                body: (try? Coding.encode(body)) ?? Data()), now)
        drop(key)
        return true
    }

    /// Retention has passed the subscription, and with it every member of its group.
    private mutating func lose(_ key: SubscriptionKey, _ subscription: Subscription, _ trimmed: Trimmed, _ now: Int64) {
        let keys = subscription.isMember ? subscription.consumer.flatMap { members[$0] } ?? [] : [key]
        for key in keys {
            send(key.peer, Frame(.lost, status: 410, handle: key.handle, a: trimmed.wanted, b: trimmed.first), now)
            drop(key)
        }
    }

    /// Ranges without a match are named when they are long, or after a moment.
    mutating func reportRanges(_ now: Int64) {
        for (key, subscription) in subscriptions where subscription.next > subscription.unreported && !subscription.isMember {
            guard now - subscription.reportedAt >= 200 || subscription.next - subscription.unreported >= 4096 else { continue }
            send(key.peer, Frame(.events, handle: key.handle, a: subscription.unreported, b: subscription.next - 1), now)
            subscriptions[key]?.unreported = subscription.next
            subscriptions[key]?.reportedAt = now
        }
    }

    /// EMIT: to whoever listens at this moment and has credit; kept nowhere.
    mutating func emit(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let publications = try Publication.decode(frame.body, count: frame.b)
        for publication in publications {
            if let status = Self.shape(publication.topic, publication.id, publication.payload.count) {
                let code = status == 413 ? "too_large" : "invalid"
                return refuse(peer, frame, status, code, "EMIT: a topic, an id or a payload breaks its limits", now)
            }
            guard allowed.mayPublish(publication.topic),
                !allowed.readsPayloads || publication.payload.withUnsafeBytes({ allowed.maySay($0) })
            else {
                let what = publication.payload.withUnsafeBytes { allowed.refusal(publication.topic, $0) }
                deny(session.user, .emit, what, now)
                return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not publish \(Problem.quote(what))", now)
            }
        }
        for (key, subscription) in subscriptions where subscription.consumer == nil {
            emit(publications, from: session.user, to: key, subscription, now)
        }
    }

    private mutating func emit(
        _ publications: [Publication], from user: String, to key: SubscriptionKey, _ subscription: Subscription, _ now: Int64
    ) {
        var subscription = subscription
        var body = Data()
        var count = 0
        func flush(_ router: inout Router) {
            if !body.isEmpty { router.send(key.peer, Frame(.events, handle: key.handle, a: 0, b: 0, body: body), now) }
            body = Data()
            count = 0
        }
        for publication in publications where subscription.matches(publication.topic) {
            guard mayFeed(key, subscription) else {
                subscription.dropped += 1
                counts.dropped += 1
                continue
            }
            let record = Record(seq: 0, time: 0, topic: publication.topic, producer: user, id: publication.id, payload: publication.payload)
            if count == Limits.packedEvents || body.count + record.encodedLength > Limits.packedBytes { flush(&self) }
            record.encode(into: &body)
            count += 1
            subscription.creditMessages -= 1
            subscription.creditBytes -= Int64(record.encodedLength)
        }
        flush(&self)
        subscriptions[key] = subscription
    }
}
