import Contracts
import Kit

/// Takes facts and orders from the log into tables that answer questions. Text that has not the shape of its type is passed over:
/// a newer publisher may say what this version does not know.
enum ReadModel {
    /// What is kept per app or environment; the log itself keeps all.
    static let keptPushes = 300
    static let keptRuns = 200
    static let keptDeployments = 200
    static let keptOrders = 1000

    static func take(_ envelope: Envelope, _ state: inout APIState, now: Timestamp) {
        let at = envelope.time ?? now
        switch envelope.type {
        case RepositoryCreated.type, RepositoryDeleted.type: takeRepository(envelope, &state, at)
        case PushReceived.type: takePush(envelope, &state, at)
        case RunStarted.type, RunFinished.type, JobStarted.type, JobFinished.type: takeRun(envelope, &state, at)
        case ReleaseCreated.type: takeRelease(envelope, &state, at)
        case DeployRequested.type:
            envelope.as(DeployRequested.self).map {
                takeOrder(envelope, $0.app, $0.environment, $0.release, &state, at)
            }
        case RollbackRequested.type:
            envelope.as(RollbackRequested.self).map { takeOrder(envelope, $0.app, $0.environment, $0.to, &state, at) }
        case DeployPlanned.type, DeployStarted.type, DeploySucceeded.type, DeployRolledBack.type:
            takeDeployment(envelope, &state, at)
        case InstanceRequested.type, InstanceStarted.type, InstanceReady.type, InstanceUnready.type, InstanceExited.type:
            takeInstance(envelope, &state, at)
        case HostJoined.type:
            envelope.as(HostJoined.self).map {
                state.hosts[$0.host.text] = HostRow(
                    name: $0.host, address: $0.address, version: $0.version, mode: $0.mode, cores: $0.cores, memory: $0.memory, since: at)
            }
        case ComponentJoined.type:
            envelope.as(ComponentJoined.self).map {
                state.joined[$0.component] = SessionOnBusRow(name: $0.component, joined: true, version: $0.version, since: at)
            }
        case ComponentLeft.type:
            envelope.as(ComponentLeft.self).map { left in
                let version = state.joined[left.component]?.version
                state.joined[left.component] = SessionOnBusRow(
                    name: left.component, joined: false, version: version, since: at, reason: left.reason)
            }
        default: break
        }
    }

    private static func takeRepository(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        if let created = envelope.as(RepositoryCreated.self), state.apps[created.app.text] == nil {
            state.apps[created.app.text] = AppRow(
                name: created.app, defaultBranch: created.defaultBranch, createdAt: at, createdBy: envelope.actor)
        }
        if let deleted = envelope.as(RepositoryDeleted.self) {
            let app = deleted.app.text
            state.apps[app] = nil
            state.pushes.removeAll(under: app)
            state.runs.removeAll(under: app)
            state.releases.removeAll(under: app)
            state.deployments.removeAll(under: app)
            state.environments.removeAll(under: app)
        }
    }

    private static func takePush(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        guard let push = envelope.as(PushReceived.self) else { return }
        state.pushes[Key.push(push.app, push.commit)] = PushRow(
            app: push.app, commit: push.commit, ref: push.ref, seq: envelope.seq, at: at, by: envelope.actor, author: push.author,
            title: push.title)
        let all = state.pushes.under(push.app.text)
        for old in all.sorted(by: { $0.seq < $1.seq }).dropLast(keptPushes) { state.pushes[Key.push(old.app, old.commit)] = nil }
    }

    private static func takeRun(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        if let started = envelope.as(RunStarted.self) {
            state.runs[Key.run(started.app, started.run)] = RunRow(
                app: started.app, number: started.run, ref: started.ref, commit: started.commit,
                jobs: started.jobs.map { JobRow(name: $0.name.text, state: "waiting") }, seq: envelope.seq, startedAt: at)
            state.runs.keepLast(keptRuns, under: started.app.text)
        }
        func job(_ id: JobID, _ change: (inout JobRow) -> Void) {
            state.runs.update(Key.run(id.app, id.run)) { run in
                for index in run.jobs.indices where run.jobs[index].name == id.name.text { change(&run.jobs[index]) }
            }
        }
        if let started = envelope.as(JobStarted.self) { job(started.job) { $0.state = "running" } }
        if let finished = envelope.as(JobFinished.self) {
            job(finished.job) {
                $0.state = finished.outcome.rawValue
                $0.seconds = finished.seconds
            }
        }
        if let finished = envelope.as(RunFinished.self) {
            let key = Key.run(finished.app, finished.run)
            // A commit that cannot be run at all ends without having begun.
            if state.runs[key] == nil {
                state.runs[key] = RunRow(
                    app: finished.app, number: finished.run, ref: finished.ref, commit: finished.commit, jobs: [], seq: envelope.seq,
                    startedAt: at)
            }
            state.runs.update(key) {
                $0.finishedAt = at
                $0.outcome = finished.outcome
                $0.reason = finished.reason
                $0.release = finished.release
            }
        }
    }

    private static func takeRelease(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        guard let made = envelope.as(ReleaseCreated.self) else { return }
        let push = state.pushes[Key.push(made.app, made.commit)]
        state.releases[Key.release(made.app, made.number)] = ReleaseRow(
            app: made.app, number: made.number, ref: made.ref, commit: made.commit, run: made.run, title: made.title,
            author: push?.author, pushedBy: push?.by, pushedAt: push?.at, bundle: made.bundle, createdAt: at,
            environments: made.config.environments.map(\.name), services: made.config.services.map(\.name))
    }

    private static func takeOrder(
        _ envelope: Envelope, _ app: AppName, _ environment: EnvName?, _ release: Int?, _ state: inout APIState, _ at: Timestamp
    ) {
        state.orders[envelope.id.text] = OrderRow(
            id: envelope.id, type: envelope.type.text, app: app, environment: environment, release: release, by: envelope.actor, at: at,
            seq: envelope.seq)
        guard state.orders.count > keptOrders else { return }
        let known = state.orders.values.filter { $0.seq > 0 }.sorted { $0.seq < $1.seq }
        for old in known.dropLast(keptOrders) { state.orders[old.id.text] = nil }
    }
}
