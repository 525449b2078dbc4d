import Contracts
import Foundation
import Wire

extension Router {
    /// Flag of PUB: begins again from the first refused event.
    static let resume: UInt16 = 1

    mutating func publish(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        try frame.body.withUnsafeBytes { body in
            let events = try PublicationReader(body, count: frame.b)
            guard frame.b > 0, frame.a > 0, frame.a <= UInt64.max - frame.b else { throw WireError("PUB: no events, or number 0") }
            // As it is now, with the moment at which it was heard.
            var session = sessions[peer] ?? session
            if frame.flags & Self.resume != 0, let from = session.refusedFrom {
                session.refusedFrom = nil
                session.acknowledged = min(session.acknowledged, from - 1)
                session.nextNumber = min(session.nextNumber, from)
            }
            if session.outbox == nil {
                // A number may come again, from a client that sends again or that is too simple to count: the id decides what is new.
                guard frame.a <= session.nextNumber else {
                    throw WireError("PUB: expected number \(session.nextNumber), found \(frame.a)")
                }
                session.nextNumber = max(session.nextNumber, frame.a + frame.b)
            }
            take(events, from: frame.a, peer, &session, allowed, now)
            sessions[peer] = session
        }
    }

    private mutating func take(
        _ events: PublicationReader, from first: UInt64, _ peer: Peer, _ session: inout Session, _ allowed: Rights, _ now: Int64
    ) {
        var acknowledgement =
            filling.acknowledgements[peer].flatMap { $0.session == session.id ? $0 : nil }
            ?? FillingBatch.Acknowledgement(session: session.id, upTo: 0)
        let producer = session.producer
        let speech = allowed.readsPayloads ? Speech(allowed) : nil
        var events = events
        var number = first
        while let event = events.next() {
            // PUBACK says the number in the log of the last one; numbers that come again do not change which that is.
            let isLast = number >= acknowledgement.upTo
            if isLast {
                acknowledgement.upTo = number
                acknowledgement.index = nil
                acknowledgement.duplicate = nil
            }
            acknowledgement.messages += 1
            acknowledgement.bytes += event.payload.count
            session.unackedMessages += 1
            session.unackedBytes += event.payload.count
            switch producer.withUnsafeBytes({ verdict(event, $0, number, &session, allowed, speech) }) {
            case .store(let key, let topic):
                let index = filling.count
                filling.count += 1
                producer.withUnsafeBytes {
                    filling.records.append(topic: event.topic, topic, producer: $0, id: event.id, payload: event.payload)
                }
                // The numbers of an outbox are what counts there; nobody has looked whether the id is known.
                remember(key, index, isNew: session.outbox == nil)
                if isLast { acknowledgement.index = index }
                acknowledgement.note(stored: number)
                if let outbox = session.outbox {
                    taken[outbox] = number
                    filling.outboxes[outbox] = number
                }
            case .duplicate(let key):
                acknowledgement.exceptions.append((number, 208))
                counts.decided(208)
                if isLast { acknowledgement.duplicate = key }
                if isPending(key, number, session) { acknowledgement.uncertain.insert(number) }
            case .refuse(let status):
                acknowledgement.exceptions.append((number, status))
                counts.decided(status)
                if status == 403 {
                    deny(session.user, .publish, allowed.refusal(String(decoding: event.topic, as: UTF8.self), event.payload), now)
                }
                if status == 429 || status == 507 { session.refusedFrom = number }
            }
            number += 1
        }
        filling.acknowledgements[peer] = acknowledgement
    }

    private enum Verdict {
        case store(RecentIDs.Key, TopicID)
        case duplicate(RecentIDs.Key)
        case refuse(UInt16)
    }

    private mutating func verdict(
        _ event: PublicationReader.Event, _ producer: UnsafeRawBufferPointer, _ number: UInt64, _ session: inout Session,
        _ allowed: borrowing Rights, _ speech: Speech?
    ) -> Verdict {
        if session.isBlocked { return .refuse(425) }
        // What may never be stored is refused each time that it is sent: a lost acknowledgement must not turn it into a duplicate.
        let topic = topics.id(event.topic)
        if let refusal = Self.shape(topic, event.topic, event.id, event.payload.count) { return .refuse(refusal) }
        var mayPublish = session.mayPublish[topic]
        if mayPublish == nil {
            mayPublish = allowed.mayPublish(String(decoding: event.topic, as: UTF8.self))
            session.mayPublish[topic] = mayPublish
        }
        guard mayPublish == true, speech?.allows(event.payload) != false else { return .refuse(403) }
        if let outbox = session.outbox, number <= taken[outbox] ?? 0 { return .duplicate(recent.hash.key(producer, event.id)) }
        // The session's own window; and what all of them together may have waiting while the device is slow.
        if session.unackedMessages > settings.windowMessages || session.unackedBytes > settings.windowBytes
            || filling.records.bytes.count > settings.batchBytes
        {
            return .refuse(429)
        }
        let key = recent.hash.key(producer, event.id)
        if session.outbox == nil, recent.seq(key) != nil { return .duplicate(key) }
        if space.isFull { return .refuse(507) }
        return .store(key, topic)
    }

