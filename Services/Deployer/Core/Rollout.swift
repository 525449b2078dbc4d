import Contracts

/// A deployment that is being carried out: which instances it starts, in which order, and how far it has come.
///
///     starting ──all tiers ready──▶ switching ──all routes changed──▶ live   (the old ones drain and stop as `Leaving`)
///        │                             │
///        │ one exits, or the grace     │ one exits, or no answer in time
///        ▼                             ▼
///     stopping ──all gone──┐       reverting ──routes lead back──┐
///                          └─────────▶ rolled back ◀─────────────┘
struct Rollout: Codable, Hashable, Sendable {
    enum Phase: Codable, Hashable, Sendable {
        /// The tiers up to this one have been ordered.
        case starting(tier: Int)
        /// Waiting for the answers to these `route.requested`.
        case switching([EventID])
        case reverting([EventID])
        /// The new instances have been told to stop.
        case stopping
    }
    struct Failure: Codable, Hashable, Sendable {
        var reason: String
        var tail: [String]
        /// Whose last lines explain it.
        var instance: InstanceID?
    }

    let head: DeploymentHead
    let actor: String?
    let began: Timestamp
    /// All new instances, grouped so that each tier needs only those before it.
    let tiers: [[InstanceID]]
    var phase = Phase.starting(tier: 0)
    var failure: Failure?
    /// The `route.requested` events whose old servers have not finished their requests yet.
    var drains: [EventID] = []
    /// For people: host names that discovery would not give, and why.
    var notes: [String] = []

    var generation: Int { head.deployment.number }
    /// Whether it has been given up.
    var isGoingBack: Bool {
        switch phase {
        case .reverting, .stopping: true
        case .starting, .switching: false
        }
    }
    /// Whether the routes are on their way from one generation to another.
    var isRouting: Bool {
        switch phase {
        case .switching, .reverting: true
        case .starting, .stopping: false
        }
    }

    /// How long each wait may take, in seconds.
    enum Deadline {
        /// From the order until a process runs: fetching and unpacking the bundle. Its grace only begins then.
        static let preparation = 60.0
        /// Until discovery has answered all `route.requested`.
        static let routes = 60.0
        /// Added to the longest `stop.timeout`: the supervisor's own work.
        static let stopping = 15.0
        /// At least, until old instances are stopped although they still had requests.
        static let drain = 30.0
    }
}

/// The names of the durable timers: which wait, of which environment, in which deployment.
enum Timer {
    case start, route, stop, drain

    func key(_ environment: String, _ generation: Int) -> String { "\(self)|\(environment)|\(generation)" }

    /// The parts of a key; nil when it is none of ours.
    static func parse(_ key: String) -> (timer: Timer, environment: String, generation: Int)? {
        let parts = key.split(separator: "|").map(String.init)
        let all: [String: Timer] = ["start": .start, "route": .route, "stop": .stop, "drain": .drain]
        guard parts.count == 3, let timer = all[parts[0]], let generation = Int(parts[2]) else { return nil }
        return (timer, parts[1], generation)
    }
}
