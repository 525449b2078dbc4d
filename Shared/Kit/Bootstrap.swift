import BusClient
import Contracts
import Foundation
import GRDB
import Logging
import ServiceLifecycle
import Storage

/// What a component is given at start.
public struct Boot: Sendable {
    public let component: Component
    public let config: SuiteConfig
    public let logger: Logger
    public let key: ComponentKey
    /// Not to be used by the bus itself.
    public let bus: BusClient
    public let health: Health

    public init(component: Component, config: SuiteConfig, logger: Logger, key: ComponentKey, bus: BusClient, health: Health) {
        self.component = component
        self.config = config
        self.logger = logger
        self.key = key
        self.bus = bus
        self.health = health
    }

    /// Its own data directory.
    public var directory: String { config.home.directory(component) }
    /// What its events carry as `source`.
    public var source: String { "\(component.rawValue)@\(config.host)" }
    public func now() -> Timestamp { .now() }

    /// Opens HOME/COMPONENT/state.sqlite with the loop's tables and the component's own, and drains its outbox to the bus.
    public func openStore(durability: Durability, migrations: (inout DatabaseMigrator) -> Void = { _ in }) throws -> Store {
        let store = try Store(path: "\(directory)/state.sqlite", durability: durability, migrations: migrations)
        if component != .bus { bus.setOutbox(StoredOutbox(store: store, logger: logger)) }
        return store
    }
}

/// Brings a component up: settings, keys, log, bus, signals; and down again. Turns problems into exit codes, once.
public enum Bootstrap {
    /// Runs until SIGTERM or SIGINT (exit 0), or until a service fails (exit 1). Wrong settings end with exit 2, a bus that
    /// never came with 75.
    public static func run(
        _ component: Component, _ options: ComponentOptions, _ make: @Sendable (Boot) async throws -> [any Service]
    ) async throws {
        do {
            let config = try SuiteConfig.load(options, environment: ProcessInfo.processInfo.environment)
            signal(SIGPIPE, SIG_IGN)
            Descriptors.raise()
            LoggingSystem.bootstrap { _ in LineLog() }
            LogLevel.now = config.logLevel
            let logger = Logger(label: component.rawValue)
            let hangup = Reload.onHangup(config, logger)
            defer { hangup.cancel() }
            // First, because it wants the key: a home that is none is not made one by asking.
            let boot = try Boot.make(component, config, logger)
            try Files.makeDirectory(config.home.directory(component), mode: component == .supervisor ? 0o711 : 0o700)
            let lock = try InstanceLock(directory: config.home.directory(component), component: component)
            let stop = StopRequest()
            let services = try await make(boot)
            // A service that is done, as the bus's is when it was drained, ends the others in order.
            var configuration = ServiceGroupConfiguration(
                services: ((component == .bus ? [] : [BusService(client: boot.bus)]) + services + [stop]).map {
                    ServiceGroupConfiguration.ServiceConfiguration(service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
                }, logger: logger)
            // What is under way is finished, but not for ever: a client that has gone silent must not keep a component from ending.
            configuration.maximumGracefulShutdownDuration = .seconds(60)
            configuration.maximumCancellationDuration = .seconds(15)
            let group = ServiceGroup(configuration: configuration)
            logger.info(
                "\(component.rawValue) \(Version.text) starts", metadata: ["home": "\(config.home.path)", "host": "\(config.host)"])
            do {
                try await group.run()
            } catch is CancellationError {
                logger.notice("\(component.rawValue) did not finish what was under way in a minute, and gives it up")
            }
            logger.info("\(component.rawValue) stops")
            withExtendedLifetime(lock) {}
        } catch let problem as Problem {
            let line = "slipway-\(component.rawValue): \(problem.message)\n" + (problem.hint.map { "  hint: \($0)\n" } ?? "")
            StandardError.write(line)
            exit(
                problem.code == .configuration || problem.code == .usage || problem.code == .invalidName
                    ? 2 : problem.code == .unavailable ? 75 : 1)
        }
    }
}

/// How many descriptors this process may hold.
public enum Descriptors {
    /// Some programs do something to each descriptor that they could have; those that are started from here inherit this.
    static let most: rlim_t = 65_536

