// swift-format-ignore-file: NeverUseForceTry
// Fixed names in tests: a wrong one should stop them.

import Contracts
import Kit

@testable import DeployerService

/// The deployer's core in a world without clocks: a supervisor and a discovery that do what a test says, messages that travel one by one.
struct World {
    var state = DeployerState()
    /// All that was published, by the deployer and by the others, in order.
    var log: [Envelope] = []
    /// Durable timers that are set.
    var timers: [String: Double] = [:]
    var now = Timestamp(milliseconds: 1_700_000_000_000)
    /// Published by the deployer, not yet seen by the one it is for.
    var orders: [Envelope] = []
    private var count = 0

    static let app = try! AppName("shop")
    static let production = try! EnvName("production")
    static let staging = try! EnvName("staging")
    static let host = try! HostName("host1")

    init() { take(.notice(.configured(ingressPort: 7780))) }

    mutating func freshID() -> EventID {
        count += 1
        return EventID.derived(from: "world/\(count)")
    }

    // MARK: Into the core

    mutating func take(_ input: Input<DeployerNotice>, cause: EventID? = nil, actor: String? = nil) {
        var step = Step<DeployerEffect>(now: now, host: Self.host, cause: cause ?? freshID(), actor: actor, component: "deployer")
        DeployerCore.handle(input, &state, &step)
        for wake in step.wakes { timers[wake.key] = wake.seconds }
        for envelope in step.events {
            log.append(envelope)
            if [InstanceRequested.type, RouteRequested.type].contains(envelope.type) { orders.append(envelope) }
        }
    }

    /// Hands an event of somebody else to the core.
    @discardableResult
    mutating func deliver<E: Event>(_ event: E, actor: String? = "ada") -> EventID {
        let envelope = Envelope(
            id: freshID(), source: "test@host1", type: E.type, subject: event.subject, time: now, data: try! event.json(), actor: actor)
        deliver(envelope)
        return envelope.id
    }
    mutating func deliver(_ envelope: Envelope) {
        log.append(envelope)
        take(.event(envelope), cause: envelope.id, actor: envelope.actor)
    }
    /// Fires the timer whose key begins so.
    mutating func fire(_ prefix: String) {
        guard let key = timers.keys.sorted().first(where: { $0.hasPrefix(prefix) }) else { return }
        now = now.adding(seconds: timers[key] ?? 0)
        timers[key] = nil
        take(.timer(key))
    }

    // MARK: Orders

    mutating func release(_ number: Int, _ config: ReleaseConfig) {
        deliver(
            ReleaseCreated(
                app: Self.app, number: number, ref: try! RefName("refs/heads/main"), commit: Self.commit(number), run: number,
                title: "change \(number)", bundle: try! Digest("sha256:" + String(repeating: "\(number % 10)", count: 64)), config: config))
    }
    static func commit(_ number: Int) -> CommitID { try! CommitID(String(repeating: "\(number % 10)", count: 40)) }

    mutating func deploy(_ release: Int?, _ environment: EnvName? = nil) -> EventID {
        deliver(DeployRequested(app: Self.app, environment: environment, release: release))
    }
    mutating func rollback(to: Int? = nil, _ environment: EnvName? = nil) -> EventID {
        deliver(RollbackRequested(app: Self.app, environment: environment, to: to))
    }

    // MARK: The others

    /// The orders to start that nobody has answered.
    var starts: [InstanceRequested] { orders.compactMap { $0.as(InstanceRequested.self) }.filter { $0.action == .start } }
    var stops: [InstanceRequested] { orders.compactMap { $0.as(InstanceRequested.self) }.filter { $0.action == .stop } }
    var routes: [RouteRequested] { orders.compactMap { $0.as(RouteRequested.self) } }

