import Contracts
import Foundation
import Wire

/// Group mode (several sessions, one work queue), acknowledgement of single events, and what happens to those that nobody takes.
extension Router {
    // MARK: Members

    mutating func join(_ key: SubscriptionKey, _ subscription: Subscription, _ consumer: ConsumerKey, _ now: Int64) throws {
        var subscription = subscription
        subscription.isMember = true
        // Where a queue begins is decided once, by the first session ever; the newest session's policy counts for all.
        var queue = queues[consumer] ?? WorkQueue(next: subscription.next)
        queue.policy = subscription.policy
        queues[consumer] = queue
        changedQueues.insert(consumer)
        members[consumer, default: []].append(key)
        let floor = queue.floor
        subscription.generation = nextGeneration(consumer, seq: floor)
        try begin(key, subscription, from: floor, now)
    }

    mutating func leave(_ consumer: ConsumerKey, _ key: SubscriptionKey, orderly: Bool) {
        members[consumer]?.removeAll { $0 == key }
        if members[consumer]?.isEmpty == true { members.removeValue(forKey: consumer) }
        let given = queues[consumer]?.left(key, orderly: orderly) ?? []
        for (seq, outcome) in given { note(outcome, consumer, seq) }
        changedQueues.insert(consumer)
    }

    // MARK: Delivery

    /// One message for one member: what is due again first, then what is new.
    mutating func feedMember(_ key: SubscriptionKey, _ subscription: Subscription, _ now: Int64) -> Bool {
        guard let consumer = subscription.consumer, queues[consumer] != nil else { return false }
        // Whoever has rested longest is next: events that come one by one would else all go to the same.
        let isEarly = members[consumer]?.contains { other in
            guard other != key, let member = subscriptions[other] else { return false }
            return mayFeed(other, member) && member.fedAt < subscription.fedAt
        }
        guard isEarly != true, feedAgain(key, subscription, consumer, now) || feedNew(key, subscription, consumer, now) else {
            return false
        }
        feedings += 1
        subscriptions[key]?.fedAt = feedings
        return true
    }

    private mutating func feedAgain(_ key: SubscriptionKey, _ subscription: Subscription, _ consumer: ConsumerKey, _ now: Int64) -> Bool {
        var subscription = subscription
        var body = Data()
        var range: (first: UInt64, last: UInt64)?
        var count = 0
        while subscription.hasCredit, count < Limits.packedEvents, let seq = queues[consumer]?.nextReady() {
            let record: StoredRecord
            do {
                record = try stored(seq)
            } catch {
                park(consumer, seq, deliveries: queues[consumer]?.drop(seq) ?? 0, reason: "\(error)")
                changedQueues.insert(consumer)
                continue
            }
            guard wants(record, &subscription) else {
                // The group reads something else now, and may no longer be allowed to see this.
                _ = queues[consumer]?.drop(seq)
                changedQueues.insert(consumer)
                continue
            }
            guard body.isEmpty || body.count + 4 + record.bytes.count <= Limits.packedBytes else { break }
            let deliveries = queues[consumer]?.deliver(seq, to: key, now: now) ?? 1
            withUnsafeBytes(of: UInt32(clamping: deliveries).bigEndian) { body.append(contentsOf: $0) }
            body.append(record.bytes)
            subscription.creditMessages -= 1
            subscription.creditBytes -= Int64(record.bytes.count)
            range = (range?.first ?? seq, seq)
            count += 1
        }
        guard let range else { return false }
        changedQueues.insert(consumer)
        subscriptions[key] = subscription
        counts.delivered += UInt64(count)
        counts.redelivered += UInt64(count)
        send(key.peer, Frame(.events, flags: Self.redelivery, handle: key.handle, a: range.first, b: range.last, body: body), now)
        return true
    }

