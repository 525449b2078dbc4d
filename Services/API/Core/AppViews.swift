import Contracts

/// What `/v1` answers about apps. Members are only ever added.
struct AppView: Encodable, Sendable {
    var name: AppName
    var defaultBranch: String
    var createdAt: Timestamp
    var createdBy: String?
    var git: String
    var latestRelease: Int?
    var environments: [EnvironmentView]
}

struct EnvironmentView: Encodable, Sendable {
    var name: EnvName
    /// `live`, `empty` (nothing yet), or `deploying`.
    var state: String
    var release: Int?
    var version: String?
    var commit: CommitID?
    var title: String?
    var url: String?
    var since: Timestamp?
    /// On whose order.
    var by: String?
    var deployment: DeploymentID?
    var instances: [InstanceView]
    /// How the newest deployment went, also when it was not the one that is live.
    var last: DeploymentView?
}

struct InstanceView: Encodable, Sendable {
    var id: InstanceID
    var app: AppName
    var environment: EnvName
    var service: ServiceName
    var number: Int
    var host: HostName
    var state: String
    var release: Int?
    var version: String?
    var commit: CommitID?
    var pid: Int32?
    var address: String?
    var ports: [String: Int]
    var since: Timestamp
    var restarts: Int
    var reason: String?

    init(_ row: InstanceRow) {
        id = row.id
        app = row.id.app
        environment = row.id.environment
        service = row.id.service
        number = row.id.number
        host = row.host
        state = row.state
        release = row.release
        version = row.release.map { "v\($0)" }
        commit = row.commit
        pid = row.pid
        address = row.address
        ports = row.ports
        since = row.since
        restarts = row.restarts
        reason = row.reason
    }
}

struct DeploymentView: Encodable, Sendable {
    var id: DeploymentID
    var environment: EnvName
    var number: Int
    var kind: DeploymentHead.Kind
    var release: Int
    var version: String
    var commit: CommitID
    var previous: Int?
    var order: EventID
    var by: String?
    /// `planned`, `running`, `live`, `rolled back`.
    var state: String
    var reason: String?
    var url: String?
    var plannedAt: Timestamp
    var startedAt: Timestamp?
    var finishedAt: Timestamp?
    var seconds: Double?
    var steps: [String]

    init(_ row: DeploymentRow) {
        id = row.head.deployment
        environment = row.head.environment
        number = row.head.deployment.number
        kind = row.head.kind
        release = row.head.release
        version = "v\(row.head.release)"
        commit = row.head.commit
        previous = row.head.previous
        order = row.head.order
        by = row.by
        state = row.state
        reason = row.reason
        url = row.url
        plannedAt = row.plannedAt
        startedAt = row.startedAt
        finishedAt = row.finishedAt
        seconds = row.seconds
        steps = row.steps
    }
}

struct ReleaseView: Encodable, Sendable {
    var app: AppName
    var number: Int
    var version: String
    var ref: RefName
    var branch: String?
    var commit: CommitID
    var title: String
    var author: String?
    var pushedBy: String?
    var run: Int
    var bundle: Digest
    var createdAt: Timestamp
    /// Where it serves now.
    var live: [EnvName]
    /// Its newest deployment in each environment.
    var deployments: [DeploymentView]
}

/// The answer to *what runs here, and why*.
struct WhyView: Encodable, Sendable {
    var app: AppName
    var environment: EnvName
    var release: Int
    var version: String
    var commit: CommitID
    var title: String?
    var author: String?
    var ref: RefName?
    var pushedBy: String?
    var pushedAt: Timestamp?
    var run: Int?
    var builtHow: [String]
    var releasedAt: Timestamp?
    var deployment: DeploymentID
    /// `deploy` or `rollback`.
    var kind: String
    var deployedAt: Timestamp
    var orderedBy: String?
    var order: EventID
    var previous: Int?
    var url: String?
    var bundle: Digest?
    var instances: [InstanceView]
    /// In a sentence, for people.
    var text: String
}
