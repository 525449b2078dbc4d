import Contracts
import Kit

/// What the scheduler knows: apps, the runs of their commits, the releases that came of them.
struct SchedulerState: CoreState {
    /// By app.
    var apps = Table<AppRecord>()
    /// By `APP/NUMBER`: open runs, and the last ended ones of each app.
    var runs = Table<Run>()
    /// By `APP/COMMIT`: the newest release of each commit.
    var releases = Table<ReleaseRecord>()
    /// By the order's id: orders that name a ref which is being looked up.
    var orders = Table<RefOrder>()

    init() {}
    mutating func tables(_ visit: inout some TableVisitor) throws {
        try visit.table("apps", &apps)
        try visit.table("runs", &runs)
        try visit.table("releases", &releases)
        try visit.table("orders", &orders)
    }

    /// Ended runs that are kept for each app.
    static let keptRuns = 50

    func run(_ app: AppName, _ number: Int) -> Run? { runs["\(app)/\(number)"] }
    /// All runs of an app that are kept, oldest first.
    func runs(of app: AppName) -> [Run] { runs.values.filter { $0.app == app }.sorted { $0.number < $1.number } }
}

/// An app's counters. They outlive the app: a job's id must never name two jobs.
struct AppRecord: Codable, Hashable, Sendable {
    var defaultBranch: String?
    /// The last run's and the last release's number.
    var runs = 0
    var releases = 0
    /// Numbers of the runs that have not ended, in order.
    var open: [Int] = []
    var deleted = false
}

struct ReleaseRecord: Codable, Hashable, Sendable {
    var number: Int
    var environments: [EnvironmentSpec]
}

/// A `deploy.requested` that names a ref.
struct RefOrder: Codable, Hashable, Sendable {
    var id: EventID
    var app: AppName
    var environment: EnvName?
    var revision: String
    var actor: String?
}

/// A commit's way through tests and build.
///
///     reading ──readable, a rule matches──▶ waiting ──its turn──▶ running(test) ──▶ running(build) ──▶ ended(succeeded)
///        │                                     │                       └──a step fails──▶ ended(failed)
///        ├──bad file──▶ ended(rejected)        └──newer push of the same ref──▶ ended(superseded)
///        └──no rule──▶ ended(succeeded, no release)
struct Run: Codable, Hashable, Sendable {
    enum State: Codable, Hashable, Sendable {
        case reading, waiting
        case running(JobID)
        case ended(RunOutcome)
    }
    /// Which environments its release goes to.
    enum Target: Codable, Hashable, Sendable {
        /// Those whose rule matches the branch: a push.
        case rules
        /// The same, and the last in the chain when none matches: an order that names a ref and no environment.
        case rulesOrLast
        case environment(EnvName)
    }

    let app: AppName
    let number: Int
    let ref: RefName
    let commit: CommitID
    let title: String
    /// The push or the order that it comes from; all its events name it as their cause.
    let origin: EventID
    let actor: String?
    let isDefaultBranch: Bool
    let target: Target
    let asked: Timestamp
    var state = State.reading
    /// Nil until the file is read, and again after the end.
    var pipeline: Pipeline?
    var environments: [EnvName] = []
    var reason: String?
    var release: Int?
    var ended: Timestamp?

    var key: String { "\(app)/\(number)" }
    var isOpen: Bool { if case .ended = state { false } else { true } }

    /// The jobs that its pipeline comes to, in order.
    func jobs() throws -> [JobID] {
        guard let pipeline else { return [] }
        let names = (pipeline.test.isEmpty ? [] : ["test"]) + ["build"]
        return try names.map { JobID(app: app, run: number, name: try ServiceName($0)) }
    }
}
