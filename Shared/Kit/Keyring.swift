import CZeroMQ
import Contracts
import Foundation

/// What a client of the bus needs to join: HOME/keys/NAME.json, mode 0600. Keys are Z85 (ZeroMQ RFC 32).
public struct ComponentKey: Codable, Sendable, Hashable {
    public var name: String
    public var endpoint: String
    public var serverKey: String
    public var publicKey: String
    public var secretKey: String
    /// A component's bearer token for the HTTP of its siblings.
    public var token: String?
}

// Whoever prints a value that holds a key, as the service group does at level debug, must not print the secret.
extension ComponentKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String { "key of \(name)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["name": name]) }
}

/// What a client of the bus may do, and the key by which it is known: a row of HOME/keys/clients.json.
public struct ClientKey: Codable, Sendable, Hashable {
    public var name: String
    public var publicKey: String
    /// Topic filters.
    public var publish: [String]
    public var subscribe: [String]
    /// `service.method` filters.
    public var call: [String]
    /// Names of services.
    public var serve: [String]
    /// Patterns of the subjects that its events may be about; nil: any.
    public var subject: [String]?
    /// Durable names that it may use; nil: any.
    public var consumers: [String]?
    /// True: it may have no durable consumer.
    public var ephemeral_only: Bool?
    /// True: it may copy the log as a replica does.
    public var replicate: Bool?
    public init(
        name: String, publicKey: String, publish: [String], subscribe: [String], call: [String], serve: [String], subject: [String]? = nil,
        consumers: [String]? = nil, ephemeral_only: Bool? = nil, replicate: Bool? = nil
    ) {
        self.name = name
        self.publicKey = publicKey
        self.publish = publish
        self.subscribe = subscribe
        self.call = call
        self.serve = serve
        self.subject = subject
        self.consumers = consumers
        self.ephemeral_only = ephemeral_only
        self.replicate = replicate
    }
}

/// HOME/keys: made once, checked at every start.
public enum Keyring {
    /// Makes what is missing: directories, the bus's and the components' keys, their permissions, the operator's token.
    /// Returns the operator's token when it was made just now, so that it can be shown once.
    @discardableResult
    public static func prepare(_ config: SuiteConfig) throws -> String? {
        try Files.makeDirectory(config.home.path, mode: 0o711)
        for path in [config.home.keys, config.home.run] { try Files.makeDirectory(path, mode: 0o700) }
        try Files.makeDirectory(config.home.logs, mode: 0o711)
        let lock = try FileLock("\(config.home.keys)/lock")
        defer { withExtendedLifetime(lock) {} }
        for component in Component.allCases {
            try Files.makeDirectory(config.home.directory(component), mode: component == .supervisor ? 0o711 : 0o700)
        }
        let bus = try existing("bus", config) ?? makeKey("bus", endpoint: config.busEndpoint, serverKey: nil, token: nil)
        try save(bus, config)
        var clients = try self.clients(config)
        var robots = try self.robots(config)
        for component in Component.allCases where component != .bus {
            var key: ComponentKey
            if let known = try existing(component.rawValue, config) {
                key = known
                key.endpoint = config.busEndpoint
                key.serverKey = bus.publicKey
            } else {
                key = try makeKey(component.rawValue, endpoint: config.busEndpoint, serverKey: bus.publicKey, token: Token.make())
            }
            try save(key, config)
            clients.removeAll { $0.name == component.rawValue }
            clients.append(permissions(component, publicKey: key.publicKey))
            if let token = key.token { robots[Token.hash(token)] = component.rawValue }
        }
        var made: String?
        let operatorFile = operatorTokenFile(config)
        if !FileManager.default.fileExists(atPath: operatorFile) {
            let token = Token.make()
            try Files.write(Data((token + "\n").utf8), to: operatorFile, mode: 0o600)
            // A new token voids the one whose file is gone.
            robots = robots.filter { $0.value != "admin" }
            robots[Token.hash(token)] = "admin"
            made = token
        } else if let data = try read(operatorFile) {
            // Written by a start that ended before the next file: it counts all the same.
            let token = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            robots = robots.filter { $0.value != "admin" }
            robots[Token.hash(token)] = "admin"
        }
        try Files.write(try Coding.encode(clients), to: clientsFile(config), mode: 0o600)
        try Files.write(try Coding.encode(robots), to: robotsFile(config), mode: 0o600)
        return made
    }

