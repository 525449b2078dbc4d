import Contracts
import Foundation
import Logging
import Wire

/// The bus thread: the loop, the session, and who gets which message. Everything here belongs to that one thread, so nothing
/// is locked; other threads speak to it through `Inbox` and hear from it through streams and continuations.
///
///     away ──handshake──▶ greeting ──WELCOME──▶ open
///       ▲                    │  ▲                │
///       └────disconnected────┘  └──ERR 401, silence, BYE 503
///
/// The pieces of a session (subscriptions, services, open requests, what the outbox has under way) live longer than it: each new
/// session is told of them again.
final class Link {
    enum Phase: Equatable { case away, greeting, open }

    let configuration: BusClientConfiguration
    let inbox: Inbox
    let status: Status
    let logger: Logger
    /// Name of the outbox, when there is one.
    let outbox: UUID?
    let pump: AsyncStream<PumpSignal>.Continuation
    let jobs: AsyncStream<Errand>.Continuation
    private let sockets: Sockets

    private(set) var phase = Phase.away
    /// Counts sessions; what belongs to an earlier one is dropped.
    private(set) var session: UInt64 = 0
    private(set) var welcome: Welcome?
    /// What was seen of the log, in this session and before; nil: nothing yet.
    var memory: LogMemory?
    private var savedMemory: LogMemory?
    private var memoryAt = Int64.min / 2
    var consumers: [UInt32: Consumer] = [:]
    var services: [UInt32: (name: String, concurrency: Int)] = [:]
    var requests = Requests()
    /// Work queues with verdicts to send.
    var unsettled: Set<UInt32> = []
    /// Commands whose refusal has been logged in this session.
    var complaints: Set<UInt8> = []
    /// Encoded frames that the socket would not take at once.
    private var backlog: [Data] = []
    private var connected = false
    private var lastHeard = Monotonic.now()
    private var lastSent = Monotonic.now()
    /// When to say HELLO (again).
    private var helloAt = Monotonic.now()
    private var helloAttempts = 0
    /// Where the bus is looked for now, an index into endpoint and alternatives; and when to look elsewhere.
    private var place = 0
    private var moveAt = Monotonic.now() + 3000
    private var stopping = false

    /// Throws `Problem` when the configuration cannot be used.
    init(
        _ configuration: BusClientConfiguration, inbox: Inbox, status: Status, logger: Logger, outbox: UUID?,
        pump: AsyncStream<PumpSignal>.Continuation, jobs: AsyncStream<Errand>.Continuation
    ) throws {
        self.configuration = configuration
        self.inbox = inbox
        self.status = status
        self.logger = logger
        self.outbox = outbox
        self.pump = pump
        self.jobs = jobs
        sockets = try Sockets(configuration)
        memory = configuration.memoryFile.flatMap { LogMemory.load($0) }
        savedMemory = memory
    }

    /// Until `stop` comes.
    func run() {
        while !stopping {
            let now = Monotonic.now()
            let ready = sockets.wait(max(0, min(nextDue() - now, 1000)), descriptor: inbox.descriptor, writable: !backlog.isEmpty)
            if ready.news { while let news = sockets.news() { heard(news) } }
            flushBacklog()
            // Messages before deadlines: a process that was stopped for a while must not judge a peer silent whose words wait here.
            if ready.messages {
                for _ in 0..<256 {
                    guard let message = sockets.receive() else { break }
                    received(message)
                }
            }
            for instruction in inbox.takeAll() { obey(instruction) }
            settleEvents()
            tick(Monotonic.now())
        }
        finish()
    }

    /// Sends now, or queues while the socket is busy. Outside a session nothing is kept: a new one is told everything again.
    func send(_ frame: Frame) {
        guard phase == .open else { return }
        let data = frame.encoded()
        guard data.count <= Limits.message else {
            logger.error("a message is too large for the bus and was not sent", metadata: ["bytes": "\(data.count)"])
            return
        }
        lastSent = Monotonic.now()
        if !backlog.isEmpty || !sockets.send(data) { backlog.append(data) }
    }

    /// Whether so much waits already that what may be dropped should be.
    var isBusy: Bool { backlog.count > 1000 }

    private func flushBacklog() {
        guard phase == .open, !backlog.isEmpty else { return }
        var sent = 0
        while sent < backlog.count, sockets.send(backlog[sent]) { sent += 1 }
        backlog.removeFirst(sent)
    }

    // MARK: time

    private var heartbeat: Int64 { Int64(configuration.heartbeat) }
    private var patience: Int64 { 3 * Int64(max(100, welcome?.heartbeat_ms ?? 1000)) }

    private func nextDue() -> Int64 {
        var due = requests.nextDue
        if phase == .open {
            due = min(due, lastSent + heartbeat, lastHeard + patience)
        } else {
            due = min(due, helloAt)
        }
        return due
    }

    private var endpoints: [String] { [configuration.endpoint] + configuration.alternatives }

