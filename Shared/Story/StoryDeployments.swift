import Contracts

/// The second half of a story: a release's way into environments.
extension Story {
    mutating func takeDeployment(_ event: Envelope) -> [String] {
        switch event.type {
        case DeployRequested.type: event.as(DeployRequested.self).map { ordered($0, event) } ?? []
        case DeployPlanned.type: event.as(DeployPlanned.self).map { planned($0) } ?? []
        case DeployStarted.type: event.as(DeployStarted.self).map { started($0) } ?? []
        case DeploySucceeded.type: event.as(DeploySucceeded.self).map { succeeded($0) } ?? []
        case DeployRolledBack.type: event.as(DeployRolledBack.self).map { rolledBack($0) } ?? []
        case DeployFailed.type: event.as(DeployFailed.self).map { rejected($0) } ?? []
        case InstanceRequested.type: event.as(InstanceRequested.self).map { instanceRequested($0, event) } ?? []
        case InstanceReady.type: event.as(InstanceReady.self).map { instanceReady($0, event) } ?? []
        case InstanceExited.type: event.as(InstanceExited.self).map { instanceExited($0) } ?? []
        case RouteChanged.type: event.as(RouteChanged.self).map { routeChanged($0) } ?? []
        default: []
        }
    }

    /// An order that a run of ours led to, or our order itself.
    private mutating func ordered(_ order: DeployRequested, _ event: Envelope) -> [String] {
        guard order.app == app, let release = order.release else { return [] }
        if case .order(_, let id) = subject, event.cause == id {
            children.insert(event.id)
            orders.insert(event.id)
        } else if runs.values.contains(where: { $0.release == release }) {
            orders.insert(event.id)
        }
        return []
    }

    private func key(_ head: DeploymentHead) -> DeployKey? {
        guard head.app == app, environment == nil || environment == head.environment else { return nil }
        let key = DeployKey(environment: head.environment, release: head.release)
        if orders.contains(head.order) { return key }
        // The order itself may have been missed: a deployment of the run's release is what the run led to.
        let ours = runs.values.contains { $0.release == head.release && $0.commit == head.commit }
        return head.kind == .deploy && ours ? key : nil
    }

    /// Returns where the deployment is kept; nil when it is not the subject's.
    private mutating func begin(_ head: DeploymentHead) -> DeployKey? {
        guard let key = key(head) else { return nil }
        if deployments[key]?.order != head.order {
            deployments[key] = DeployThread(
                environment: head.environment, release: head.release, order: head.order, kind: head.kind)
        }
        return key
    }

    private mutating func started(_ event: DeployStarted) -> [String] {
        _ = begin(event.head)
        return []
    }

    private mutating func planned(_ planned: DeployPlanned) -> [String] {
        guard let key = begin(planned.head), deployments[key]?.instances.isEmpty == true else { return [] }
        for step in planned.steps where step.kind == .start {
            for instance in step.instances { deployments[key]?.instances[instance] = .some(nil) }
        }
        let what = planned.head.kind == .rollback ? "rolling back to" : "deploying"
        let from = planned.head.previous.map { " (v\($0) serves until it is healthy)" } ?? ""
        return ["\(key.environment): \(what) v\(key.release)\(from)"]
    }

    private mutating func succeeded(_ event: DeploySucceeded) -> [String] {
        guard let key = begin(event.head), deployments[key]?.result == nil else { return [] }
        let url = event.url.map { Inert.line($0) }
        deployments[key]?.result = .live(url: url)
        let notes = (event.notes ?? []).map { "\(key.environment): \(Inert.line($0))" }
        return notes + ["\(key.environment): v\(key.release) live\(url.map { " at \($0)" } ?? "") (\(Self.seconds(event.seconds)))"]
    }

