import BusClient
import Contracts
import Foundation
import HTTPKit
import Hummingbird
import Kit

/// `/v1/events`: the log, read, followed, and spoken to.
struct EventRoutes: Sendable {
    let desk: Desk

    func add(to routes: Routes) {
        routes.get("/v1/events", .role(.viewer)) { request, context in
            let holder = try context.holder()
            let filters = try Publishing.filters(request.query("type"))
            let subject = request.query("subject")
            let since = try Since(request.query("since"))
            let wanted: @Sendable (Envelope) -> Bool = { event in
                guard holder.sees(event.type.text, subject: event.subject) else { return false }
                guard let subject, !subject.isEmpty else { return true }
                return event.subject == subject || event.subject?.hasPrefix(subject + "/") == true
            }
            if request.flag("follow") {
                return try await follow(request, filters, since, wanted)
            }
            let limit = try request.integer("limit", in: 1...10_000, default: since == nil ? 100 : 10_000)
            return try .json(try await list(filters, since, limit: limit, wanted))
        }
        routes.post("/v1/events", .role(.operator)) { request, context in try await publish(request, context) }
    }

    /// Where to begin: a number, or a time.
    enum Since: Sendable {
        case seq(UInt64)
        case time(Timestamp)
        init?(_ text: String?) throws {
            guard let text, !text.isEmpty else { return nil }
            if let seq = UInt64(text) {
                self = .seq(seq)
            } else if let time = Timestamp(text) {
                self = .time(time)
            } else {
                throw Problem(
                    .malformed, "since=\(Problem.quote(text)): expected the number of an event or a time such as 2026-11-23T06:56:54Z")
            }
        }
        var position: Position {
            switch self {
            case .seq(let seq): .seq(max(1, seq), stream: nil)
            case .time(let time): .time(time.description)
            }
        }
    }

    /// The number of the newest event.
    private func head() async throws -> UInt64 {
        let probe = try await desk.boot.bus.subscribe(SubscriptionRequest(filters: ["**"], from: .new))
        defer { probe.cancel() }
        return probe.head
    }

    /// Up to `limit` events, oldest first: from `since` on, or, without it, the newest that match among the last thousand.
    private func list(_ filters: [String], _ since: Since?, limit: Int, _ wanted: @escaping @Sendable (Envelope) -> Bool) async throws
        -> [Envelope]
    {
        let head = try await head()
        if case .seq(let seq)? = since, seq > head { return [] }
        guard head > 0 else { return [] }
        let from: Position = since?.position ?? .seq(head > 1000 ? head - 999 : 1, stream: nil)
        let matching = TopicFilters(filters)
        let late = Problem(.timeout, "the log could not be read in 30 s", hint: "ask for less: ?limit=100")
        let desk = desk
        let keepNewest = since == nil
        return try await withDeadline(30, late) {
            // All of it is read and sifted here: only then is the end of the log seen also where nothing matches.
            let subscription = try await desk.boot.bus.subscribe(SubscriptionRequest(filters: ["**"], from: from))
            defer { subscription.cancel() }
            var found: [(event: Envelope, bytes: Int)] = []
            var size = 0
            if case .time? = since, subscription.position > head { return [] }
            reading: for try await delivery in subscription where delivery.last > 0 {
                for event in delivery.events where event.seq <= head && matching.match(event.type.text) && wanted(event) {
                    let bytes = try Coding.encode(event.data).count
                    found.append((event, bytes))
                    size += bytes
                    // Bounded by bytes too: an event may be a megabyte.
                    if !keepNewest, found.count == limit || size > 32 << 20 { break reading }
                    while keepNewest, found.count > limit || (size > 32 << 20 && found.count > 1) { size -= found.removeFirst().bytes }
                }
                if delivery.last >= head { break }
            }
            return found.map(\.event)
        }
    }

    private func follow(_ request: Request, _ filters: [String], _ since: Since?, _ wanted: @escaping @Sendable (Envelope) -> Bool)
        async throws
        -> Response
    {
        var from = since?.position ?? .new
        if let seen = try LastEventID.read(request) {
            let head = try await head()
            guard seen <= head else { throw Problem(.malformed, "Last-Event-ID \(seen) is ahead of the log: head is \(head)") }
            from = .seq(seen + 1, stream: nil)
        } else if case .seq(let seq)? = since {
            let head = try await head()
            guard seq <= head + 1 else { throw Problem(.malformed, "since=\(seq) is ahead of the log: head is \(head)") }
        }
        // Live streams are shown to those who ask for them by name only: they would drown the rest.
        let live = filters.contains { $0.hasPrefix("log") || $0.hasPrefix("progress") || $0.hasPrefix("metric") }
        let desk = desk
        let start = from
        return .following { pipe in
            try await desk.follow(filters, from: start) { event in
                if wanted(event), event.seq > 0 || live {
                    try await pipe.send(id: event.seq, event: event.type.text, try Coding.text(event))
                }
                return true
            }
        }
    }

    private func publish(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        struct Body: Codable, Sendable {
            var type: String
            var subject: String?
            var data: JSON?
        }
        struct Answer: Encodable {
            var id: EventID
            var type: EventType
            var subject: String?
        }
        let holder = try context.holder()
        let body = try await request.json(Body.self, context, limit: Publishing.largest)
        let type = try EventType(body.type)
        let data = body.data ?? .object([:])
        do {
            let subject = try Publishing.check(type, subject: body.subject, data: data, by: holder)
            let envelope = Envelope(
                id: .fresh(desk.boot.now()), source: desk.boot.source, type: type, subject: subject, time: desk.boot.now(), data: data,
                actor: holder.name)
            try await desk.loop.publish(envelope)
            try await desk.loop.publish(
                AuditRecorded(action: "publish", object: subject ?? type.text, outcome: "published \(type) \(envelope.id)"),
                actor: holder.name)
            return try .json(Answer(id: envelope.id, type: type, subject: subject), status: .accepted)
        } catch let problem as Problem where problem.code == .forbidden {
            try await desk.loop.submit(.refused(action: "publish", object: type.text, why: problem.message), actor: holder.name)
            throw problem
        }
    }
}

/// Matches a topic against filters of the bus: `*` is one token, `**` at the end one or more.
struct TopicFilters: Sendable {
    private let filters: [[Substring]]
    init(_ filters: [String]) { self.filters = filters.map { $0.split(separator: ".") } }

    func match(_ topic: String) -> Bool {
        let tokens = topic.split(separator: ".")
        return filters.contains { filter in
            if filter.last == "**" {
                guard tokens.count >= filter.count else { return false }
                return zip(filter.dropLast(), tokens).allSatisfy { $0 == "*" || $0 == $1 }
            }
            return filter.count == tokens.count && zip(filter, tokens).allSatisfy { $0 == "*" || $0 == $1 }
        }
    }
}
