import Contracts
import Foundation
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit
import NIOCore
import ServiceLifecycle
import Wire

/// `/v1/events`: publish, read from a number, follow.
struct EventRoutes: Sendable {
    let broker: Broker
    let host: HostName
    let keys: KeyTable

    func add(to routes: Routes) {
        routes.post("/v1/events", .role(.operator)) { request, context in try await publish(request, context) }
        routes.get("/v1/events", .role(.viewer)) { request, context in try await read(request, context) }
        routes.get("/v1/events/stream", .role(.viewer)) { request, context in try follow(request, context) }
    }

    // MARK: Publish

    /// One event or an array; the answer comes when they are on the device.
    private func publish(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        let body = try await request.json(JSON.self, context, limit: 4 << 20)
        let isList: Bool
        let items: [JSON]
        if case .array(let list) = body { (items, isList) = (list, true) } else { (items, isList) = ([body], false) }
        guard !items.isEmpty, items.count <= 1000 else { throw Problem(.invalid, "expected 1 to 1000 events, found \(items.count)") }
        guard let principal = context.principal else { throw Problem.tokenNeeded }
        guard principal.app == nil else {
            throw Problem(.forbidden, "'\(principal.name)' reaches one app only; publishing reaches all", hint: "use a token without --app")
        }
        let names = keys.names
        let drafts = try items.enumerated().map { index, item in
            do {
                return try EventDraft(item, by: principal, host: host, names: names, now: .now())
            } catch let problem as Problem where isList {
                throw Problem(problem.code, "event \(index + 1): \(problem.message)", hint: problem.hint)
            }
        }
        for draft in drafts { try permit(draft.publication, principal) }
        let decisions = try await broker.publish(drafts.map(\.publication), producer: "http/\(principal.name)")
        var answers: [Published] = []
        for (draft, decision) in zip(drafts, decisions) {
            switch decision.status {
            case 200: answers.append(Published(id: draft.publication.id, seq: decision.seq, duplicate: nil))
            case 208: answers.append(Published(id: draft.publication.id, seq: decision.seq, duplicate: true))
            case 507:
                throw Problem(
                    .storageFull, "the bus's disk is full; '\(draft.publication.id)' was not stored",
                    hint: "free some space, then send it again")
            case 413:
                throw Problem(
                    .tooLarge, "the event is larger than \(Limits.payload) bytes",
                    hint: "store the content in the registry and send its digest")
            default: throw Problem(.invalid, "the bus refuses the event (\(decision.status))")
            }
        }
        return isList ? try .json(answers, status: .accepted) : try .json(answers[0], status: .accepted)
    }

    /// The same rules as on the wire: a component says what its key may, a person nothing that is the suite's to say.
    private func permit(_ publication: PendingPublication, _ principal: Principal) throws {
        let topic = publication.topic
        if principal.name.hasPrefix("component:") {
            let name = String(principal.name.dropFirst("component:".count))
            guard let rights = keys.rights[name], rights.mayPublish(topic), publication.payload.withUnsafeBytes({ rights.maySay($0) })
            else { throw Problem(.forbidden, "'\(name)' may not publish '\(topic)'") }
        } else if let type = try? EventType(topic), type.isSuiteFact {
            throw Problem(
                .forbidden, "'\(topic)' is for the suite alone to say",
                hint: "publish an order such as deploy.requested, or a type of your own")
        }
    }

    private struct Published: Encodable {
        var id: String
        var seq: UInt64
        var duplicate: Bool?
    }

    // MARK: Read

    /// An answer ends when it has become this large, whatever the limit: memory is bounded by bytes, not by counts.
    private static let answerBytes = 8 << 20

    private func read(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        let selection = try Selection(request, context.principal)
        let limit = try request.integer("limit", in: 1...1000, default: 100)
        var next = try position(request.query("since"), name: "since") ?? broker.log.first
        let last = broker.log.last
        var found: [Data] = []
        var examined = 0
        // Bounded work for a rare type: what is not reached is asked for with a later `since`, which the header names.
        var size = 0
        while next <= last, found.count < limit, examined < 200_000, size < Self.answerBytes {
            do {
                for record in try broker.log.read(from: next, bytes: 256 << 10) {
                    let json = try selection.json(record)
                    next = record.seq + 1
                    examined += 1
                    if let json {
                        found.append(json)
                        size += json.count
                    }
                    if found.count >= limit || size >= Self.answerBytes { break }
                }
            } catch let damage as DamagedRange {
                // What comes before it is answered; whoever goes on from there is told.
                guard examined > 0 else { throw Self.problem(damage) }
                break
            } catch let trimmed as Trimmed {
                guard examined > 0 else { throw Self.problem(trimmed) }
                break
            }
            await Task.yield()
        }
        var body = Data("[".utf8)
        for (index, json) in found.enumerated() {
            if index > 0 { body.append(UInt8(ascii: ",")) }
            body.append(json)
        }
        body.append(UInt8(ascii: "]"))
        var headers: HTTPFields = [:]
        if let name = HTTPField.Name("Slipway-Next") { headers[name] = String(next) }
        if let name = HTTPField.Name("Slipway-Head") { headers[name] = String(last) }
        return .data(body, type: "application/json", headers: headers)
    }