    /// Looks for the bus at its next endpoint. A replica that was promoted answers there; the one before may be gone for good.
    private func lookElsewhere(_ now: Int64) {
        moveAt = now + 3000
        guard endpoints.count > 1 else { return }
        let old = endpoints[place]
        place = (place + 1) % endpoints.count
        connected = false
        phase = .away
        helloAt = now + 500
        if !sockets.move(from: old, to: endpoints[place]) { complain("the bus endpoint \(endpoints[place]) cannot be used") }
    }

    private func tick(_ now: Int64) {
        if phase == .open, now >= lastHeard + patience {
            sessionLost("the bus has been silent for \(now - lastHeard) ms")
            // Queued behind a silent peer this HELLO costs nothing, and it is the first thing heard when the peer wakes up.
            phase = .greeting
            helloAt = now
        }
        if phase == .open, now >= lastSent + heartbeat {
            var told = false
            for handle in consumers.keys {
                if let frame = consumers[handle]?.acknowledgeSilence() {
                    send(frame)
                    told = true
                }
            }
            if !told { send(Frame(.ping, a: UInt64(now))) }
        }
        if phase == .open { moveAt = now + 3000 } else if now >= moveAt { lookElsewhere(now) }
        if phase != .open, now >= helloAt { sayHello(now) }
        for number in requests.due(now: now, unreachable: unreachable) { ask(number) }
        if now - memoryAt >= 10_000 { saveMemory(now) }
    }

    private func saveMemory(_ now: Int64) {
        memoryAt = now
        guard let path = configuration.memoryFile, let memory, memory != savedMemory else { return }
        do {
            try memory.save(path)
            savedMemory = memory
        } catch {
            // Told once in a while by being tried again; the component's own store complains of the same disk.
            logger.debug("what was seen of the log cannot be written down", metadata: ["file": "\(path)", "error": "\(error)"])
        }
    }

    /// Whether the bus's log extends what was seen; if not, the session ends, and is tried again after a while.
    private func accepts(stream: String, epoch: UInt64, last: UInt64, hash: String?, witness: String? = nil) -> Bool {
        if let why = memory?.contradiction(stream: stream, epoch: epoch, last: last, hash: hash) {
            refuseLog(LogMemory.problem(why, file: configuration.memoryFile))
            return false
        }
        if memory == nil { memory = LogMemory(stream: stream, epoch: epoch, seq: last, hash: hash) }
        memory?.saw(epoch: epoch, last: last, hash: hash, witness: witness)
        return true
    }

    private func refuseLog(_ problem: Problem) {
        // The bus need not keep a session that nobody uses.
        if let body = try? Coding.encode(ByeBody(reason: problem.message)) {
            _ = sockets.send(Frame(.bye, status: 200, body: body).encoded())
        }
        sessionLost(problem.message)
        phase = .away
        helloAt = Monotonic.now() + 5000
        moveAt = Monotonic.now()
        complain("\(problem)")
    }

    /// Why the bus cannot be asked, when it cannot.
    var unreachable: Problem? {
        guard phase != .open else { return nil }
        let why = status.lastError ?? "nothing answers there"
        return Problem(.unavailable, "the bus at \(endpoints[place]) cannot be reached: \(why)", hint: "slipway status")
    }

    // MARK: session

    private func sayHello(_ now: Int64) {
        var hello = Hello(
            client: configuration.clientName, version: configuration.version, features: [], outbox: outbox?.uuidString.lowercased())
        hello.heartbeat_ms = configuration.heartbeat
        hello.epoch = memory?.epoch
        hello.witness = memory?.witness
        hello.seen = memory?.seen
        guard let body = try? Coding.encode(hello), sockets.send(Frame(.hello, body: body).encoded()) else {
            // Between the end of the handshake and the moment the socket takes messages there is a little while.
            helloAttempts += 1
            helloAt = now + (connected && helloAttempts < 100 ? 5 : 500)
            return
        }
        helloAttempts = 0
        phase = .greeting
        lastSent = now
        helloAt = now + 2000
    }

    private func sessionLost(_ reason: String) {
        guard phase == .open else { return }
        logger.notice("bus session lost", metadata: ["reason": "\(reason)"])
        phase = .away
        status.failed(reason)
        status.lost()
        backlog = []
        pump.yield(.closed)
        for handle in consumers.keys { consumers[handle]?.closed() }
        requests.sessionLost()
    }

    /// Ends the session from this side and begins the next.
    func startOver(_ reason: String, after milliseconds: Int64 = 0) {
        sessionLost(reason)
        helloAt = Monotonic.now() + milliseconds
    }

    private func heard(_ news: Sockets.News) {
        switch news {
        case .connected: break
        case .ready:
            connected = true
            helloAttempts = 0
            helloAt = Monotonic.now()
        case .gone:
            connected = false
            sessionLost("the connection to the bus ended")
            phase = .away
            helloAt = Monotonic.now() + 500
        case .refused(let code) where code == 300:
            complain("the bus is still starting")
        case .refused(let code):
            complain("the bus refuses the key of '\(configuration.clientName)' (\(code)): it does not know it, or it was revoked")
        case .unreadable(let why):
            complain("the handshake with the bus failed (\(why)): is it the right endpoint and server key?")
        }
    }

