import Contracts
import Foundation
import Logging
import Wire

/// A program's place on the bus: publishes through its outbox, follows events, asks and answers queries.
///
/// One OS thread owns the ZeroMQ socket and everything about the session; callers on any thread hand it instructions and wait
/// for nothing but its answers. After a restart of the bus, a lost connection or a pause of either side it says HELLO again,
/// sends what was not acknowledged, goes on with each subscription where it stopped, serves again and repeats open queries; its
/// users see only a delay. All that is asked before `run()`, or while the bus is away, is kept and done when it is there.
public final class BusClient: Sendable {
    // The class hides the module of the same name, so `BusClient.Position` must be found here.
    public typealias Position = Wire.Position

    private struct Setup: Sendable {
        var outbox: (any OutboxSource)?
        var started = false
    }

    private let configuration: BusClientConfiguration
    private let logger: Logger
    private let inbox: Inbox
    private let status = Status()
    private let setup = Locked(Setup())
    private let handlers = Locked<[UInt32: QueryHandler]>([:])
    private let numbers = Locked<(handle: UInt32, request: UInt64)>((0, 0))
    private let changePending = Locked(false)
    private let pumpSignals: AsyncStream<PumpSignal>
    private let pumpSignal: AsyncStream<PumpSignal>.Continuation

    /// Opens nothing yet. Throws `Problem`: `configuration` when a key is not one, `failed` when no descriptor is left.
    public init(configuration: BusClientConfiguration, logger: Logger) throws {
        try configuration.check()
        self.configuration = configuration
        self.logger = logger
        inbox = try Inbox()
        (pumpSignals, pumpSignal) = AsyncStream.makeStream(of: PumpSignal.self)
    }

    // MARK: life

    /// Joins the bus and stays on it until the task is cancelled; then says goodbye and returns. Once in a client's life.
    /// Throws `Problem` (`configuration`) when the endpoint cannot be used; a bus that is not there is no error.
    public func run() async throws {
        let first = setup.withLock { setup in
            defer { setup.started = true }
            return !setup.started
        }
        guard first else { throw Problem(.conflict, "a bus client runs once") }
        let outbox = setup.withLock(\.outbox)
        let (jobs, job) = AsyncStream.makeStream(of: Errand.self)
        let ended = Answer<Void>()
        let (configuration, inbox, status, logger, pumpSignal) = (configuration, inbox, status, logger, pumpSignal)
        let thread = Thread {
            let result: Result<Void, Problem>
            do {
                let link = try Link(
                    configuration, inbox: inbox, status: status, logger: logger, outbox: outbox?.id, pump: pumpSignal, jobs: job)
                link.run()
                result = .success(())
            } catch {
                result = .failure(error as? Problem ?? Problem(.failed, "the bus client cannot start: \(error)"))
            }
            job.finish()
            pumpSignal.finish()
            ended.resolve(result)
        }
        thread.name = "bus"
        thread.stackSize = 1 << 20
        try await withTaskCancellationHandler {
            thread.start()
            try await withThrowingTaskGroup(of: Void.self) { group in
                let workshop = Workshop(handlers: handlers, inbox: inbox)
                group.addTask { await workshop.run(jobs) }
                if let outbox {
                    let pump = OutboxPump(
                        source: outbox, inbox: inbox, signals: pumpSignals, signal: pumpSignal, changePending: changePending,
                        logger: logger)
                    group.addTask { await pump.run() }
                }
                // Not cancellable on purpose: the thread ends because it was told to stop, and only then is it over.
                try await ended.valueRegardless()
                group.cancelAll()
            }
        } onCancel: {
            inbox.post(.stop)
        }
    }

    /// A session is open: the bus has said WELCOME and is not known to be gone.
    public var isConnected: Bool { status.session != nil }

    /// What the bus said of itself when the session began; nil while there is none.
    public var session: BusSession? { status.session }

    /// Why there is no session, for people: such as that the bus refuses the key. Nil when nothing has gone wrong.
    public var lastError: String? { status.lastError }

    /// Waits for a session. False when there is none in that time.
    public func connected(within seconds: Double) async -> Bool {
        let status = status
        return await withTaskGroup(of: Bool.self) { group in
            group.addTask { await status.wait() }
            group.addTask {
                try? await Task.sleep(for: .seconds(seconds))
                return false
            }
            let result = await group.next() ?? false
            group.cancelAll()
            return result
        }
    }

    // MARK: publishing

    /// The outbox to drain. Before `run()`.
    public func setOutbox(_ source: any OutboxSource) { setup.withLock { $0.outbox = source } }

    /// There are new entries in the outbox. Cheap; may be called after every commit.
    public func outboxChanged() {
        let tell = changePending.withLock { pending in
            defer { pending = true }
            return !pending
        }
        if tell { pumpSignal.yield(.changed) }
    }

    /// Says something on the live stream. Not stored; dropped when nobody listens, when the bus is away or when too much waits.
    public func emit(_ event: some Event, source: String) {
        let type = Swift.type(of: event).type
        let time = Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
        guard status.session != nil, let data = try? event.json() else { return }
        let envelope = Envelope(id: EventID(UUID()), source: source, type: type, subject: event.subject, time: time, data: data)
        guard let payload = try? Coding.encode(envelope), payload.count <= Limits.payload else { return }
        inbox.post(.emit(Publication(topic: type.text, id: envelope.id.text, payload: payload)))
    }