    private static func problem(_ damage: DamagedRange) -> Problem {
        Problem(.failed, "\(damage)", hint: "go on with since=\(damage.last + 1); 'slipway doctor' says more")
    }

    private static func problem(_ trimmed: Trimmed) -> Problem {
        Problem(.gone, "\(trimmed)", hint: "go on with since=\(trimmed.first)")
    }

    /// A number in the log: at most one past the head, 0 and 1 for its beginning. Nil when nothing was asked.
    private func position(_ text: String?, name: String) throws -> UInt64? {
        guard let text else { return nil }
        let head = broker.log.last
        guard let seq = UInt64(text), seq <= head + 1 else {
            throw Problem(.malformed, "\(name) \(Problem.quote(text)): head is \(head)", hint: "use a number from 1 to \(head + 1)")
        }
        return seq <= 1 ? broker.log.first : try kept(seq)
    }

    /// Throws `Problem` (`gone`): what is no longer there is not passed over in silence.
    private func kept(_ seq: UInt64) throws -> UInt64 {
        let first = broker.log.first
        guard seq >= first else { throw Self.problem(Trimmed(wanted: seq, first: first)) }
        return seq
    }

    // MARK: Follow

    /// Server-sent events with the number as id, from `since` on, or after `Last-Event-ID`, or new ones only.
    private func follow(_ request: Request, _ context: SlipwayContext) throws -> Response {
        let selection = try Selection(request, context.principal)
        let head = broker.log.last
        var start = try position(request.query("since"), name: "since") ?? head + 1
        if let name = HTTPField.Name("Last-Event-ID"), let text = request.headers[name] {
            guard let seen = UInt64(text), seen <= head else {
                throw Problem(
                    .malformed, "Last-Event-ID \(Problem.quote(text)): head is \(head)", hint: "connect without it to see new events")
            }
            start = try kept(seen + 1)
        }
        if start <= head {
            do {
                if let record = try broker.log.read(from: start, bytes: 1).first { _ = try selection.json(record) }
            } catch let damage as DamagedRange {
                throw Self.problem(damage)
            } catch let trimmed as Trimmed {
                throw Self.problem(trimmed)
            }
        }
        var headers: HTTPFields = [:]
        headers[.contentType] = "text/event-stream; charset=utf-8"
        headers[.cacheControl] = "no-store"
        let first = start
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: ": open\n\n"))
                var next = first
                // Read from the log as fast as the client takes it, and no faster: a slow one costs no memory and misses nothing.
                for await head in broker.follow().cancelOnGracefulShutdown() {
                    var silent = true
                    while next <= head {
                        var text = ""
                        var damage: (any Error)?
                        do {
                            for record in try broker.log.read(from: next, bytes: 64 << 10) {
                                let json = try selection.json(record)
                                next = record.seq + 1
                                guard let json else { continue }
                                text += "id: \(record.seq)\ndata: \(String(decoding: json, as: UTF8.self))\n\n"
                            }
                        } catch { damage = error }
                        // A stream cannot carry the problem. The client that connects again from this number is told.
                        if let damage { text += ": \(damage)\nid: \(next - 1)\n\n" }
                        guard !text.isEmpty else { continue }
                        silent = false
                        try await writer.write(ByteBuffer(string: text))
                        if damage != nil { return try await writer.finish(nil) }
                    }
                    // The broker calls every few seconds, so a client that is gone is noticed.
                    if silent { try await writer.write(ByteBuffer(string: ":\n\n")) }
                }
                try await writer.finish(nil)
            })
    }
}

/// Which events a reader asked for, and may see.
struct Selection: Sendable {
    var type: String?
    var subject: String?
    /// Who reads.
    var principal: Principal?

    init(_ request: Request, _ principal: Principal?) throws {
        type = request.query("type").flatMap { $0.isEmpty ? nil : $0 }
        subject = request.query("subject")
        self.principal = principal
    }

    /// The event with its number and producer, when it is asked for. Throws `DamagedRange` when its bytes have rotted: nothing
    /// of it can be trusted then, its type neither.
    func json(_ stored: StoredRecord) throws -> Data? {
        var reader = Reader(stored.bytes)
        guard let record = try? Record(from: &reader), record.seq == stored.seq else {
            throw DamagedRange(first: stored.seq, last: stored.seq, place: "it fails its CRC")
        }
        if let type, !matchesType(record.topic, type) { return nil }
        guard case .object(var members)? = try? Coding.decode(JSON.self, from: record.payload) else { return nil }
        let about = members["subject"]?.string
        if let subject, about != subject, about?.hasPrefix(subject + "/") != true { return nil }
        guard principal?.sees(stored.topic, subject: about) ?? false else { return nil }
        // From the record, so that nobody can forge them.
        members["sequence"] = .string(Envelope.digits(record.seq))
        members["producer"] = .string(record.producer)
        return try? Coding.encode(JSON.object(members))
    }

    /// The CloudEvent itself, as it was published.
    static func payload(of stored: StoredRecord) -> Data? {
        var reader = Reader(stored.bytes)
        return (try? Record(from: &reader))?.payload
    }

    /// `deploy` and `deploy.` are the family, `deploy.started` the one type.
    private func matchesType(_ topic: String, _ prefix: String) -> Bool {
        prefix.hasSuffix(".") ? topic.hasPrefix(prefix) : topic == prefix || topic.hasPrefix(prefix + ".")
    }
}