    /// Raises the soft limit to the hard one: the customary 1024 is for programs that still use select(2).
    static func raise() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        let wanted = min(limit.rlim_max, most)
        guard limit.rlim_cur < wanted else { return }
        limit.rlim_cur = wanted
        // Refused: it stays as it is.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// The soft limit now.
    public static var limit: Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }
}

extension Boot {
    /// Loads the component's key and makes its (not yet running) bus client.
    public static func make(_ component: Component, _ config: SuiteConfig, _ logger: Logger) throws -> Boot {
        let key = try Keyring.load(component.rawValue, config)
        var configuration = BusClientConfiguration(
            endpoint: config.busEndpoint, serverKey: key.serverKey, publicKey: key.publicKey, secretKey: key.secretKey,
            clientName: component.rawValue, version: Version.text)
        configuration.memoryFile = "\(config.home.directory(component))/log-seen.json"
        configuration.alternatives = Array(config.bus.endpoints.dropFirst())
        let bus = try BusClient(configuration: configuration, logger: logger)
        return Boot(component: component, config: config, logger: logger, key: key, bus: bus, health: Health())
    }
}

/// Keeps a second process of the same component out of its directory. The kernel lets go of it however the process ends.
final class InstanceLock: Sendable {
    private let descriptor: Int32

    init(directory: String, component: Component) throws {
        let path = "\(directory)/lock"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Problem(.configuration, "cannot open \(path): \(String(cString: strerror(errno)))") }
        // The one before may still be on its way out.
        for attempt in 0..<200 {
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return }
            guard attempt < 199 else { break }
            usleep(50_000)
        }
        close(descriptor)
        throw Problem(
            .configuration, "another slipway-\(component.rawValue) works in \(directory)", hint: "stop it first: slipway down")
    }
    deinit { close(descriptor) }
}

/// The bus client as a service of the group. Throws `Problem` (`unavailable`, exit code 75) when the bus has never been there in
/// `grace` seconds from the start; one that goes away later is waited for.
struct BusService: Service {
    static let grace = 60.0
    let client: BusClient
    var grace = Self.grace

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await client.run() }
                group.addTask {
                    guard await !client.connected(within: grace), !Task.isCancelled else { return }
                    throw Problem(
                        .unavailable, "the bus has not been there for \(Int(grace)) s: \(client.lastError ?? "nothing answers")",
                        hint: "slipway status; a component started by hand needs the suite beside it: slipway up")
                }
                while try await group.next() != nil {}
            }
        }
    }
}

/// The component's outbox, as the bus client wants it.
struct StoredOutbox: OutboxSource {
    let store: Store
    let logger: Logger
    var id: UUID { store.outboxID }

    func pending(after number: UInt64, limit: Int) async throws -> [OutboxEntry] {
        try await store.db.read { db in
            try Outbox.pending(after: number, limit: limit, in: db).map {
                OutboxEntry(number: $0.number, topic: $0.topic, id: $0.id, payload: $0.payload)
            }
        }
    }

    func settle(upTo number: UInt64, refused: [PublishException]) async throws {
        for exception in refused {
            logger.critical(
                "the bus refused an event for good; it is set aside in slipway_dead_letters",
                metadata: ["number": "\(exception.number)", "status": "\(exception.status)"])
        }
        let statuses = Dictionary(refused.map { ($0.number, $0.status) }, uniquingKeysWith: { first, _ in first })
        try await store.db.write { db in try Outbox.settle(upTo: number, refused: statuses, in: db) }
    }
}

/// One line an entry on standard error, which the supervisor keeps: time, level, component, text, metadata.
struct LineLog: LogHandler {
    var logLevel: Logger.Level {
        get { LogLevel.now }
        set { LogLevel.now = newValue }
    }
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {
        let pairs = metadata.merging(event.metadata ?? [:]) { _, new in new }.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }
            .joined()
        let text = "\(event.message)\(pairs)".replacing("\n", with: "\\n").replacing("\u{1B}", with: "\\e")
        StandardError.write("\(Timestamp.now()) \(event.level.rawValue.uppercased()) \(text)\n")
    }
}
