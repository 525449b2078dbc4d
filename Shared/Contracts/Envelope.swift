import Foundation

/// A type of event, which is also its topic on the bus: 1–8 tokens of `[a-z0-9_-]` joined by dots, at most 200 bytes.
public struct EventType: Name, ExpressibleByStringLiteral {
    public let text: String
    public init(_ text: String) throws {
        guard Self.isValid(text) else {
            throw Problem(
                .invalidName, "event type \(Problem.quote(text)): expected 1 to 8 tokens of a-z, 0-9, '_' and '-' joined by dots",
                hint: "for example 'deploy.requested'")
        }
        self.text = text
    }
    /// For types written in this code; text from outside goes through `init(_:)`.
    public init(stringLiteral text: String) {
        precondition(Self.isValid(text), "event type '\(text)' breaks its own grammar")
        self.text = text
    }

    static func isValid(_ text: String) -> Bool {
        guard !text.isEmpty, text.utf8.count <= 200 else { return false }
        let tokens = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return tokens.count <= 8
            && tokens.allSatisfy { token in
                !token.isEmpty
                    && token.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x5F || $0 == 0x2D }
            }
    }
}

extension EventType {
    /// First tokens of the suite's own types.
    public static let suiteDomains: Set<String> = [
        "approval", "audit", "bus", "checkout", "component", "config", "deploy", "git", "health", "host", "image", "instance", "job", "log",
        "metric", "progress", "release", "repository", "rollback", "route", "run", "scale", "service", "suite", "tag",
    ]
    public var domain: String { String(text.prefix { $0 != "." }) }
    /// A fact of the suite: it has one publisher, so nobody else may say it. Orders (`….requested`) may come from anyone who is allowed.
    public var isSuiteFact: Bool { Self.suiteDomains.contains(domain) && !text.hasSuffix(".requested") }
}

/// An event's id: a UUID (RFC 9562), version 7 where a chain starts, version 8 where it is derived from its cause.
public struct EventID: Name {
    public let text: String
    public init(_ text: String) throws {
        guard text.utf8.count == 36, UUID(uuidString: text) != nil else {
            throw Problem(.invalidName, "event id \(Problem.quote(text)): expected a UUID")
        }
        self.text = text.lowercased()
    }
    public init(_ uuid: UUID) { text = uuid.uuidString.lowercased() }
}

/// An event as it travels: CloudEvents 1.0 in JSON (structured mode), with the extensions of interfaces.md, *Events*.
public struct Envelope: Codable, Hashable, Sendable {
    public var specversion = "1.0"
    public var id: EventID
    /// The publisher: component and host, such as `scheduler@host1`.
    public var source: String
    public var type: EventType
    /// The path of what it is about, such as `shop/production`.
    public var subject: String?
    public var time: Timestamp?
    public var datacontenttype: String? = "application/json"
    public var data: JSON
    /// The id of the event that led to this one.
    public var cause: EventID?
    /// The user or component on whose behalf it was published.
    public var actor: String?
    /// W3C Trace Context.
    public var traceparent: String?
    /// The bus's number as 20 digits; set by whoever reads the log, never by a publisher.
    public var sequence: String?

    public init(
        id: EventID, source: String, type: EventType, subject: String?, time: Timestamp?, data: JSON, cause: EventID? = nil,
        actor: String? = nil, traceparent: String? = nil
    ) {
        self.id = id
        self.source = source
        self.type = type
        self.subject = subject
        self.time = time
        self.data = data
        self.cause = cause
        self.actor = actor
        self.traceparent = traceparent
    }

    /// The bus's number, when this came from the log; otherwise 0.
    public var seq: UInt64 { sequence.flatMap { UInt64($0) } ?? 0 }

    /// The number as CloudEvents wants it: 20 digits.
    public static func digits(_ seq: UInt64) -> String {
        let text = String(seq)
        return String(repeating: "0", count: 20 - text.utf8.count) + text
    }

    /// The event's data as its type; throws `Problem` (`malformed`) when it does not have that shape.
    public func decode<E: Event>(_ event: E.Type) throws -> E {
        try Coding.decode(event, from: Coding.encode(data))
    }

    /// The event's data when this is of that type and has its shape.
    public func `as`<E: Event>(_ event: E.Type) -> E? { type == event.type ? try? decode(event) : nil }
}

/// A past fact, or an order (`….requested`), that carries all its reader needs. One Swift type an event.
public protocol Event: Codable, Hashable, Sendable {
    static var type: EventType { get }
    /// The path of what it is about.
    var subject: String { get }
}

extension Event {
    /// The data as JSON.
    public func json() throws -> JSON { try Coding.decode(JSON.self, from: Coding.encode(self)) }
}

/// A question to one component, answered on the bus; changes nothing and may be retried.
public protocol Query: Codable, Sendable {
    associatedtype Reply: Codable & Sendable
    /// `service.method`, such as `git.file`.
    static var method: String { get }
}
