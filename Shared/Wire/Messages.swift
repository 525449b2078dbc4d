import Foundation

/// Bodies of the control commands. Unknown members are ignored: that is how the protocol grows.
public struct Hello: Codable, Hashable, Sendable {
    /// The range of majors spoken.
    public var min = 1
    public var max = 1
    /// Name of the client program, for people.
    public var client: String
    public var version: String
    public var features: [String] = []
    public var heartbeat_ms = 1000
    /// When set, `a` in PUB is this outbox's own number, and the bus keeps the last number it took from it, for ever.
    public var outbox: String?
    /// The highest epoch of this log that the client has seen, and the `witness` that came with it. A bus of an earlier epoch
    /// that is told so stops.
    public var epoch: UInt64?
    public var witness: String?
    /// What the client has seen of the log. A bus whose log does not extend it refuses the session.
    public var seen: Seen?
    public struct Seen: Codable, Hashable, Sendable {
        /// The log's id, 32 hexadecimal digits.
        public var stream: String
        /// An event, and the hash chain just after it, 64 hexadecimal digits: as WELCOME or PING said them.
        public var seq: UInt64
        public var hash: String
        public init(stream: String, seq: UInt64, hash: String) {
            self.stream = stream
            self.seq = seq
            self.hash = hash
        }
    }
    public init(client: String, version: String, features: [String] = [], outbox: String? = nil) {
        self.client = client
        self.version = version
        self.features = features
        self.outbox = outbox
    }

    /// Only `client` must be there: a small foreign client says no more than it has to.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        client = try container.decode(String.self, forKey: .client)
        min = try container.decodeIfPresent(Int.self, forKey: .min) ?? 1
        max = try container.decodeIfPresent(Int.self, forKey: .max) ?? 1
        version = try container.decodeIfPresent(String.self, forKey: .version) ?? ""
        features = try container.decodeIfPresent([String].self, forKey: .features) ?? []
        heartbeat_ms = try container.decodeIfPresent(Int.self, forKey: .heartbeat_ms) ?? 1000
        outbox = try container.decodeIfPresent(String.self, forKey: .outbox)
        epoch = try container.decodeIfPresent(UInt64.self, forKey: .epoch)
        witness = try container.decodeIfPresent(String.self, forKey: .witness)
        seen = try container.decodeIfPresent(Seen.self, forKey: .seen)
    }
}

public struct Welcome: Codable, Hashable, Sendable {
    public var proto: Int
    public var session: String
    /// Random id of the log, 32 hexadecimal digits.
    public var stream: String
    public var first: UInt64
    public var last: UInt64
    public var window_msgs: Int
    public var window_bytes: Int
    public var max_payload: Int
    public var max_credit_msgs: Int
    public var max_credit_bytes: Int
    public var heartbeat_ms: Int
    public var features: [String]
    /// The name of the client's key.
    public var you: String
    /// The last number the bus has taken from the outbox that HELLO named.
    public var outbox_last: UInt64?
    /// The log's hash chain at `last`, 64 hexadecimal digits.
    public var hash: String?
    /// To be repeated in HELLO beside the epoch: shows that a bus of this log gave it.
    public var witness: String?
    public init(
        proto: Int = 1, session: String, stream: String, first: UInt64, last: UInt64, window_msgs: Int = 1024,
        window_bytes: Int = 4 << 20, max_payload: Int = Limits.payload, max_credit_msgs: Int = 4096, max_credit_bytes: Int = 16 << 20,
        heartbeat_ms: Int = 1000, features: [String] = [], you: String, outbox_last: UInt64? = nil, hash: String? = nil,
        witness: String? = nil
    ) {
        self.proto = proto
        self.session = session
        self.stream = stream
        self.first = first
        self.last = last
        self.window_msgs = window_msgs
        self.window_bytes = window_bytes
        self.max_payload = max_payload
        self.max_credit_msgs = max_credit_msgs
        self.max_credit_bytes = max_credit_bytes
        self.heartbeat_ms = heartbeat_ms
        self.features = features
        self.you = you
        self.outbox_last = outbox_last
        self.hash = hash
        self.witness = witness
    }
}

public struct ByeBody: Codable, Hashable, Sendable {
    public var reason: String
    public var retry_ms: Int?
    public init(reason: String, retry_ms: Int? = nil) {
        self.reason = reason
        self.retry_ms = retry_ms
    }
}