    private func complain(_ reason: String) {
        if status.failed(reason) { logger.error("cannot join the bus", metadata: ["reason": "\(reason)"]) }
    }

    private func welcomed(_ frame: Frame) {
        guard phase != .open else { return }
        let body: Welcome
        do {
            body = try Coding.decode(Welcome.self, from: frame.body)
        } catch {
            return complain("the bus's WELCOME cannot be read: \(error)")
        }
        guard body.proto == 1 else { return complain("the bus speaks version \(body.proto) of its protocol, this program only 1") }
        guard accepts(stream: body.stream, epoch: frame.a, last: body.last, hash: body.hash, witness: body.witness) else { return }
        phase = .open
        session += 1
        complaints = []
        welcome = body
        status.opened(BusSession(stream: body.stream, epoch: frame.a, first: body.first, last: body.last, name: body.you))
        logger.info("joined the bus", metadata: ["as": "\(body.you)", "epoch": "\(frame.a)", "last": "\(body.last)"])
        for (handle, service) in services.sorted(by: { $0.key < $1.key }) { serve(handle, service.name, service.concurrency) }
        for handle in consumers.keys.sorted() { subscribe(handle) }
        pump.yield(.opened(session: session, messages: body.window_msgs, bytes: body.window_bytes))
        for number in requests.unsent { ask(number) }
    }

    // MARK: messages

    private func received(_ message: Data) {
        let frame: Frame
        do {
            frame = try Frame(message)
        } catch {
            logger.warning("a message from the bus cannot be read", metadata: ["error": "\(error)"])
            return
        }
        guard frame.major == 1, let command = frame.known else { return }
        lastHeard = Monotonic.now()
        switch command {
        case .welcome: welcomed(frame)
        case .ping:
            send(Frame(.pong, a: frame.a))
            heartbeat(frame)
        case .pong: break
        case .bye: goodbye(frame)
        case .error: refused(frame)
        default: if phase == .open { deliver(command, frame) }
        }
    }

    /// PING of the bus says how far the log is, with its hash.
    private func heartbeat(_ frame: Frame) {
        guard phase == .open, let memory, frame.body.count == 32 else { return }
        let hash = frame.body.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        _ = accepts(stream: memory.stream, epoch: memory.epoch, last: frame.b, hash: hash)
    }

    private func goodbye(_ frame: Frame) {
        let body = try? Coding.decode(ByeBody.self, from: frame.body)
        if frame.status == 410, frame.handle != 0 {
            return end(
                frame.handle, Problem(.conflict, "another process has taken over this subscription", hint: "only one may run at a time"))
        }
        sessionLost("the bus said goodbye (\(frame.status)): \(body?.reason ?? "no reason given")")
        phase = .away
        helloAt = Monotonic.now() + Int64(min(max(body?.retry_ms ?? 100, 20), 5000))
    }

    private func refused(_ frame: Frame) {
        let body = try? Coding.decode(ErrorBody.self, from: frame.body)
        let message = body?.message ?? "status \(frame.status)"
        if frame.status == 401 {
            // The bus was started anew, or the connection was, without our noticing.
            startOver("the bus does not know this session")
            return
        }
        if frame.status == 505 || phase != .open {
            // Another bus has taken over from this one.
            if frame.status == 410 { moveAt = Monotonic.now() }
            if frame.status == 409, body?.code == "history" {
                return refuseLog(LogMemory.problem(message, file: configuration.memoryFile))
            }
            complain("the bus refuses this client (\(frame.status)): \(message)")
            helloAt = Monotonic.now() + Int64(min(max(body?.retry_ms ?? 2000, 100), 10_000))
            return
        }
        refused(frame, command: UInt8(exactly: frame.b).flatMap(Command.init(rawValue:)), message: message)
    }

    private func finish() {
        settleEvents()
        for handle in consumers.keys.sorted() {
            if let frame = consumers[handle]?.acknowledge() { send(frame) }
        }
        saveMemory(Monotonic.now())
        if let body = try? Coding.encode(ByeBody(reason: "stopping")) { send(Frame(.bye, status: 200, body: body)) }
        flushBacklog()
        sockets.close()
        let over = Problem(.unavailable, "this program is leaving the bus")
        for instruction in inbox.close() {
            switch instruction {
            case .request(let request): request.answer.resolve(.failure(over))
            case .subscribe(let registration):
                registration.answered.resolve(.failure(over))
                registration.mailbox.finish(nil)
            default: break
            }
        }
        requests.failAll(over)
        for consumer in consumers.values {
            consumer.registration.answered.resolve(.failure(over))
            consumer.registration.mailbox.finish(nil)
        }
        status.ended()
    }

    func stop() { stopping = true }
}