    // MARK: following

    /// Follows events. Returns when the bus has said yes, so that what is published afterwards is seen.
    ///
    /// A durable subscription is returned after 5 s in any case and begins when the bus is back; an ephemeral one throws
    /// `unavailable` then. Throws `malformed` for a filter with a fault, `forbidden` when this key may not read that.
    public func subscribe(_ request: SubscriptionRequest) async throws -> BusSubscription {
        for filter in request.filters {
            do { _ = try Filter(filter) } catch { throw Problem(.malformed, "\(error)", hint: "such as 'deploy.**'") }
        }
        if case .group = request.mode, request.consumer.isEmpty {
            throw Problem(.malformed, "a work queue needs a consumer's name, which its members share")
        }
        guard !request.filters.isEmpty else { throw Problem(.malformed, "a subscription needs at least one filter") }
        let handle = nextHandle()
        let mailbox = Mailbox()
        let answered = Answer<Void>()
        let subscription = BusSubscription(
            handle: handle, isGroup: request.mode != .ordered, mailbox: mailbox, inbox: inbox, logger: logger, configuration: configuration)
        guard inbox.post(.subscribe(.init(handle: handle, request: request, mailbox: mailbox, answered: answered))) else {
            throw Problem(.unavailable, "this program is leaving the bus")
        }
        let isDurable = !request.consumer.isEmpty
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await answered.value(cancelled: Problem(.unavailable, "the subscription was canceled")) }
            group.addTask {
                try? await Task.sleep(for: .seconds(5))
                // Not asked again after this; a durable subscription goes on in the background.
                answered.resolve(isDurable ? .success(()) : .failure(self.awayProblem))
            }
            try await group.next()
            group.cancelAll()
        }
        return subscription
    }

    private var awayProblem: Problem {
        Problem(
            .unavailable, "the bus at \(configuration.endpoint) cannot be reached: \(lastError ?? "nothing answers there")",
            hint: "slipway status")
    }

    // MARK: queries

    /// Asks one component; with `instance`, the one that runs there (a host's name). Throws the `Problem` that it answered with,
    /// `unavailable` when it or the bus cannot be reached, `timeout` when it does not answer within `seconds`.
    ///
    /// A component that is not there for a moment is waited for, and asked again when it was lost: queries change nothing.
    public func call<Q: Query>(_ query: Q, instance: String? = nil, timeout seconds: Double) async throws -> Q.Reply {
        let reply = try await call(Q.method, instance: instance, Coding.encode(query), timeout: seconds)
        return try Coding.decode(Q.Reply.self, from: reply)
    }

    /// As above, for a query that this program knows only by name (`service.method`).
    public func call(_ method: String, instance: String? = nil, _ body: Data, timeout seconds: Double) async throws -> Data {
        let service = method.prefix { $0 != "." }
        let address = instance.map { "\(service)@\($0)\(method.dropFirst(service.count))" } ?? method
        guard body.count <= Limits.payload else {
            throw Problem(.tooLarge, "the query \(method) has \(body.count) bytes; \(Limits.payload) are allowed")
        }
        let number = numbers.withLock { numbers in
            numbers.request += 1
            return numbers.request
        }
        let answer = Answer<Data>()
        let deadline = Monotonic.now() + Int64(max(0.001, min(seconds, 3600)) * 1000)
        let request = OpenRequest(
            number: number, method: address, key: UUID().uuidString.lowercased(), payload: body, deadline: deadline, answer: answer)
        // The deadline is kept by the bus thread; before it runs, somebody else must.
        if !setup.withLock(\.started), await !connected(within: seconds) { throw awayProblem }
        guard inbox.post(.request(request)) else {
            throw Problem(.unavailable, "this program is leaving the bus, or asks too much at once", hint: "try again")
        }
        let inbox = inbox
        return try await withTaskCancellationHandler {
            try await answer.value(cancelled: Problem(.unavailable, "the query \(method) was canceled"))
        } onCancel: {
            inbox.post(.cancel(number: number))
        }
    }

    /// Answers queries for `service`, at most `concurrency` at a time, each in a task of its own that is cancelled when nobody
    /// waits for the answer any more. Queries change nothing, so the bus may have one answered elsewhere when this program is lost.
    public func serve(_ service: String, concurrency: Int, _ handler: @escaping QueryHandler) {
        let handle = nextHandle()
        handlers.withLock { $0[handle] = handler }
        inbox.post(.serve(handle: handle, service: service, concurrency: max(1, concurrency)))
    }

    private func nextHandle() -> UInt32 {
        numbers.withLock { numbers in
            numbers.handle += 1
            return numbers.handle
        }
    }
}

extension BusClient {
    /// Answers the queries that have a route.
    public func serve(_ service: String, _ routes: QueryRoutes) {
        serve(service, concurrency: 32) { method, body, caller in try await routes.answer(method, body, caller) }
    }
}