    /// Adds a client of the bus; the key is in nobody's file yet. Throws `Problem`: `conflict` when the name is taken, `invalid_name`
    /// for a name or a subject pattern that is none.
    public static func create(
        _ client: String, publish: [String], subscribe: [String], call: [String], serve: [String], subject: [String]? = nil,
        consumers: [String]? = nil, ephemeralOnly: Bool = false, replicate: Bool = false, _ config: SuiteConfig
    ) throws -> ComponentKey {
        let name = try KeyName(client).text
        for pattern in subject ?? [] { _ = try SubjectPattern(pattern) }
        // Two at the same time must not lose one of their keys.
        let lock = try FileLock("\(config.home.keys)/lock")
        defer { withExtendedLifetime(lock) {} }
        var clients = try self.clients(config)
        guard Component(rawValue: name) == nil, !clients.contains(where: { $0.name == name }) else {
            throw Problem(
                .conflict, "a key named '\(name)' exists",
                hint: "choose another name; 'slipway key rotate \(name)' replaces it, 'slipway key revoke \(name)' ends it")
        }
        let bus = try load("bus", config)
        let key = try makeKey(name, endpoint: config.busEndpoint, serverKey: bus.publicKey, token: nil)
        clients.append(
            ClientKey(
                name: name, publicKey: key.publicKey, publish: publish, subscribe: subscribe, call: call, serve: serve, subject: subject,
                consumers: consumers, ephemeral_only: ephemeralOnly ? true : nil, replicate: replicate ? true : nil))
        try Files.write(try Coding.encode(clients), to: clientsFile(config), mode: 0o600)
        return key
    }

    /// Ends a key: a running bus ends its sessions within two seconds. Throws `Problem`: `not_found`, and `conflict` for a component's.
    public static func revoke(_ client: String, _ config: SuiteConfig) throws {
        guard Component(rawValue: client) == nil else {
            throw Problem(
                .conflict, "'\(client)' is a component: without a key it cannot do its work",
                hint: "to make its key worthless to whoever copied it: slipway key rotate \(client)")
        }
        let lock = try FileLock("\(config.home.keys)/lock")
        defer { withExtendedLifetime(lock) {} }
        var clients = try self.clients(config)
        clients.remove(at: try index(of: client, in: clients))
        try Files.write(try Coding.encode(clients), to: clientsFile(config), mode: 0o600)
    }

    /// Gives a client a new key pair with the rights it has: the old one ends as if revoked. A component's is written to its file,
    /// and it must be started again. Throws `Problem` (`not_found`).
    public static func rotate(_ client: String, _ config: SuiteConfig) throws -> ComponentKey {
        let lock = try FileLock("\(config.home.keys)/lock")
        defer { withExtendedLifetime(lock) {} }
        var clients = try self.clients(config)
        let index = try index(of: client, in: clients)
        let token = Component(rawValue: client) == nil ? nil : try load(client, config).token
        let key = try makeKey(client, endpoint: config.busEndpoint, serverKey: try load("bus", config).publicKey, token: token)
        // First the file: a component whose key is in no file could not come back.
        if Component(rawValue: client) != nil { try save(key, config) }
        clients[index].publicKey = key.publicKey
        try Files.write(try Coding.encode(clients), to: clientsFile(config), mode: 0o600)
        return key
    }

    /// Gives the bus itself a new key pair, and tells the components. Only while the suite is stopped; every other client's key file
    /// needs the new `serverKey`, which is returned.
    public static func rotateBus(_ config: SuiteConfig) throws -> String {
        let lock = try FileLock("\(config.home.keys)/lock")
        defer { withExtendedLifetime(lock) {} }
        _ = try load("bus", config)
        let bus = try makeKey("bus", endpoint: config.busEndpoint, serverKey: nil, token: nil)
        try save(bus, config)
        for component in Component.allCases where component != .bus {
            guard var key = try existing(component.rawValue, config) else { continue }
            key.serverKey = bus.publicKey
            try save(key, config)
        }
        return bus.publicKey
    }

    private static func index(of client: String, in clients: [ClientKey]) throws -> Int {
        if let index = clients.firstIndex(where: { $0.name == client }) { return index }
        let near =
            Nearest.to(client, among: clients.map(\.name)).map { "did you mean '\($0)'?" } ?? "slipway key list shows those there are"
        throw Problem(.notFound, "there is no key named \(Problem.quote(client))", hint: near)
    }

    /// Throws `Problem` when the file is missing, damaged, or can be read by others.
    public static func load(_ name: String, _ config: SuiteConfig) throws -> ComponentKey {
        guard let key = try existing(name, config) else {
            throw Problem(
                .configuration, "there is no key \(config.home.keys)/\(name).json", hint: "run 'slipway up', which makes what is missing")
        }
        return key
    }

    /// The bus's clients with their rights.
    public static func clients(_ config: SuiteConfig) throws -> [ClientKey] {
        try read(clientsFile(config)).map { try Coding.decode([ClientKey].self, from: $0) } ?? []
    }
    /// One of them. Throws `Problem` (`not_found`).
    public static func client(_ name: String, _ config: SuiteConfig) throws -> ClientKey {
        let clients = try self.clients(config)
        return clients[try index(of: name, in: clients)]
    }
    /// SHA-256 of each token that the suite itself holds, with whose it is: a component's name, or `admin`.
    public static func robots(_ config: SuiteConfig) throws -> [String: String] {
        try read(robotsFile(config)).map { try Coding.decode([String: String].self, from: $0) } ?? [:]
    }
    public static func operatorTokenFile(_ config: SuiteConfig) -> String { "\(config.home.keys)/operator.token" }
    public static func clientsFile(_ config: SuiteConfig) -> String { "\(config.home.keys)/clients.json" }
    static func robotsFile(_ config: SuiteConfig) -> String { "\(config.home.keys)/robots.json" }

