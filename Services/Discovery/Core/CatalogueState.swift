import Contracts
import Kit

/// An instance that has been ready at least once and has not left.
struct Instance: Codable, Hashable, Sendable {
    var id: InstanceID
    var host: HostName
    var release: Int
    /// An IP address.
    var address: String
    var ports: [String: Int]
    /// The name of the port that `$PORT` holds.
    var first: String?
    var healthy: Bool
    /// Why it is in the state it is in, for people.
    var reason: String
    var since: Timestamp

    /// The port to use when none is named.
    var mainPort: Int? { first.flatMap { ports[$0] } ?? ports.keys.sorted().first.flatMap { ports[$0] } }
}

/// A place for one server in a route's backend. It is never given to another server while requests may still be on it.
struct Slot: Codable, Hashable, Sendable {
    /// Which server of the backend: `s0`, `s1` …
    var index: Int
    var server: RouteServer
    /// False once its instance was reported unready or gone.
    var up: Bool
    /// True once its process is gone: nothing of ours listens there any more, so it must not get requests even if it is the last.
    var dead: Bool
    /// Set when it is to finish its requests and go.
    var leaving: Leaving?

    struct Leaving: Codable, Hashable, Sendable {
        /// The generation that made it leave.
        var generation: Int
        /// The order that made it leave; nil when it only moved to another port.
        var order: EventID?
        var since: Timestamp
    }
}

/// Host names that lead to the instances of one service.
struct Route: Codable, Hashable, Sendable {
    var app: AppName
    var environment: EnvName
    var service: ServiceName
    var hosts: [String]
    /// The backend it occupies: `pool0`, `pool1` …
    var backend: Int
    var slots: [Slot]
    /// The last change; counted over all routes.
    var generation: Int
    /// Orders that the ingress has not acknowledged yet.
    var waiting: [Order]
    /// Orders whose leaving servers have not finished yet.
    var draining: [Drain]

    struct Order: Codable, Hashable, Sendable {
        var id: EventID
        var actor: String?
        var generation: Int
        /// As ordered; kept for the answer when the route is removed.
        var hosts: [String]
        /// Host names that were not taken, and why.
        var refused: [String: String]
    }
    struct Drain: Codable, Hashable, Sendable {
        var order: EventID
        var actor: String?
        var instances: [InstanceID]
    }

    var key: String { Self.key(app, environment, service) }
    static func key(_ app: AppName, _ environment: EnvName, _ service: ServiceName) -> String { "\(app)/\(environment)/\(service)" }

    var serving: [Slot] { slots.filter { $0.leaving == nil } }
    /// The lowest place that nobody holds.
    var freeSlot: Int {
        let taken = Set(slots.map(\.index))
        return (0...slots.count).first { !taken.contains($0) } ?? slots.count
    }
    /// Nothing serves, nothing leaves, nobody waits: the row can go.
    var isOver: Bool { slots.isEmpty && waiting.isEmpty && draining.isEmpty }
}

/// What discovery knows: two tables and two counters, written row by row.
struct CatalogueState: CoreState {
    /// By the text of the `InstanceID`.
    var instances = Table<Instance>()
    /// By APP/ENVIRONMENT/SERVICE.
    var routes = Table<Route>()
    var counters = Table<Int>()

    init() {}
    mutating func tables(_ visit: inout some TableVisitor) throws {
        try visit.table("instances", &instances)
        try visit.table("routes", &routes)
        try visit.table("counters", &counters)
    }

    /// Grows with each change of a route.
    var generation: Int { counters["generation"] ?? 0 }
    /// Grows with each change of the catalogue; the zone's serial number.
    var serial: Int { counters["serial"] ?? 0 }

    mutating func nextGeneration() -> Int {
        counters["generation"] = generation + 1
        return generation
    }
    mutating func nextSerial() -> Int {
        counters["serial"] = serial + 1
        return serial
    }
}
