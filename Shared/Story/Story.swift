import Contracts

/// What happens to a commit or an order, told in lines for people, to its end.
///
/// Folds the events of one run and of the deployments it leads to. Pure: the same events give the same lines to a push, to
/// `slipway wait` and to the console. Give it every event of the filters below in the order of the log; what does not belong
/// to the subject is ignored.
public struct Story: Sendable {
    /// Where a story begins.
    public enum Subject: Hashable, Sendable {
        case commit(AppName, CommitID)
        /// The id of a `deploy.requested` or `rollback.requested`.
        case order(AppName, EventID)
    }

    /// How it ended.
    public enum Ending: Equatable, Sendable {
        /// All deployments that it led to are live.
        case live(url: String?)
        case failed(reason: String)
        /// Neither: superseded, or nothing to deploy.
        case ended(String)
    }

    /// The topics to subscribe to.
    public static let filters = [
        "run.**", "job.**", "release.**", "deploy.**", "rollback.**", "instance.**", "route.**", "tag.**", "log.**",
    ]

    public let subject: Subject
    /// When set, only this environment's part of it is told, and its end is the end.
    public let environment: EnvName?
    var runs: [Int: RunThread] = [:]
    var deployments: [DeployKey: DeployThread] = [:]
    /// Orders that belong to the subject, and why those that were rejected were.
    var orders: Set<EventID> = []
    /// Those among them that the subject's own order led to without a run: it named a ref that had been released before.
    var children: Set<EventID> = []
    var rejections: [EventID: String] = [:]

    /// A story knows one deployment of a release into an environment; the newest order's.
    struct DeployKey: Hashable, Sendable {
        var environment: EnvName
        var release: Int
    }

    public init(_ subject: Subject, environment: EnvName? = nil) {
        self.subject = subject
        self.environment = environment
        if case .order(_, let id) = subject { orders = [id] }
    }

    public var app: AppName {
        switch subject {
        case .commit(let app, _), .order(let app, _): app
        }
    }

    /// The lines that this event adds: plain text without control characters; none when it is not about the subject.
    public mutating func take(_ event: Envelope) -> [String] {
        switch event.type {
        case LogLines.type: output(event)
        case RunStarted.type, RunFinished.type, ReleaseCreated.type, JobRequested.type, JobStarted.type, JobFinished.type,
            TagRejected.type:
            takeRun(event)
        default: takeDeployment(event)
        }
    }

    /// Set when everything that the subject leads to has ended.
    public var ending: Ending? {
        if case .order(_, let id) = subject {
            if let reason = rejections[id] { return .failed(reason: reason) }
            if runs.isEmpty { return ending(of: children.isEmpty ? [id] : children) }
        }
        var last: Ending?
        for number in runs.keys.sorted() {
            guard let run = runs[number], let end = ending(of: run) else { return nil }
            // A later run of the same commit says how it is now, unless it had nothing to say.
            if case .ended = end, last != nil { continue }
            last = end
        }
        return last
    }

    private func ending(of orders: Set<EventID>) -> Ending? {
        var known: [DeployThread] = []
        for order in orders {
            if let reason = rejections[order] { return .failed(reason: reason) }
            let found = deployments.values.filter { $0.order == order }
            guard !found.isEmpty else { return nil }
            known += found
        }
        return verdict(known)
    }

    private func ending(of run: RunThread) -> Ending? {
        switch run.outcome {
        case nil: return nil
        case .failed, .rejected: return .failed(reason: run.reason ?? "run \(run.number) failed")
        case .superseded: return .ended(run.reason ?? "superseded by a newer push")
        case .succeeded: break
        }
        guard !run.environments.isEmpty else {
            let made = run.release.map { "release v\($0) made; " } ?? ""
            return .ended("\(made)no environment takes this branch, so nothing is deployed")
        }
        let wanted = environment.map { [$0] } ?? run.environments
        let found = wanted.map { environment in
            deployments.values.first { $0.environment == environment && $0.release == run.release }
        }
        if let environment, found == [nil], !run.environments.contains(environment) {
            let made = run.release.map { "release v\($0)" } ?? "it"
            return .ended("\(made) goes to \(run.environments.map(\.text).joined(separator: ", ")), not to \(environment)")
        }
        let known = found.compactMap { $0 }
        return known.count == found.count ? verdict(known) : nil
    }

    /// Live when all are; failed when one is not; nil while one is under way.
    private func verdict(_ deployments: [DeployThread]) -> Ending? {
        var url: String?
        var failure: String?
        for deployment in deployments {
            switch deployment.result {
            case nil: return nil
            case .live(let at): url = at ?? url
            case .failed(let reason): failure = failure ?? reason
            }
        }
        return failure.map { .failed(reason: $0) } ?? .live(url: url)
    }

    /// Lines of a job's output while it runs, indented under its name.
    private mutating func output(_ event: Envelope) -> [String] {
        guard let origin = event.data["origin"]?.string, let job = try? JobID(origin), job.app == app,
            let thread = runs[job.run]?.jobs[job.name], !thread.ended, let lines = event.as(LogLines.self)?.lines
        else { return [] }
        let shown = lines.map { Inert.line($0) }
        for line in shown { runs[job.run]?.jobs[job.name]?.show(line) }
        return shown.map { "    \($0)" }
    }

    static func seconds(_ value: Double) -> String {
        let tenths = Int((max(0, min(value, 1e9)) * 10).rounded())
        return tenths < 1000 ? "\(tenths / 10).\(tenths % 10) s" : "\(tenths / 10) s"
    }
}
