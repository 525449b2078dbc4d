import Contracts
import Foundation

/// The decisions of a component: values in, values out. No clock, no I/O, no randomness: what it needs is passed in.
public protocol Core: Sendable {
    associatedtype State: CoreState
    /// Something to do in the world. Idempotent: it is performed again after a crash.
    associatedtype Effect: Codable & Sendable & Hashable
    /// News from the world or from an edge: how an effect went, that a process ended, what a route was asked.
    associatedtype Notice: Codable & Sendable
    /// Topic filters of what it consumes.
    static var filters: [String] { get }
    /// Effects with the same lane are performed one after another, in the order in which they were decided. Nil: at once.
    static func lane(_ effect: Effect) -> String?
    /// Takes one input. Repeated and late news must be harmless.
    static func handle(_ input: Input<Notice>, _ state: inout State, _ step: inout Step<Effect>)
}

extension Core {
    public static func lane(_ effect: Effect) -> String? { nil }
}

public enum Input<Notice: Sendable>: Sendable {
    /// From the log.
    case event(Envelope)
    case notice(Notice)
    /// A key set earlier with `step.wake`.
    case timer(String)
}

/// What a core decides for one input. State, events, effects and timers are committed in one transaction.
public struct Step<Effect: Sendable>: Sendable {
    /// The wall clock, in tests whatever the test says.
    public let now: Timestamp
    public let host: HostName
    /// The id of what is being handled: new events name it as their cause.
    public let cause: EventID
    public let actor: String?
    let component: String
    let traceparent: String?

    public private(set) var events: [Envelope] = []
    public private(set) var effects: [(id: EventID, effect: Effect)] = []
    public private(set) var wakes: [(key: String, seconds: Double?)] = []
    public private(set) var notes: [String] = []
    private var ordinal = 0

    public init(now: Timestamp, host: HostName, cause: EventID, actor: String?, component: String, traceparent: String? = nil) {
        self.now = now
        self.host = host
        self.cause = cause
        self.actor = actor
        self.component = component
        self.traceparent = traceparent
    }

    /// Puts an event in the outbox. Its id is derived from the cause and its place, so handling twice makes the same event.
    @discardableResult
    public mutating func publish(_ event: some Event) -> EventID { publish(event, cause: cause, actor: actor) }

    /// The same on behalf of another cause or actor.
    @discardableResult
    public mutating func publish<E: Event>(_ event: E, cause named: EventID?, actor: String?) -> EventID {
        let id = nextID()
        // An Event is a plain Codable value; encoding one cannot fail but for a non-finite number, which becomes null.
        let data = (try? event.json()) ?? .null
        events.append(
            Envelope(
                id: id, source: "\(component)@\(host)", type: E.type, subject: event.subject, time: now, data: data,
                cause: named ?? cause, actor: actor, traceparent: traceparent))
        return id
    }

    /// Puts an effect in the journal.
    public mutating func perform(_ effect: Effect) { effects.append((nextID(), effect)) }

    /// Calls the core with `.timer(key)` after that many seconds; replaces an earlier one with the same key.
    public mutating func wake(_ key: String, after seconds: Double) { wakes.append((key, max(0, seconds))) }
    public mutating func cancel(_ key: String) { wakes.append((key, nil)) }

    /// One log line, where the decision is made.
    public mutating func log(_ message: String) { notes.append(message) }

    private mutating func nextID() -> EventID {
        ordinal += 1
        return EventID.derived(from: cause, component: component, ordinal: ordinal)
    }
}

/// A core's state: a struct of tables.
public protocol CoreState: Sendable {
    init()
    /// Shows every table to the visitor under its name: `try visit.table("runs", &runs)`. Names are history: never reuse one.
    mutating func tables(_ visit: inout some TableVisitor) throws
}

public protocol TableVisitor {
    mutating func table<Value>(_ name: String, _ table: inout Table<Value>) throws
}

/// Rows by key, kept in memory and written row by row.
public struct Table<Value: Codable & Hashable & Sendable>: Sendable {
    private var rows: [String: Value] = [:]
    private var dirty: Set<String> = []

    public init() {}

    public subscript(_ key: String) -> Value? {
        get { rows[key] }
        set {
            guard rows[key] != newValue else { return }
            rows[key] = newValue
            dirty.insert(key)
        }
    }

    /// Changes the row in place; nothing when it is absent.
    public mutating func update(_ key: String, _ change: (inout Value) -> Void) {
        guard var value = rows[key] else { return }
        change(&value)
        self[key] = value
    }

    /// Sorted, so that nothing depends on hash order.
    public var keys: [String] { rows.keys.sorted() }
    /// In the order of their keys.
    public var values: [Value] { keys.compactMap { rows[$0] } }
    public var count: Int { rows.count }
    public var isEmpty: Bool { rows.isEmpty }

    mutating func load(_ key: String, _ body: Data) throws { rows[key] = try Coding.decode(Value.self, from: body) }
    /// The changed rows since the last call: nil where the row is gone.
    mutating func takeChanges() throws -> [(key: String, body: Data?)] {
        defer { dirty.removeAll() }
        return try dirty.sorted().map { ($0, try rows[$0].map { try Coding.encode($0) }) }
    }
}
