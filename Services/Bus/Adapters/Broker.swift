import BusClient
import Contracts
import Foundation
import Logging
import ServiceLifecycle
import Wire

/// The running bus, as the rest of this process sees it: publish, call, read, follow.
final class Broker: Service {
    let log: EventLog
    /// The port of the ZeroMQ socket.
    let port: Int
    private let inbox: Inbox
    private let followers: Followers
    let standing: StandingNow
    private let ended: AsyncStream<Never>

    private init(
        log: EventLog, port: Int, inbox: Inbox, followers: Followers, standing: StandingNow, ended: AsyncStream<Never>
    ) {
        self.log = log
        self.port = port
        self.inbox = inbox
        self.followers = followers
        self.standing = standing
        self.ended = ended
    }

    /// Binds, recovers the log, and serves. Throws `Problem` when the port is taken, the log cannot be opened or the disk is full.
    ///
    /// `fatal` is called, on a thread that holds nothing, when a write or a flush fails. It must end the process: what is on the
    /// device is then only known to a fresh start.
    static func start(
        _ config: BusConfig, secretKey: String, keys: KeyTable, store: CursorStore, logger: Logger,
        standing: StandingNow = StandingNow(), fatal: @escaping @Sendable (any Error) -> Void
    ) async throws -> Broker {
        let inbox = try Inbox()
        let followers = Followers()
        let (ended, end) = AsyncStream<Never>.makeStream()
        return try await withCheckedThrowingContinuation { continuation in
            let thread = Thread {
                var broker: BrokerThread?
                var close: () -> Void = {}
                do {
                    let context = try ZeroMQContext()
                    let unencrypted = config.unencryptedAs.flatMap { name in
                        keys.rights[name].map { UserID(name: name, key: $0.key) }
                    }
                    let zap = try ZapThread(context, keys: keys, unencrypted: unencrypted) { inbox.post(.refusedKey($0)) }
                    close = {
                        zap.stop()
                        context.terminate()
                    }
                    let socket: RouterSocket
                    do {
                        socket = try RouterSocket(
                            context, secretKey: unencrypted == nil ? secretKey : nil, address: config.listen, port: config.port,
                            descriptor: config.descriptor)
                    } catch {
                        close()
                        throw error
                    }
                    do {
                        let (log, router, held) = try openLog(config, store, logger, secretKey)
                        let flusher = Flusher(log, done: { inbox.post(.flushed($0)) }, failed: fatal)
                        broker = BrokerThread(
                            socket: socket, router: router, inbox: inbox, flusher: flusher, log: log, cursors: store, keys: keys,
                            logger: logger, directory: config.directory, standing: standing, held: held,
                            advanced: { followers.tell($0) })
                        continuation.resume(
                            returning: Broker(
                                log: log, port: socket.port, inbox: inbox, followers: followers, standing: standing, ended: ended))
                    } catch {
                        socket.close()
                        close()
                        throw error
                    }
                } catch {
                    end.finish()
                    continuation.resume(throwing: Self.explain(error, config))
                    return
                }
                broker?.run()
                close()
                followers.end()
                end.finish()
            }
            thread.name = "bus-broker"
            // Recovery and delivery keep their buffers on the heap; this is ample.
            thread.stackSize = 1 << 20
            thread.start()
        }
    }

