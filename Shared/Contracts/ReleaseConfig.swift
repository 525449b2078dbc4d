/// What a release's `slipway.yml` (or `Procfile`) came to, every default filled in. Part of the release, so immutable.
public struct ReleaseConfig: Codable, Hashable, Sendable {
    public var services: [ServiceSpec]
    public var routes: [RouteSpec]
    public var environments: [EnvironmentSpec]
    public init(services: [ServiceSpec], routes: [RouteSpec], environments: [EnvironmentSpec]) {
        self.services = services
        self.routes = routes
        self.environments = environments
    }
}

/// One kind of long-running process of an app.
public struct ServiceSpec: Codable, Hashable, Sendable {
    public var name: ServiceName
    /// A shell command line, run in the unpacked bundle.
    public var run: String
    /// Named ports, in the file's order; each instance gets a free port for each. The first is `$PORT`.
    public var ports: [PortSpec]
    public var instances: Int
    /// Services that must be ready before this one starts.
    public var needs: [ServiceName]
    public var health: HealthSpec
    public var stop: StopSpec
    public var limits: LimitSpec
    public var environment: [String: String]
    public init(
        name: ServiceName, run: String, ports: [PortSpec] = [], instances: Int = 1, needs: [ServiceName] = [],
        health: HealthSpec = HealthSpec(), stop: StopSpec = StopSpec(), limits: LimitSpec = LimitSpec(),
        environment: [String: String] = [:]
    ) {
        self.name = name
        self.run = run
        self.ports = ports
        self.instances = instances
        self.needs = needs
        self.health = health
        self.stop = stop
        self.limits = limits
        self.environment = environment
    }
}

public struct PortSpec: Codable, Hashable, Sendable {
    /// Such as `http`; it becomes `$PORT_HTTP`.
    public var name: ServiceName
    /// What a container would listen on; runtime `process` gives a free one instead.
    public var number: Int
    public init(name: ServiceName, number: Int) {
        self.name = name
        self.number = number
    }
}

/// When an instance counts as ready, and later as well.
public struct HealthSpec: Codable, Hashable, Sendable {
    public enum Check: Codable, Hashable, Sendable {
        /// A GET of this path on the first port answers 2xx or 3xx.
        case http(path: String)
        /// The first port accepts a connection. The default of a service with ports.
        case tcp
        /// The process has been up for `healthy` × `interval`. The default of a service without ports.
        case running
    }
    public var check: Check?
    /// Seconds between two checks, and for one.
    public var interval: Double
    public var timeout: Double
    /// Checks in a row that must pass.
    public var healthy: Int
    /// Seconds from the start until it must be ready.
    public var grace: Double
    public init(check: Check? = nil, interval: Double = 2, timeout: Double = 1, healthy: Int = 1, grace: Double = 30) {
        self.check = check
        self.interval = interval
        self.timeout = timeout
        self.healthy = healthy
        self.grace = grace
    }
}

public struct StopSpec: Codable, Hashable, Sendable {
    /// Such as `TERM`.
    public var signal: String
    /// Seconds until SIGKILL.
    public var timeout: Double
    public init(signal: String = "TERM", timeout: Double = 10) {
        self.signal = signal
        self.timeout = timeout
    }
}

public struct LimitSpec: Codable, Hashable, Sendable {
    /// Bytes; nil: no limit of its own.
    public var memory: Int64?
    /// Cores, such as 0.5.
    public var cpu: Double?
    /// Open descriptors.
    public var files: Int?
    /// Processes and threads.
    public var processes: Int
    public init(memory: Int64? = nil, cpu: Double? = nil, files: Int? = nil, processes: Int = 512) {
        self.memory = memory
        self.cpu = cpu
        self.files = files
        self.processes = processes
    }
}

/// A host name that leads to a service of this app; `APP.localhost` is always there beside these.
public struct RouteSpec: Codable, Hashable, Sendable {
    public var host: String
    public var service: ServiceName
    public init(host: String, service: ServiceName) {
        self.host = host
        self.service = service
    }
}

/// A target of releases.
public struct EnvironmentSpec: Codable, Hashable, Sendable {
    /// What feeds it.
    public enum Source: Codable, Hashable, Sendable {
        /// Pushes to a branch; `*` is every branch.
        case branch(String)
        /// The repository's default branch.
        case defaultBranch
        /// Releases that are live in another environment, on request.
        case environment(EnvName)
    }
    public var name: EnvName
    public var from: Source
    public init(name: EnvName, from: Source) {
        self.name = name
        self.from = from
    }
}

extension [EnvironmentSpec] {
    /// The last environment in the chain: the one that an order without an environment means, and that `APP.localhost` leads to.
    /// Of those that feed no other one, the last in the file.
    public var lastInChain: EnvName? {
        let feeding = Set(compactMap { if case .environment(let name) = $0.from { name } else { nil } })
        return last { !feeding.contains($0.name) }?.name ?? last?.name
    }
}
