import Contracts
import Kit

/// Carrying a deployment out, from its plan to its end.
extension DeployerState {
    mutating func begin(_ order: Order, in name: EnvName, _ step: inout Step<DeployerEffect>) {
        let release: ReleaseRecord
        do {
            // Again, also for one that waited: what it named may be gone.
            _ = try environmentName(of: order)
            release = try self.release(of: order, in: name)
        } catch {
            reject(order, error, &step)
            return
        }
        var environment = environment(order.app, name) ?? EnvironmentRecord(app: order.app, name: name)
        environment.deployments += 1
        let head = DeploymentHead(
            deployment: DeploymentID(app: order.app, environment: name, number: environment.deployments), kind: order.kind,
            release: release.number, commit: release.commit, previous: environment.live?.release, order: order.id)
        let plan = Plan.make(release, in: environment, chain: chain(order.app), instances: instances(of: environment))
        for id in plan.tiers.joined() { environment.counters[id.service.text] = max(environment.counters[id.service.text] ?? 0, id.number) }
        let rollout = Rollout(head: head, actor: order.actor, began: step.now, tiers: plan.tiers)
        environment.rollout = rollout
        environments[environment.key] = environment
        remember(DeploymentRecord(head: head, actor: order.actor, began: step.now, steps: plan.steps))
        step.publish(DeployPlanned(head: head, steps: plan.steps), cause: order.id, actor: order.actor)
        step.publish(DeployStarted(head: head), cause: order.id, actor: order.actor)
        step.log("\(environment.key): \(order.kind.rawValue) of v\(release.number) begins as deployment \(head.deployment.number)")
        if plan.isNothing { return succeed(environment.key, nothingDone: true, &step) }
        if plan.tiers.isEmpty { return switchRoutes(environment.key, &step) }
        startTier(0, environment.key, &step)
    }

    func chain(_ app: AppName) -> [EnvironmentSpec] { newest(app)?.config.environments ?? [] }

    // MARK: Starting

