/// What a supervisor needs to run an instance.
public struct InstanceSpec: Codable, Hashable, Sendable {
    public var release: Int
    public var commit: CommitID
    /// Manifest digest in the registry's repository `bundles/APP`.
    public var bundle: Digest
    public var service: ServiceSpec
    /// All variables but those the supervisor adds (`PORT…`, `HOME`, `PATH` …): the service's, and `<NEED>_HOST`, `<NEED>_PORT_<NAME>`.
    public var environment: [String: String]
    public init(release: Int, commit: CommitID, bundle: Digest, service: ServiceSpec, environment: [String: String]) {
        self.release = release
        self.commit = commit
        self.bundle = bundle
        self.service = service
        self.environment = environment
    }
}

/// An order to start or stop an instance. Taken by the supervisor of its host; repeating it changes nothing.
public struct InstanceRequested: Event {
    public static let type: EventType = "instance.requested"
    public enum Action: String, Codable, Hashable, Sendable { case start, stop }
    public var instance: InstanceID
    public var host: HostName
    public var action: Action
    /// With `start`.
    public var spec: InstanceSpec?
    public var deployment: DeploymentID?
    public var subject: String { instance.text }
    public init(instance: InstanceID, host: HostName, action: Action, spec: InstanceSpec? = nil, deployment: DeploymentID? = nil) {
        self.instance = instance
        self.host = host
        self.action = action
        self.spec = spec
        self.deployment = deployment
    }
}

/// A process of the instance runs; it may not answer yet.
public struct InstanceStarted: Event {
    public static let type: EventType = "instance.started"
    public var instance: InstanceID
    public var host: HostName
    public var pid: Int32
    public var subject: String { instance.text }
    public init(instance: InstanceID, host: HostName, pid: Int32) {
        self.instance = instance
        self.host = host
        self.pid = pid
    }
}

/// The instance passes its health check and can take work.
public struct InstanceReady: Event {
    public static let type: EventType = "instance.ready"
    public var instance: InstanceID
    public var host: HostName
    public var release: Int
    /// An IP address, and the port of each name; `first` is the name of the one that `$PORT` holds.
    public var address: String
    public var ports: [String: Int]
    public var first: String?
    public var subject: String { instance.text }
    public init(instance: InstanceID, host: HostName, release: Int, address: String, ports: [String: Int], first: String?) {
        self.instance = instance
        self.host = host
        self.release = release
        self.address = address
        self.ports = ports
        self.first = first
    }
}

/// The instance was ready and no longer passes its health check, though its process lives.
public struct InstanceUnready: Event {
    public static let type: EventType = "instance.unready"
    public var instance: InstanceID
    public var host: HostName
    public var reason: String
    public var subject: String { instance.text }
    public init(instance: InstanceID, host: HostName, reason: String) {
        self.instance = instance
        self.host = host
        self.reason = reason
    }
}

/// The instance's process is gone, or could not be started.
public struct InstanceExited: Event {
    public static let type: EventType = "instance.exited"
    public var instance: InstanceID
    public var host: HostName
    /// True when it had been told to stop. Otherwise it is started again after `restartIn` seconds.
    public var expected: Bool
    /// Exit status, or the signal that ended it; both nil when unknown or never started.
    public var status: Int?
    public var signal: Int?
    /// For people: what happened.
    public var reason: String
    /// Its last lines, at most 20.
    public var tail: [String]
    public var restartIn: Double?
    /// True when it did not end by itself: the suite or the machine was stopped, and it is started again as it was.
    public var interrupted: Bool?
    public var subject: String { instance.text }
    public init(
        instance: InstanceID, host: HostName, expected: Bool, status: Int?, signal: Int?, reason: String, tail: [String],
        restartIn: Double?, interrupted: Bool? = nil
    ) {
        self.instance = instance
        self.host = host
        self.expected = expected
        self.status = status
        self.signal = signal
        self.reason = reason
        self.tail = tail
        self.restartIn = restartIn
        self.interrupted = interrupted
    }
}

/// A host's supervisor is there.
public struct HostJoined: Event {
    public static let type: EventType = "host.joined"
    public var host: HostName
    public var address: String
    public var version: String
    /// `root`, or `single-user` when pushed code runs as the user of the suite.
    public var mode: String
    public var cores: Int
    /// Bytes.
    public var memory: Int64
    public var subject: String { host.text }
    public init(host: HostName, address: String, version: String, mode: String, cores: Int, memory: Int64) {
        self.host = host
        self.address = address
        self.version = version
        self.mode = mode
        self.cores = cores
        self.memory = memory
    }
}
