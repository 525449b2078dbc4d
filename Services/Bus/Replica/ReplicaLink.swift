import BusClient
import CZeroMQ
import Contracts
import Foundation
import Kit
import Logging
import Wire

/// A client of another bus, on a thread of its own: says HELLO as this bus, and hears what that one answers.
///
/// Not the components' client: that one lives in an own loop and knows events; here one thread reads bytes and writes a file.
final class PrimaryConnection {
    private let context: ZeroMQContext
    private let socket: UnsafeMutableRawPointer
    private var spokeAt = Clock.monotonic()
    private var heardAt = Clock.monotonic()
    /// Milliseconds between signs of life, by that bus's own word.
    private var patience: Int64 = 3000
    /// Number of that bus's last event, as it said last.
    private(set) var last: UInt64 = 0

    /// Throws `Problem` when the key or the endpoint cannot be used.
    init(_ key: ComponentKey) throws {
        context = try ZeroMQContext()
        guard let socket = zmq_socket(context.pointer, ZMQ_DEALER) else {
            context.terminate()
            throw ZeroMQ.problem("make a ZeroMQ socket")
        }
        self.socket = socket
        do {
            for (option, value) in [
                (ZMQ_LINGER, 200), (ZMQ_IMMEDIATE, 1), (ZMQ_SNDHWM, 20_000), (ZMQ_RCVHWM, 20_000), (ZMQ_RECONNECT_IVL, 50),
                (ZMQ_RECONNECT_IVL_MAX, 1000), (ZMQ_HEARTBEAT_IVL, 1000), (ZMQ_HEARTBEAT_TIMEOUT, 3000), (ZMQ_HEARTBEAT_TTL, 3000),
                (ZMQ_HANDSHAKE_IVL, 5000), (ZMQ_TCP_KEEPALIVE, 1),
            ] as [(Int32, Int32)] { try ZeroMQ.set(socket, option, value) }
            var largest = Int64(Limits.frame)
            guard zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, 8) == 0 else { throw ZeroMQ.problem("limit the size of messages") }
            for (option, text) in [
                (ZMQ_CURVE_SERVERKEY, key.serverKey), (ZMQ_CURVE_PUBLICKEY, key.publicKey), (ZMQ_CURVE_SECRETKEY, key.secretKey),
            ] {
                guard zmq_setsockopt(socket, option, text, text.utf8.count) == 0 else {
                    throw Problem(
                        .configuration, "the key file of '\(key.name)' holds no CURVE keys", hint: "make it anew: slipway key create")
                }
            }
            if key.endpoint.contains("[") { try ZeroMQ.set(socket, ZMQ_IPV6, 1) }
            guard zmq_connect(socket, key.endpoint) == 0 else {
                throw Problem(
                    .configuration, "the bus endpoint \(Problem.quote(key.endpoint)) cannot be used", hint: "expected tcp://ADDRESS:PORT")
            }
        } catch {
            zmq_close(socket)
            context.terminate()
            throw error
        }
    }

    deinit {
        zmq_close(socket)
        context.terminate()
    }

    struct Silence: Error, CustomStringConvertible {
        var description: String
    }

    /// Throws `Silence` when nobody takes it in time.
    func send(_ frame: Frame, within milliseconds: Int64 = 3000) throws {
        let deadline = Clock.monotonic() + milliseconds
        let data = frame.encoded()
        while ZeroMQ.send(data, socket, more: false) != 0 {
            let left = deadline - Clock.monotonic()
            guard left > 0 else { throw Silence(description: "nothing answers there") }
            var item = zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLOUT), revents: 0)
            // Writable and yet refused is the moment between connecting and being let in.
            if zmq_poll(&item, 1, Int(min(left, 100))) > 0 { usleep(5000) }
        }
        spokeAt = Clock.monotonic()
    }

    /// The next message that is not of heartbeats; nil when none comes in time. Throws `Silence` when that bus has been silent
    /// for too long.
    func receive(within milliseconds: Int64) throws -> Frame? {
        let deadline = Clock.monotonic() + milliseconds
        while true {
            while let (data, more) = ZeroMQ.receive(socket) {
                heardAt = Clock.monotonic()
                guard !more, let frame = try? Frame(data), frame.major == 1 else { continue }
                switch frame.known {
                case .ping:
                    last = max(last, frame.b)
                    try send(Frame(.pong, a: frame.a))
                case .pong: last = max(last, frame.b)
                default: return frame
                }
            }
            let now = Clock.monotonic()
            guard now - heardAt < patience else { throw Silence(description: "silent for \(now - heardAt) ms") }
            if now - spokeAt >= 1000 { try send(Frame(.ping, a: UInt64(clamping: now))) }
            guard now < deadline else { return nil }
            var item = zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
            _ = zmq_poll(&item, 1, Int(min(deadline - now, 500)))
        }
    }

    /// HELLO, and what is answered: WELCOME, or a refusal. `epoch`: the highest one known of that log, with what confirms it.
    func hello(_ client: String, epoch: UInt64?, witness: String?) throws -> Frame {
        var hello = Hello(client: client, version: Version.text)
        hello.epoch = epoch
        hello.witness = witness
        let frame = Frame(.hello, body: try Coding.encode(hello))
        heardAt = Clock.monotonic()
        try send(frame)
        let deadline = Clock.monotonic() + 5000
        heardAt = Clock.monotonic() + 2000
        while Clock.monotonic() < deadline {
            guard let answer = try receive(within: 500) else { continue }
            guard answer.known == .welcome || (answer.known == .error && answer.b == UInt64(Command.hello.rawValue)) || answer.known == .bye
            else { continue }
            if answer.known == .welcome {
                last = answer.b
                if let body = try? Coding.decode(Welcome.self, from: answer.body) {
                    patience = 3 * Int64(min(max(body.heartbeat_ms, 100), 60_000))
                }
            }
            return answer
        }
        throw Silence(description: "no answer to HELLO")
    }

    func leave() { try? send(Frame(.bye, status: 200, body: Data(#"{"reason":"leaving"}"#.utf8)), within: 200) }
}

/// Copies the log of another bus, until it is told to stop.
final class ReplicaLink: Sendable {
    /// What others see of it.
    struct Now: Codable, Sendable, Hashable {
        var primary: String
        var connected = false
        var stream: String?
        /// Of the log here: the first and the last event, and the epoch.
        var first: UInt64 = 1
        var last: UInt64 = 0
        var epoch: UInt64 = 0
        /// Events behind, as far as known.
        var lag: UInt64 = 0
        var problem: String?
        /// The keys and rights of clients have come at least once: without them a promoted bus would let nobody in.
        var hasKeys = false
        /// Events that were moved out of the log, because the other bus's history does not hold them.
        var setAside: String?
    }

    /// That cannot be mended by trying again: a person must look. It is tried again all the same, at longer intervals.
    private struct Stuck: Error, CustomStringConvertible { var description: String }

    private let key: ComponentKey
    private let witness: Witness
    private let directory: String
    private let store: CursorStore
    private let clients: String
    private let logger: Logger
    private let changed: @Sendable (Now) -> Void
    private let fatal: @Sendable (any Error) -> Void
    private let state: Locked<Now>
    private let log: Locked<ReplicaLog>
    private let stopping = Locked(false)
    private let wake = DispatchSemaphore(value: 0)
    private let finished = DispatchSemaphore(value: 0)
    /// Milliseconds between questions for what is not in the log: keys, rights, positions.
    private static let askEvery: Int64 = 1000
    /// Bytes that may be under way.
    private static let credit = 8 << 20

    /// `clients`: the file that the other bus's keys and rights go to. `fatal` must end the process.
    init(
        _ key: ComponentKey, log: ReplicaLog, witness: Witness, directory: String, store: CursorStore, clients: String, logger: Logger,
        changed: @escaping @Sendable (Now) -> Void, fatal: @escaping @Sendable (any Error) -> Void
    ) {
        self.key = key
        self.witness = witness
        self.directory = directory
        self.store = store
        self.clients = clients
        self.logger = logger
        self.changed = changed
        self.fatal = fatal
        self.log = Locked(log)
        var now = Now(primary: key.endpoint, stream: log.stream, first: log.first, last: log.last, epoch: log.epoch)
        // Of an earlier run, or put there by a person; docs/replica.md begins with an empty one.
        let known = FileManager.default.contents(atPath: clients).flatMap { try? Coding.decode([ClientKey].self, from: $0) }
        now.hasKeys = known?.isEmpty == false
        state = Locked(now)
    }

    var now: Now { state.withLock { $0 } }

    func start() {
        let thread = Thread { [self] in
            var log = log.withLock { $0 }
            while !stopping.withLock({ $0 }) {
                do {
                    try session(&log)
                } catch let error as DiskError where !error.isFull && !error.isOutOfDescriptors {
                    fatal(error)
                    break
                } catch {
                    tell { now in
                        now.connected = false
                        now.problem = "\(error)"
                    }
                    rest(error is Stuck ? 5000 : 300)
                }
                log.forget()
                tell { $0.connected = false }
            }
            save(log)
            self.log.withLock { $0 = log }
            finished.signal()
        }
        thread.name = "bus-replica"
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// Returns when the thread has ended and nothing is written any more: the log as it is then.
    func stop() -> ReplicaLog {
        if !stopping.withLock({ stopping in
            defer { stopping = true }
            return stopping
        }) {
            wake.signal()
            finished.wait()
            finished.signal()
        }
        return log.withLock { $0 }
    }

    private func rest(_ milliseconds: Int64) {
        // Told to stop, it does so at once.
        if wake.wait(timeout: .now() + .milliseconds(Int(milliseconds))) == .success { wake.signal() }
    }

    private func tell(_ change: (inout Now) -> Void) {
        let (before, after) = state.withLock { state -> (Now, Now) in
            let before = state
            change(&state)
            return (before, state)
        }
        if let problem = after.problem, problem != before.problem { logger.warning("the log cannot be copied now: \(problem)") }
        if before != after { changed(after) }
    }

    // MARK: A session

    private func session(_ log: inout ReplicaLog) throws {
        let connection = try PrimaryConnection(key)
        defer { connection.leave() }
        let (epoch, isNewer) = try greet(connection, log)
        try begin(connection, &log, isNewer: isNewer)
        tell { now in
            now.connected = true
            now.problem = nil
        }
        logger.notice("the log is copied from \(key.endpoint)", metadata: ["epoch": "\(epoch)", "after": "\(log.last)"])
        var savedAt = Clock.monotonic()
        var askedAt = Int64.min / 2
        var asked: UInt64 = 0
        while !stopping.withLock({ $0 }) {
            let now = Clock.monotonic()
            if now - askedAt >= Self.askEvery {
                askedAt = now
                asked += 1
                let body = RequestBody(method: "bus.replica.state", key: "", payload: Data())
                try connection.send(Frame(.request, a: asked, b: 4000, body: body.encoded()))
            }
            if now - savedAt >= 1000 {
                savedAt = now
                save(log)
            }
            if let frame = try connection.receive(within: 200) { try take(frame, connection, &log, asked) }
            tell { state in
                state.stream = log.stream
                state.first = log.first
                state.last = log.last
                state.epoch = log.epoch
                state.lag = connection.last - min(connection.last, log.last)
            }
        }
    }

    /// Whether that bus is one to copy from. Gives its epoch, and whether a failover made it newer than this log.
    private func greet(_ connection: PrimaryConnection, _ log: ReplicaLog) throws -> (UInt64, Bool) {
        let own = log.stream.map { witness.text(stream: $0, epoch: log.epoch) }
        let answer = try connection.hello("slipway-bus (replica)", epoch: log.stream == nil ? nil : log.epoch, witness: own)
        guard answer.known == .welcome else { throw Stuck(description: "the bus there refuses: \(Self.reason(answer))") }
        let welcome = try Coding.decode(Welcome.self, from: answer.body)
        if let stream = log.stream, stream != welcome.stream {
            throw Stuck(
                description: "the bus there has another log (\(welcome.stream)) than this one (\(stream)); "
                    + "to copy it, move \(directory)/log away first")
        }
        if log.stream != nil, answer.a < log.epoch {
            throw Stuck(
                description: "the bus there is of epoch \(answer.a), this log already of \(log.epoch): it is the one that should stop")
        }
        return (answer.a, log.stream != nil && Epoch.term(answer.a) > Epoch.term(log.epoch))
    }

    /// SUB, from where this log ends. When that bus has no such place, and a failover explains it, from the last place that both
    /// have; what is after it is set aside.
    private func begin(_ connection: PrimaryConnection, _ log: inout ReplicaLog, isNewer: Bool) throws {
        var handle: UInt32 = 1
        /// Without credit: nothing is sent, it is only asked whether that bus has such a place.
        func attempt(_ end: BatchEnd?, credit: Int = 0) throws -> Bool {
            handle += 1
            var body: [String: JSON] = [
                "mode": .string("replica"), "filters": .array([.string("**")]), "from": .string("first"),
                "credit_bytes": .int(Int64(credit)),
            ]
            if let end, let stream = log.stream {
                body["from"] = .object([
                    "stream": .string(stream), "seq": .int(Int64(clamping: end.seq &+ 1)), "hash": .string(Router.hex(end.hash)),
                ])
            }
            try connection.send(Frame(.subscribe, handle: handle, body: try Coding.encode(JSON.object(body))))
            let deadline = Clock.monotonic() + 10_000
            while Clock.monotonic() < deadline {
                guard let answer = try connection.receive(within: 500), answer.handle == handle else { continue }
                switch answer.known {
                case .subscribed:
                    if credit == 0 { try connection.send(Frame(.unsubscribe, handle: handle)) }
                    return true
                case .lost where answer.status == 409: return false
                case .lost:
                    throw Stuck(
                        description: "the bus there no longer keeps event \(answer.a), which follows this log; it begins with \(answer.b). "
                            + "Move \(directory)/log and state.sqlite away, and everything is copied anew")
                default: throw Stuck(description: Self.reason(answer))
                }
            }
            throw PrimaryConnection.Silence(description: "no answer to SUB")
        }
        if log.isEmpty {
            guard try attempt(nil, credit: Self.credit) else { throw Stuck(description: "the bus there has no log yet") }
        } else if try !attempt(log.end, credit: Self.credit) {
            guard isNewer else {
                throw Stuck(
                    description:
                        "the history of the bus there does not hold event \(log.last) as it is here, and no failover explains that. "
                        + "If that bus was restored from a backup, promote this one instead; else move \(directory)/log away")
            }
            // Batches are alike up to some place and differ from there on: the first file whose beginning both have, then by halves.
            guard let common = try lastCommon(log, { try attempt($0) }) else {
                throw Stuck(description: "the bus there has nothing in common with this log; to copy it, move \(directory)/log away")
            }
            try store.forgetMark()
            let aside = try log.setAside(after: common, to: "\(directory)/diverged", wall: Clock.wall())
            save(log)
            logger.critical(
                "events that the bus which took over never had were moved out of the log",
                metadata: ["events": "\(aside.first) to \(aside.last)", "directory": "\(aside.directory)"])
            tell { $0.setAside = "events \(aside.first) to \(aside.last), in \(aside.directory)" }
            guard try attempt(log.isEmpty ? nil : log.end, credit: Self.credit) else {
                throw Stuck(description: "the bus there changed its mind")
            }
        }
        self.handle.withLock { $0 = handle }
    }
    /// Of the subscription that is fed.
    private let handle = Locked<UInt32>(0)

    private func lastCommon(_ log: ReplicaLog, _ attempt: (BatchEnd?) throws -> Bool) throws -> BatchEnd? {
        for segment in log.segments.reversed() {
            let start = try log.start(of: segment)
            guard try attempt(start) else { continue }
            let ends = try log.ends(in: segment)
            var known = -1
            var unknown = ends.count
            while unknown - known > 1 {
                let middle = (known + unknown) / 2
                if try attempt(ends[middle]) { known = middle } else { unknown = middle }
            }
            return known < 0 ? start : ends[known]
        }
        return nil
    }

    private func take(_ frame: Frame, _ connection: PrimaryConnection, _ log: inout ReplicaLog, _ asked: UInt64) throws {
        switch frame.known {
        case .events where frame.handle == handle.withLock({ $0 }) && frame.flags & Frame.raw != 0:
            do {
                try log.take(frame.body)
            } catch let error as WireError {
                throw Stuck(description: "what the bus there sends does not extend this log: \(error)")
            }
            try connection.send(Frame(.ack, handle: frame.handle, a: log.last, b: frame.b))
            try connection.send(Frame(.credit, handle: frame.handle, b: UInt64(frame.body.count)))
        case .reply where frame.a == asked && frame.status < 400: try adopt(frame.body, &log)
        case .lost where frame.handle == handle.withLock({ $0 }):
            throw PrimaryConnection.Silence(description: "the bus there no longer keeps event \(frame.a)")
        case .error where frame.handle == handle.withLock({ $0 }) && frame.b == UInt64(Command.subscribe.rawValue):
            throw Stuck(description: Self.reason(frame))
        case .error where frame.status == 401: throw PrimaryConnection.Silence(description: "it was started anew")
        case .bye: throw PrimaryConnection.Silence(description: Self.reason(frame))
        default: break
        }
    }

    /// Positions of consumers, keys and rights, and with which number the log begins.
    private func adopt(_ body: Data, _ log: inout ReplicaLog) throws {
        guard let state = try? Coding.decode(ReplicaState.self, from: body), state.stream == log.stream else { return }
        do {
            try store.replace(state, mark: log.mark)
            if state.first > log.first, log.segments.contains(where: { $0.first == state.first }) {
                try store.begin(at: state.first, epoch: log.epoch, stream: state.stream)
                try log.trim(before: state.first)
            }
            if let keys = try? Coding.decode([ClientKey].self, from: state.clients), !keys.isEmpty,
                FileManager.default.contents(atPath: clients) != state.clients
            {
                try Files.write(state.clients, to: clients, mode: 0o600)
            }
            tell { $0.hasKeys = true }
        } catch let error as DiskError {
            throw error
        } catch {
            logger.error("what goes with the log cannot be stored", metadata: ["error": "\(error)"])
        }
    }

    private func save(_ log: ReplicaLog) {
        guard let stream = log.stream else { return }
        do {
            try store.note(first: log.first, epoch: log.epoch, stream: stream)
            try store.save(Changes(), mark: log.mark, stream: stream)
        } catch {
            logger.error("the end of the log cannot be noted", metadata: ["error": "\(error)"])
        }
    }

    static func reason(_ frame: Frame) -> String {
        let message =
            (try? Coding.decode(ErrorBody.self, from: frame.body))?.message ?? (try? Coding.decode(ByeBody.self, from: frame.body))?.reason
        return message ?? "status \(frame.status)"
    }
}