    private static func openLog(
        _ config: BusConfig, _ store: CursorStore, _ logger: Logger, _ secretKey: String
    ) throws -> (EventLog, Router, held: FlushResult?) {
        var settings = EventLog.Settings(directory: config.logDirectory)
        settings.segmentBytes = config.segmentBytes
        settings.firstSegmentBytes = config.firstSegmentBytes
        settings.disk = config.disk
        settings.ids = IDHash(secret: secretKey)
        settings.found = { damage in
            logger.critical("the log is damaged: \(damage.place)", metadata: ["events": "\(damage.first) to \(damage.last)"])
        }
        let standing = try Standing.load(config.directory)
        settings.leastEpoch = standing?.epoch ?? 1
        settings.holdsBack = config.isSynchronous
        let (log, recovered) = try EventLog.open(settings, durable: try store.mark(), knowing: { try store.known(stream: $0) })
        if let cut = recovered.cut, cut.to > cut.from {
            logger.warning(
                "a batch that was never acknowledged was cut from the end of the log", metadata: ["bytes": "\(cut.to - cut.from)"])
        }
        if !recovered.isBeginningKnown {
            logger.critical(
                "the log begins with event \(log.first), and nobody remembers whether earlier ones were removed or are missing",
                metadata: ["first": "\(log.first)"])
        }
        for damage in recovered.damage {
            // Never cut and never renumbered: consumers that come to it are told, the rest is served.
            logger.critical(
                "the log is damaged: \(damage.place)",
                metadata: damage.first <= damage.last ? ["events": "\(damage.first) to \(damage.last)"] : [:])
        }
        log.remember(try store.outboxes(stream: log.stream))
        let supersededBy = standing?.stream == log.stream ? standing?.supersededBy : nil
        var held: FlushResult?
        if supersededBy == nil {
            let start = try log.append(Batch(first: log.last + 1, events: [], outboxes: [:], epoch: log.epoch), time: Clock.wall())
            if case .full(let reason) = start {
                throw Problem(.storageFull, "there is no room for the log: \(reason)", hint: "free some space on that disk")
            }
            try store.note(first: log.first, epoch: log.epoch, stream: log.stream)
            if config.isSynchronous { held = start }
        }
        // The log says it, unless the very mark that said it was damaged.
        let outboxes = recovered.outboxes.merging(try store.outboxes(stream: log.stream)) { max($0, $1) }
        let consumers = try store.consumers(stream: log.stream)
        for row in consumers.spoiled {
            logger.critical("the bookkeeping is damaged: \(row); its consumer begins anew")
        }
        // One that may not append has begun no epoch.
        let epoch = supersededBy == nil ? log.epoch : log.epoch - 1
        var routing = Router.Settings(stream: log.stream, epoch: epoch, host: config.host)
        routing.retention = config.retention
        routing.witness = Witness(secretKey: secretKey)
        var router = Router(
            settings: routing, log: log, last: log.last, hash: log.hash,
            outboxes: outboxes, recent: recovered.recent, consumers: consumers,
            makeID: { EventID.fresh().text })
        router.supersededBy = supersededBy
        // The mark of this start waits for a replica like every batch, and whatever is before it, too.
        if held != nil { router.flying = FillingBatch(idsFrom: router.recent.end) }
        return (log, router, held)
    }

    private static func explain(_ error: any Error, _ config: BusConfig) -> any Error {
        guard let disk = error as? DiskError else { return error }
        if disk.isFull { return Problem(.storageFull, "there is no room for the log: \(disk)", hint: "free some space on that disk") }
        return Problem(
            .failed, "the log in \(config.logDirectory) cannot be opened: \(disk)", hint: "see that the directory is readable and writable")
    }