    private mutating func rolledBack(_ event: DeployRolledBack) -> [String] {
        guard let key = begin(event.head), deployments[key]?.result == nil else { return [] }
        let reason = Inert.line(event.reason, limit: 1000)
        deployments[key]?.result = .failed("\(key.environment): rolled back: \(reason)")
        let tail = event.tail.suffix(20).map { "    \(Inert.line($0))" }
        // The end of the instance, when it was told just before, brought the same lines.
        var lines = deployments[key]?.tail == tail ? [] : tail
        lines.append("\(key.environment): rolled back: \(reason)")
        if !event.complete {
            lines.append("\(key.environment): what served before could not be brought back entirely: see slipway status")
        } else if let previous = event.head.previous {
            lines.append("\(key.environment): v\(previous) still serves")
        }
        return lines
    }

    private mutating func rejected(_ event: DeployFailed) -> [String] {
        guard event.app == app, environment == nil || event.environment == nil || environment == event.environment else { return [] }
        let reason = Inert.line(event.reason, limit: 1000)
        let place = event.environment?.text ?? "deployment"
        let run = runs.values.first { $0.release != nil && $0.release == event.release }
        guard run != nil || orders.contains(event.order), rejections[event.order] == nil else { return [] }
        rejections[event.order] = "\(place): rejected: \(reason)"
        // An order that named no environment was for all that the run led to.
        for environment in event.environment.map({ [$0] }) ?? run?.environments ?? [] {
            guard let release = event.release else { continue }
            let key = DeployKey(environment: environment, release: release)
            var thread =
                deployments[key] ?? DeployThread(environment: environment, release: release, order: event.order, kind: .deploy)
            thread.result = thread.result ?? .failed("\(place): rejected: \(reason)")
            deployments[key] = thread
        }
        return ["\(place): rejected: \(reason)"] + (event.hint.map { ["\(place): \(Inert.line($0))"] } ?? [])
    }

    /// The deployment under way that starts this instance.
    private func starter(of instance: InstanceID) -> DeployKey? {
        guard instance.app == app else { return nil }
        return deployments.first { $0.value.result == nil && $0.value.instances.keys.contains(instance) }?.key
    }

    private mutating func instanceRequested(_ event: InstanceRequested, _ envelope: Envelope) -> [String] {
        guard event.action == .start, event.instance.app == app, let release = event.spec?.release else { return [] }
        let key = DeployKey(environment: event.instance.environment, release: release)
        guard let thread = deployments[key], thread.result == nil, (thread.instances[event.instance] ?? nil) == nil else { return [] }
        deployments[key]?.instances[event.instance] = .some(envelope.time ?? Timestamp(milliseconds: 0))
        return ["\(key.environment): starting \(event.instance.service)/\(event.instance.number)"]
    }

    private mutating func instanceReady(_ event: InstanceReady, _ envelope: Envelope) -> [String] {
        guard let key = starter(of: event.instance) else { return [] }
        var took = ""
        if let began = deployments[key]?.instances[event.instance] ?? nil, began.milliseconds > 0, let now = envelope.time {
            took = " (\(Self.seconds(now.seconds(since: began))))"
        }
        return ["\(key.environment): \(event.instance.service)/\(event.instance.number) is healthy\(took)"]
    }

    private mutating func instanceExited(_ event: InstanceExited) -> [String] {
        guard !event.expected, let key = starter(of: event.instance) else { return [] }
        var lines = event.tail.suffix(20).map { "    \(Inert.line($0))" }
        deployments[key]?.tail = lines
        lines.append("\(key.environment): \(event.instance.service)/\(event.instance.number) ended: \(Inert.line(event.reason))")
        return lines
    }

    private mutating func routeChanged(_ event: RouteChanged) -> [String] {
        guard event.app == app, !event.servers.isEmpty,
            let key = deployments.first(where: { entry in
                entry.value.result == nil && entry.key.environment == event.environment && !entry.value.routed.contains(event.service)
                    && event.servers.allSatisfy { entry.value.instances.keys.contains($0.instance) }
            })?.key
        else { return [] }
        deployments[key]?.routed.insert(event.service)
        guard event.ingress else {
            return ["\(key.environment): no ingress on this host: \(event.service) answers on its instances' own ports"]
        }
        return ["\(key.environment): traffic goes to v\(key.release)"]
    }
}
