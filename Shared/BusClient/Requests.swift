import Contracts
import Foundation
import Wire

/// A query that waits for its reply.
struct OpenRequest: Sendable {
    var number: UInt64
    /// `service.method`, or `service@instance.method`.
    var method: String
    /// The same in every repetition, so that a service can tell.
    var key: String
    var payload: Data
    /// Milliseconds, monotonic.
    var deadline: Int64
    var answer: Answer<Data>
}

/// The queries under way. Lives on the bus thread.
///
/// All queries change nothing, so one whose server or bus went away is asked again under the same key while there is time.
struct Requests {
    static let largestReply = 64 << 20
    /// How long a service that nobody serves is waited for: about as long as a component takes to be back.
    static let patience: Int64 = 3000

    private struct Entry {
        var request: OpenRequest
        var sent = false
        var parts = Data()
        var nextPart: UInt64 = 0
        var attempts = 0
        /// When to ask again; nil: an answer is awaited.
        var retryAt: Int64?
        /// Set when the first server was lost; the way back of a bus that was away does not count.
        var giveUpAt: Int64?
        var refusal: Problem?
    }
    private var entries: [UInt64: Entry] = [:]
    /// Nothing is due before this.
    private(set) var nextDue = Int64.max

    /// Adds it; returns the frame to send when a session is open.
    mutating func add(_ request: OpenRequest, now: Int64) {
        entries[request.number] = Entry(request: request)
        nextDue = min(nextDue, request.deadline)
    }

    /// REQ of one that has not been sent, marked as sent.
    mutating func frame(_ number: UInt64, now: Int64) -> Frame? {
        guard var entry = entries[number], !entry.sent else { return nil }
        entry.sent = true
        entry.retryAt = nil
        entry.parts = Data()
        entry.nextPart = 0
        entries[number] = entry
        let body = RequestBody(method: entry.request.method, key: entry.request.key, payload: entry.request.payload).encoded()
        // The bus itself waits that long for somebody to serve.
        let left = max(1, entry.request.deadline - now)
        return Frame(.request, handle: UInt32(clamping: min(left, Self.patience)), a: number, b: UInt64(left), body: body)
    }

    /// In the order in which they were asked, all that wait for a session.
    var unsent: [UInt64] { entries.filter { !$0.value.sent && $0.value.retryAt == nil }.keys.sorted() }

    mutating func sessionLost() { for number in entries.keys { entries[number]?.sent = false } }

    mutating func cancel(_ number: UInt64) -> Bool { entries.removeValue(forKey: number)?.sent ?? false }

    mutating func part(_ frame: Frame) {
        guard var entry = entries[frame.a] else { return }
        guard frame.b == entry.nextPart, entry.parts.count + frame.body.count <= Self.largestReply else {
            finish(frame.a, .failure(Problem(.failed, "the reply to \(entry.request.method) came in broken or endless parts")))
            return
        }
        entry.parts.append(frame.body)
        entry.nextPart += 1
        entries[frame.a] = entry
    }

    mutating func reply(_ frame: Frame, now: Int64) {
        guard let entry = entries[frame.a] else { return }
        guard frame.status >= 400 else {
            finish(frame.a, .success(entry.parts.isEmpty ? frame.body : entry.parts + frame.body))
            return
        }
        refuse(frame.a, Self.problem(frame.status, frame.body, entry.request.method), status: frame.status, body: frame.body, now: now)
    }

    /// ERR that names this request.
    mutating func refused(_ frame: Frame, now: Int64) {
        guard let entry = entries[frame.a] else { return }
        refuse(frame.a, Self.problem(frame.status, frame.body, entry.request.method), status: frame.status, body: frame.body, now: now)
    }

    private mutating func refuse(_ number: UInt64, _ problem: Problem, status: UInt16, body: Data, now: Int64) {
        guard var entry = entries[number] else { return }
        // A service's own 502 is an answer; only the bus's word that the server died is worth another attempt.
        let mayRetry = status == 502 && (try? JSONDecoder().decode(Problem.self, from: body)) == nil
        let pause = Int64(25 << min(entry.attempts, 4))
        let giveUpAt = entry.giveUpAt ?? min(entry.request.deadline, now + Self.patience)
        entry.giveUpAt = giveUpAt
        guard mayRetry, now + pause < giveUpAt else { return finish(number, .failure(problem)) }
        entry.attempts += 1
        entry.sent = false
        entry.retryAt = now + pause
        entry.refusal = problem
        entries[number] = entry
        nextDue = min(nextDue, now + pause)
    }

    /// Ends what is past its deadline; returns the numbers to ask again. `unreachable`: why the bus cannot be asked, if it cannot.
    mutating func due(now: Int64, unreachable: Problem?) -> [UInt64] {
        guard now >= nextDue else { return [] }
        var again: [UInt64] = []
        var next = Int64.max
        for (number, entry) in entries {
            if now >= entry.request.deadline {
                let late = Problem(.timeout, "\(entry.request.method): no answer in time", hint: "slipway status shows what is not ready")
                finish(number, .failure(entry.refusal ?? unreachable ?? late))
                continue
            }
            if let retryAt = entry.retryAt {
                if now >= retryAt {
                    entries[number]?.retryAt = nil
                    again.append(number)
                } else {
                    next = min(next, retryAt)
                }
            }
            next = min(next, entry.request.deadline)
        }
        nextDue = next
        return again.sorted()
    }

    mutating func finish(_ number: UInt64, _ result: Result<Data, Problem>) {
        entries.removeValue(forKey: number)?.request.answer.resolve(result)
    }

    mutating func failAll(_ problem: Problem) { for number in entries.keys { finish(number, .failure(problem)) } }

    /// The problem that a service wrote, or one that says what the bus's status means.
    static func problem(_ status: UInt16, _ body: Data, _ method: String) -> Problem {
        if let problem = try? JSONDecoder().decode(Problem.self, from: body) { return problem }
        let said = (try? JSONDecoder().decode(ErrorBody.self, from: body))?.message
        let service = method.split(separator: ".").first.map(String.init) ?? method
        switch status {
        case 409: return Problem(.conflict, said ?? "the query \(method) was asked again under the same key")
        case 403: return Problem(.forbidden, said ?? "this key may not call \(method)")
        case 404: return Problem(.notFound, said ?? "\(service) does not know \(method)")
        case 413: return Problem(.tooLarge, said ?? "the query \(method) is too large")
        case 429: return Problem(.tooMany, said ?? "too many queries wait for \(service)")
        case 502: return Problem(.unavailable, "\(service) stopped while it worked on \(method)", hint: "try again")
        case 503: return Problem(.unavailable, "\(service) does not answer: it is not on the bus", hint: "slipway status")
        case 504: return Problem(.timeout, "\(method): no answer in time", hint: "slipway status shows what is not ready")
        default: return Problem(.failed, said ?? "\(method) failed with status \(status)")
        }
    }
}