    private mutating func feedNew(_ key: SubscriptionKey, _ subscription: Subscription, _ consumer: ConsumerKey, _ now: Int64) -> Bool {
        guard let start = queues[consumer]?.next, start <= last, queues[consumer]?.items.count ?? 0 < settings.unsettled,
            parked[consumer]?.count ?? 0 < settings.parked
        else { return false }
        var subscription = subscription
        let run: EventRun
        let index: Int
        do {
            (run, index) = try events(from: start, bytes: Limits.packedBytes)
        } catch let damage as DamagedRange {
            park(consumer, damage.first, deliveries: 0, reason: damage.description)
            queues[consumer]?.next = damage.last + 1
            changedQueues.insert(consumer)
            return true
        } catch {
            return halt(key, subscription, error, now)
        }
        // Shared out, so that one session does not take a handful of jobs while the others are idle.
        let share = max(1, Int64(clamping: last + 1 - start) / Int64(max(1, members[consumer]?.count ?? 1)))
        let most = min(Int64(Limits.packedEvents), subscription.creditMessages, share)
        var body = Data()
        var range: (first: UInt64, last: UInt64)?
        var count: Int64 = 0
        var next = start
        for record in run[index...].prefix(4096) {
            if wants(record, &subscription) {
                guard count < most,
                    count == 0
                        || (body.count + record.bytes.count <= Limits.packedBytes
                            && Int64(body.count + record.bytes.count) <= subscription.creditBytes)
                else { break }
                body.append(record.bytes)
                count += 1
                range = (range?.first ?? record.seq, record.seq)
                queues[consumer]?.deliver(record.seq, to: key, now: now)
            }
            next = record.seq + 1
        }
        guard next > start else { return false }
        queues[consumer]?.next = next
        changedQueues.insert(consumer)
        if let range {
            subscription.creditMessages -= count
            subscription.creditBytes -= Int64(body.count)
            counts.delivered += UInt64(count)
            send(key.peer, Frame(.events, handle: key.handle, a: range.first, b: range.last, body: body), now)
        }
        subscriptions[key] = subscription
        return true
    }

    /// Flag of EVENTS: each record is preceded by the number of its delivery.
    static let redelivery: UInt16 = 1

    private func stored(_ seq: UInt64) throws -> StoredRecord {
        let (run, index) = try events(from: seq, bytes: 1)
        guard index < run.count, run.firstSeq + UInt64(index) == seq else {
            throw DamagedRange(first: seq, last: seq, place: "no longer kept")
        }
        return run[index]
    }

    private func wants(_ record: StoredRecord, _ subscription: inout Subscription) -> Bool {
        var topic = record.topic
        let id = topic.withUTF8 { topics.known(UnsafeRawBufferPointer($0)) }
        if let known = subscription.wanted[id] { return known }
        let answer = subscription.matches(record.topic)
        subscription.wanted[id] = answer
        return answer
    }

    /// An ordered consumer gets the event that it refused by itself, with its count; the rest follows in order.
    mutating func deliverAgain(_ key: SubscriptionKey, _ subscription: Subscription, _ strike: Strike, _ now: Int64) throws -> Bool {
        guard let consumer = subscription.consumer else { return false }
        let record = try stored(strike.seq)
        var subscription = subscription
        var body = Data()
        withUnsafeBytes(of: UInt32(clamping: strike.deliveries + 1).bigEndian) { body.append(contentsOf: $0) }
        body.append(record.bytes)
        cursors[consumer]?.strike?.deliveries += 1
        changedCursors.insert(consumer)
        subscription.creditMessages -= 1
        subscription.creditBytes -= Int64(record.bytes.count)
        subscription.next = strike.seq + 1
        subscription.unreported = subscription.next
        subscription.reportedAt = now
        subscriptions[key] = subscription
        counts.delivered += 1
        counts.redelivered += 1
        send(key.peer, Frame(.events, flags: Self.redelivery, handle: key.handle, a: strike.seq, b: strike.seq, body: body), now)
        return true
    }

    // MARK: Verdicts

