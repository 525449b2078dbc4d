import Contracts
import Kit

/// The part of the catalogue's decisions that is about routes.
extension Catalogue {
    /// More servers than this in one route are not led to.
    static let maxServers = 128
    static let maxHosts = 64

    static func requested(
        _ event: RouteRequested, order: EventID, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>
    ) {
        let key = Route.key(event.app, event.environment, event.service)
        guard state.routes[key]?.waiting.contains(where: { $0.id == order }) != true else { return }
        if let fault = fault(event) {
            // No answer: `route.changed` would say that requests go where they do not. Whoever waits has a deadline.
            step.log("route order \(order) for \(key) is passed over: \(fault)")
            return
        }
        let generation = state.nextGeneration()
        var route =
            state.routes[key]
            ?? Route(
                app: event.app, environment: event.environment, service: event.service, hosts: [], backend: freeBackend(state), slots: [],
                generation: generation, waiting: [], draining: [])
        let claim = claim(event, key, &state)
        for (host, reason) in claim.refused.sorted(by: { $0.key < $1.key }) {
            step.log("\(key) does not get \(Problem.quote(host)): \(reason)")
        }
        route.hosts = claim.hosts
        place(event.servers, in: &route, order: order, generation, state, step.now)
        route.generation = generation
        route.waiting.append(
            Route.Order(id: order, actor: step.actor, generation: generation, hosts: event.hosts, refused: claim.refused))
        state.routes[key] = route
        step.perform(.lead(route: key, generation: generation))
    }

    /// Why the order cannot be carried out at all; nil: it can.
    private static func fault(_ event: RouteRequested) -> String? {
        guard event.servers.count <= maxServers else { return "\(event.servers.count) servers; at most \(maxServers)" }
        guard event.hosts.count <= maxHosts else { return "\(event.hosts.count) host names; at most \(maxHosts)" }
        for server in event.servers {
            guard Address(server.address) != nil else { return "\(Problem.quote(server.address)) is not an IP address" }
            guard (1...65_535).contains(server.port) else { return "port \(server.port): expected 1 to 65535" }
        }
        return nil
    }

    private static func freeBackend(_ state: CatalogueState) -> Int {
        let taken = Set(state.routes.values.map(\.backend))
        return (0...taken.count).first { !taken.contains($0) } ?? taken.count
    }

    /// The names the route gets. One that another route of the same app had moves here; another app's stays where it is.
    private static func claim(
        _ event: RouteRequested, _ key: String, _ state: inout CatalogueState
    ) -> (hosts: [String], refused: [String: String]) {
        guard !event.servers.isEmpty else { return ([], [:]) }
        var hosts: [String] = []
        var refused: [String: String] = [:]
        for host in event.hosts where !hosts.contains(host) {
            if let reason = HostRules.refusal(host, for: event.app) {
                refused[host] = reason
                continue
            }
            let holder = state.routes.values.first { $0.key != key && $0.hosts.contains(host) }
            if let holder, holder.app != event.app {
                refused[host] = "it belongs to the app \(holder.app)"
                continue
            }
            if let holder { state.routes.update(holder.key) { $0.hosts.removeAll { $0 == host } } }
            hosts.append(host)
        }
        return (hosts, refused)
    }

    /// Gives every wanted server a place and sends the others away.
    private static func place(
        _ wanted: [RouteServer], in route: inout Route, order: EventID, _ generation: Int, _ state: CatalogueState, _ now: Timestamp
    ) {
        for index in route.slots.indices {
            let slot = route.slots[index]
            if wanted.contains(slot.server) {
                guard let leaving = slot.leaving, !slot.dead else { continue }
                // It was on its way out and is wanted again; whoever waits for it to finish need not.
                route.slots[index].leaving = nil
                for at in route.draining.indices where route.draining[at].order == leaving.order {
                    route.draining[at].instances.removeAll { $0 == slot.server.instance }
                }
            } else if slot.leaving == nil {
                route.slots[index].leaving = .init(generation: generation, order: order, since: now)
            }
        }
        for server in wanted where !route.slots.contains(where: { $0.server == server && $0.leaving == nil }) {
            let known = state.instances[server.instance.text]
            route.slots.append(Slot(index: route.freeSlot, server: server, up: known?.healthy ?? true, dead: false, leaving: nil))
        }
    }

