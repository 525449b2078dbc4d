import Contracts

/// What the read model keeps of an app.
struct AppRow: Codable, Hashable, Sendable {
    var name: AppName
    var defaultBranch: String
    var createdAt: Timestamp
    var createdBy: String?
}

/// The newest push of a commit: where its story begins in the log.
struct PushRow: Codable, Hashable, Sendable {
    var app: AppName
    var commit: CommitID
    var ref: RefName
    var seq: UInt64
    var at: Timestamp
    /// Who pushed: the token's name.
    var by: String?
    /// What the commit claims: text from outside.
    var author: String
    var title: String
}

struct RunRow: Codable, Hashable, Sendable {
    var app: AppName
    var number: Int
    var ref: RefName
    var commit: CommitID
    var jobs: [JobRow]
    var seq: UInt64
    var startedAt: Timestamp
    var finishedAt: Timestamp?
    var outcome: RunOutcome?
    var reason: String?
    var release: Int?
}

struct JobRow: Codable, Hashable, Sendable {
    var name: String
    /// `waiting`, `running`, or how it ended.
    var state: String
    var seconds: Double?
}

struct ReleaseRow: Codable, Hashable, Sendable {
    var app: AppName
    var number: Int
    var ref: RefName
    var commit: CommitID
    var run: Int
    var title: String
    var author: String?
    var pushedBy: String?
    var pushedAt: Timestamp?
    var bundle: Digest
    var createdAt: Timestamp
    /// First to last, as its configuration names them.
    var environments: [EnvName]
    /// Nil in rows that an earlier version wrote.
    var services: [ServiceName]?
}

/// An order that somebody gave, from the moment at which it was accepted or seen.
struct OrderRow: Codable, Hashable, Sendable {
    var id: EventID
    var type: String
    var app: AppName
    var environment: EnvName?
    var release: Int?
    var by: String?
    var at: Timestamp
    /// Its number in the log; 0 while it is on its way there.
    var seq: UInt64
}

struct DeploymentRow: Codable, Hashable, Sendable {
    var head: DeploymentHead
    /// `planned`, `running`, then how it ended: `live`, `rolled back`.
    var state: String
    var by: String?
    var plannedAt: Timestamp
    var startedAt: Timestamp?
    var finishedAt: Timestamp?
    var seconds: Double?
    var url: String?
    var reason: String?
    var steps: [String]
}

/// What is live in an environment of an app.
struct EnvironmentRow: Codable, Hashable, Sendable {
    var app: AppName
    var name: EnvName
    var release: Int
    var commit: CommitID
    var deployment: DeploymentID
    var order: EventID
    var since: Timestamp
    var url: String?
}

struct InstanceRow: Codable, Hashable, Sendable {
    var id: InstanceID
    var host: HostName
    /// `requested`, `started`, `ready`, `unready`, `restarting`, `failed`, `stopping`.
    var state: String
    var release: Int?
    var commit: CommitID?
    var pid: Int32?
    var address: String?
    var ports: [String: Int] = [:]
    var since: Timestamp
    var restarts = 0
    var reason: String?
}

struct HostRow: Codable, Hashable, Sendable {
    var name: HostName
    var address: String
    var version: String
    var mode: String
    var cores: Int
    var memory: Int64
    var since: Timestamp
}

/// What the bus said last about a session.
struct SessionOnBusRow: Codable, Hashable, Sendable {
    var name: String
    var joined: Bool
    var version: String?
    var since: Timestamp
    var reason: String?
}

/// A token as it is kept: never the token itself.
struct TokenRow: Codable, Hashable, Sendable {
    var name: String
    /// SHA-256 of the token, 64 hexadecimal digits.
    var hash: String
    var role: Role
    var app: AppName?
    var environment: EnvName?
    var createdAt: Timestamp
    var createdBy: String
    /// Nil: it does not expire.
    var expires: Timestamp?

    var principal: Principal { Principal(name: name, role: role, app: app, environment: environment) }
    func isValid(at now: Timestamp) -> Bool { expires.map { now < $0 } ?? true }
}

/// A console session: a cookie that stands for a token for a while, and for no longer than the token lives.
struct SessionRow: Codable, Hashable, Sendable {
    /// SHA-256 of the cookie.
    var hash: String
    var token: String
    var expires: Timestamp
}
