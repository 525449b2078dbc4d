/// How a run ended.
public enum RunOutcome: String, Codable, Hashable, Sendable {
    case succeeded, failed
    /// The commit cannot be run: no or a wrong `slipway.yml`.
    case rejected
    /// A newer push came before this one began.
    case superseded
}

/// A commit's way through tests and build has begun. One for each push, or for each `deploy.requested` that names a ref.
public struct RunStarted: Event {
    public static let type: EventType = "run.started"
    public var app: AppName
    /// Numbered from 1 within the app.
    public var run: Int
    public var ref: RefName
    public var commit: CommitID
    public var jobs: [JobID]
    public var subject: String { "\(app)/run-\(run)" }
    public init(app: AppName, run: Int, ref: RefName, commit: CommitID, jobs: [JobID]) {
        self.app = app
        self.run = run
        self.ref = ref
        self.commit = commit
        self.jobs = jobs
    }
}

/// A run is over. When it succeeded a release exists and the deployments it leads to have been ordered.
public struct RunFinished: Event {
    public static let type: EventType = "run.finished"
    public var app: AppName
    public var run: Int
    public var ref: RefName
    public var commit: CommitID
    public var outcome: RunOutcome
    /// For people: why it did not succeed.
    public var reason: String?
    public var release: Int?
    /// The environments whose deployment was ordered, first to last; empty when no rule matched the branch.
    public var environments: [EnvName]
    public var subject: String { "\(app)/run-\(run)" }
    public init(
        app: AppName, run: Int, ref: RefName, commit: CommitID, outcome: RunOutcome, reason: String? = nil, release: Int? = nil,
        environments: [EnvName] = []
    ) {
        self.app = app
        self.run = run
        self.ref = ref
        self.commit = commit
        self.outcome = outcome
        self.reason = reason
        self.release = release
        self.environments = environments
    }
}

/// An order to run commands on a clean checkout of a commit. Taken by the supervisor of its host.
public struct JobRequested: Event {
    public static let type: EventType = "job.requested"
    public var job: JobID
    public var host: HostName
    public var commit: CommitID
    /// Shell command lines, run one after another; the first that fails ends the job.
    public var steps: [String]
    public var environment: [String: String]
    /// Seconds for the whole job.
    public var timeout: Double
    /// When set, what becomes the bundle: a path in the checkout, `.` for all of it. Nil: this job makes none.
    public var bundle: String?
    public var subject: String { job.text }
    public init(
        job: JobID, host: HostName, commit: CommitID, steps: [String], environment: [String: String], timeout: Double, bundle: String?
    ) {
        self.job = job
        self.host = host
        self.commit = commit
        self.steps = steps
        self.environment = environment
        self.timeout = timeout
        self.bundle = bundle
    }
}

/// A supervisor has begun a job.
public struct JobStarted: Event {
    public static let type: EventType = "job.started"
    public var job: JobID
    public var host: HostName
    public var subject: String { job.text }
    public init(job: JobID, host: HostName) {
        self.job = job
        self.host = host
    }
}

/// A job is over.
public struct JobFinished: Event {
    public static let type: EventType = "job.finished"
    public enum Outcome: String, Codable, Hashable, Sendable { case succeeded, failed, canceled }
    public var job: JobID
    public var host: HostName
    public var outcome: Outcome
    /// The command line that failed, and its exit status (128 + n after signal n, as in a shell).
    public var failedStep: String?
    public var status: Int?
    /// For people: why it did not succeed.
    public var reason: String?
    /// The last lines of its output, at most 50, each at most 500 characters.
    public var tail: [String]
    /// The bundle's manifest digest in the registry's repository `bundles/APP`, and its size in bytes.
    public var bundle: Digest?
    public var bundleSize: Int64?
    public var seconds: Double
    public var subject: String { job.text }
    public init(
        job: JobID, host: HostName, outcome: Outcome, failedStep: String? = nil, status: Int? = nil, reason: String? = nil,
        tail: [String] = [], bundle: Digest? = nil, bundleSize: Int64? = nil, seconds: Double
    ) {
        self.job = job
        self.host = host
        self.outcome = outcome
        self.failedStep = failedStep
        self.status = status
        self.reason = reason
        self.tail = tail
        self.bundle = bundle
        self.bundleSize = bundleSize
        self.seconds = seconds
    }
}

/// A numbered, immutable release exists: commit, bundle and configuration.
public struct ReleaseCreated: Event {
    public static let type: EventType = "release.created"
    public var app: AppName
    /// 1, 2, 3 …; shown as `v3`.
    public var number: Int
    public var ref: RefName
    public var commit: CommitID
    public var run: Int
    public var title: String
    public var bundle: Digest
    public var config: ReleaseConfig
    public var subject: String { "\(app)/v\(number)" }
    public init(
        app: AppName, number: Int, ref: RefName, commit: CommitID, run: Int, title: String, bundle: Digest, config: ReleaseConfig
    ) {
        self.app = app
        self.number = number
        self.ref = ref
        self.commit = commit
        self.run = run
        self.title = title
        self.bundle = bundle
        self.config = config
    }
}