    mutating func acknowledgeEach(_ frame: Frame, _ peer: Peer, _ now: Int64) throws {
        let verdicts = try Verdict.decode(frame.body)
        let key = SubscriptionKey(peer: peer, handle: frame.handle)
        if sessions[peer]?.fenced.contains(frame.handle) == true {
            return bye(peer, handle: frame.handle, 410, "generation \(frame.b) is over", retry: nil, now)
        }
        guard let subscription = subscriptions[key] else { return }
        guard let consumer = subscription.consumer else { throw WireError("ACKX: an ephemeral subscription acknowledges nothing") }
        guard frame.b == subscription.generation else { return fence(key, "generation \(frame.b) is over", now) }
        var late: [UInt64] = []
        for verdict in verdicts {
            if subscription.isMember {
                if !judge(verdict, key, consumer, now) { late.append(verdict.seq) }
            } else if !judgeInOrder(verdict, frame, key, consumer, now) {
                late.append(verdict.seq)
            }
        }
        if subscription.isMember { changedQueues.insert(consumer) }
        if let first = late.first {
            // Told, so that a worker that was asleep knows that its work may have been done by another.
            refuse(
                peer, Frame(.ackEach, handle: frame.handle, a: first), 409, "conflict",
                "\(late.count) of \(verdicts.count) verdicts came too late, the first for event \(first): it is not this session's any more",
                now)
        }
    }

    /// False: it was not this session's to decide.
    private mutating func judge(_ verdict: Verdict, _ key: SubscriptionKey, _ consumer: ConsumerKey, _ now: Int64) -> Bool {
        let outcome: WorkQueue.Outcome? =
            switch verdict.verb {
            case .ack: queues[consumer]?.acknowledge(verdict.seq, by: key)
            case .nak: queues[consumer]?.refuse(verdict.seq, by: key, delay: Int64(verdict.delay), now: now)
            case .inProgress: queues[consumer]?.extend(verdict.seq, by: key, now: now)
            case .terminate: queues[consumer]?.terminate(verdict.seq, by: key)
            }
        guard let outcome, outcome != .notYours else { return false }
        if case .parked(let deliveries, let reason) = outcome {
            note(.parked(deliveries: deliveries, reason: Self.explain(reason, verdict)), consumer, verdict.seq)
        }
        return true
    }

    /// With what the consumer said of it.
    private static func explain(_ reason: String, _ verdict: Verdict) -> String {
        verdict.text.isEmpty ? reason : "\(reason): \(verdict.text)"
    }

    private mutating func note(_ outcome: WorkQueue.Outcome, _ consumer: ConsumerKey, _ seq: UInt64) {
        if case .parked(let deliveries, let reason) = outcome { park(consumer, seq, deliveries: deliveries, reason: reason) }
    }

    /// The same for an ordered consumer: a refused event holds up what follows it.
    private mutating func judgeInOrder(
        _ verdict: Verdict, _ frame: Frame, _ key: SubscriptionKey, _ consumer: ConsumerKey, _ now: Int64
    ) -> Bool {
        // Stopped by a verdict before it in the same message.
        guard let subscription = subscriptions[key] else { return false }
        switch verdict.verb {
        case .inProgress: return true
        case .ack:
            acknowledge(Frame(.ack, handle: frame.handle, a: verdict.seq, b: frame.b), key.peer, now)
            return true
        case .nak, .terminate: break
        }
        // Only what it was given: nobody may have an event sent to him by refusing it.
        guard verdict.seq > cursors[consumer]?.seq ?? 0, verdict.seq < subscription.unreported, let record = try? stored(verdict.seq),
            subscription.matches(record.topic)
        else { return false }
        let known = cursors[consumer]?.strike.flatMap { $0.seq == verdict.seq ? $0 : nil } ?? Strike(seq: verdict.seq, deliveries: 1)
        let policy = subscription.policy
        let isPoison = verdict.verb == .terminate || (policy.maxDeliver > 0 && known.deliveries >= policy.maxDeliver)
        guard isPoison else {
            cursors[consumer]?.strike = known
            changedCursors.insert(consumer)
            subscriptions[key]?.next = verdict.seq
            subscriptions[key]?.unreported = verdict.seq
            subscriptions[key]?.restsUntil = now + (verdict.delay > 0 ? Int64(verdict.delay) : policy.pause(after: known.deliveries))
            return true
        }
        cursors[consumer]?.strike = nil
        changedCursors.insert(consumer)
        let reason = Self.explain(verdict.verb == .terminate ? "terminated by its consumer" : "refused by its consumer", verdict)
        switch subscription.poison {
        case .park:
            park(consumer, verdict.seq, deliveries: known.deliveries, reason: reason)
            if cursors[consumer]?.seq == verdict.seq - 1 {
                cursors[consumer]?.seq = verdict.seq
            }
            subscriptions[key]?.next = verdict.seq + 1
            subscriptions[key]?.unreported = verdict.seq + 1
        case .stop:
            drop(key)
            announce(
                ConsumerStopped(
                    owner: consumer.owner, consumer: consumer.name, sequence: verdict.seq, deliveries: known.deliveries, reason: reason))
            let body = ErrorBody(
                code: "poison", message: "event \(verdict.seq), delivered \(known.deliveries) times, was \(reason); delivery ends here")
            send(
                key.peer,
                Frame(
                    .error, status: 500, handle: key.handle, a: verdict.seq, b: UInt64(Command.subscribe.rawValue),
                    body: (try? Coding.encode(body)) ?? Data()), now)
        }
        return true
    }

