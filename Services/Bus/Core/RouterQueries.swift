import Contracts
import Foundation
import Wire

/// The queries that the bus answers itself.
extension Router {
    /// The reply as JSON. Throws `Problem`, and `DecodingError` when the request cannot be read.
    mutating func ownAnswer(_ call: Call, _ now: Int64) throws -> Data {
        switch call.method {
        case "bus.consumers": return try Coding.encode(consumers())
        case "bus.metrics": return try Coding.encode(numbers())
        case "bus.permissions": return try Coding.encode(permissions(call, now))
        case "bus.replica.state": return try replicaState(call)
        case "bus.lookup": return try lookup(call)
        case "bus.streams":
            return try Coding.encode([StreamStatus(stream: settings.stream, epoch: settings.epoch, first: log.first, last: last)])
        case "bus.drain":
            // A pattern that happens to match is not enough: the right is given by name.
            guard call.name == "api" || call.name == "bus" || rights[call.name]?.call.contains(where: { $0.text == call.method }) == true
            else {
                throw Problem(
                    .forbidden, "'\(call.name)' may not drain the bus",
                    hint: "make a key whose 'call' names bus.drain itself, or use POST /v1/drain as an operator")
            }
            effects.append(.note(.notice, "\(call.name) drains the bus"))
            isDraining = true
            return Data("{}".utf8)
        case "bus.parked.list":
            let asked = try Coding.decode(ParkedQuery.self, from: call.payload)
            return try Coding.encode(parkedList(owner: try owner(asked, call), consumer: asked.consumer))
        case "bus.parked.retry", "bus.parked.drop":
            let asked = try Coding.decode(ParkedQuery.self, from: call.payload)
            guard let consumer = asked.consumer, let seq = asked.seq else {
                throw Problem(.malformed, "\(call.method): 'consumer' and 'seq' are needed")
            }
            let key = ConsumerKey(owner: try owner(asked, call) ?? call.name, name: consumer)
            try unpark(key, seq, retry: call.method == "bus.parked.retry")
            return Data("{}".utf8)
        case "bus.consumers.forget":
            let asked = try Coding.decode(ParkedQuery.self, from: call.payload)
            guard let consumer = asked.consumer else { throw Problem(.malformed, "\(call.method): 'consumer' is needed") }
            try forget(ConsumerKey(owner: try owner(asked, call) ?? call.name, name: consumer))
            return Data("{}".utf8)
        default:
            throw Problem(
                .notFound, "the bus does not answer \(Problem.quote(call.method))",
                hint:
                    "known: bus.consumers, bus.consumers.forget, bus.drain, bus.lookup, bus.metrics, bus.parked.list, .retry and .drop, bus.permissions, bus.streams"
            )
        }
    }

    /// An element of the reply to `bus.streams`; there is one stream.
    private struct StreamStatus: Encodable {
        var stream: String
        var epoch: UInt64
        var first: UInt64
        var last: UInt64
    }

    private struct ParkedQuery: Decodable {
        var owner: String?
        var consumer: String?
        var seq: UInt64?
    }

    /// Whose consumers are meant: the caller's own; `api` speaks for people and may name anybody, or nobody for all.
    private func owner(_ asked: ParkedQuery, _ call: Call) throws -> String? {
        if call.name == "api" || call.name == "bus" { return asked.owner }
        guard asked.owner ?? call.name == call.name else {
            throw Problem(.forbidden, "'\(call.name)' may look after its own consumers only")
        }
        return call.name
    }

    /// What each key may do, by name; a key other than `api`'s is told of itself alone.
    private func permissions(_ call: Call, _ now: Int64) -> [Permission] {
        let isForAll = call.name == "api" || call.name == "bus"
        let wall = (try? EventID(makeID())).flatMap { Self.time(of: $0) }
        return rights.values.filter { isForAll || $0.name == call.name }.sorted { $0.name < $1.name }.map { allowed in
            let mine = sessions.values.filter { $0.user == allowed.name }
            let heard = mine.map(\.heardAt).max() ?? seen[allowed.name]
            var permission = Permission(
                name: allowed.name, publish: allowed.publish.map(\.text), subscribe: allowed.subscribe.map(\.text),
                call: allowed.call.map(\.text), serve: allowed.serve.map(\.text), sessions: mine.count)
            permission.subject = allowed.subjects?.map(\.text)
            permission.consumers = allowed.consumers?.sorted()
            permission.ephemeral_only = allowed.isEphemeralOnly ? true : nil
            permission.replicate = allowed.mayReplicate ? true : nil
            permission.seen = heard.flatMap { at in wall?.adding(seconds: -Double(now - at) / 1000) }
            return permission
        }
    }

    func parkedList(owner: String?, consumer: String?) -> [ParkedStatus] {
        parked.filter { (owner ?? $0.key.owner) == $0.key.owner && (consumer ?? $0.key.name) == $0.key.name }
            .flatMap { key, entries in
                entries.values.map {
                    ParkedStatus(
                        owner: key.owner, consumer: key.name, seq: $0.seq, deliveries: $0.deliveries, reason: $0.reason,
                        at: Timestamp(milliseconds: $0.at))
                }
            }
            .sorted { ($0.owner, $0.consumer, $0.seq) < ($1.owner, $1.consumer, $1.seq) }
    }

    /// The number of the caller's own event with that id.
    private func lookup(_ call: Call) throws -> Data {
        struct Asked: Decodable { var id: String }
        struct Answer: Encodable { var seq: UInt64 }
        let id = try Coding.decode(Asked.self, from: call.payload).id
        guard let seq = recent.seq(recent.hash.key(call.name, id)), seq <= last else {
            throw Problem(.notFound, "no event of '\(call.name)' with the id \(Problem.quote(id)) is remembered")
        }
        return try Coding.encode(Answer(seq: seq))
    }
}

/// A row of `bus.permissions` and `GET /v1/permissions`: what a key may do, spelled as in clients.json, and whether it is there.
struct Permission: Codable, Hashable, Sendable {
    var name: String
    var publish: [String]
    var subscribe: [String]
    var call: [String]
    var serve: [String]
    var subject: [String]?
    var consumers: [String]?
    var ephemeral_only: Bool?
    var replicate: Bool?
    var sessions: Int
    /// When it was last heard, since the bus started.
    var seen: Timestamp?
}