    // MARK: Health

    /// An instance is ready (again), perhaps on other ports.
    static func back(
        _ instance: Instance, _ before: Instance?, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>
    ) {
        let now = step.now
        change(&state, &step) { route, generation in
            var changed = false
            for index in route.slots.indices where route.slots[index].server.instance == instance.id && route.slots[index].leaving == nil {
                let slot = route.slots[index]
                let name = before?.ports.first { $0.value == slot.server.port }?.key
                let port =
                    name.flatMap { instance.ports[$0] }
                    ?? (instance.ports.values.contains(slot.server.port) ? slot.server.port : instance.mainPort)
                let server = RouteServer(instance: instance.id, address: instance.address, port: port ?? slot.server.port)
                if server == slot.server {
                    guard !slot.up || slot.dead else { continue }
                    route.slots[index].up = true
                    route.slots[index].dead = false
                } else {
                    // A live slot never changes its address: pooled connections would go on to the old one.
                    route.slots[index].leaving = .init(generation: generation, order: nil, since: now)
                    route.slots[index].dead = true
                    route.slots.append(Slot(index: route.freeSlot, server: server, up: true, dead: false, leaving: nil))
                }
                changed = true
            }
            return changed
        }
    }

    /// An instance is unready, or dead.
    static func down(_ instance: InstanceID, dead: Bool, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        change(&state, &step) { route, _ in
            var changed = false
            for index in route.slots.indices where route.slots[index].server.instance == instance {
                guard route.slots[index].up || (dead && !route.slots[index].dead) else { continue }
                route.slots[index].up = false
                if dead { route.slots[index].dead = true }
                changed = true
            }
            return changed
        }
    }

    private static func change(
        _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>, _ body: (inout Route, Int) -> Bool
    ) {
        for key in state.routes.keys {
            guard var route = state.routes[key], body(&route, state.generation + 1) else { continue }
            route.generation = state.nextGeneration()
            state.routes[key] = route
            step.perform(.lead(route: key, generation: route.generation))
        }
    }

    // MARK: News from the ingress

    static func led(
        _ key: String, _ generation: Int, ingress: Bool, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>
    ) {
        guard var route = state.routes[key] else { return }
        let answered = route.waiting.filter { $0.generation <= generation }
        route.waiting.removeAll { $0.generation <= generation }
        for order in answered {
            step.publish(
                RouteChanged(
                    app: route.app, environment: route.environment, service: route.service,
                    hosts: route.serving.isEmpty ? order.hosts : route.hosts, servers: route.serving.map(\.server), order: order.id,
                    ingress: ingress, refused: order.refused.isEmpty ? nil : order.refused),
                cause: order.id, actor: order.actor)
            let leaving = route.slots.filter { $0.leaving?.order == order.id }.map(\.server.instance)
            route.draining.append(Route.Drain(order: order.id, actor: order.actor, instances: leaving))
        }
        state.routes[key] = route
        if !ingress {
            drained(key, generation, late: 0, &state, &step)
        } else if route.slots.contains(where: { ($0.leaving?.generation ?? .max) <= generation }) {
            step.perform(.drain(route: key, generation: generation))
        } else {
            settle(key, &state, &step)
        }
    }

    static func drained(
        _ key: String, _ generation: Int, late: Int, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>
    ) {
        state.routes.update(key) { $0.slots.removeAll { ($0.leaving?.generation ?? .max) <= generation } }
        if late > 0 { step.log("\(late) requests to servers that left \(key) did not end in time and are given up") }
        settle(key, &state, &step)
    }

    /// Answers the orders whose leaving servers are all gone, and forgets a route that is over.
    private static func settle(_ key: String, _ state: inout CatalogueState, _ step: inout Step<DiscoveryEffect>) {
        guard var route = state.routes[key] else { return }
        let open = Set(route.slots.compactMap { $0.leaving?.order })
        for drain in route.draining where !open.contains(drain.order) {
            step.publish(
                RouteDrained(
                    app: route.app, environment: route.environment, service: route.service, instances: drain.instances, order: drain.order),
                cause: drain.order, actor: drain.actor)
        }
        route.draining.removeAll { !open.contains($0.order) }
        state.routes[key] = route.isOver ? nil : route
    }
}
