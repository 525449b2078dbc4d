import Contracts
import Kit

/// Where runs come from: pushes, and orders that name a ref.
extension SchedulerState {
    mutating func created(_ event: RepositoryCreated) {
        var app = apps[event.app.text] ?? AppRecord()
        app.deleted = false
        app.defaultBranch = event.defaultBranch
        apps[event.app.text] = app
    }

    mutating func pushed(_ push: PushReceived, _ envelope: Envelope, _ step: inout Step<SchedulerEffect>) {
        var app = apps[push.app.text] ?? AppRecord()
        // A push that was accepted before the repository went, and is read after: there is nothing left to run.
        guard !app.deleted, !isKnown(envelope.id, in: push.app) else { return }
        if push.isDefaultBranch { app.defaultBranch = push.ref.branch }
        apps[push.app.text] = app
        supersede(push.app, push.ref, by: push.commit, &step)
        open(
            push.app, ref: push.ref, commit: push.commit, title: push.title, origin: envelope.id, actor: envelope.actor,
            isDefault: push.isDefaultBranch, target: .rules, &step)
    }

    mutating func ordered(_ order: DeployRequested, _ envelope: Envelope, _ step: inout Step<SchedulerEffect>) {
        guard let revision = order.ref, orders[envelope.id.text] == nil, !isKnown(envelope.id, in: order.app) else { return }
        let record = RefOrder(
            id: envelope.id, app: order.app, environment: order.environment, revision: revision, actor: envelope.actor)
        guard order.release == nil else {
            return reject(
                record, "the order names both release v\(order.release ?? 0) and ref \(Problem.quote(revision))", hint: "name one of them",
                &step)
        }
        guard let app = apps[order.app.text], !app.deleted else {
            let known = apps.keys.filter { apps[$0]?.deleted == false }
            return reject(
                record, "there is no app '\(order.app)'",
                hint: Nearest.to(order.app.text, among: known).map { "did you mean '\($0)'?" } ?? "slipway app create \(order.app)", &step)
        }
        guard !revision.isEmpty, revision.utf8.count <= 255, !revision.hasPrefix("-") else {
            return reject(record, "\(Problem.quote(revision)) names no branch, tag or commit", hint: nil, &step)
        }
        orders[envelope.id.text] = record
        step.perform(.resolve(order: envelope.id, app: order.app, revision: revision))
    }

    /// What git said to an order's ref.
    mutating func resolved(
        _ id: EventID, commit: CommitID?, ref: RefName?, title: String, problem: Problem?, _ step: inout Step<SchedulerEffect>
    ) {
        guard let order = orders[id.text] else { return }
        orders[id.text] = nil
        guard let app = apps[order.app.text], !app.deleted else { return reject(order, "app '\(order.app)' was deleted", hint: nil, &step) }
        if let problem { return reject(order, problem.message, hint: problem.hint, &step) }
        guard let commit, let named = ref ?? (try? RefName("refs/commits/\(commit)")) else {
            return reject(
                order, "\(order.app) has no branch, tag or commit \(Problem.quote(order.revision))",
                hint: "push it first, or name one that 'git ls-remote slipway' lists", &step)
        }
        let isDefault = named.branch != nil && named.branch == app.defaultBranch
        if let release = releases["\(order.app)/\(commit)"] {
            // Built and tested already: only the deployment is left to order.
            let targets =
                order.environment.map { [$0] } ?? Self.targets(release.environments, ref: named, isDefault: isDefault, orLast: true)
            step.log("\(order.app): \(commit.short) is v\(release.number) already, ordering its deployment")
            for target in targets {
                step.publish(
                    DeployRequested(app: order.app, environment: target, release: release.number), cause: order.id, actor: order.actor)
            }
            return
        }
        open(
            order.app, ref: named, commit: commit, title: title, origin: order.id, actor: order.actor, isDefault: isDefault,
            target: order.environment.map { .environment($0) } ?? .rulesOrLast, &step)
    }

    /// The environments that a ref's release goes to by the rules of its file.
    static func targets(_ specs: [EnvironmentSpec], ref: RefName, isDefault: Bool, orLast: Bool) -> [EnvName] {
        let fed = specs.fed(by: ref.branch, isDefault: isDefault)
        guard fed.isEmpty, orLast else { return fed }
        return specs.lastInChain.map { [$0] } ?? []
    }

    /// An order that cannot be followed ends here: nobody else takes orders that name a ref.
    private mutating func reject(_ order: RefOrder, _ reason: String, hint: String?, _ step: inout Step<SchedulerEffect>) {
        step.publish(
            DeployFailed(app: order.app, environment: order.environment, release: nil, reason: reason, hint: hint, order: order.id),
            cause: order.id, actor: order.actor)
    }

    private func isKnown(_ origin: EventID, in app: AppName) -> Bool { runs(of: app).contains { $0.origin == origin } }

    private mutating func open(
        _ name: AppName, ref: RefName, commit: CommitID, title: String, origin: EventID, actor: String?, isDefault: Bool,
        target: Run.Target, _ step: inout Step<SchedulerEffect>
    ) {
        var app = apps[name.text] ?? AppRecord()
        app.runs += 1
        app.open.append(app.runs)
        apps[name.text] = app
        let run = Run(
            app: name, number: app.runs, ref: ref, commit: commit, title: title, origin: origin, actor: actor,
            isDefaultBranch: isDefault, target: target, asked: step.now)
        runs[run.key] = run
        step.perform(.readConfig(app: name, run: run.number, commit: commit))
    }

    /// Ends the runs of earlier pushes of this ref that have not begun.
    private mutating func supersede(_ name: AppName, _ ref: RefName, by commit: CommitID, _ step: inout Step<SchedulerEffect>) {
        for number in apps[name.text]?.open ?? [] {
            guard let run = run(name, number), run.ref == ref, run.target == .rules else { continue }
            switch run.state {
            case .reading, .waiting: finish(run, .superseded, reason: "superseded by the push of \(commit.short)", &step)
            case .running, .ended: continue
            }
        }
    }
}
