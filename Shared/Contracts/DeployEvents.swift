/// An order to make a release live in an environment. `deployer` takes it when it names a release (or neither release nor
/// ref: the newest release then); `scheduler` takes it when it names a ref, and orders the deployment when that has become a release.
public struct DeployRequested: Event {
    public static let type: EventType = "deploy.requested"
    public var app: AppName
    /// Nil: the last environment in the app's chain.
    public var environment: EnvName?
    public var release: Int?
    /// A branch, tag or commit to test, build and release first.
    public var ref: String?
    public var subject: String { environment.map { "\(app)/\($0)" } ?? app.text }
    public init(app: AppName, environment: EnvName? = nil, release: Int? = nil, ref: String? = nil) {
        self.app = app
        self.environment = environment
        self.release = release
        self.ref = ref
    }
}

/// An order to go back to an earlier release. Taken by `deployer`.
public struct RollbackRequested: Event {
    public static let type: EventType = "rollback.requested"
    public var app: AppName
    public var environment: EnvName?
    /// Nil: the release that was live before this one.
    public var to: Int?
    public var subject: String { environment.map { "\(app)/\($0)" } ?? app.text }
    public init(app: AppName, environment: EnvName? = nil, to: Int? = nil) {
        self.app = app
        self.environment = environment
        self.to = to
    }
}

/// One step of a plan.
public struct PlanStep: Codable, Hashable, Sendable {
    public enum Kind: String, Codable, Hashable, Sendable { case start, route, drain, stop }
    public var kind: Kind
    public var service: ServiceName?
    public var instances: [InstanceID]
    /// The step in a sentence, for people.
    public var text: String
    public init(kind: Kind, service: ServiceName?, instances: [InstanceID], text: String) {
        self.kind = kind
        self.service = service
        self.instances = instances
        self.text = text
    }
}

/// What every event of a deployment tells.
public struct DeploymentHead: Codable, Hashable, Sendable {
    public enum Kind: String, Codable, Hashable, Sendable { case deploy, rollback }
    public var deployment: DeploymentID
    public var kind: Kind
    public var release: Int
    public var commit: CommitID
    /// The release that served when it began; nil: none.
    public var previous: Int?
    /// The event that ordered it: `deploy.requested` or `rollback.requested`.
    public var order: EventID
    public init(deployment: DeploymentID, kind: Kind, release: Int, commit: CommitID, previous: Int?, order: EventID) {
        self.deployment = deployment
        self.kind = kind
        self.release = release
        self.commit = commit
        self.previous = previous
        self.order = order
    }
    public var app: AppName { deployment.app }
    public var environment: EnvName { deployment.environment }
    public var subject: String { "\(app)/\(environment)" }
}

/// The ordered steps that a deployment will take.
public struct DeployPlanned: Event {
    public static let type: EventType = "deploy.planned"
    public var head: DeploymentHead
    public var steps: [PlanStep]
    public var subject: String { head.subject }
    public init(head: DeploymentHead, steps: [PlanStep]) {
        self.head = head
        self.steps = steps
    }
}

/// The first step of a deployment is being taken.
public struct DeployStarted: Event {
    public static let type: EventType = "deploy.started"
    public var head: DeploymentHead
    public var subject: String { head.subject }
    public init(head: DeploymentHead) { self.head = head }
}

/// Live: all routes lead only to the new release, which passed its checks.
public struct DeploySucceeded: Event {
    public static let type: EventType = "deploy.succeeded"
    public var head: DeploymentHead
    public var outcome = "live"
    /// Where it answers; nil when it has no service with a port.
    public var url: String?
    public var seconds: Double
    /// For people: what is live but not as asked, such as a host name that belongs to another app; nil: nothing.
    public var notes: [String]?
    public var subject: String { head.subject }
    public init(head: DeploymentHead, url: String?, seconds: Double, notes: [String]? = nil) {
        self.head = head
        self.url = url
        self.seconds = seconds
        self.notes = notes
    }
}

/// Rolled back: no route leads to the new release; what served before still serves.
public struct DeployRolledBack: Event {
    public static let type: EventType = "deploy.rolledback"
    public var head: DeploymentHead
    public var outcome = "rolled back"
    public var reason: String
    /// The last lines of the instance that failed, at most 20.
    public var tail: [String]
    /// False when what served before could not be brought back entirely.
    public var complete: Bool
    public var seconds: Double
    public var subject: String { head.subject }
    public init(head: DeploymentHead, reason: String, tail: [String], complete: Bool, seconds: Double) {
        self.head = head
        self.reason = reason
        self.tail = tail
        self.complete = complete
        self.seconds = seconds
    }
}

/// Rejected: nothing was changed. It has no head, because a rejected order may name what does not exist.
public struct DeployFailed: Event {
    public static let type: EventType = "deploy.failed"
    public var app: AppName
    public var environment: EnvName?
    public var release: Int?
    public var outcome = "rejected"
    public var reason: String
    public var hint: String?
    /// The event that ordered it.
    public var order: EventID
    public var subject: String { environment.map { "\(app)/\($0)" } ?? app.text }
    public init(app: AppName, environment: EnvName?, release: Int?, reason: String, hint: String? = nil, order: EventID) {
        self.app = app
        self.environment = environment
        self.release = release
        self.reason = reason
        self.hint = hint
        self.order = order
    }
}