    mutating func expireDeliveries(_ now: Int64) {
        for consumer in queues.keys {
            guard queues[consumer]?.isDue(now) == true else { continue }
            changedQueues.insert(consumer)
            let outcomes = queues[consumer]?.tick(now) ?? []
            for (seq, outcome) in outcomes { note(outcome, consumer, seq) }
        }
    }

    // MARK: Parked events

    private mutating func park(_ consumer: ConsumerKey, _ seq: UInt64, deliveries: Int, reason: String) {
        let at = (try? EventID(makeID())).flatMap(Self.time(of:))?.milliseconds ?? 0
        parked[consumer, default: [:]][seq] = Parked(seq: seq, deliveries: deliveries, reason: reason, at: at)
        changedParked[consumer, default: []].insert(seq)
        counts.parked += 1
        effects.append(.note(.warning, "\(consumer.owner): event \(seq) is parked for '\(consumer.name)': \(reason)"))
        announce(
            MessageParked(owner: consumer.owner, consumer: consumer.name, sequence: seq, deliveries: deliveries, reason: reason))
    }

    /// A durable consumer that will not come back: its position, its queue and what was parked for it. Should it come all the same, it is a
    /// new one. Throws `Problem` when there is none of that name, or somebody reads under it.
    mutating func forget(_ consumer: ConsumerKey) throws {
        guard cursors[consumer] != nil || queues[consumer] != nil else {
            throw Problem(
                .notFound, "there is no consumer \(Problem.quote(consumer.name)) of \(Problem.quote(consumer.owner))",
                hint: "slipway bus consumers lists them")
        }
        guard active[consumer] == nil, members[consumer]?.isEmpty ?? true else {
            throw Problem(
                .conflict, "somebody reads as \(Problem.quote(consumer.name)) of \(Problem.quote(consumer.owner)) now",
                hint: "stop that program first")
        }
        cursors.removeValue(forKey: consumer)
        queues.removeValue(forKey: consumer)
        parked.removeValue(forKey: consumer)
        changedCursors.remove(consumer)
        changedQueues.remove(consumer)
        changedParked.removeValue(forKey: consumer)
        forgotten.insert(consumer)
        effects.append(.note(.notice, "consumer '\(consumer.name)' of '\(consumer.owner)' is forgotten"))
    }

    /// Puts a parked event back in line (group mode), or forgets it. Throws `Problem` when there is no such event.
    mutating func unpark(_ consumer: ConsumerKey, _ seq: UInt64, retry: Bool) throws {
        guard parked[consumer]?[seq] != nil else {
            throw Problem(.notFound, "event \(seq) is not parked for \(Problem.quote(consumer.name)) of \(Problem.quote(consumer.owner))")
        }
        if retry {
            guard seq >= log.first else {
                throw Problem(
                    .gone, "event \(seq) is no longer kept; the log begins with \(log.first)",
                    hint: "drop it from the list of parked events")
            }
            guard queues[consumer] != nil else {
                throw Problem(
                    .conflict, "\(Problem.quote(consumer.name)) reads in order, and order cannot be made up for",
                    hint: "read event \(seq) with 'slipway events --since \(seq)', then drop it")
            }
            queues[consumer]?.retry(seq)
            changedQueues.insert(consumer)
        }
        parked[consumer]?.removeValue(forKey: seq)
        if parked[consumer]?.isEmpty == true { parked.removeValue(forKey: consumer) }
        changedParked[consumer, default: []].insert(seq)
    }
}
