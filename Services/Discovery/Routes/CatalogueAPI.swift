import Contracts
import HTTPKit
import Hummingbird
import Kit

/// What discovery knows, for people and scripts: `GET /v1/catalogue` and `GET /v1/routes`.
struct CatalogueAPI: Sendable {
    let loop: Loop<Catalogue>

    func add(to routes: Routes) {
        routes.get("/v1/catalogue", .role(.viewer)) { _, context in
            let instances = try await loop.read { $0.instances.values }
            return try .json(instances.filter { maySee($0.id.app, $0.id.environment, context) }.map(CatalogueEntry.init))
        }
        routes.get("/v1/routes", .role(.viewer)) { _, context in
            let state = try await loop.read { $0 }
            let table = IngressTable(state)
            return try .json(state.routes.values.filter { maySee($0.app, $0.environment, context) }.map { RouteEntry($0, table) })
        }
    }

    /// A token for one app or environment sees that one.
    private func maySee(_ app: AppName, _ environment: EnvName, _ context: SlipwayContext) -> Bool {
        context.principal?.sees(app, environment) ?? false
    }
}

/// An instance, as `/v1/catalogue` shows it.
struct CatalogueEntry: Codable, Hashable, Sendable {
    var instance: InstanceID
    var host: HostName
    var release: Int
    var address: String
    var ports: [String: Int]
    var healthy: Bool
    var reason: String
    var since: Timestamp
    /// The name by which DNS finds its service.
    var name: String

    init(_ instance: Instance) {
        self.instance = instance.id
        host = instance.host
        release = instance.release
        address = instance.address
        ports = instance.ports
        healthy = instance.healthy
        reason = instance.reason
        since = instance.since
        name = "\(instance.id.service).\(instance.id.app).\(instance.id.environment).slipway"
    }
}

/// A route, as `/v1/routes` shows it.
struct RouteEntry: Codable, Hashable, Sendable {
    struct Server: Codable, Hashable, Sendable {
        var instance: InstanceID
        var address: String
        var port: Int
        /// `ready`, `draining` or `out`.
        var state: String
    }
    var app: AppName
    var environment: EnvName
    var service: ServiceName
    var hosts: [String]
    var servers: [Server]
    /// Orders that the ingress has not acknowledged yet.
    var pending: Int

    init(_ route: Route, _ table: IngressTable) {
        app = route.app
        environment = route.environment
        service = route.service
        hosts = route.hosts
        pending = route.waiting.count
        servers = route.slots.map { slot in
            let state =
                switch table.backends[route.backend]?.servers[slot.index]?.mode {
                case .ready: "ready"
                case .drain: "draining"
                case .out, nil: "out"
                }
            return Server(instance: slot.server.instance, address: slot.server.address, port: slot.server.port, state: state)
        }
    }
}
