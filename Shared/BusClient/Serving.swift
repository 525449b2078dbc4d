import Contracts
import Foundation

/// Answers one query: method (`service.method`), body, and the name of the caller's key, given by the bus.
public typealias QueryHandler = @Sendable (_ method: String, _ body: Data, _ caller: String) async throws -> Data

/// The queries that a service answers, by method.
public struct QueryRoutes: Sendable {
    private var handlers: [String: @Sendable (Data, String) async throws -> Data] = [:]

    public init() {}

    /// The same routes with one more. The handler may throw a `Problem`, which the caller then gets.
    public func on<Q: Query>(_ query: Q.Type, _ handler: @escaping @Sendable (Q, _ caller: String) async throws -> Q.Reply) -> Self {
        var result = self
        result.handlers[Q.method] = { body, caller in
            try Coding.encode(try await handler(try Coding.decode(Q.self, from: body), caller))
        }
        return result
    }

    /// Methods that have a handler.
    public var methods: [String] { handlers.keys.sorted() }

    func answer(_ method: String, _ body: Data, _ caller: String) async throws -> Data {
        guard let handler = handlers[method] else {
            throw Problem(.notFound, "no query \(Problem.quote(method)) here", hint: "known: \(methods.joined(separator: ", "))")
        }
        return try await handler(body, caller)
    }
}

/// A call that the bus handed to this client.
struct Job: Sendable {
    struct ID: Hashable, Sendable {
        var session: UInt64
        var number: UInt64
    }
    var id: ID
    var handle: UInt32
    var method: String
    var caller: String
    var payload: Data
    /// Milliseconds, monotonic.
    var deadline: Int64
}

/// What the bus thread tells the workshop.
enum Errand: Sendable {
    case begin(Job)
    /// Nobody waits for the reply any more.
    case cancel(Job.ID)
}

/// Runs handlers in tasks of their own, each until its deadline or its caller's goodbye at most, and sends what they say.
struct Workshop: Sendable {
    let handlers: Locked<[UInt32: QueryHandler]>
    let inbox: Inbox

    func run(_ errands: AsyncStream<Errand>) async {
        // Resolved when the job is to end early.
        let under = Locked<[Job.ID: Answer<Void>]>([:])
        await withDiscardingTaskGroup { group in
            for await errand in errands {
                switch errand {
                case .begin(let job):
                    let canceled = Answer<Void>()
                    under.withLock { $0[job.id] = canceled }
                    group.addTask {
                        await perform(job, canceled)
                        under.withLock { $0[job.id] = nil }
                    }
                case .cancel(let id): under.withLock { $0[id] }?.resolve(.success(()))
                }
            }
            group.cancelAll()
        }
    }

    private func perform(_ job: Job, _ canceled: Answer<Void>) async {
        guard let handler = handlers.withLock({ $0[job.handle] }) else { return }
        let result = await withTaskGroup(of: Result<Data, Problem>?.self) { group in
            group.addTask { await Self.outcome { try await handler(job.method, job.payload, job.caller) } }
            group.addTask {
                try? await Task.sleep(for: .milliseconds(max(1, job.deadline - Monotonic.now())))
                return .failure(Problem(.timeout, "\(job.method) was not answered in the time that the caller gave"))
            }
            group.addTask {
                try? await canceled.value(cancelled: Problem(.failed, "answered"))
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
        switch result {
        case .success(let payload)?:
            inbox.post(.reply(job.id, status: 200, payload: payload))
        case .failure(let problem)?:
            let body = (try? Coding.encode(problem)) ?? Data()
            inbox.post(.reply(job.id, status: UInt16(problem.status), payload: body))
        case nil: break
        }
    }

    /// Nil: it was cancelled, and nothing is answered: nobody waits, or this program is leaving, and the bus then asks another one.
    private static func outcome(_ body: () async throws -> Data) async -> Result<Data, Problem>? {
        do {
            return .success(try await body())
        } catch let problem as Problem {
            return .failure(problem)
        } catch is CancellationError where Task.isCancelled {
            return nil
        } catch {
            // What an unknown error says may be internal; its type is enough to find it.
            return .failure(Problem(.failed, "the service failed inside (\(type(of: error)))", hint: "its log says more"))
        }
    }
}