    /// Until the service group shuts down.
    func run() async throws {
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                for await _ in ended {}
            } onGracefulShutdown: {
                self.stop()
            }
        } onCancel: {
            stop()
        }
        // The stream also ends when the task is cancelled; the thread may still be storing cursors.
        for _ in 0..<100 where !followers.isOver { try? await Self.pause() }
    }

    private static func pause() async throws {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(20)) { continuation.resume() }
        }
    }

    /// Ends the bus in order: what was taken in is stored and acknowledged, every session is told BYE 503, cursors are stored, and
    /// `run()` returns. Whoever keeps this process starts it again.
    func stop() { inbox.post(.stop) }

    // MARK: For the HTTP face

    /// Publishes; returns when all are decided and those that were stored are on the device.
    func publish(_ events: [PendingPublication], producer: String) async throws -> [LocalDecision] {
        if let problem = standing.problem { throw problem }
        let decisions = await withCheckedContinuation { continuation in
            let taken = inbox.post(.publish(events, producer: producer) { continuation.resume(returning: $0) })
            if !taken { continuation.resume(returning: nil) }
        }
        if decisions == nil, let problem = standing.problem { throw problem }
        guard let decisions else { throw Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again") }
        return decisions
    }

    /// Notes for the operator that a token asked over HTTP for what it may not.
    func denied(_ name: String, request: String, what: String) { inbox.post(.denied(name: name, request: request, what: what)) }

    /// A query to another component.
    func call<Q: Query>(_ query: Q, milliseconds: Int64) async throws -> Q.Reply {
        let payload = try Coding.encode(query)
        let (status, body) = await withCheckedContinuation { continuation in
            let taken = inbox.post(
                .call(method: Q.method, payload: payload, milliseconds: milliseconds) { continuation.resume(returning: ($0, $1)) })
            if !taken { continuation.resume(returning: (503, Data())) }
        }
        switch status {
        case ..<400: return try Coding.decode(Q.Reply.self, from: body)
        case 504: throw Problem(.timeout, "\(Q.method): no answer in time", hint: "slipway status shows what is not ready")
        default:
            if let problem = try? Coding.decode(Problem.self, from: body) { throw problem }
            throw Problem(.unavailable, "\(Q.method): nobody answers", hint: "slipway status shows what is not ready")
        }
    }

    /// Asks the bus itself one of its `bus.*` queries; the reply as JSON. Throws `Problem`.
    func ask(_ method: String, _ payload: JSON = .object([:])) async throws -> Data {
        let asked = try Coding.encode(payload)
        let (status, body) = await withCheckedContinuation { continuation in
            let taken = inbox.post(
                .call(method: method, payload: asked, milliseconds: 5000) { continuation.resume(returning: ($0, $1)) })
            if !taken { continuation.resume(returning: (503, Data())) }
        }
        if status < 400 { return body }
        throw (try? Coding.decode(Problem.self, from: body))
            ?? Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again")
    }

    func consumers() async throws -> [ConsumerStatus] {
        let list = await withCheckedContinuation { continuation in
            if !inbox.post(.consumers({ continuation.resume(returning: $0) })) { continuation.resume(returning: nil) }
        }
        guard let list else { throw Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again") }
        return list
    }

    /// What is parked for consumers, of one owner and one name when they are given.
    func parked(owner: String?, consumer: String?) async throws -> [ParkedStatus] {
        let list = await withCheckedContinuation { continuation in
            let taken = inbox.post(.parked(owner: owner, consumer: consumer) { continuation.resume(returning: $0) })
            if !taken { continuation.resume(returning: nil) }
        }
        guard let list else { throw Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again") }
        return list
    }

    /// Delivers a parked event again, or forgets that it is parked. Throws `Problem` when it is not.
    func unpark(owner: String, consumer: String, seq: UInt64, retry: Bool) async throws {
        try await order { .unpark(ConsumerKey(owner: owner, name: consumer), seq: seq, retry: retry, $0) }
    }

    /// Forgets a durable consumer that nobody reads. Throws `Problem`.
    func forget(owner: String, consumer: String) async throws {
        try await order { .forget(ConsumerKey(owner: owner, name: consumer), $0) }
    }

    private func order(_ make: (@escaping @Sendable (Problem?) -> Void) -> Order) async throws {
        let problem = await withCheckedContinuation { continuation in
            if !inbox.post(make({ continuation.resume(returning: $0) })) {
                continuation.resume(returning: Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again"))
            }
        }
        if let problem { throw problem }
    }

    /// Who copies the log.
    func replicas() async throws -> [ReplicaStatus] {
        let list = await withCheckedContinuation { continuation in
            if !inbox.post(.replicas({ continuation.resume(returning: $0) })) { continuation.resume(returning: nil) }
        }
        guard let list else { throw Problem(.unavailable, "the bus is stopping or overloaded", hint: "try again") }
        return list
    }

    /// Another bus of this log has said its epoch.
    func met(epoch: UInt64, witness: String) { inbox.post(.met(epoch: epoch, witness: witness)) }

    /// The number of the last durable event, now and whenever it has grown.
    func follow() -> AsyncStream<UInt64> { followers.add(log.last) }
}

/// Those who wait for the log to grow.
final class Followers: Sendable {
    private struct State: Sendable {
        var next = 0
        var streams: [Int: AsyncStream<UInt64>.Continuation] = [:]
        var over = false
    }
    private let state = Locked(State())

    var isOver: Bool { state.withLock(\.over) }

    /// Only the newest number is kept for one who is slow.
    func add(_ last: UInt64) -> AsyncStream<UInt64> {
        let (stream, continuation) = AsyncStream<UInt64>.makeStream(bufferingPolicy: .bufferingNewest(1))
        continuation.yield(last)
        let id = state.withLock { state -> Int? in
            guard !state.over else { return nil }
            state.next += 1
            state.streams[state.next] = continuation
            return state.next
        }
        guard let id else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [self] _ in state.withLock { $0.streams[id] = nil } }
        return stream
    }

    func tell(_ last: UInt64) { for stream in state.withLock({ Array($0.streams.values) }) { stream.yield(last) } }

    func end() {
        let streams = state.withLock { state in
            state.over = true
            defer { state.streams = [:] }
            return state.streams
        }
        for stream in streams.values { stream.finish() }
    }
}
