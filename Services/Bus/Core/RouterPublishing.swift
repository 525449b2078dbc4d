import Contracts
import Foundation
import Wire

extension Router {
    /// Flag of PUB: begins again from the first refused event.
    static let resume: UInt16 = 1

    mutating func publish(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let publications = try Publication.decode(frame.body, count: frame.b)
        guard !publications.isEmpty, frame.a > 0, frame.a <= UInt64.max - frame.b else { throw WireError("PUB: no events, or number 0") }
        // As it is now, with the moment at which it was heard.
        var session = sessions[peer] ?? session
        if frame.flags & Self.resume != 0, let from = session.refusedFrom {
            session.refusedFrom = nil
            session.acknowledged = min(session.acknowledged, from - 1)
            session.nextNumber = min(session.nextNumber, from)
        }
        if session.outbox == nil {
            // A number may come again, from a client that sends again or that is too simple to count: the id decides what is new.
            guard frame.a <= session.nextNumber else { throw WireError("PUB: expected number \(session.nextNumber), found \(frame.a)") }
        }
        var acknowledgement =
            filling.acknowledgements[peer].flatMap { $0.session == session.id ? $0 : nil }
            ?? FillingBatch.Acknowledgement(session: session.id, upTo: 0)
        for (offset, publication) in publications.enumerated() {
            let number = frame.a + UInt64(offset)
            let size = publication.payload.count
            let key = RecentIDs.Key(session.user, publication.id)
            acknowledgement.upTo = max(acknowledgement.upTo, number)
            acknowledgement.index = nil
            acknowledgement.duplicate = nil
            acknowledgement.messages += 1
            acknowledgement.bytes += size
            session.unackedMessages += 1
            session.unackedBytes += size
            if session.outbox == nil { session.nextNumber = max(session.nextNumber, number + 1) }
            if let status = verdict(publication, key, number, session, allowed) {
                acknowledgement.exceptions.append((number, status))
                switch status {
                case 208:
                    acknowledgement.duplicate = key
                    if isPending(key, number, session) { acknowledgement.uncertain.insert(number) }
                case 403: deny(session.user, .publish, publication.topic, now)
                case 429: session.refusedFrom = number
                default: break
                }
                continue
            }
            let index = filling.add(
                BatchEvent(topic: publication.topic, producer: session.user, id: publication.id, payload: publication.payload))
            acknowledgement.index = index
            acknowledgement.stored.append(number)
            if let outbox = session.outbox {
                taken[outbox] = number
                filling.outboxes[outbox] = number
            }
            pending.insert(key)
            filling.ids.append((key, index))
        }
        filling.acknowledgements[peer] = acknowledgement
        sessions[peer] = session
    }

    /// Nil: to be stored. Otherwise the exception that goes into PUBACK.
    private func verdict(
        _ publication: Publication, _ key: RecentIDs.Key, _ number: UInt64, _ session: Session, _ allowed: Rights
    ) -> UInt16? {
        if session.isBlocked { return 425 }
        // What may never be stored is refused each time that it is sent: a lost acknowledgement must not turn it into a duplicate.
        let refusal = Self.shape(publication.topic, publication.id, publication.payload.count)
        if let refusal { return refusal }
        if !allowed.mayPublish(publication.topic) { return 403 }
        if let outbox = session.outbox, number <= taken[outbox] ?? 0 { return 208 }
        if session.unackedMessages > settings.windowMessages || session.unackedBytes > settings.windowBytes { return 429 }
        if session.outbox == nil, pending.contains(key) || recent.seq(key) != nil { return 208 }
        return nil
    }

    /// Whether the original of a duplicate is not on the device yet.
    private func isPending(_ key: RecentIDs.Key, _ number: UInt64, _ session: Session) -> Bool {
        guard let outbox = session.outbox else { return recent.seq(key) == nil }
        return number > durableTaken[outbox] ?? 0
    }

    static func shape(_ topic: String, _ id: String, _ payload: Int) -> UInt16? {
        guard (try? EventType(topic)) != nil, (1...Limits.id).contains(id.utf8.count), id.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F })
        else { return 422 }
        return payload > Limits.payload ? 413 : nil
    }

    /// A publication from within this process (the HTTP face). Every event is decided by itself.
    mutating func publish(_ publications: [Publication], producer: String, ticket: UInt64) {
        let decisions = publications.map { publication -> FillingBatch.Local in
            if let status = Self.shape(publication.topic, publication.id, publication.payload.count) { return .refused(status) }
            let key = RecentIDs.Key(producer, publication.id)
            if pending.contains(key) || recent.seq(key) != nil { return .duplicate(key) }
            let index = filling.add(
                BatchEvent(topic: publication.topic, producer: producer, id: publication.id, payload: publication.payload))
            pending.insert(key)
            filling.ids.append((key, index))
            return .stored(index: index)
        }
        filling.locals.append((ticket, decisions))
    }

    /// The next batch for the device; nil while one flies, and when nothing waits. Duplicates and refusals alone need no flush,
    /// but they wait for the flying batch, because the original of a duplicate may be in it.
    mutating func takeBatch(_ now: Int64) -> Batch? {
        guard flying == nil else { return nil }
        guard !filling.events.isEmpty else {
            if !filling.acknowledgements.isEmpty || !filling.locals.isEmpty {
                let decided = filling
                filling = FillingBatch()
                tell(decided, now)
            }
            return nil
        }
        filling.first = last + 1
        let batch = Batch(first: filling.first, events: filling.events, outboxes: filling.outboxes)
        flying = filling
        filling = FillingBatch()
        return batch
    }

    mutating func flushed(_ result: FlushResult, now: Int64) {
        guard let batch = flying else { return }
        flying = nil
        switch result {
        case .durable(let records, let newHash):
            last = batch.first + UInt64(batch.events.count) - 1
            hash = newHash
            for (outbox, number) in batch.outboxes {
                durableTaken[outbox] = number
                changedOutboxes.insert(outbox)
            }
            let time = records.first?.bytes.withUnsafeBytes { RecordHead($0, at: 0)?.time } ?? 0
            for (key, index) in batch.ids {
                pending.remove(key)
                recent.insert(key, seq: batch.first + UInt64(index), time: time)
            }
            tail.append(records)
            tell(batch, now)
        case .full(let reason):
            effects.append(.note(.warning, "no room for \(batch.events.count) events: \(reason)"))
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
        pending.removeAll()
        filling = FillingBatch()
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
                exceptions.append(contentsOf: acknowledgement.stored.map { ($0, status) })
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