    private mutating func startTier(_ tier: Int, _ key: String, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], let rollout = environment.rollout, rollout.tiers.indices.contains(tier),
            let release = release(environment.app, rollout.head.release)
        else { return }
        environments.update(key) { $0.rollout?.phase = .starting(tier: tier) }
        for id in rollout.tiers[tier] {
            guard let service = release.config.services.first(where: { $0.name == id.service }) else { continue }
            instances[id.text] = InstanceRecord(id: id, host: step.host, release: release.number, generation: rollout.generation)
            let spec = InstanceSpec(
                release: release.number, commit: release.commit, bundle: release.bundle, service: service,
                environment: variables(of: service, id, environment, rollout.generation))
            step.publish(
                InstanceRequested(instance: id, host: step.host, action: .start, spec: spec, deployment: rollout.head.deployment),
                cause: rollout.head.order, actor: rollout.actor)
        }
        step.wake(Timer.start.key(key, rollout.generation), after: Rollout.Deadline.preparation + grace(release, rollout.tiers[tier]))
    }

    /// The longest grace of these instances' services.
    func grace(_ release: ReleaseRecord, _ ids: [InstanceID]) -> Double {
        let names = Set(ids.map(\.service))
        return release.config.services.filter { names.contains($0.name) }.map(\.health.grace).max() ?? HealthSpec().grace
    }

    /// The service's own variables, and where what it needs is found. What the file sets itself wins.
    private func variables(of service: ServiceSpec, _ id: InstanceID, _ environment: EnvironmentRecord, _ generation: Int) -> [String:
        String]
    {
        var variables: [String: String] = [:]
        for need in service.needs {
            let ready = instances(of: environment, generation: generation).filter { $0.id.service == need && $0.state == .ready }
            // Each copy gets one of them, so that several share the work.
            guard !ready.isEmpty, let address = ready[id.number % ready.count].address else { continue }
            let name = Self.variable(need.text)
            variables["\(name)_HOST"] = address
            for (port, number) in ready[id.number % ready.count].ports { variables["\(name)_PORT_\(Self.variable(port))"] = "\(number)" }
        }
        return variables.merging(service.environment) { _, own in own }
    }
    private static func variable(_ name: String) -> String { name.uppercased().replacing("-", with: "_") }

    /// Goes on when all instances ordered so far are ready.
    mutating func advance(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], let rollout = environment.rollout, case .starting(let tier) = rollout.phase else {
            return
        }
        let all = rollout.tiers[...tier].joined()
        guard all.allSatisfy({ instances[$0.text]?.state == .ready }) else { return }
        if tier + 1 < rollout.tiers.count {
            startTier(tier + 1, key, &step)
        } else {
            step.cancel(Timer.start.key(key, rollout.generation))
            switchRoutes(key, &step)
        }
    }

    // MARK: Switching

    private mutating func switchRoutes(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let rollout = environments[key]?.rollout else { return }
        let ordered = requestRoutes(key, generation: rollout.generation, release: rollout.head.release, for: rollout, &step)
        environments.update(key) {
            $0.rollout?.phase = .switching(ordered.pending)
            $0.rollout?.drains = ordered.drains
        }
        guard !ordered.pending.isEmpty else { return succeed(key, &step) }
        step.wake(Timer.route.key(key, rollout.generation), after: Rollout.Deadline.routes)
    }

    /// All routes lead to the new generation only.
    mutating func succeed(_ key: String, nothingDone: Bool = false, _ step: inout Step<DeployerEffect>) {
        guard var environment = environments[key], let rollout = environment.rollout else { return }
        step.cancel(Timer.route.key(key, rollout.generation))
        environment.rollout = nil
        if !nothingDone {
            environment.live = .init(generation: rollout.generation, release: rollout.head.release, since: step.now)
            if environment.history.last != rollout.head.release { environment.history.append(rollout.head.release) }
            environment.history = environment.history.suffix(200)
        }
        environments[key] = environment
        let seconds = step.now.seconds(since: rollout.began)
        step.publish(
            DeploySucceeded(
                head: rollout.head, url: url(environment), seconds: seconds, notes: rollout.notes.isEmpty ? nil : rollout.notes),
            cause: rollout.head.order, actor: rollout.actor)
        step.log("\(key): v\(rollout.head.release) is live after \(seconds) s")
        ended(rollout, "live", nil, step.now)
        if !nothingDone {
            let old = instances(of: environment).filter {
                $0.generation != rollout.generation && $0.state != .stopping && !isLeaving($0.id, key)
            }
            leave(old.map(\.id), drains: rollout.drains, key: key, rollout: rollout, &step)
            refreshRoutes(key, &step)
            takeNames(from: environment, &step)
        }
        startWaiting(key, &step)
    }

    // MARK: Going back

    /// Gives the deployment up: what served keeps serving, or serves again.
    mutating func giveUp(_ key: String, _ failure: Rollout.Failure, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], let rollout = environment.rollout else { return }
        // What went wrong first is the reason; what follows from it is not.
        if rollout.failure == nil { environments.update(key) { $0.rollout?.failure = failure } }
        step.log("\(key): deployment \(rollout.generation) is given up: \(failure.reason)")
        switch rollout.phase {
        case .starting:
            step.cancel(Timer.start.key(key, rollout.generation))
            environments.update(key) { $0.rollout?.phase = .stopping }
            stopNew(key, &step)
        case .switching:
            let ordered = requestRoutes(
                key, generation: environment.live?.generation, release: environment.live?.release, for: rollout, &step)
            environments.update(key) {
                $0.rollout?.phase = .reverting(ordered.pending)
                $0.rollout?.drains = ordered.drains
            }
            guard !ordered.pending.isEmpty else { return reverted(key, complete: true, &step) }
            step.wake(Timer.route.key(key, rollout.generation), after: Rollout.Deadline.routes)
        case .reverting, .stopping: return
        }
    }

    private mutating func stopNew(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], let rollout = environment.rollout else { return }
        let new = instances(of: environment, generation: rollout.generation).map(\.id)
        guard !new.isEmpty else { return rolledBack(key, complete: true, &step) }
        stop(new, deployment: rollout.head.deployment, cause: rollout.head.order, actor: rollout.actor, &step)
        step.wake(
            Timer.stop.key(key, rollout.generation), after: longestStop(environment.app, rollout.head.release) + Rollout.Deadline.stopping)
    }

    /// The routes lead back, or nobody has answered whether they do. The new instances finish what they have and go.
    mutating func reverted(_ key: String, complete: Bool, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], let rollout = environment.rollout else { return }
        let new = instances(of: environment, generation: rollout.generation).map(\.id)
        leave(new, drains: rollout.drains, key: key, rollout: rollout, patient: !complete, &step)
        rolledBack(key, complete: complete, &step)
    }

    mutating func rolledBack(_ key: String, complete: Bool, _ step: inout Step<DeployerEffect>) {
        guard let rollout = environments[key]?.rollout else { return }
        step.cancel(Timer.route.key(key, rollout.generation))
        step.cancel(Timer.stop.key(key, rollout.generation))
        environments.update(key) { $0.rollout = nil }
        let failure = rollout.failure ?? Rollout.Failure(reason: "given up", tail: [], instance: nil)
        step.publish(
            DeployRolledBack(
                head: rollout.head, reason: failure.reason, tail: failure.tail, complete: complete,
                seconds: step.now.seconds(since: rollout.began)),
            cause: rollout.head.order, actor: rollout.actor)
        ended(rollout, "rolled back", failure.reason, step.now)
        refreshRoutes(key, &step)
        startWaiting(key, &step)
    }

    // MARK: Memory

    private mutating func remember(_ record: DeploymentRecord) {
        let id = record.head.deployment
        deployments[id.text] = record
        deployments[DeploymentID(app: id.app, environment: id.environment, number: id.number - Self.keptDeployments).text] = nil
    }
    private mutating func ended(_ rollout: Rollout, _ outcome: String, _ reason: String?, _ now: Timestamp) {
        deployments.update(rollout.head.deployment.text) {
            $0.ended = now
            $0.outcome = outcome
            $0.reason = reason
        }
    }
}
