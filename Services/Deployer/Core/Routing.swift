import Contracts
import Kit

/// Where requests go.
extension DeployerState {
    /// Orders the routes of an environment to lead to one generation and to no other; only those that change. `pending` are the
    /// orders whose `route.changed` to await, `drains` those that took servers out, which `route.drained` will answer.
    mutating func requestRoutes(
        _ key: String, generation: Int?, release: Int?, for rollout: Rollout?, _ step: inout Step<DeployerEffect>
    ) -> (pending: [EventID], drains: [EventID]) {
        guard var environment = environments[key] else { return ([], []) }
        let wanted = wantedRoutes(environment, generation, release)
        var pending: [EventID] = []
        var drains: [EventID] = []
        for service in Set(wanted.keys).union(environment.routes.keys).sorted() {
            guard let name = try? ServiceName(service) else { continue }
            let old = environment.routes[service]
            let new = wanted[service] ?? (hosts: old?.hosts ?? [], servers: [])
            if old?.hosts == new.hosts, old?.servers == new.servers { continue }
            let order = step.publish(
                RouteRequested(app: environment.app, environment: environment.name, service: name, hosts: new.hosts, servers: new.servers),
                cause: rollout?.head.order, actor: rollout.map(\.actor) ?? step.actor)
            environment.routes[service] =
                new.servers.isEmpty ? nil : .init(hosts: new.hosts, servers: new.servers, order: order, ingress: old?.ingress ?? true)
            pending.append(order)
            let staying = Set(new.servers.map(\.instance))
            if old?.servers.contains(where: { !staying.contains($0.instance) }) == true { drains.append(order) }
        }
        environments[key] = environment
        return (pending, drains)
    }

    private func wantedRoutes(_ environment: EnvironmentRecord, _ generation: Int?, _ number: Int?) -> [String: (
        hosts: [String], servers: [RouteServer]
    )] {
        guard let generation, let number, let release = release(environment.app, number) else { return [:] }
        var wanted: [String: (hosts: [String], servers: [RouteServer])] = [:]
        let mine = instances(of: environment, generation: generation)
        for (service, hosts) in Hosts.of(release.config, app: environment.app, environment: environment.name, chain: chain(environment.app))
        {
            var servers = mine.filter { $0.id.service.text == service && $0.state == .ready }.compactMap(\.server)
            if servers.isEmpty {
                // The last one is never taken out for being unwell: an answer that may fail is better than none. When the routes
                // are led back to a set of which none is well, all of it is as good as any.
                let unwell = mine.filter { $0.id.service.text == service && $0.state != .stopping }
                let routed = (environment.routes[service]?.servers ?? []).filter { server in unwell.contains { $0.id == server.instance } }
                servers = routed.isEmpty ? unwell.compactMap(\.server) : routed
            }
            if !servers.isEmpty { wanted[service] = (hosts, servers) }
        }
        return wanted
    }

    /// Leads the routes to the live instances that are ready now. Nobody waits for the answers.
    mutating func refreshRoutes(_ key: String, _ step: inout Step<DeployerEffect>) {
        guard let environment = environments[key], environment.rollout?.isRouting != true, let live = environment.live else { return }
        _ = requestRoutes(key, generation: live.generation, release: live.release, for: nil, &step)
    }

    /// A host name leads to one place: the app's other environments give up what this one has now. They differ from what they
    /// had only when the chain in the file has changed.
    mutating func takeNames(from environment: EnvironmentRecord, _ step: inout Step<DeployerEffect>) {
        for other in environments.values where other.app == environment.app && other.name != environment.name {
            refreshRoutes(other.key, &step)
        }
    }

    /// Where the app answers: through the ingress, or where there is none at its first instance.
    func url(_ environment: EnvironmentRecord) -> String? {
        guard let live = environment.live, let release = release(environment.app, live.release), let main = Hosts.main(release.config),
            let route = environment.routes[main.text], let host = route.hosts.first(where: { !route.refused.contains($0) })
        else { return nil }
        guard route.ingress else { return route.servers.first.map { "http://\($0.address):\($0.port)" } }
        return ports["ingress"].map { "http://\(host):\($0)" } ?? "http://\(host)"
    }

    mutating func routeChanged(_ event: RouteChanged, _ step: inout Step<DeployerEffect>) {
        let key = "\(event.app)/\(event.environment)"
        environments.update(key) { environment in
            guard environment.routes[event.service.text]?.order == event.order else { return }
            environment.routes[event.service.text]?.ingress = event.ingress
            environment.routes[event.service.text]?.refused = (event.refused ?? [:]).keys.sorted()
            guard case .switching(let pending) = environment.rollout?.phase, pending.contains(event.order) else { return }
            for (host, reason) in (event.refused ?? [:]).sorted(by: { $0.key < $1.key }) {
                environment.rollout?.notes.append("\(host) does not lead to \(event.service): \(reason)")
            }
        }
        switch environments[key]?.rollout?.phase {
        case .switching(let pending) where pending.contains(event.order):
            let left = pending.filter { $0 != event.order }
            environments.update(key) { $0.rollout?.phase = .switching(left) }
            if left.isEmpty { succeed(key, &step) }
        case .reverting(let pending) where pending.contains(event.order):
            let left = pending.filter { $0 != event.order }
            environments.update(key) { $0.rollout?.phase = .reverting(left) }
            if left.isEmpty { reverted(key, complete: true, &step) }
        default: break
        }
    }

    mutating func routeDrained(_ event: RouteDrained, _ step: inout Step<DeployerEffect>) {
        let key = "\(event.app)/\(event.environment)"
        // It may come before the other routes have changed.
        environments.update(key) { $0.rollout?.drains.removeAll { $0 == event.order } }
        for row in leaving.keys where leaving[row]?.drains.contains(event.order) == true {
            leaving.update(row) { $0.drains.removeAll { $0 == event.order } }
            if leaving[row]?.drains.isEmpty == true { stopLeaving(row, &step) }
        }
    }
}
