import Contracts
import Foundation
import Logging
import Wire

/// The thread that owns the ROUTER socket and the router, from their making to their end.
///
///     poll → drain the socket → orders from other threads → time → hand a batch to the flusher → deliver → send → repeat
///
/// A few events go to the device from this thread, as long as the device is quick: to wake another thread and to be woken by it takes
/// as long as such a flush. Many go by the flusher, so that the next ones are taken in meanwhile.
final class BrokerThread {
    private let socket: RouterSocket
    private var router: Router
    private let inbox: Inbox
    private let flusher: Flusher
    private let log: EventLog
    private let cursors: CursorStore
    private let keys: KeyTable
    private let logger: Logger
    /// Where `standing.json` lies, and what the rest of the process sees of it.
    private let directory: String
    private let standing: StandingNow
    /// Told the number of the last durable event.
    private let advanced: @Sendable (UInt64) -> Void

    private var tickets: UInt64 = 0
    private var publishing: [UInt64: @Sendable ([LocalDecision]?) -> Void] = [:]
    private var calling: [UInt64: @Sendable (UInt16, Data) -> Void] = [:]
    private var savedAt: Int64 = 0
    private var savedMark: DurableMark?
    /// What is being stored.
    private var saving: Changes?
    private var keysAt: Int64 = 0
    private var tickedAt: Int64 = 0
    /// A flush has ended in this turn.
    private var landed = false
    private var toldAt: Int64 = 0
    /// When the flying batch was handed over, in nanoseconds; and how long the last flush took.
    private var launchedAt: UInt64 = 0
    private var flushTook = UInt64.max
    /// What this thread itself writes at most, in bytes; and the time that the flush before may have taken for that, in nanoseconds.
    private static let few = 16 << 10
    private static let quick: UInt64 = 1_000_000
    /// So many events are worth a flush of their own although more will come.
    private static let many = 256
    /// Milliseconds for what has come in, before what is to go out has its turn.
    private static let longest: Int64 = 10
    private var trimmedAt: Int64 = 0
    private var trimming = false
    private var covering = false
    private var stopping = false
    private let reserve: Reserve?
    private let scrub = Locked(LogScrub())
    private var scrubAt = Int64.min
    /// `sync_replica`: a batch is acknowledged and delivered when a replica has it as well.
    private let isSynchronous: Bool
    /// What waits for that, since when, and whether nothing has come through since the start.
    private var held: FlushResult?
    private var heldAt: Int64 = 0
    private var hasReplica = false
    /// What may take its time.
    private let housekeeping = DispatchQueue(label: "bus-housekeeping", qos: .utility)
    /// A failure to store is told once, not ten times a second.
    private var complained = false

    init(
        socket: RouterSocket, router: Router, inbox: Inbox, flusher: Flusher, log: EventLog, cursors: CursorStore, keys: KeyTable,
        logger: Logger, directory: String, standing: StandingNow, held: FlushResult?,
        advanced: @escaping @Sendable (UInt64) -> Void
    ) {
        self.socket = socket
        self.router = router
        self.inbox = inbox
        self.flusher = flusher
        self.log = log
        self.cursors = cursors
        self.keys = keys
        self.logger = logger
        self.directory = directory
        self.standing = standing
        isSynchronous = held != nil
        self.held = held
        heldAt = Clock.monotonic()
        self.advanced = advanced
        reserve = Disk.space(in: log.settings.directory).map { Reserve(directory: log.settings.directory, total: $0.total) }
    }