    /// The event's id is known from now on, under the number that it will have; `refuseAll` forgets it again.
    private mutating func remember(_ key: RecentIDs.Key, _ index: Int, isNew: Bool) {
        let seq = last + UInt64(flying?.count ?? 0) + UInt64(index) + 1
        if isNew { recent.add(key, seq: seq) } else { recent.insert(key, seq: seq) }
        filling.ids = filling.ids.lowerBound..<recent.end
    }

    /// Whether the original of a duplicate is not on the device yet.
    private func isPending(_ key: RecentIDs.Key, _ number: UInt64, _ session: Session) -> Bool {
        guard let outbox = session.outbox else { return recent.seq(key) ?? 0 > last }
        return number > durableTaken[outbox] ?? 0
    }

    private static func shape(
        _ topic: TopicID, _ text: UnsafeRawBufferPointer, _ id: UnsafeRawBufferPointer, _ payload: Int
    ) -> UInt16? {
        guard topic != .none || TopicTable.isTopic(text), (1...Limits.id).contains(id.count), isID(id) else { return 422 }
        return payload > Limits.payload ? 413 : nil
    }

    /// Printable; UTF-8 when it is not ASCII.
    private static func isID(_ id: UnsafeRawBufferPointer) -> Bool {
        var isASCII = true
        for byte in id {
            guard byte > 0x20, byte != 0x7F else { return false }
            if byte >= 0x80 { isASCII = false }
        }
        return isASCII || String(validating: id, as: UTF8.self) != nil
    }

    static func shape(_ topic: String, _ id: String, _ payload: Int) -> UInt16? {
        var (topic, id) = (topic, id)
        return topic.withUTF8 { topic in
            id.withUTF8 { shape(.none, UnsafeRawBufferPointer(topic), UnsafeRawBufferPointer($0), payload) }
        }
    }

    /// A publication from within this process (the HTTP face). Every event is decided by itself.
    mutating func publish(_ publications: [Publication], producer: String, ticket: UInt64) {
        let decisions = publications.map { publication -> FillingBatch.Local in
            if let status = Self.shape(publication.topic, publication.id, publication.payload.count) { return .refused(status) }
            let key = recent.hash.key(producer, publication.id)
            if recent.seq(key) != nil { return .duplicate(key) }
            if space.isFull { return .refused(507) }
            let index = add(
                BatchEvent(topic: publication.topic, producer: producer, id: publication.id, payload: publication.payload))
            remember(key, index, isNew: true)
            return .stored(index: index)
        }
        filling.locals.append((ticket, decisions))
    }

    /// Puts an event into the filling batch; its place there.
    @discardableResult
    mutating func add(_ event: BatchEvent) -> Int {
        filling.records.append(event)
        filling.count += 1
        return filling.count - 1
    }

    /// The next batch for the device; nil while one flies, and when nothing waits. Duplicates and refusals alone need no flush,
    /// but they wait for the flying batch, because the original of a duplicate may be in it.
    mutating func takeBatch(_ now: Int64) -> Batch? {
        guard flying == nil, supersededBy == nil else { return nil }
        guard filling.count > 0 else {
            if !filling.acknowledgements.isEmpty || !filling.locals.isEmpty {
                let decided = filling
                filling = FillingBatch(idsFrom: recent.end)
                tell(decided, now)
            }
            return nil
        }
        filling.first = last + 1
        // The one reference to the bytes goes along, so that the appending thread need not copy them to fill in the numbers.
        var records = RecordBuffer()
        swap(&records, &filling.records)
        flying = filling
        let outboxes = filling.outboxes
        filling = FillingBatch(idsFrom: recent.end)
        filling.records = RecordBuffer(like: records)
        let batch = Batch(first: last + 1, records: records, outboxes: outboxes)
        return batch
    }

    mutating func flushed(_ result: FlushResult, now: Int64) {
        guard let batch = flying else { return }
        flying = nil
        switch result {
        case .durable(let run, let time, let newHash):
            last = run.lastSeq
            isFull = false
            counts.batches += 1
            counts.stored += UInt64(run.count)
            counts.storedBytes += UInt64(run.bytes.count)
            hash = newHash
            for (outbox, number) in batch.outboxes {
                durableTaken[outbox] = number
                changedOutboxes.insert(outbox)
            }
            recent.stamp(batch.ids, time: time)
            tail.append(run)
            latest = nil
            tell(batch, now)
        case .full(let reason):
            isFull = true
            counts.refused[507, default: 0] += UInt64(batch.count + filling.count)
            effects.append(.note(.warning, "no room for \(batch.count) events: \(reason)"))
            refuseAll([batch, filling], now)
        }
    }