    mutating func ready(_ id: InstanceID, release: Int = 1, port: Int? = nil) {
        orders.removeAll { $0.as(InstanceRequested.self).map { $0.instance == id && $0.action == .start } ?? false }
        deliver(InstanceStarted(instance: id, host: Self.host, pid: 1))
        deliver(
            InstanceReady(
                instance: id, host: Self.host, release: release, address: "127.0.0.1", ports: ["http": port ?? 20_000 + id.number],
                first: "http"))
    }
    /// The suite was stopped and is back: the deployer begins again, the supervisor says what did not survive.
    mutating func restart(_ ids: [InstanceID]) {
        take(.notice(.configured(ingressPort: 7780)))
        for id in ids {
            deliver(
                InstanceExited(
                    instance: id, host: Self.host, expected: false, status: nil, signal: nil, reason: "was stopped together with the suite",
                    tail: [], restartIn: 0.1, interrupted: true))
        }
    }
    mutating func exit(_ id: InstanceID, expected: Bool, reason: String = "exited with status 1", tail: [String] = []) {
        let answered: InstanceRequested.Action = expected ? .stop : .start
        orders.removeAll { $0.as(InstanceRequested.self).map { $0.instance == id && $0.action == answered } ?? false }
        deliver(
            InstanceExited(
                instance: id, host: Self.host, expected: expected, status: expected ? 0 : 1, signal: nil, reason: reason, tail: tail,
                restartIn: expected ? nil : 1))
    }
    /// Discovery answers the oldest order for a route; `drain`: and says that what left is done.
    mutating func answerRoute(drain: Bool, ingress: Bool = true, refused: [String: String]? = nil) {
        guard let index = orders.firstIndex(where: { $0.type == RouteRequested.type }), let order = orders[index].as(RouteRequested.self)
        else { return }
        let id = orders.remove(at: index).id
        deliver(
            RouteChanged(
                app: order.app, environment: order.environment, service: order.service, hosts: order.hosts, servers: order.servers,
                order: id, ingress: ingress, refused: refused))
        if drain { self.drain(id, order) }
    }
    mutating func drain(_ id: EventID, _ order: RouteRequested) {
        deliver(RouteDrained(app: order.app, environment: order.environment, service: order.service, instances: [], order: id))
    }

    /// Everything goes well until nothing is left to do.
    mutating func settle() {
        while let order = orders.first {
            if let instance = order.as(InstanceRequested.self) {
                if instance.action == .start {
                    ready(instance.instance, release: instance.spec?.release ?? 0)
                } else {
                    exit(instance.instance, expected: true)
                }
            } else {
                answerRoute(drain: true)
            }
        }
    }

    // MARK: What happened

    func events<E: Event>(_ type: E.Type) -> [E] { log.compactMap { $0.as(type) } }
    /// The terminal events that answer an order.
    func ends(of order: EventID) -> [String] {
        log.compactMap { envelope in
            if let event = envelope.as(DeploySucceeded.self), event.head.order == order { return "live" }
            if let event = envelope.as(DeployRolledBack.self), event.head.order == order { return "rolled back" }
            if let event = envelope.as(DeployFailed.self), event.order == order { return "rejected" }
            return nil
        }
    }
    func environment(_ name: EnvName = World.production) -> EnvironmentRecord? { state.environment(Self.app, name) }
}

/// Configurations to deploy.
enum Fixture {
    static func service(_ name: String, needs: [String] = [], instances: Int = 1, port: Bool = true, grace: Double = 30) -> ServiceSpec {
        ServiceSpec(
            name: try! ServiceName(name), run: "./\(name)", ports: port ? [PortSpec(name: try! ServiceName("http"), number: 8080)] : [],
            instances: instances, needs: needs.map { try! ServiceName($0) },
            health: HealthSpec(check: port ? .http(path: "/healthz") : .running, grace: grace), environment: ["LOG": "info"])
    }
    static func config(_ services: [ServiceSpec], routes: [RouteSpec] = [], chain: [EnvironmentSpec]? = nil) -> ReleaseConfig {
        ReleaseConfig(
            services: services, routes: routes,
            environments: chain ?? [EnvironmentSpec(name: World.production, from: .defaultBranch)])
    }
    static let web = config([service("web")])
    static let chain = [
        EnvironmentSpec(name: World.staging, from: .branch("main")),
        EnvironmentSpec(name: World.production, from: .environment(World.staging)),
    ]
}
