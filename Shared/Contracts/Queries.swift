import Foundation

/// Who holds this token? Served by `api`; asked by every component's HTTP. Only the SHA-256 travels, never the token.
public struct Authenticate: Query {
    public static let method = "api.authenticate"
    public struct Reply: Codable, Sendable {
        /// Nil: no such token, or it has expired or was revoked.
        public var principal: Principal?
        public init(principal: Principal?) { self.principal = principal }
    }
    /// 64 hexadecimal digits.
    public var hash: String
    public init(hash: String) { self.hash = hash }
}

/// What a token may do, from least to most.
public enum Role: String, Codable, Hashable, Sendable, Comparable, CaseIterable {
    case viewer, developer, `operator`, admin
    public static func < (left: Role, right: Role) -> Bool {
        let order = Role.allCases
        return (order.firstIndex(of: left) ?? 0) < (order.firstIndex(of: right) ?? 0)
    }
}

/// The holder of a token.
public struct Principal: Codable, Hashable, Sendable {
    /// The token's name, or `component:NAME` for a program of the suite.
    public var name: String
    public var role: Role
    /// When set, rights reach this app only.
    public var app: AppName?
    /// When set, rights reach this environment only.
    public var environment: EnvName?
    public init(name: String, role: Role, app: AppName? = nil, environment: EnvName? = nil) {
        self.name = name
        self.role = role
        self.app = app
        self.environment = environment
    }
    /// Whether this holder has at least the role, on the app when one is named.
    public func may(_ needed: Role, app wanted: AppName? = nil, environment target: EnvName? = nil) -> Bool {
        guard role >= needed else { return false }
        if let app, app != wanted { return false }
        if let environment, let target, environment != target { return false }
        return true
    }

    /// Whether what belongs to that environment of that app may be shown to this holder.
    public func sees(_ named: AppName, _ target: EnvName) -> Bool {
        (app == nil || app == named) && (environment == nil || environment == target)
    }

    /// Whether an event may be shown to this holder. Rights to one app show that app's events and nothing of the suite; rights to one
    /// environment show what concerns it, and what concerns none (pushes, runs, releases).
    public func sees(_ type: String, subject: String?) -> Bool {
        guard app != nil || environment != nil else { return true }
        let domain = String(type.prefix { $0 != "." })
        guard !["component", "host", "audit", "image", "bus"].contains(domain), let subject else { return false }
        let path = subject.split(separator: "/").map(String.init)
        if let app, path.first != app.text { return false }
        guard let environment, path.count > 1 else { return true }
        switch domain {
        case "git", "run", "job", "release", "repository", "tag", "checkout": return true
        // Lines of a job, or of an instance.
        case "log": return (try? JobID(subject)) != nil || path[1] == environment.text
        default: return path[1] == environment.text
        }
    }
}

/// The content of a file at a commit. Served by `git`.
public struct ReadFile: Query {
    public static let method = "git.file"
    public struct Reply: Codable, Sendable {
        /// Nil: the commit has no such file.
        public var content: Data?
        public init(content: Data?) { self.content = content }
    }
    public var app: AppName
    public var commit: CommitID
    /// Relative, without `..`.
    public var path: String
    public init(app: AppName, commit: CommitID, path: String) {
        self.app = app
        self.commit = commit
        self.path = path
    }
}

/// The commit that a branch, tag or (short) commit id names. Served by `git`.
public struct ResolveRevision: Query {
    public static let method = "git.resolve"
    public struct Reply: Codable, Sendable {
        /// Nil: no such revision.
        public var commit: CommitID?
        /// The full ref when a branch or tag was named.
        public var ref: RefName?
        public var title: String
        public init(commit: CommitID?, ref: RefName?, title: String) {
            self.commit = commit
            self.ref = ref
            self.title = title
        }
    }
    public var app: AppName
    public var revision: String
    public init(app: AppName, revision: String) {
        self.app = app
        self.revision = revision
    }
}

/// A read-only directory that holds exactly the tree of a commit, on the host of `git`. Served by `git`; the same tree is the
/// same directory, however often it is asked for.
public struct CheckOut: Query {
    public static let method = "git.checkout"
    public struct Reply: Codable, Sendable {
        /// Absolute.
        public var path: String
        /// The tree's object id.
        public var tree: String
        public init(path: String, tree: String) {
            self.path = path
            self.tree = tree
        }
    }
    public var app: AppName
    public var commit: CommitID
    public init(app: AppName, commit: CommitID) {
        self.app = app
        self.commit = commit
    }
}

/// What a deployment would do, without doing it. Served by `deployer`.
public struct PlanDeployment: Query {
    public static let method = "deployer.plan"
    public struct Reply: Codable, Sendable {
        public var environment: EnvName
        public var release: Int
        public var previous: Int?
        public var steps: [PlanStep]
        public init(environment: EnvName, release: Int, previous: Int?, steps: [PlanStep]) {
            self.environment = environment
            self.release = release
            self.previous = previous
            self.steps = steps
        }
    }
    public var app: AppName
    public var environment: EnvName?
    public var release: Int?
    /// True: plan a rollback instead.
    public var rollback: Bool
    public init(app: AppName, environment: EnvName?, release: Int?, rollback: Bool = false) {
        self.app = app
        self.environment = environment
        self.release = release
        self.rollback = rollback
    }
}

/// The last lines that instances or a job wrote. Served by `supervisor`.
public struct ReadLogs: Query {
    public static let method = "supervisor.logs"
    public struct Reply: Codable, Sendable {
        public var logs: [Log]
        public init(logs: [Log]) { self.logs = logs }
    }
    public struct Log: Codable, Sendable {
        /// The text of a `JobID` or an `InstanceID`.
        public var origin: String
        public var lines: [String]
        public init(origin: String, lines: [String]) {
            self.origin = origin
            self.lines = lines
        }
    }
    public var app: AppName
    public var environment: EnvName?
    public var service: ServiceName?
    /// When set: the logs of this run's jobs instead of instances'.
    public var run: Int?
    /// At most 2000 from each.
    public var lines: Int
    public init(app: AppName, environment: EnvName? = nil, service: ServiceName? = nil, run: Int? = nil, lines: Int = 100) {
        self.app = app
        self.environment = environment
        self.service = service
        self.run = run
        self.lines = lines
    }
}

/// What a supervisor runs on its host. Served by `supervisor`.
public struct ListPrograms: Query {
    public static let method = "supervisor.programs"
    public struct Reply: Codable, Sendable {
        public var programs: [Program]
        /// For people: what is missing on the host, such as HAProxy.
        public var notes: [String]
        public init(programs: [Program], notes: [String]) {
            self.programs = programs
            self.notes = notes
        }
    }
    public struct Program: Codable, Sendable {
        /// A component's name, `ingress`, or the text of an `InstanceID`.
        public var name: String
        /// `starting`, `running`, `ready`, `backoff`, `stopping`, `stopped`.
        public var state: String
        public var pid: Int32?
        public var since: Timestamp?
        public var restarts: Int
        public init(name: String, state: String, pid: Int32?, since: Timestamp?, restarts: Int) {
            self.name = name
            self.state = state
            self.pid = pid
            self.since = since
            self.restarts = restarts
        }
    }
    public init() {}
}