public struct ErrorBody: Codable, Hashable, Sendable {
    public var code: String
    public var message: String
    public var retry_ms: Int?
    /// The range of majors that the bus speaks, when none of the client's is among them.
    public var min: Int?
    public var max: Int?
    public init(code: String, message: String, retry_ms: Int? = nil, min: Int? = nil, max: Int? = nil) {
        self.code = code
        self.message = message
        self.retry_ms = retry_ms
        self.min = min
        self.max = max
    }
}

/// Where a subscription begins. In JSON: `"cursor"`, `"first"`, `"new"`, `{"seq":n}`, `{"time":"…"}`, `{"stream":"…","seq":n}`
/// or `{"stream":"…","seq":n,"hash":"…"}`.
public enum Position: Codable, Hashable, Sendable {
    case cursor, first, new
    /// The first event with this number or a later one, optionally only in this log,
    /// and when the batch that holds the event before has this hash (64 hexadecimal digits).
    case seq(UInt64, stream: String?, hash: String? = nil)
    /// The first event at or after this time (RFC 3339).
    case time(String)

    private enum Keys: String, CodingKey { case seq, time, stream, hash }

    public init(from decoder: any Decoder) throws {
        if let text = try? decoder.singleValueContainer().decode(String.self) {
            switch text {
            case "cursor": self = .cursor
            case "first": self = .first
            case "new": self = .new
            default: throw WireError("'from' is neither cursor, first, new nor an object")
            }
            return
        }
        let container = try decoder.container(keyedBy: Keys.self)
        if let seq = try container.decodeIfPresent(UInt64.self, forKey: .seq) {
            self = .seq(
                seq, stream: try container.decodeIfPresent(String.self, forKey: .stream),
                hash: try container.decodeIfPresent(String.self, forKey: .hash))
        } else {
            self = .time(try container.decode(String.self, forKey: .time))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        switch self {
        case .cursor, .first, .new:
            var container = encoder.singleValueContainer()
            try container.encode(self == .cursor ? "cursor" : self == .first ? "first" : "new")
        case .seq(let seq, let stream, let hash):
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(seq, forKey: .seq)
            try container.encodeIfPresent(stream, forKey: .stream)
            try container.encodeIfPresent(hash, forKey: .hash)
        case .time(let text):
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(text, forKey: .time)
        }
    }
}

/// Body of SUB.
public struct SubscribeBody: Codable, Hashable, Sendable {
    /// Durable name; empty: ephemeral.
    public var consumer: String
    public var filters: [String]
    public var from: Position?
    /// `ordered` or `group`.
    public var mode: String?
    public var credit_msgs: Int
    public var credit_bytes: Int
    /// Group mode: how long an event may stay unacknowledged before another session gets it.
    public var ack_wait_ms: Int?
    /// How often an event is delivered before it is parked; 0: for ever.
    public var max_deliver: Int?
    /// Pauses before the second delivery, the third and so on; the last one counts for all that follow.
    public var backoff_ms: [Int]?
    /// Ordered mode, for an event that was refused `max_deliver` times: `stop` or `park`.
    public var poison: String?
    public init(
        consumer: String, filters: [String], from: Position? = nil, mode: String? = "ordered", credit_msgs: Int = 256,
        credit_bytes: Int = 1 << 20, ack_wait_ms: Int? = nil, max_deliver: Int? = nil, backoff_ms: [Int]? = nil, poison: String? = nil
    ) {
        self.consumer = consumer
        self.filters = filters
        self.from = from
        self.mode = mode
        self.credit_msgs = credit_msgs
        self.credit_bytes = credit_bytes
        self.ack_wait_ms = ack_wait_ms
        self.max_deliver = max_deliver
        self.backoff_ms = backoff_ms
        self.poison = poison
    }

    /// Only `filters` must be there.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        filters = try container.decode([String].self, forKey: .filters)
        consumer = try container.decodeIfPresent(String.self, forKey: .consumer) ?? ""
        from = try container.decodeIfPresent(Position.self, forKey: .from)
        mode = try container.decodeIfPresent(String.self, forKey: .mode)
        credit_msgs = try container.decodeIfPresent(Int.self, forKey: .credit_msgs) ?? 256
        credit_bytes = try container.decodeIfPresent(Int.self, forKey: .credit_bytes) ?? 1 << 20
        ack_wait_ms = try container.decodeIfPresent(Int.self, forKey: .ack_wait_ms)
        max_deliver = try container.decodeIfPresent(Int.self, forKey: .max_deliver)
        backoff_ms = try container.decodeIfPresent([Int].self, forKey: .backoff_ms)
        poison = try container.decodeIfPresent(String.self, forKey: .poison)
    }
}

