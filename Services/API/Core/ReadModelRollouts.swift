import Contracts
import Kit

/// The part of the read model that follows deployments and instances.
extension ReadModel {
    static func takeDeployment(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        func row(_ head: DeploymentHead, _ change: (inout DeploymentRow) -> Void) {
            let key = Key.deployment(head.deployment)
            var row =
                state.deployments[key]
                ?? DeploymentRow(
                    head: head, state: "planned", by: state.orders[head.order.text]?.by ?? envelope.actor, plannedAt: at, steps: [])
            change(&row)
            state.deployments[key] = row
            state.deployments.keepLast(keptDeployments, under: head.subject)
        }
        if let planned = envelope.as(DeployPlanned.self) {
            row(planned.head) { $0.steps = planned.steps.map(\.text) }
        } else if let started = envelope.as(DeployStarted.self) {
            row(started.head) {
                $0.state = "running"
                $0.startedAt = at
            }
        } else if let live = envelope.as(DeploySucceeded.self) {
            row(live.head) {
                $0.state = live.outcome
                $0.finishedAt = at
                $0.seconds = live.seconds
                $0.url = live.url
            }
            state.environments[Key.environment(live.head.app, live.head.environment)] = EnvironmentRow(
                app: live.head.app, name: live.head.environment, release: live.head.release, commit: live.head.commit,
                deployment: live.head.deployment, order: live.head.order, since: at, url: live.url)
        } else if let back = envelope.as(DeployRolledBack.self) {
            row(back.head) {
                $0.state = back.outcome
                $0.finishedAt = at
                $0.seconds = back.seconds
                $0.reason = back.reason
            }
        }
    }

    static func takeInstance(_ envelope: Envelope, _ state: inout APIState, _ at: Timestamp) {
        if let order = envelope.as(InstanceRequested.self) {
            let key = order.instance.text
            switch order.action {
            case .start where state.instances[key] == nil:
                state.instances[key] = InstanceRow(
                    id: order.instance, host: order.host, state: "requested", release: order.spec?.release, commit: order.spec?.commit,
                    since: at)
            case .start: break
            case .stop:
                state.instances.update(key) {
                    $0.state = "stopping"
                    $0.since = at
                }
            }
            return
        }
        func change(_ id: InstanceID, _ host: HostName, _ change: (inout InstanceRow) -> Void) {
            var row = state.instances[id.text] ?? InstanceRow(id: id, host: host, state: "started", since: at)
            change(&row)
            state.instances[id.text] = row
        }
        if let started = envelope.as(InstanceStarted.self) {
            change(started.instance, started.host) {
                if $0.state != "stopping" { $0.state = "started" }
                $0.pid = started.pid
                $0.since = at
            }
        } else if let ready = envelope.as(InstanceReady.self) {
            change(ready.instance, ready.host) {
                if $0.state != "stopping" { $0.state = "ready" }
                $0.release = ready.release
                $0.address = ready.address
                $0.ports = ready.ports
                $0.reason = nil
                $0.since = at
            }
        } else if let unready = envelope.as(InstanceUnready.self) {
            change(unready.instance, unready.host) {
                if $0.state != "stopping" { $0.state = "unready" }
                $0.reason = unready.reason
                $0.since = at
            }
        } else if let exited = envelope.as(InstanceExited.self) {
            guard !exited.expected else {
                state.instances[exited.instance.text] = nil
                return
            }
            change(exited.instance, exited.host) {
                if $0.state != "stopping" { $0.state = exited.restartIn == nil ? "failed" : "restarting" }
                $0.reason = exited.reason
                $0.restarts += 1
                $0.pid = nil
                $0.since = at
            }
        }
    }
}