    /// Until `stop` or `bus.drain` comes; then all that was taken in is on the device and acknowledged, and cursors are stored.
    func run() {
        var more = false
        var turnedAt = Clock.monotonic()
        take(keys.rights, turnedAt)
        if let epoch = router.supersededBy { standing.supersede(by: epoch) }
        while !stopping, !router.isDraining {
            let due = router.nextDeadline.map { max(0, $0 - turnedAt) } ?? 100
            let ready = socket.wait(milliseconds: more ? 0 : min(due, 100), descriptor: inbox.descriptor)
            let now = Clock.monotonic()
            // This process was not run for a while. Its clients were, and what they said waits in the socket.
            if now - turnedAt > 1000 { router.forgive(now - turnedAt) }
            turnedAt = now
            if ready { drain(now) }
            for order in inbox.takeAll() { obey(order, now) }
            if let news = socket.gate.look(known: router.sessions.count, now: now) { logger.warning("\(news)") }
            if isSynchronous { release(now) }
            // Deadlines of calls are kept to the millisecond, the rest to a hundredth of a second.
            if now - tickedAt >= 10 || router.nextDeadline ?? .max <= now {
                tickedAt = now
                router.tick(now)
            }
            if now - keysAt >= 1000 { lookAtKeys(now) }
            // After a flush its publishers are told. When only few events wait, what the publishers say to that goes along with the
            // next one: to begin it at once would let the many that come wait for it.
            if !landed || router.filling.count >= Self.many {
                landed = false
                launch(now)
            }
            carryOut(now)
            let isCopying = router.feedReplicas(now)
            // What nobody else has yet may still be lost; after a start that can be the last of what is here.
            more = (!isSynchronous || hasReplica) && router.deliver(messages: 256, now: now) || isCopying
            carryOut(now)
            if landed {
                landed = false
                drain(now, events: 2 * Self.many)
                launch(now)
                carryOut(now)
                // A client that subscribed again acknowledges at once what it had: it must have been sent that by then.
                more = router.deliver(messages: 256, now: now) || more
                carryOut(now)
            }
            save(now)
            trim(now)
            // So that those who follow over HTTP notice a client that has gone.
            if now - toldAt >= 10_000 {
                toldAt = now
                advanced(router.last)
            }
        }
        finish()
    }

    /// Until nothing waits, until so many events wait for the device, or until it is free for them; and not for long, because some
    /// questions take a while to answer, and everybody else waits.
    private func drain(_ now: Int64, events: Int = .max) {
        let began = Clock.monotonic()
        var bytes = 0
        for _ in 0..<4096 {
            guard bytes < 4 << 20, Clock.monotonic() - began <= Self.longest, router.filling.count < events else { return }
            guard !(router.isFlying && inbox.isWaiting), let (peer, user, message) = socket.receive() else { return }
            bytes += message.count
            // A key that was made a moment ago: the ZAP thread has read of it, the router has not heard yet.
            if let user, router.rights[user.name]?.key != user.key {
                let rights = keys.rights
                if rights[user.name]?.key == user.key { take(rights, now) }
            }
            router.receive(message, from: peer, user: user?.name, key: user?.key ?? "", now: now)
        }
    }

    private func obey(_ order: Order, _ now: Int64) {
        switch order {
        case .publish(let events, let producer, let done):
            guard router.supersededBy == nil else { return done(nil) }
            tickets += 1
            publishing[tickets] = done
            router.publish(
                events.map { Publication(topic: $0.topic, id: $0.id, payload: $0.payload) }, producer: producer, ticket: tickets)
        case .call(let method, let payload, let milliseconds, let done):
            tickets += 1
            calling[tickets] = done
            router.call(method, payload, as: "bus", milliseconds: milliseconds, ticket: tickets, now: now)
        case .consumers(let done): done(router.consumers())
        case .parked(let owner, let consumer, let done): done(router.parkedList(owner: owner, consumer: consumer))
        case .unpark(let consumer, let seq, let retry, let done): attempt(done) { try router.unpark(consumer, seq, retry: retry) }
        case .forget(let consumer, let done): attempt(done) { try router.forget(consumer) }
        case .flushed(let result): flushed(result, now)
        case .replicas(let done): done(router.replicaList())
        case .met(let epoch, let witness):
            if epoch > router.settings.epoch,
                router.settings.witness?.confirms(witness, stream: router.settings.stream, epoch: epoch) == true
            {
                router.supersede(by: epoch, now)
            }
        case .saved(let error): saved(error)
        case .covered: covering = false
        case .looked(let isOver): scrubAt = isOver ? now + 86_400_000 : now
        case .trimmed(let error):
            trimming = false
            if let error { logger.error("what retention removes could not be removed", metadata: ["error": "\(error)"]) }
        case .refusedKey(let address): router.deny("", .hello, "a key that is not in clients.json, from \(address)", now)
        case .denied(let name, let request, let what): router.deny(name, request, what, now)
        case .stop: stopping = true
        }
    }

