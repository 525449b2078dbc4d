/// Where requests of a route go.
public struct RouteServer: Codable, Hashable, Sendable {
    public var instance: InstanceID
    public var address: String
    public var port: Int
    public init(instance: InstanceID, address: String, port: Int) {
        self.instance = instance
        self.address = address
        self.port = port
    }
}

/// An order to lead host names to these servers and to no others. Taken by `discovery`. No servers: the route is removed.
public struct RouteRequested: Event {
    public static let type: EventType = "route.requested"
    public var app: AppName
    public var environment: EnvName
    public var service: ServiceName
    /// Host names without port, lower case.
    public var hosts: [String]
    public var servers: [RouteServer]
    public var subject: String { "\(app)/\(environment)/\(service)" }
    public init(app: AppName, environment: EnvName, service: ServiceName, hosts: [String], servers: [RouteServer]) {
        self.app = app
        self.environment = environment
        self.service = service
        self.hosts = hosts
        self.servers = servers
    }
}

/// New requests go to these servers only. Those that left may still be finishing requests until `route.drained`.
public struct RouteChanged: Event {
    public static let type: EventType = "route.changed"
    public var app: AppName
    public var environment: EnvName
    public var service: ServiceName
    public var hosts: [String]
    public var servers: [RouteServer]
    /// The `route.requested` that this answers.
    public var order: EventID
    /// False when no ingress is installed: instances are then reachable on their own ports only.
    public var ingress: Bool
    /// Host names of the order that this route does not get, and why; nil: it got all.
    public var refused: [String: String]?
    public var subject: String { "\(app)/\(environment)/\(service)" }
    public init(
        app: AppName, environment: EnvName, service: ServiceName, hosts: [String], servers: [RouteServer], order: EventID, ingress: Bool,
        refused: [String: String]? = nil
    ) {
        self.app = app
        self.environment = environment
        self.service = service
        self.hosts = hosts
        self.servers = servers
        self.order = order
        self.ingress = ingress
        self.refused = refused
    }
}

/// The servers that left the route have finished their requests (or their time to do so is over).
public struct RouteDrained: Event {
    public static let type: EventType = "route.drained"
    public var app: AppName
    public var environment: EnvName
    public var service: ServiceName
    public var instances: [InstanceID]
    /// The `route.requested` that made them leave.
    public var order: EventID
    public var subject: String { "\(app)/\(environment)/\(service)" }
    public init(app: AppName, environment: EnvName, service: ServiceName, instances: [InstanceID], order: EventID) {
        self.app = app
        self.environment = environment
        self.service = service
        self.instances = instances
        self.order = order
    }
}

/// An instance is in the catalogue.
public struct ServiceRegistered: Event {
    public static let type: EventType = "service.registered"
    public var instance: InstanceID
    public var host: HostName
    public var address: String
    public var ports: [String: Int]
    public var subject: String { instance.text }
    public init(instance: InstanceID, host: HostName, address: String, ports: [String: Int]) {
        self.instance = instance
        self.host = host
        self.address = address
        self.ports = ports
    }
}

/// An instance has left the catalogue.
public struct ServiceDeregistered: Event {
    public static let type: EventType = "service.deregistered"
    public var instance: InstanceID
    public var subject: String { instance.text }
    public init(instance: InstanceID) { self.instance = instance }
}

/// An instance in the catalogue became healthy or unhealthy.
public struct HealthChanged: Event {
    public static let type: EventType = "health.changed"
    public var instance: InstanceID
    public var healthy: Bool
    public var reason: String
    public var subject: String { instance.text }
    public init(instance: InstanceID, healthy: Bool, reason: String) {
        self.instance = instance
        self.healthy = healthy
        self.reason = reason
    }
}
