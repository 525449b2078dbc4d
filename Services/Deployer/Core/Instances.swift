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
