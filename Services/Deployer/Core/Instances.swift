import Contracts
import Kit

/// News of instances.
extension DeployerState {
    private func key(_ id: InstanceID) -> String { "\(id.app)/\(id.environment)" }

    mutating func instanceStarted(_ event: InstanceStarted, _ step: inout Step<DeployerEffect>) {
        guard let record = instances[event.instance.text], !record.started, record.state == .starting else { return }
        instances.update(event.instance.text) { $0.started = true }
        let key = key(event.instance)
        guard let rollout = environments[key]?.rollout, rollout.generation == record.generation, case .starting(let tier) = rollout.phase,
            rollout.tiers[tier].allSatisfy({ instances[$0.text]?.started == true || instances[$0.text]?.state == .ready }),
            let release = release(event.instance.app, record.release)
        else { return }
        // Fetching the bundle is over; now the grace counts, from the last process that began.
        step.wake(Timer.start.key(key, rollout.generation), after: grace(release, rollout.tiers[tier]))
    }

    mutating func instanceReady(_ event: InstanceReady, _ step: inout Step<DeployerEffect>) {
        guard let record = instances[event.instance.text], record.state != .stopping else { return }
        instances.update(event.instance.text) {
            $0.state = .ready
            $0.started = true
            $0.address = event.address
            $0.ports = event.ports
            $0.first = event.first
        }
        let key = key(event.instance)
        if environments[key]?.rollout?.generation == record.generation { return advance(key, &step) }
        refreshRoutes(key, &step)
    }

    mutating func instanceUnready(_ event: InstanceUnready, _ step: inout Step<DeployerEffect>) {
        guard instances[event.instance.text]?.state == .ready else { return }
        instances.update(event.instance.text) { $0.state = .unready }
        refreshRoutes(key(event.instance), &step)
    }

    /// Waits for the instance as for one that has just been ordered.
    private mutating func interrupted(
        _ record: InstanceRecord, _ rollout: Rollout, _ key: String, _ step: inout Step<DeployerEffect>
    ) {
        guard case .starting(let tier) = rollout.phase else {
            instances.update(record.id.text) { $0.state = .restarting }
            return
        }
        instances.update(record.id.text) {
            $0.state = .starting
            $0.started = false
        }
        waitForTier(tier, key, rollout, &step)
    }

    /// The suite is back: what it was waiting for could not come while it was away, so each wait begins again.
    mutating func resumed(_ step: inout Step<DeployerEffect>) {
        for key in environments.keys {
            guard let rollout = environments[key]?.rollout else { continue }
            switch rollout.phase {
            case .starting(let tier): waitForTier(tier, key, rollout, &step)
            case .switching, .reverting: step.wake(Timer.route.key(key, rollout.generation), after: Rollout.Deadline.routes)
            case .stopping: break
            }
        }
    }

    private func waitForTier(_ tier: Int, _ key: String, _ rollout: Rollout, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], rollout.tiers.indices.contains(tier),
            let release = release(environment.app, rollout.head.release)
        else { return }
        // Where all processes run already, only the grace is left to wait.
        let run = rollout.tiers[tier].allSatisfy { instances[$0.text]?.started == true || instances[$0.text]?.state == .ready }
        step.wake(
            Timer.start.key(key, rollout.generation),
            after: (run ? 0 : Rollout.Deadline.preparation) + grace(release, rollout.tiers[tier]))
    }

    mutating func instanceExited(_ event: InstanceExited, _ step: inout Step<DeployerEffect>) {
        guard let record = instances[event.instance.text] else { return }
        let key = key(event.instance)
        let rollout = environments[key]?.rollout
        guard record.state != .stopping else {
            instances[event.instance.text] = nil
            guard let rollout, rollout.generation == record.generation, rollout.phase == .stopping else { return }
            if rollout.failure?.instance == event.instance, rollout.failure?.tail.isEmpty == true {
                // One that was only never ready tells its last lines when it ends.
                environments.update(key) { $0.rollout?.failure?.tail = Array(event.tail.suffix(20)) }
            }
            guard let environment = environments[key], instances(of: environment, generation: rollout.generation).isEmpty else { return }
            return rolledBack(key, complete: true, &step)
        }
        if let rollout, rollout.generation == record.generation, event.interrupted == true, event.restartIn != nil, !rollout.isGoingBack {
            // The suite was stopped in the middle of it: the instance comes back as it was, and the deployment goes on.
            return interrupted(record, rollout, key, &step)
        }
        if let rollout, rollout.generation == record.generation {
            instances.update(event.instance.text) { $0.state = event.restartIn == nil ? .ended : .restarting }
            let when = record.state == .starting ? "before it was ready" : "during the deployment"
            return giveUp(
                key,
                Rollout.Failure(
                    reason: "\(Plan.names([event.instance])) ended \(when): \(event.reason)", tail: Array(event.tail.suffix(20)),
                    instance: event.instance), &step)
        }
        instances.update(event.instance.text) { $0.state = event.restartIn == nil ? .ended : .restarting }
        refreshRoutes(key, &step)
    }
}