/// Body of SUBOK.
public struct SubscribedBody: Codable, Hashable, Sendable {
    public var stream: String
    public var first: UInt64
    public var last: UInt64
    public var pending: UInt64
    public var parked: Int
    public init(stream: String, first: UInt64, last: UInt64, pending: UInt64, parked: Int = 0) {
        self.stream = stream
        self.first = first
        self.last = last
        self.pending = pending
        self.parked = parked
    }
}

/// Body of SERVE.
public struct ServeBody: Codable, Hashable, Sendable {
    public var service: String
    public var idempotent: [String]
    public init(service: String, idempotent: [String] = []) {
        self.service = service
        self.idempotent = idempotent
    }

    /// Only `service` must be there.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        service = try container.decode(String.self, forKey: .service)
        idempotent = try container.decodeIfPresent([String].self, forKey: .idempotent) ?? []
    }
}

/// Body of REQ: `u16` + `service.method`, `u16` + idempotency key, payload.
public struct RequestBody: Hashable, Sendable {
    public var method: String
    public var key: String
    public var payload: Data
    public init(method: String, key: String, payload: Data) {
        self.method = method
        self.key = key
        self.payload = payload
    }
    public func encoded() -> Data { Strings.encode(method, key, payload) }
    public init(_ body: Data) throws { (method, key, payload) = try Strings.decode(body) }
}

/// Body of CALL: `u16` + method, `u16` + JSON about the caller, payload.
public struct CallBody: Hashable, Sendable {
    public struct About: Codable, Hashable, Sendable {
        public var caller: String
        public var key: String?
        public var trace: String?
        public init(caller: String, key: String? = nil, trace: String? = nil) {
            self.caller = caller
            self.key = key
            self.trace = trace
        }
    }
    public var method: String
    public var about: String
    public var payload: Data
    public init(method: String, about: String, payload: Data) {
        self.method = method
        self.about = about
        self.payload = payload
    }
    public func encoded() -> Data { Strings.encode(method, about, payload) }
    public init(_ body: Data) throws { (method, about, payload) = try Strings.decode(body) }
}

private enum Strings {
    static func encode(_ first: String, _ second: String, _ payload: Data) -> Data {
        var writer = Writer(capacity: 4 + first.utf8.count + second.utf8.count + payload.count)
        writer.u16(UInt16(clamping: first.utf8.count))
        writer.text(first)
        writer.u16(UInt16(clamping: second.utf8.count))
        writer.text(second)
        writer.bytes(payload)
        return writer.data
    }
    static func decode(_ body: Data) throws -> (String, String, Data) {
        var reader = Reader(body)
        guard let firstLength = reader.u16(), let first = reader.text(Int(firstLength)), let secondLength = reader.u16(),
            let second = reader.text(Int(secondLength))
        else { throw WireError("a length reaches past the end, or text is not UTF-8") }
        return (first, second, reader.rest())
    }
}

/// A topic filter: `*` is one token, `**` at the end one or more.
public struct Filter: Hashable, Sendable {
    public let text: String
    private let tokens: [Substring]

    /// Throws `WireError` when a token is empty, holds other characters than topics do, or `**` is not last.
    public init(_ text: String) throws {
        let tokens = text.split(separator: ".", omittingEmptySubsequences: false)
        guard !text.isEmpty, text.utf8.count <= Limits.topic, tokens.count <= 8 else {
            throw WireError("filter '\(text.prefix(60))' is empty or too long")
        }
        for (index, token) in tokens.enumerated() {
            if token == "*" { continue }
            if token == "**" {
                guard index == tokens.count - 1 else { throw WireError("filter '\(text)': '**' may only be last") }
                continue
            }
            let fine = token.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x5F || $0 == 0x2D }
            guard !token.isEmpty, fine else { throw WireError("filter '\(text.prefix(60))' has a token that no topic can have") }
        }
        self.text = text
        self.tokens = tokens
    }

    public func matches(_ topic: String) -> Bool {
        let parts = topic.split(separator: ".", omittingEmptySubsequences: false)
        for (index, token) in tokens.enumerated() {
            if token == "**" { return parts.count > index }
            guard index < parts.count, token == "*" || token == parts[index] else { return false }
        }
        return parts.count == tokens.count
    }

    /// Whether every topic that `other` matches is matched by this one too: what a permission asks of a subscription.
    public func contains(_ other: Filter) -> Bool {
        for (index, token) in tokens.enumerated() {
            if token == "**" { return other.tokens.count > index }
            guard index < other.tokens.count, other.tokens[index] != "**", token == "*" || token == other.tokens[index] else {
                return false
            }
        }
        return other.tokens.count == tokens.count
    }
}