    /// PUBACK to every publisher of the batch, and the outcome to callers in this process.
    private mutating func tell(_ batch: FillingBatch, _ now: Int64) {
        for (peer, acknowledgement) in batch.acknowledgements {
            guard sessions[peer]?.id == acknowledgement.session else { continue }
            sessions[peer]?.unackedMessages -= acknowledgement.messages
            sessions[peer]?.unackedBytes -= acknowledgement.bytes
            let seq = acknowledgement.index.map { batch.first + UInt64($0) } ?? acknowledgement.duplicate.flatMap { recent.seq($0) } ?? 0
            let exceptions = acknowledgement.exceptions.map { PublishException(number: $0.number, status: $0.status) }
            acknowledge(peer, upTo: acknowledgement.upTo, seq: seq, exceptions, now)
        }
        for (ticket, decisions) in batch.locals {
            effects.append(
                .published(
                    ticket: ticket,
                    decisions.map { decision in
                        switch decision {
                        case .stored(let index): LocalDecision(status: 200, seq: batch.first + UInt64(index))
                        case .duplicate(let key): LocalDecision(status: 208, seq: recent.seq(key) ?? 0)
                        case .refused(let status): LocalDecision(status: status, seq: 0)
                        }
                    }))
        }
    }

    /// PUBACK, in as many messages as its exceptions take. `a` never goes back: numbers that were sent again say nothing new.
    private mutating func acknowledge(
        _ peer: Peer, upTo: UInt64, seq: UInt64, _ exceptions: [PublishException], _ now: Int64
    ) {
        let before = sessions[peer]?.acknowledged ?? 0
        var rest = exceptions[...]
        while rest.count > Self.exceptionsAMessage {
            let some = rest.prefix(Self.exceptionsAMessage)
            rest = rest.dropFirst(some.count)
            // All up to the last one named here is decided.
            let number = max(before, min(some.last?.number ?? upTo, upTo))
            send(peer, Frame(.publishAck, a: number, b: 0, body: PublishException.encode(Array(some))), now)
        }
        let number = max(before, upTo)
        sessions[peer]?.acknowledged = number
        send(peer, Frame(.publishAck, a: number, b: number == upTo ? seq : 0, body: PublishException.encode(Array(rest))), now)
    }
    /// 12 bytes each.
    private static let exceptionsAMessage = 32_768

    /// Nothing could be written: what flew and what waited behind it is refused, in order, until the publishers resume.
    private mutating func refuseAll(_ batches: [FillingBatch], _ now: Int64) {
        taken = durableTaken
        recent.rollBack(to: batches.map(\.ids.lowerBound).min() ?? recent.end)
        filling = FillingBatch(idsFrom: recent.end)
        for batch in batches {
            var refused = batch
            // Nothing of it has a number.
            refused.first = 0
            for (peer, acknowledgement) in batch.acknowledgements {
                // Who has nothing in it is not concerned: what was said of those numbers stays true.
                guard !acknowledgement.stored.isEmpty || !acknowledgement.uncertain.isEmpty else { continue }
                let status: UInt16 = sessions[peer]?.isBlocked == true ? 425 : 507
                // The original of such a duplicate was refused with the rest.
                var exceptions = acknowledgement.exceptions.map {
                    acknowledgement.uncertain.contains($0.number) && $0.status == 208 ? ($0.number, status) : $0
                }
                exceptions.append(contentsOf: acknowledgement.stored.lazy.joined().map { ($0, status) })
                exceptions.sort { $0.0 < $1.0 }
                refused.acknowledgements[peer]?.exceptions = exceptions
                refused.acknowledgements[peer]?.index = nil
                refused.acknowledgements[peer]?.duplicate = nil
                guard sessions[peer]?.id == acknowledgement.session, let first = exceptions.first(where: { $0.1 == status })?.0 else {
                    continue
                }
                let before = sessions[peer]?.refusedFrom ?? .max
                sessions[peer]?.refusedFrom = min(first, before)
            }
            refused.locals = batch.locals.map { local in
                let decisions = local.decisions.map { decision -> FillingBatch.Local in
                    switch decision {
                    case .stored: .refused(507)
                    case .duplicate(let key): recent.seq(key) == nil ? .refused(507) : decision
                    case .refused: decision
                    }
                }
                return (local.ticket, decisions)
            }
            tell(refused, now)
        }
    }
}