    private func attempt(_ done: (Problem?) -> Void, _ action: () throws -> Void) {
        do {
            try action()
            done(nil)
        } catch {
            done(error as? Problem ?? Problem(.failed, "\(error)"))
        }
    }

    private func flushed(_ result: FlushResult, _ now: Int64) {
        flushTook = DispatchTime.now().uptimeNanoseconds &- launchedAt
        router.counts.flushNanoseconds += flushTook
        guard router.supersededBy == nil else { return router.abandon() }
        if isSynchronous, case .durable = result {
            held = result
            heldAt = now
        } else {
            land(result, now)
        }
    }

    private func land(_ result: FlushResult, _ now: Int64) {
        landed = true
        router.flushed(result, now: now)
        toldAt = now
        advanced(router.last)
        cover(all: false)
    }

    /// Acknowledges and delivers what was held back, once a replica has it. Until then nothing more is written; publishers wait
    /// with what they have, and nothing is refused that may already be in the log.
    private func release(_ now: Int64) {
        guard let result = held, router.supersededBy == nil else { return }
        guard let theirs = router.replicated, theirs >= log.rawEnd else {
            guard now - heldAt >= 5000 else { return }
            standing.wait(true)
            // Whether it will be there is not known. The same id can be sent again.
            for done in publishing.values { done(nil) }
            publishing = [:]
            return
        }
        held = nil
        hasReplica = true
        standing.wait(false)
        log.reveal()
        land(result, now)
    }

    private func launch(_ now: Int64) {
        guard let batch = router.takeBatch(now) else { return }
        launchedAt = DispatchTime.now().uptimeNanoseconds
        guard batch.records.bytes.count <= Self.few, flushTook < Self.quick else { return flusher.submit(batch) }
        if let result = flusher.write(batch) { flushed(result, now) }
    }

    private func carryOut(_ now: Int64) {
        while true {
            let effects = router.takeEffects()
            if effects.isEmpty { return }
            for effect in effects {
                switch effect {
                case .send(let peer, let message):
                    if case .unreachable = socket.send(message, to: peer) { router.unreachable(peer, now: now) }
                case .published(let ticket, let decisions): publishing.removeValue(forKey: ticket)?(decisions)
                case .replied(let ticket, let status, let payload): calling.removeValue(forKey: ticket)?(status, payload)
                case .superseded(let epoch): stop(for: epoch)
                case .note(.warning, let text): logger.warning("\(text)")
                case .note(.notice, let text): logger.notice("\(text)")
                case .note(.info, let text): logger.info("\(text)")
                case .note(.debug, let text): logger.debug("\(text)")
                }
            }
        }
    }

    /// Another bus has taken over. What is written down now holds for every later start.
    private func stop(for epoch: UInt64) {
        do {
            try Standing(stream: log.stream, supersededBy: epoch).save(directory)
        } catch {
            // It stands still until its end all the same; the next start is told by the first client that knows.
            logger.critical("that another bus has taken over cannot be written down", metadata: ["error": "\(error)"])
        }
        standing.supersede(by: epoch)
        logger.critical(
            "another bus has taken over this log; this one refuses everything from now on",
            metadata: ["epoch": "\(router.settings.epoch)", "taken over by": "\(epoch)", "last": "\(router.last)"])
        for done in publishing.values { done(nil) }
        publishing = [:]
    }

    private func take(_ rights: [String: Rights], _ now: Int64) {
        router.setRights(rights, now: now)
        router.keyFile = keys.file
    }

    private func lookAtKeys(_ now: Int64) {
        keysAt = now
        keys.refresh()
        let rights = keys.rights
        if rights != router.rights { take(rights, now) }
        for complaint in keys.takeComplaints() { logger.warning("\(complaint)") }
    }

    /// At most every 100 ms, and only what changed; the mark alone at most every second.
    private func save(_ now: Int64) {
        let mark = log.mark
        let elapsed = now - savedAt
        guard saving == nil, elapsed >= 100, router.hasChanges || (mark != savedMark && elapsed >= 1000) else { return }
        savedAt = now
        savedMark = mark
        let changes = router.takeChanges()
        saving = changes
        cursors.saveLater(changes, mark: mark, stream: log.stream) { [inbox] error in inbox.post(.saved(error)) }
    }