    // MARK: Private

    private static func makeKey(_ name: String, endpoint: String, serverKey: String?, token: String?) throws -> ComponentKey {
        var publicKey = [CChar](repeating: 0, count: 41)
        var secretKey = [CChar](repeating: 0, count: 41)
        guard zmq_curve_keypair(&publicKey, &secretKey) == 0 else {
            throw Problem(.failed, "libzmq here has no CURVE", hint: "install Debian's libzmq5, which has it")
        }
        func text(_ key: [CChar]) -> String { String(decoding: key.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self) }
        return ComponentKey(
            name: name, endpoint: endpoint, serverKey: serverKey ?? text(publicKey), publicKey: text(publicKey), secretKey: text(secretKey),
            token: token)
    }

    private static func existing(_ name: String, _ config: SuiteConfig) throws -> ComponentKey? {
        try read("\(config.home.keys)/\(name).json").map { try Coding.decode(ComponentKey.self, from: $0) }
    }

    private static func save(_ key: ComponentKey, _ config: SuiteConfig) throws {
        let path = "\(config.home.keys)/\(key.name).json"
        let data = try Coding.encode(key)
        if FileManager.default.contents(atPath: path) != data { try Files.write(data, to: path, mode: 0o600) }
    }

    private static func read(_ path: String) throws -> Data? {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        guard info.st_mode & 0o077 == 0 else {
            throw Problem(
                .configuration, "\(path) can be read by others (mode \(String(info.st_mode & 0o777, radix: 8)))", hint: "chmod 600 \(path)")
        }
        guard info.st_uid == geteuid() || geteuid() == 0 else {
            throw Problem(
                .configuration, "\(path) belongs to another user", hint: "run the suite as the user that made its home, or chown it")
        }
        guard let data = FileManager.default.contents(atPath: path) else { throw Problem(.configuration, "cannot read \(path)") }
        return data
    }

    /// Deny by default: what each component needs for what it alone does, and no more.
    private static func permissions(_ component: Component, publicKey: String) -> ClientKey {
        func key(_ publish: [String], call: [String] = []) -> ClientKey {
            ClientKey(
                name: component.rawValue, publicKey: publicKey, publish: publish, subscribe: ["**"], call: ["api.*"] + call,
                serve: [component.rawValue])
        }
        return switch component {
        case .api: key(["**"], call: ["*.*"])
        case .git: key(["git.**", "repository.created", "repository.deleted", "repository.rejected", "tag.rejected", "checkout.**"])
        case .registry: key(["image.**"])
        case .scheduler:
            key(["run.**", "job.requested", "release.**", "tag.requested", "deploy.requested", "deploy.failed"], call: ["git.*"])
        case .deployer: key(["deploy.**", "instance.requested", "route.requested"])
        case .discovery: key(["service.**", "health.**", "route.**"])
        case .supervisor: key(["instance.**", "job.**", "host.**", "log.**", "component.**"])
        case .bus: key([])
        }
    }
}

/// Held by one process at a time; the kernel lets go of it however the process ends.
final class FileLock {
    private let descriptor: Int32
    /// Waits until it is free.
    init(_ path: String) throws {
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Problem(.configuration, "cannot open \(path): \(String(cString: strerror(errno)))") }
        while flock(descriptor, LOCK_EX) != 0 {
            let code = errno
            guard code == EINTR else {
                close(descriptor)
                throw Problem(.failed, "cannot lock \(path): \(String(cString: strerror(code)))")
            }
        }
    }
    deinit { close(descriptor) }
}

/// Files that survive a power cut: written beside, synced, renamed, directory synced. The only place that renames.
public enum Files {
    public static func makeDirectory(_ path: String, mode: mode_t) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw Problem(
                .configuration, "cannot make the directory \(path): \(reason())", hint: "give --home a directory that you may write to")
        }
        guard access(path, W_OK) == 0 else {
            throw Problem(.configuration, "the directory \(path) is not writable", hint: "give --home a directory that you may write to")
        }
        chmod(path, mode)
    }

    /// Replaces the file at `path` whole or not at all.
    public static func write(_ data: Data, to path: String, mode: mode_t) throws {
        let temporary = "\(path).\(getpid()).tmp"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw Problem(.failed, "cannot write \(temporary): \(reason())") }
        var written = 0
        let complete = data.withUnsafeBytes { bytes in
            while written < bytes.count {
                let count = Glibc.write(descriptor, bytes.baseAddress?.advanced(by: written), bytes.count - written)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                written += count
            }
            return fchmod(descriptor, mode) == 0 && fsync(descriptor) == 0
        }
        let why = reason()
        close(descriptor)
        guard complete, rename(temporary, path) == 0 else {
            unlink(temporary)
            throw Problem(.failed, "cannot write \(path): \(why)", hint: "see that the disk is not full")
        }
        syncDirectory((path as NSString).deletingLastPathComponent)
    }

    /// Makes a rename or a new name in the directory durable.
    public static func syncDirectory(_ path: String) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}
