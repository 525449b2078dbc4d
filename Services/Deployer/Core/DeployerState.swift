import Contracts
import Kit

/// What the deployer knows: releases, what each environment should run, and what runs there as far as it has heard.
struct DeployerState: CoreState {
    /// By app.
    var apps = Table<AppRecord>()
    /// By `APP/NUMBER`.
    var releases = Table<ReleaseRecord>()
    /// By `APP/ENVIRONMENT`.
    var environments = Table<EnvironmentRecord>()
    /// By the instance's id: all that were ordered and have not ended.
    var instances = Table<InstanceRecord>()
    /// By `APP/ENVIRONMENT|GENERATION`: sets of instances that have left the routes and will be stopped.
    var leaving = Table<Leaving>()
    /// By the deployment's id: the last ones of each environment.
    var deployments = Table<DeploymentRecord>()
    /// `ingress`: the port that the ingress listens on.
    var ports = Table<Int>()

    init() {}
    mutating func tables(_ visit: inout some TableVisitor) throws {
        try visit.table("apps", &apps)
        try visit.table("releases", &releases)
        try visit.table("environments", &environments)
        try visit.table("instances", &instances)
        try visit.table("leaving", &leaving)
        try visit.table("deployments", &deployments)
        try visit.table("ports", &ports)
    }

    /// Ended deployments that are kept for each environment.
    static let keptDeployments = 50

    func release(_ app: AppName, _ number: Int) -> ReleaseRecord? { releases["\(app)/\(number)"] }
    func environment(_ app: AppName, _ name: EnvName) -> EnvironmentRecord? { environments["\(app)/\(name)"] }
    /// An app's newest release: its file says which environments there are.
    func newest(_ app: AppName) -> ReleaseRecord? { apps[app.text]?.newest.flatMap { release(app, $0) } }

    /// The instances that one deployment made, by service and number.
    func instances(of environment: EnvironmentRecord, generation: Int) -> [InstanceRecord] {
        instances(of: environment).filter { $0.generation == generation }
    }
    func instances(of environment: EnvironmentRecord) -> [InstanceRecord] {
        instances.values.filter { $0.id.app == environment.app && $0.id.environment == environment.name }
            .sorted { ($0.id.service.text, $0.id.number) < ($1.id.service.text, $1.id.number) }
    }
}

struct AppRecord: Codable, Hashable, Sendable {
    var newest: Int?
    /// Its repository was deleted. Orders and releases that were on their way are then refused.
    var deleted = false
}

struct ReleaseRecord: Codable, Hashable, Sendable {
    let app: AppName
    let number: Int
    let commit: CommitID
    let bundle: Digest
    let config: ReleaseConfig
}

/// What one environment runs. Its counters outlive the app, so that the id of an instance never names two.
///
/// A *generation* is the number of the deployment that made a set of instances: the same release deployed twice is two
/// generations.
struct EnvironmentRecord: Codable, Hashable, Sendable {
    struct Live: Codable, Hashable, Sendable {
        var generation: Int
        var release: Int
        var since: Timestamp
    }
    /// A route as it was last ordered.
    struct Route: Codable, Hashable, Sendable {
        var hosts: [String]
        var servers: [RouteServer]
        var order: EventID
        /// False once discovery has said that no ingress is installed.
        var ingress = true
        /// Host names that discovery would not give.
        var refused: [String] = []
    }

    let app: AppName
    let name: EnvName
    var live: Live?
    /// Releases in the order in which they became live, the present one last.
    var history: [Int] = []
    /// The last deployment's number.
    var deployments = 0
    /// The last instance's number, by service.
    var counters: [String: Int] = [:]
    var rollout: Rollout?
    /// At most one order waits; a newer one takes its place.
    var waiting: Order?
    /// By service.
    var routes: [String: Route] = [:]

    var key: String { "\(app)/\(name)" }
    var subject: String { key }
    /// The release that was live before the present one.
    var before: Int? { history.last { $0 != live?.release } }
}

/// An order to deploy or to go back, as it came.
struct Order: Codable, Hashable, Sendable {
    let id: EventID
    let actor: String?
    let kind: DeploymentHead.Kind
    let app: AppName
    let environment: EnvName?
    let release: Int?

    var words: String {
        let target = release.map { " of v\($0)" } ?? ""
        return kind == .deploy ? "deployment\(target)" : release.map { "rollback to v\($0)" } ?? "rollback"
    }
}

/// An instance as far as its supervisor has told.
struct InstanceRecord: Codable, Hashable, Sendable {
    enum State: String, Codable, Hashable, Sendable {
        /// Ordered; not ready yet.
        case starting
        case ready
        /// Was ready, is not now.
        case unready
        /// Its process ended and comes back by itself.
        case restarting
        /// Its process ended and stays so.
        case ended
        /// Told to stop.
        case stopping
    }
    let id: InstanceID
    let host: HostName
    let release: Int
    let generation: Int
    var state = State.starting
    /// Whether a process of it has run.
    var started = false
    var address: String?
    var ports: [String: Int] = [:]
    /// The name of its first port.
    var first: String?

    /// Where a route leads to.
    var server: RouteServer? {
        guard let address, let first, let port = ports[first] else { return nil }
        return RouteServer(instance: id, address: address, port: port)
    }
}

/// Instances that serve no new request. They are stopped when all of `drains` have been answered, or their time is over.
struct Leaving: Codable, Hashable, Sendable {
    let environment: String
    let instances: [InstanceID]
    /// The `route.requested` events that took them out of the routes.
    var drains: [EventID]
    let cause: EventID
    let actor: String?
}

struct DeploymentRecord: Codable, Hashable, Sendable {
    var head: DeploymentHead
    var actor: String?
    var began: Timestamp
    var ended: Timestamp?
    /// Nil while it is under way; then `live` or `rolled back`.
    var outcome: String?
    var reason: String?
    var steps: [PlanStep]
}
