import Contracts
import Kit

@testable import DiscoveryService

/// The catalogue's core without loop or bus: takes events, keeps what it published and what it wants done.
struct Desk {
    var state = CatalogueState()
    var published: [Envelope] = []
    var effects: [DiscoveryEffect] = []
    var notes: [String] = []
    var now = Timestamp(milliseconds: 1_790_000_000_000)
    private var count = 0

    /// Handles an event and returns its id.
    @discardableResult
    mutating func take<E: Event>(_ event: E) throws -> EventID {
        let id = nextID()
        let envelope = Envelope(
            id: id, source: "test@host1", type: E.type, subject: event.subject, time: now, data: try event.json(), actor: "ada")
        try handle(.event(envelope), id)
        return id
    }

    mutating func take(_ notice: DiscoveryNotice) throws { try handle(.notice(notice), nextID()) }

    /// Plays an ingress that obeys at once and has no requests.
    mutating func obey(ingress: Bool = true) throws {
        while !effects.isEmpty {
            switch effects.removeFirst() {
            case .zone: continue
            case .lead(let route, let generation): try take(.led(route: route, generation: generation, ingress: ingress))
            case .drain(let route, let generation): try take(.drained(route: route, generation: generation, late: 0))
            }
        }
    }

    private mutating func handle(_ input: Input<DiscoveryNotice>, _ cause: EventID) throws {
        var step = Step<DiscoveryEffect>(now: now, host: try HostName("host1"), cause: cause, actor: "ada", component: "discovery")
        Catalogue.handle(input, &state, &step)
        published += step.events
        effects += step.effects.map(\.effect)
        notes += step.notes
    }

    private mutating func nextID() -> EventID {
        count += 1
        return EventID.derived(from: "test/\(count)")
    }

    func all<E: Event>(_ type: E.Type) -> [E] { published.compactMap { $0.as(type) } }
    var types: [String] { published.map(\.type.text) }
}

enum Sample {
    static func id(_ number: Int, app: String = "shop", env: String = "production", service: String = "web") throws -> InstanceID {
        InstanceID(app: try AppName(app), environment: try EnvName(env), service: try ServiceName(service), number: number)
    }
    static func ready(_ id: InstanceID, port: Int, address: String = "127.0.0.1", ports: [String: Int]? = nil) throws -> InstanceReady {
        InstanceReady(
            instance: id, host: try HostName("host1"), release: 1, address: address, ports: ports ?? ["http": port], first: "http")
    }
    static func unready(_ id: InstanceID) throws -> InstanceUnready {
        InstanceUnready(instance: id, host: try HostName("host1"), reason: "GET /healthz answered 500")
    }
    static func exited(_ id: InstanceID, expected: Bool = false, restartIn: Double? = 1) throws -> InstanceExited {
        InstanceExited(
            instance: id, host: try HostName("host1"), expected: expected, status: 1, signal: nil, reason: "exited with status 1", tail: [],
            restartIn: restartIn)
    }
    static func route(
        _ servers: [(InstanceID, Int)], hosts: [String] = ["shop.localhost"], app: String = "shop", env: String = "production"
    )
        throws -> RouteRequested
    {
        RouteRequested(
            app: try AppName(app), environment: try EnvName(env), service: try ServiceName("web"), hosts: hosts,
            servers: servers.map { RouteServer(instance: $0.0, address: "127.0.0.1", port: $0.1) })
    }
}
