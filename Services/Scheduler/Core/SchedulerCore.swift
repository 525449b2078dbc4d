import Contracts
import Foundation
import Kit

/// What the scheduler does outside of itself. Both are questions to `git`: which commit, and what its file says.
enum SchedulerEffect: Codable, Hashable, Sendable {
    case readConfig(app: AppName, run: Int, commit: CommitID)
    case resolve(order: EventID, app: AppName, revision: String)
}

enum SchedulerNotice: Codable, Sendable {
    case config(app: AppName, run: Int, ConfigFile)
    /// The commit is nil when there is no such revision; `problem` says so when the question itself was refused.
    case resolved(order: EventID, commit: CommitID?, ref: RefName?, title: String, problem: Problem?)
}

/// Decides what becomes of a push: its run, its release and where that goes. One run at a time for each app, in the order of the
/// pushes.
enum SchedulerCore: Core {
    typealias State = SchedulerState
    typealias Effect = SchedulerEffect
    typealias Notice = SchedulerNotice

    static let filters = [
        "git.push.received", "repository.created", "repository.deleted", "job.started", "job.finished", "deploy.requested",
    ]

    static func handle(_ input: Input<SchedulerNotice>, _ state: inout SchedulerState, _ step: inout Step<SchedulerEffect>) {
        switch input {
        case .event(let envelope): handle(envelope, &state, &step)
        case .notice(.config(let app, let run, let file)): state.configRead(app, run, file, &step)
        case .notice(.resolved(let order, let commit, let ref, let title, let problem)):
            state.resolved(order, commit: commit, ref: ref, title: title, problem: problem, &step)
        case .timer(let key): state.jobOverdue(key, &step)
        }
    }

    private static func handle(_ envelope: Envelope, _ state: inout SchedulerState, _ step: inout Step<SchedulerEffect>) {
        switch envelope.type {
        case PushReceived.type:
            if let push = envelope.as(PushReceived.self) { state.pushed(push, envelope, &step) }
        case RepositoryCreated.type:
            if let event = envelope.as(RepositoryCreated.self) { state.created(event) }
        case RepositoryDeleted.type:
            if let event = envelope.as(RepositoryDeleted.self) { state.deleted(event.app, &step) }
        case JobStarted.type:
            if let event = envelope.as(JobStarted.self) { state.jobStarted(event, &step) }
        case JobFinished.type:
            if let event = envelope.as(JobFinished.self) { state.jobFinished(event, &step) }
        case DeployRequested.type:
            if let order = envelope.as(DeployRequested.self), order.ref != nil { state.ordered(order, envelope, &step) }
        default: break
        }
    }
}
