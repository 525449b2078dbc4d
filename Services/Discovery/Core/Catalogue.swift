import Contracts
import Kit

/// What discovery does in the world.
enum DiscoveryEffect: Codable, Hashable, Sendable {
    /// Let DNS answer from the catalogue as it is now.
    case zone(serial: Int)
    /// Make the ingress serve the table as it is now; this generation of this route is the reason.
    case lead(route: String, generation: Int)
    /// Wait until the servers that left this route up to this generation have finished their requests.
    case drain(route: String, generation: Int)
}

/// What comes back.
enum DiscoveryNotice: Codable, Hashable, Sendable {
    /// The ingress acknowledged the table; `ingress` is false when none is installed.
    case led(route: String, generation: Int, ingress: Bool)
    /// These servers have finished, or their time was over (`late`, those with requests left).
    case drained(route: String, generation: Int, late: Int)
}

/// The catalogue's decisions.
///
///     instance.ready ──▶ registered, healthy ──unready/exited──▶ unhealthy ──ready──▶ healthy
///                              └──────────exited for good──────────▶ gone
///     route.requested ─▶ lead ─▶ route.changed ─▶ drain ─▶ route.drained      (always one of each for an order)
enum Catalogue: Core {
    typealias State = CatalogueState
    typealias Effect = DiscoveryEffect
    typealias Notice = DiscoveryNotice

    static let filters = [
        InstanceReady.type.text, InstanceUnready.type.text, InstanceExited.type.text, RouteRequested.type.text, RepositoryDeleted.type.text,
    ]

    static func lane(_ effect: DiscoveryEffect) -> String? {
        switch effect {
        case .zone: "zone"
        case .lead: "ingress"
        // A drain takes up to half a minute, and others must not wait for it.
        case .drain: nil
        }
    }

    static func handle(_ input: Input<DiscoveryNotice>, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        switch input {
        case .event(let envelope):
            do {
                switch envelope.type {
                case InstanceReady.type: ready(try envelope.decode(InstanceReady.self), &state, &step)
                case InstanceUnready.type: unready(try envelope.decode(InstanceUnready.self), &state, &step)
                case InstanceExited.type: exited(try envelope.decode(InstanceExited.self), &state, &step)
                case RouteRequested.type: requested(try envelope.decode(RouteRequested.self), order: envelope.id, &state, &step)
                case RepositoryDeleted.type: deleted(try envelope.decode(RepositoryDeleted.self).app, order: envelope.id, &state, &step)
                default: break
                }
            } catch {
                step.log("event \(envelope.id) of type \(envelope.type) cannot be read and is passed over: \(error)")
            }
        case .notice(.led(let route, let generation, let ingress)):
            led(route, generation, ingress: ingress, &state, &step)
        case .notice(.drained(let route, let generation, let late)):
            drained(route, generation, late: late, &state, &step)
        case .timer:
            break
        }
    }

    // MARK: Instances

    private static func ready(_ event: InstanceReady, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        let key = event.instance.text
        let before = state.instances[key]
        let now = Instance(
            id: event.instance, host: event.host, release: event.release, address: event.address, ports: event.ports, first: event.first,
            healthy: true, reason: "passes its health check", since: before?.healthy == true ? before?.since ?? step.now : step.now)
        guard now != before else { return }
        state.instances[key] = now
        if before?.address != now.address || before?.ports != now.ports {
            step.publish(ServiceRegistered(instance: now.id, host: now.host, address: now.address, ports: now.ports))
        }
        if let before, !before.healthy { step.publish(HealthChanged(instance: now.id, healthy: true, reason: now.reason)) }
        step.perform(.zone(serial: state.nextSerial()))
        back(now, before, &state, &step)
    }

    private static func unready(_ event: InstanceUnready, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        guard var instance = state.instances[event.instance.text], instance.healthy else { return }
        instance.healthy = false
        instance.reason = event.reason
        instance.since = step.now
        state.instances[event.instance.text] = instance
        step.publish(HealthChanged(instance: instance.id, healthy: false, reason: event.reason))
        step.perform(.zone(serial: state.nextSerial()))
        down(instance.id, dead: false, &state, &step)
    }

    private static func exited(_ event: InstanceExited, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        // Its port may belong to another program by now: out of every route, whatever the catalogue thinks.
        down(event.instance, dead: true, &state, &step)
        guard var instance = state.instances[event.instance.text] else { return }
        if event.expected || event.restartIn == nil {
            leave(instance.id, &state, &step)
        } else if instance.healthy {
            instance.healthy = false
            instance.reason = event.reason
            instance.since = step.now
            state.instances[event.instance.text] = instance
            step.publish(HealthChanged(instance: instance.id, healthy: false, reason: event.reason))
            step.perform(.zone(serial: state.nextSerial()))
        }
    }

    private static func leave(_ instance: InstanceID, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        state.instances[instance.text] = nil
        step.publish(ServiceDeregistered(instance: instance))
        step.perform(.zone(serial: state.nextSerial()))
    }

    private static func deleted(
        _ app: AppName, order: EventID, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>
    ) {
        for instance in state.instances.values where instance.id.app == app { leave(instance.id, &state, &step) }
        for route in state.routes.values where route.app == app {
            requested(
                RouteRequested(app: app, environment: route.environment, service: route.service, hosts: route.hosts, servers: []),
                order: order, &state, &step)
        }
    }
}