    /// Has the index of the log written on, when much of it is not in it.
    private func cover(all: Bool) {
        guard !covering, let covers = log.covers(at: router.last, all: all), let first = covers.first else { return }
        covering = true
        let ids = router.recent.since(first.before.last + 1)
        housekeeping.async { [log, inbox] in
            // Without it a start takes longer; that is all.
            try? log.write(covers, ids: ids)
            inbox.post(.covered)
        }
    }

    /// About 1 MiB of the log a second, from its beginning to its end once a day.
    private func lookThrough(_ now: Int64) {
        guard now >= scrubAt else { return }
        scrubAt = .max
        housekeeping.async { [scrub, log, inbox] in
            let isOver = scrub.withLock { scrub in scrub.look(log) }
            inbox.post(.looked(isOver: isOver))
        }
    }

    /// Retention and room: decided here once a second, done on a thread of its own.
    private func trim(_ now: Int64) {
        guard !trimming, now - trimmedAt >= 1000 else { return }
        trimmedAt = now
        cover(all: true)
        if let space = Disk.space(in: log.settings.directory) {
            router.look(free: space.free, total: space.total)
            let isFull = router.space.isFull
            housekeeping.async { [reserve] in reserve?.adjust(free: space.free, isFull: isFull) }
        }
        lookThrough(now)
        guard let first = router.trim(wall: Clock.wall()) else { return }
        trimming = true
        housekeeping.async { [cursors, log, inbox] in
            do {
                try cursors.begin(at: first, epoch: log.epoch, stream: log.stream)
                try log.trim(before: first)
                inbox.post(.trimmed(nil))
            } catch {
                inbox.post(.trimmed(error))
            }
        }
    }

    private func saved(_ error: (any Error)?) {
        guard let changes = saving else { return }
        saving = nil
        guard let error else {
            complained = false
            return
        }
        // They go with the next attempt.
        router.putBack(changes)
        savedMark = nil
        if !complained { complain(error) }
        complained = true
    }

    private func complain(_ error: any Error) {
        logger.error(
            "cursors cannot be stored; should the bus end now, events will be delivered again", metadata: ["error": "\(error)"])
    }

    private func finish() {
        let now = Clock.monotonic()
        // Nothing is read any more. What is flying lands and is acknowledged, and so does what waited for it: those publishers need
        // not send it again.
        flusher.stop()
        for order in inbox.shut() {
            switch order {
            case .flushed(let result): if !isSynchronous, router.supersededBy == nil { router.flushed(result, now: now) }
            case .replicas(let done): done(nil)
            case .publish(_, _, let done): done(nil)
            case .call(_, _, _, let done): done(503, Data())
            case .consumers(let done): done(nil)
            case .parked(_, _, let done): done(nil)
            case .unpark(_, _, _, let done), .forget(_, let done):
                done(Problem(.unavailable, "the bus is stopping", hint: "try again"))
            case .saved(let error): saved(error)
            case .refusedKey, .denied, .trimmed, .covered, .looked, .met, .stop: break
            }
        }
        do {
            // With sync_replica no replica could confirm it any more.
            if !isSynchronous, let batch = router.takeBatch(now) { router.flushed(try log.append(batch, time: Clock.wall()), now: now) }
        } catch {
            logger.error("the last events could not be written; their publishers send them again", metadata: ["error": "\(error)"])
        }
        router.sayGoodbye(now)
        carryOut(now)
        housekeeping.sync {
            guard let covers = log.covers(at: router.last, all: true, always: true), let first = covers.first else { return }
            try? log.write(covers, ids: router.recent.since(first.before.last + 1))
        }
        for done in publishing.values { done(nil) }
        for done in calling.values { done(503, Data()) }
        do {
            // Whatever became of the attempt that is under way.
            if let saving { router.putBack(saving) }
            try cursors.save(router.takeChanges(), mark: log.mark, stream: log.stream)
        } catch {
            complain(error)
        }
        socket.close()
    }
}
