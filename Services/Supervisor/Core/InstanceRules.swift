import Contracts
import Kit

/// The life of an instance on this host.
enum InstanceRules {
    typealias Moment = Step<SupervisorEffect>

    static func order(_ order: InstanceRequested, _ state: inout SupervisorState, _ step: inout Moment) {
        guard order.host == step.host else { return }
        let key = order.instance.text
        switch order.action {
        case .start:
            guard state.instances[key] == nil else { return }
            guard let spec = order.spec else {
                exited(order.instance, Ending(reason: "the order to start it says nothing about what to run"), expected: false, nil, &step)
                return
            }
            if let wrong = fault(of: spec.service) {
                exited(order.instance, Ending(reason: wrong), expected: false, nil, &step)
                return
            }
            state.instances[key] = InstanceRow(instance: order.instance, spec: spec, phase: .starting, generation: 1, since: step.now)
            step.perform(.start(order.instance, generation: 1, spec: spec))
        case .stop:
            guard let row = state.instances[key] else {
                // Whoever ordered it waits for this answer, also when it asks for the second time.
                exited(order.instance, Ending(reason: "was not running"), expected: true, nil, &step)
                return
            }
            guard row.phase != .stopping else { return }
            state.instances.update(key) { row in
                row.phase = .stopping
                row.since = step.now
            }
            step.cancel(timerKey(order.instance))
            step.perform(.stop(order.instance, row.spec.service.stop))
        }
    }

    /// What no `slipway.yml` says but an order written by hand may. Numbers end up in clocks and kernel files, which take not every one.
    private static func fault(of service: ServiceSpec) -> String? {
        let seconds = [service.health.interval, service.health.timeout, service.health.grace, service.stop.timeout]
        guard seconds.allSatisfy({ $0.isFinite && (0...3600).contains($0) }) else {
            return "an interval or timeout is outside 0 to 3600 seconds"
        }
        guard (1...100).contains(service.health.healthy) else { return "health.healthy is outside 1 to 100" }
        if let cpu = service.limits.cpu, !cpu.isFinite || !(0...1024).contains(cpu) { return "limits.cpu is outside 0 to 1024" }
        return nil
    }

    static func news(_ notice: SupervisorNotice, _ state: inout SupervisorState, _ step: inout Moment) {
        switch notice {
        case .started(let instance, let generation, let pid, let ports):
            guard let row = row(instance, generation, in: state), row.phase == .starting else { return }
            let isReady = row.readyEarly == true
            state.instances.update(instance.text) { row in
                row.phase = isReady ? .ready : .running
                row.pid = pid
                row.ports = ports
                row.since = step.now
                row.readyEarly = nil
            }
            step.publish(InstanceStarted(instance: instance, host: step.host, pid: pid))
            if isReady { ready(row.instance, row.spec, ports, &step) }
        case .refused(let instance, let generation, let reason, let final):
            guard let row = row(instance, generation, in: state), row.phase == .starting else { return }
            if final {
                state.instances[instance.text] = nil
                exited(instance, Ending(reason: reason), expected: false, nil, &step)
            } else {
                backOff(row, Ending(reason: reason), lived: 0, &state, &step)
            }
        case .ready(let instance, let generation):
            guard let row = row(instance, generation, in: state) else { return }
            switch row.phase {
            case .running, .unready:
                state.instances.update(instance.text) { row in row.phase = .ready }
                ready(instance, row.spec, row.ports, &step)
            case .starting:
                // A fast one, or one that a supervisor before this one started: it overtook the news of its start. It is told once only.
                state.instances.update(instance.text) { row in row.readyEarly = true }
            case .ready, .backoff, .stopping: return
            }
        case .unready(let instance, let generation, let reason):
            guard let row = row(instance, generation, in: state), row.phase == .ready else {
                state.instances.update(instance.text) { row in if row.generation == generation { row.readyEarly = nil } }
                return
            }
            state.instances.update(instance.text) { row in row.phase = .unready }
            step.publish(InstanceUnready(instance: instance, host: step.host, reason: reason))
        case .exited(let instance, let generation, let ending):
            guard let row = row(instance, generation, in: state), row.phase != .stopping, row.phase != .backoff else { return }
            // An end that overtook the news of the start: the process did run.
            let lived = row.phase == .starting ? 0 : step.now.seconds(since: row.since)
            backOff(row, ending, lived: lived, &state, &step)
        case .stopped(let instance, let ending):
            guard let row = state.instances[instance.text], row.phase == .stopping else { return }
            state.instances[instance.text] = nil
            exited(instance, ending ?? Ending(reason: "was told to stop"), expected: true, nil, &step)
        case .joined, .jobBegan, .jobDone:
            return
        }
    }

    static func timer(_ key: String, _ state: inout SupervisorState, _ step: inout Moment) {
        guard key.hasPrefix("restart/"), let row = state.instances[String(key.dropFirst(8))], row.phase == .backoff else { return }
        state.instances.update(row.instance.text) { row in
            row.phase = .starting
            row.generation += 1
            row.restarts += 1
            row.since = step.now
            row.readyEarly = nil
        }
        step.perform(.start(row.instance, generation: row.generation + 1, spec: row.spec))
    }

    private static func ready(_ instance: InstanceID, _ spec: InstanceSpec, _ ports: [String: Int], _ step: inout Moment) {
        step.publish(
            InstanceReady(
                instance: instance, host: step.host, release: spec.release, address: "127.0.0.1", ports: ports,
                first: spec.service.ports.first?.name.text))
    }

    private static func backOff(
        _ row: InstanceRow, _ ending: Ending, lived: Double, _ state: inout SupervisorState, _ step: inout Moment
    ) {
        let (failures, delay) = Backoff.instances.next(failures: row.failures, lived: lived)
        state.instances.update(row.instance.text) { row in
            row.phase = .backoff
            row.failures = failures
            row.pid = nil
            row.since = step.now
        }
        exited(row.instance, ending, expected: false, delay, &step)
        step.wake(timerKey(row.instance), after: delay)
    }

    private static func exited(_ instance: InstanceID, _ ending: Ending, expected: Bool, _ restartIn: Double?, _ step: inout Moment) {
        step.publish(
            InstanceExited(
                instance: instance, host: step.host, expected: expected, status: ending.status, signal: ending.signal,
                reason: ending.reason, tail: ending.tail, restartIn: restartIn, interrupted: ending.interrupted))
    }

    private static func row(_ instance: InstanceID, _ generation: Int, in state: SupervisorState) -> InstanceRow? {
        state.instances[instance.text].flatMap { $0.generation == generation ? $0 : nil }
    }
    private static func timerKey(_ instance: InstanceID) -> String { "restart/\(instance)" }
}
