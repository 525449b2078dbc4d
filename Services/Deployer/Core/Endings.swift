import Contracts
import Kit

/// Instances that go, waits that are over, apps that are deleted.
extension DeployerState {
    /// Orders instances to stop, those that need others before what they need.
    mutating func stop(
        _ ids: [InstanceID], deployment: DeploymentID?, cause: EventID?, actor: String?, _ step: inout Step<DeployerEffect>
    ) {
        for id in order(ids) {
            guard let record = instances[id.text], record.state != .stopping else { continue }
            instances.update(id.text) { $0.state = .stopping }
            step.publish(
                InstanceRequested(instance: id, host: record.host, action: .stop, deployment: deployment), cause: cause, actor: actor)
        }
    }

    private func order(_ ids: [InstanceID]) -> [InstanceID] {
        func tier(_ id: InstanceID) -> Int {
            guard let number = instances[id.text]?.release, let release = release(id.app, number) else { return 0 }
            return Plan.tiers(release.config.services).firstIndex { $0.contains { $0.name == id.service } } ?? 0
        }
        return ids.map { (id: $0, tier: tier($0)) }.sorted {
            ($1.tier, $0.id.service.text, $0.id.number) < ($0.tier, $1.id.service.text, $1.id.number)
        }.map(\.id)
    }

    /// Lets instances that are in no route any more finish their requests, then stops them. `patient`: however long that takes,
    /// because it is not known whether the ingress still leads to them.
    mutating func leave(
        _ ids: [InstanceID], drains: [EventID], key: String, rollout: Rollout, patient: Bool = false, _ step: inout Step<DeployerEffect>
    ) {
        guard !ids.isEmpty else { return }
        let row = "\(key)|\(rollout.generation)"
        leaving[row] = Leaving(environment: key, instances: ids, drains: drains, cause: rollout.head.order, actor: rollout.actor)
        guard !drains.isEmpty else { return stopLeaving(row, &step) }
        guard !patient else { return }
        let longest = Set(ids.compactMap { instances[$0.text]?.release }).map { longestStop(rollout.head.app, $0) }.max() ?? 0
        step.wake(Timer.drain.key(key, rollout.generation), after: max(Rollout.Deadline.drain, longest))
    }

    func isLeaving(_ id: InstanceID, _ key: String) -> Bool {
        leaving.values.contains { $0.environment == key && $0.instances.contains(id) }
    }

    mutating func stopLeaving(_ row: String, _ step: inout Step<DeployerEffect>) {
        guard let left = leaving[row] else { return }
        leaving[row] = nil
        step.cancel("\(Timer.drain)|\(row)")
        stop(left.instances, deployment: nil, cause: left.cause, actor: left.actor, &step)
    }

    func longestStop(_ app: AppName, _ number: Int) -> Double {
        release(app, number)?.config.services.map(\.stop.timeout).max() ?? StopSpec().timeout
    }

    /// A deadline has passed.
    mutating func timeIsUp(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let (timer, name, generation) = Timer.parse(key) else { return }
        if timer == .drain { return stopLeaving("\(name)|\(generation)", &step) }
        guard let rollout = environments[name]?.rollout, rollout.generation == generation else { return }
        switch (timer, rollout.phase) {
        case (.start, .starting(let tier)): giveUp(name, tooSlow(rollout, tier), &step)
        case (.route, .switching):
            giveUp(
                name,
                .init(
                    reason: "the routes were not switched within \(Int(Rollout.Deadline.routes)) s: no answer from discovery", tail: [],
                    instance: nil), &step)
        // The order that leads them back is in the log and will be followed when discovery is there; it is only not done yet.
        case (.route, .reverting): reverted(name, complete: false, &step)
        // The instances are told to stop and serve nobody: that they take long takes nothing from what serves.
        case (.stop, .stopping): rolledBack(name, complete: true, &step)
        default: break
        }
    }

    private func tooSlow(_ rollout: Rollout, _ tier: Int) -> Rollout.Failure {
        let late = rollout.tiers[...tier].joined().first { instances[$0.text]?.state != .ready }
        guard let late, let release = release(late.app, rollout.head.release),
            let service = release.config.services.first(where: { $0.name == late.service })
        else { return .init(reason: "not ready in time", tail: [], instance: nil) }
        let name = Plan.names([late])
        guard instances[late.text]?.started == true else {
            return .init(
                reason:
                    "\(name) was not started within \(Self.seconds(Rollout.Deadline.preparation + service.health.grace)): no answer from the supervisor",
                tail: [], instance: late)
        }
        let check: String
        switch service.health.check {
        case .http(let path): check = "GET \(path) did not answer 2xx or 3xx"
        case .tcp: check = "nothing listened on its port ($PORT)"
        case .running, nil: check = "its process did not stay up"
        }
        return .init(reason: "\(name) was not ready within \(Self.seconds(service.health.grace)): \(check)", tail: [], instance: late)
    }
    private static func seconds(_ value: Double) -> String { value == value.rounded() ? "\(Int(value)) s" : "\(value) s" }

    /// The app is gone: every open order ends, its routes and instances go, its counters stay.
    mutating func deleted(_ app: AppName, _ step: inout Step<DeployerEffect>) {
        for environment in environments.values where environment.app == app {
            let key = environment.key
            if let order = environment.waiting { fail(order, in: environment.name, Problem(.gone, "app '\(app)' was deleted"), &step) }
            if let rollout = environment.rollout {
                for timer in [Timer.start, .route, .stop] { step.cancel(timer.key(key, rollout.generation)) }
                step.publish(
                    DeployRolledBack(
                        head: rollout.head, reason: "app '\(app)' was deleted", tail: [], complete: false,
                        seconds: step.now.seconds(since: rollout.began)), cause: rollout.head.order, actor: rollout.actor)
            }
            environments.update(key) {
                $0.rollout = nil
                $0.waiting = nil
            }
            _ = requestRoutes(key, generation: nil, release: nil, for: nil, &step)
            stop(instances(of: environment).map(\.id), deployment: nil, cause: nil, actor: step.actor, &step)
            for record in instances(of: environment) { instances[record.id.text] = nil }
            for row in leaving.keys where leaving[row]?.environment == key {
                leaving[row] = nil
                step.cancel("\(Timer.drain)|\(row)")
            }
            environments.update(key) {
                $0.live = nil
                $0.history = []
                $0.routes = [:]
            }
        }
        for key in releases.keys where key.hasPrefix("\(app)/") { releases[key] = nil }
        for key in deployments.keys where key.hasPrefix("\(app)/") { deployments[key] = nil }
        apps[app.text] = AppRecord(newest: nil, deleted: true)
    }
}
