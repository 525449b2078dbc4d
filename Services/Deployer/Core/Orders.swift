import Contracts
import Kit

/// Orders: checked, rejected, waiting, begun.
extension DeployerState {
    mutating func created(_ app: AppName) {
        var record = apps[app.text] ?? AppRecord()
        record.deleted = false
        apps[app.text] = record
    }

    mutating func released(_ event: ReleaseCreated) {
        var app = apps[event.app.text] ?? AppRecord()
        // Built while its app was being deleted.
        guard !app.deleted else { return }
        app.newest = max(app.newest ?? 0, event.number)
        apps[event.app.text] = app
        releases["\(event.app)/\(event.number)"] = ReleaseRecord(
            app: event.app, number: event.number, commit: event.commit, bundle: event.bundle, config: event.config)
    }

    /// Takes an order: it begins, waits, or is rejected with the reason.
    mutating func ordered(_ order: Order, _ step: inout Step<DeployerEffect>) {
        guard !isKnown(order.id) else { return }
        let name: EnvName
        do {
            name = try environmentName(of: order)
            if let environment = environment(order.app, name), let rollout = environment.rollout {
                // What can be said now is said now; where "the one before" leads is known when this deployment has ended.
                if order.kind == .deploy || order.release != nil { _ = try release(of: order, in: name) }
                return wait(order, environment, behind: rollout, &step)
            }
        } catch {
            return reject(order, error, &step)
        }
        begin(order, in: name, &step)
    }

    /// Puts the order behind the deployment that is under way; the one that waited there before is superseded.
    private mutating func wait(
        _ order: Order, _ environment: EnvironmentRecord, behind rollout: Rollout, _ step: inout Step<DeployerEffect>
    ) {
        if let waited = environment.waiting {
            fail(waited, in: environment.name, Problem(.conflict, "superseded by the \(order.words)"), &step)
        }
        // The newest release is the one of now, not the one of when its turn comes.
        var fixed = order
        if order.kind == .deploy, order.release == nil, let newest = apps[order.app.text]?.newest {
            fixed = Order(id: order.id, actor: order.actor, kind: .deploy, app: order.app, environment: order.environment, release: newest)
        }
        environments.update(environment.key) { $0.waiting = fixed }
        step.log("\(environment.key): the \(fixed.words) waits for deployment \(rollout.generation)")
    }

    /// Starts what waits, when nothing is under way.
    mutating func startWaiting(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], environment.rollout == nil, let order = environment.waiting else { return }
        environments.update(key) { $0.waiting = nil }
        begin(order, in: environment.name, &step)
    }

    // MARK: Checks

    /// The most servers that discovery leads one route to.
    static let mostServers = 128

    /// The environment that an order means. Throws what is wrong with it.
    func environmentName(of order: Order) throws -> EnvName {
        try environmentName(order.app, order.environment)
    }

    func environmentName(_ app: AppName, _ wanted: EnvName?) throws -> EnvName {
        guard let record = apps[app.text], !record.deleted else {
            let known = apps.keys.filter { apps[$0]?.deleted == false }
            throw Problem(
                .notFound, "there is no app '\(app)'",
                hint: Nearest.to(app.text, among: known).map { "did you mean '\($0)'?" } ?? "slipway app create \(app)")
        }
        guard let newest = newest(app) else {
            throw Problem(.notFound, "\(app) has no release yet", hint: "push a commit: git push slipway main")
        }
        let names = newest.config.environments.map(\.name)
        guard let wanted else {
            guard let last = newest.config.environments.lastInChain else {
                throw Problem(.notFound, "v\(newest.number) of \(app) names no environment")
            }
            return last
        }
        guard names.contains(wanted) else {
            let near = Nearest.to(wanted.text, among: names.map(\.text)).map { "did you mean '\($0)'? " } ?? ""
            throw Problem(
                .notFound, "\(app) has no environment '\(wanted)'", hint: "\(near)it has: \(names.map(\.text).joined(separator: ", "))")
        }
        return wanted
    }

    /// The release that an order means. Throws what is wrong with it.
    func release(of order: Order, in name: EnvName) throws -> ReleaseRecord {
        try release(order.app, order.release, order.kind, in: name)
    }

    func release(_ app: AppName, _ wanted: Int?, _ kind: DeploymentHead.Kind, in name: EnvName) throws -> ReleaseRecord {
        let environment = environment(app, name)
        let newest = apps[app.text]?.newest ?? 0
        let number: Int
        if let wanted {
            number = wanted
        } else if kind == .deploy {
            number = newest
        } else {
            guard let before = environment?.before else {
                let had =
                    environment?.live.map { "only v\($0.release) has been live in \(name) of \(app)" }
                    ?? "nothing has been live in \(name) of \(app)"
                throw Problem(.conflict, "nothing to roll back to: \(had)", hint: "slipway releases \(app)")
            }
            number = before
        }
        guard let release = release(app, number) else {
            throw Problem(
                .notFound, "\(app) has no release v\(number)",
                hint: newest > 0 ? "the newest is v\(newest); 'slipway releases \(app)' lists all" : nil)
        }
        try checkGate(release, in: name)
        for service in release.config.services where !service.ports.isEmpty && service.instances > Self.mostServers {
            throw Problem(
                .unsupported,
                "\(service.name) of v\(number) has \(service.instances) instances; a service with ports can have \(Self.mostServers)",
                hint: "lower 'instances' in slipway.yml")
        }
        return release
    }

    /// An environment that is fed by another one takes only what has been live there, or in itself before.
    private func checkGate(_ release: ReleaseRecord, in name: EnvName) throws {
        guard let spec = newest(release.app)?.config.environments.first(where: { $0.name == name }),
            case .environment(let from) = spec.from,
            environment(release.app, name)?.history.contains(release.number) != true,
            environment(release.app, from)?.history.contains(release.number) != true
        else { return }
        throw Problem(
            .conflict, "v\(release.number) has not been live in \(from), and \(name) of \(release.app) takes releases from there",
            hint: "slipway deploy \(release.app) --env \(from) --release v\(release.number)")
    }

    /// Whether the order is being carried out, waits, or has been carried out.
    private func isKnown(_ id: EventID) -> Bool {
        deployments.values.contains { $0.head.order == id } || environments.values.contains { $0.waiting?.id == id }
    }

    // MARK: Answers

    mutating func reject(_ order: Order, _ error: any Error, _ step: inout Step<DeployerEffect>) {
        let problem = (error as? Problem) ?? Problem(.failed, "\(error)")
        fail(order, in: order.environment, problem, &step)
    }

    mutating func fail(_ order: Order, in name: EnvName?, _ problem: Problem, _ step: inout Step<DeployerEffect>) {
        step.log("\(order.app): the \(order.words) is rejected: \(problem.message)")
        step.publish(
            DeployFailed(
                app: order.app, environment: name, release: order.release, reason: problem.message, hint: problem.hint, order: order.id),
            cause: order.id, actor: order.actor)
    }
}
