import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `GET /v1/apps/:app/runs`: the runs of an app, newest first.
struct RunRoutes: Sendable {
    let loop: Loop<SchedulerCore>

    func add(to routes: Routes) {
        routes.get("/v1/apps/:app/runs", .app(.viewer)) { _, context in
            let app = try context.app()
            let runs = try await loop.read { state in state.runs(of: app).reversed().map(RunView.init) }
            return try Response.json(RunList(runs: runs))
        }
    }
}

struct RunList: Codable, Sendable { var runs: [RunView] }

/// A run as people and programs see it.
struct RunView: Codable, Sendable {
    var run: Int
    var ref: RefName
    var commit: CommitID
    var title: String
    /// `reading`, `waiting`, `running`, or how it ended.
    var state: String
    /// The job that runs now.
    var job: JobID?
    var reason: String?
    var release: Int?
    var environments: [EnvName]
    var actor: String?
    var asked: Timestamp
    var ended: Timestamp?

    init(_ run: Run) {
        self.run = run.number
        ref = run.ref
        commit = run.commit
        title = run.title
        switch run.state {
        case .reading: state = "reading"
        case .waiting: state = "waiting"
        case .running(let job):
            state = "running"
            self.job = job
        case .ended(let outcome): state = outcome.rawValue
        }
        reason = run.reason
        release = run.release
        environments = run.environments
        actor = run.actor
        asked = run.asked
        ended = run.ended
    }
}
