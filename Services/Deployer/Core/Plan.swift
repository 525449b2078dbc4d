import Contracts

/// What a deployment will do, worked out before anything is done: its instances in tiers, and the steps in words.
struct Plan: Hashable, Sendable {
    var release: ReleaseRecord
    var tiers: [[InstanceID]]
    var steps: [PlanStep]
    /// True when the release is live as it is and nothing has to be done.
    var isNothing = false

    static func make(_ release: ReleaseRecord, in environment: EnvironmentRecord, chain: [EnvironmentSpec], instances: [InstanceRecord])
        -> Plan
    {
        let old = instances.filter { $0.generation == environment.live?.generation && $0.state != .stopping }
        if environment.live?.release == release.number, isWhole(release, old) {
            let step = PlanStep(kind: .route, service: nil, instances: [], text: "v\(release.number) is already live: nothing to do")
            return Plan(release: release, tiers: [], steps: [step], isNothing: true)
        }
        var counters = environment.counters
        var tiers: [[InstanceID]] = []
        var steps: [PlanStep] = []
        for tier in Self.tiers(release.config.services) {
            var ids: [InstanceID] = []
            for service in tier where service.instances > 0 {
                let first = (counters[service.name.text] ?? 0) + 1
                let new = (first..<first + service.instances).map {
                    InstanceID(app: environment.app, environment: environment.name, service: service.name, number: $0)
                }
                counters[service.name.text] = first + service.instances - 1
                let after = service.needs.isEmpty ? "" : ", once \(service.needs.map(\.text).joined(separator: " and ")) is ready"
                steps.append(
                    PlanStep(kind: .start, service: service.name, instances: new, text: "start \(names(new)) of v\(release.number)\(after)")
                )
                ids += new
            }
            if !ids.isEmpty { tiers.append(ids) }
        }
        let all = tiers.flatMap { $0 }
        let hosts = Hosts.of(release.config, app: environment.app, environment: environment.name, chain: chain)
        for (service, names) in hosts.sorted(by: { $0.key < $1.key }) {
            let to = all.filter { $0.service.text == service }
            guard !to.isEmpty else { continue }
            steps.append(
                PlanStep(
                    kind: .route, service: to[0].service, instances: to, text: "lead \(names.joined(separator: ", ")) to \(Self.names(to))")
            )
        }
        let gone = environment.routes.keys.sorted().filter { service in
            !all.contains { $0.service.text == service } || hosts[service] == nil
        }
        for service in gone {
            guard let name = try? ServiceName(service), let hosts = environment.routes[service]?.hosts else { continue }
            steps.append(PlanStep(kind: .route, service: name, instances: [], text: "remove the route of \(hosts.joined(separator: ", "))"))
        }
        if !old.isEmpty {
            let serving = old.map(\.id).filter { id in environment.routes.values.contains { $0.servers.contains { $0.instance == id } } }
            if !serving.isEmpty {
                steps.append(PlanStep(kind: .drain, service: nil, instances: serving, text: "let \(names(serving)) finish their requests"))
            }
            steps.append(PlanStep(kind: .stop, service: nil, instances: old.map(\.id), text: "stop \(names(old.map(\.id)))"))
        }
        return Plan(release: release, tiers: tiers, steps: steps)
    }

    /// Whether all instances of the release are there and none has ended for good.
    private static func isWhole(_ release: ReleaseRecord, _ instances: [InstanceRecord]) -> Bool {
        release.config.services.allSatisfy { service in
            instances.filter { $0.id.service == service.name && $0.state != .ended }.count >= service.instances
        }
    }

    /// Services in tiers: each needs only services of the tiers before it. Where an outside author made a circle, what is in it
    /// comes last, together: the scheduler refuses circles.
    static func tiers(_ services: [ServiceSpec]) -> [[ServiceSpec]] {
        var left = services.sorted { $0.name < $1.name }
        var done: Set<ServiceName> = []
        var tiers: [[ServiceSpec]] = []
        let known = Set(services.map(\.name))
        while !left.isEmpty {
            let ready = left.filter { $0.needs.allSatisfy { done.contains($0) || !known.contains($0) } }
            let tier = ready.isEmpty ? left : ready
            tiers.append(tier)
            done.formUnion(tier.map(\.name))
            left.removeAll { done.contains($0.name) }
        }
        return tiers
    }

    /// `web/3, web/4`.
    static func names(_ ids: [InstanceID]) -> String { ids.map { "\($0.service)/\($0.number)" }.joined(separator: ", ") }
}

/// Which host names lead to which service.
enum Hosts {
    /// By service; services without a host name are not in it.
    ///
    /// `APP.localhost` leads to the last environment in the chain, `ENV.APP.localhost` to each. Names of `routes:` can lead to one
    /// place only, so they are the last environment's.
    static func of(_ config: ReleaseConfig, app: AppName, environment: EnvName, chain: [EnvironmentSpec]) -> [String: [String]] {
        let isLast = chain.lastInChain == environment
        var hosts: [String: [String]] = [:]
        if let main = main(config) { hosts[main.text] = (isLast ? ["\(app).localhost"] : []) + ["\(environment).\(app).localhost"] }
        guard isLast else { return hosts }
        for route in config.routes where config.services.contains(where: { $0.name == route.service && !$0.ports.isEmpty }) {
            if hosts[route.service.text]?.contains(route.host) != true { hosts[route.service.text, default: []].append(route.host) }
        }
        return hosts
    }

    /// The service that the app's own names lead to: `web`, or the only one with a port, or the first in `routes:`.
    static func main(_ config: ReleaseConfig) -> ServiceName? {
        let open = config.services.filter { !$0.ports.isEmpty }
        if let web = open.first(where: { $0.name.text == "web" }) { return web.name }
        if open.count == 1 { return open[0].name }
        return config.routes.first { route in open.contains { $0.name == route.service } }?.service
    }
}
