import Contracts
import Foundation
import HTTPKit
import Kit
import Logging
import ServiceLifecycle
import Wire

/// A bus that stands by: it copies another one's log, serves nobody, and says so, until it is promoted.
enum ReplicaPhase {
    /// Whether this bus stands by, and under which key. One that was promoted goes on as the bus, unless another has taken over
    /// from it since. Throws `Problem` when the key file cannot be used.
    static func key(_ boot: Boot, _ standing: Standing?) throws -> ComponentKey? {
        guard let path = boot.config.bus.replicaOf else { return nil }
        let key = try read(path)
        if let standing, standing.epoch != nil, standing.supersededBy == nil { return nil }
        return key
    }

    /// The key file that `replica_of` names.
    static func read(_ path: String) throws -> ComponentKey {
        var info = stat()
        guard stat(path, &info) == 0, let data = FileManager.default.contents(atPath: path) else {
            throw Problem(
                .configuration, "replica_of: there is no readable key file \(path)",
                hint: "make one where the bus runs: slipway key create NAME --replicate --out FILE")
        }
        guard info.st_mode & 0o077 == 0 else {
            throw Problem(.configuration, "replica_of: \(path) can be read by others", hint: "chmod 600 \(path)")
        }
        do {
            return try Coding.decode(ComponentKey.self, from: data)
        } catch {
            throw Problem(
                .configuration, "replica_of: \(path) is no key file", hint: "make one: slipway key create NAME --replicate --out FILE")
        }
    }

    /// Copies until it is promoted (true) or told to end (false).
    static func run(_ boot: Boot, _ key: ComponentKey, _ config: BusConfig, _ store: CursorStore) async throws -> Bool {
        guard key.serverKey == boot.key.publicKey else {
            throw Problem(
                .configuration,
                "the key file in replica_of is for a bus with another key than the one in \(boot.config.home.keys)/bus.json",
                hint: "copy keys/bus.json from the home of the bus: clients must find the same bus in either place")
        }
        var settings = EventLog.Settings(directory: config.logDirectory)
        settings.disk = config.disk
        let log = try ReplicaLog.open(settings, store)
        let logger = boot.logger
        let health = boot.health
        let link = ReplicaLink(
            key, log: log, witness: Witness(secretKey: boot.key.secretKey), directory: config.directory, store: store,
            clients: Keyring.clientsFile(boot.config), logger: logger,
            changed: { health.set("replica", problem: Self.words($0)) },
            fatal: { error in
                logger.critical("the log cannot be written; the replica ends here", metadata: ["error": "\(error)"])
                _exit(1)
            })
        health.set("replica", problem: words(link.now))
        logger.notice("this bus stands by and copies the log of another", metadata: ["from": "\(key.endpoint)", "last": "\(log.last)"])
        let promoted = Locked(false)
        let (orders, order) = AsyncStream<Void>.makeStream()
        let routes = ReplicaRoutes(link: link) { force in
            try promote(link, config, force: force) {
                promoted.withLock { $0 = true }
                order.yield()
            }
        }
        let config = boot.config
        let http = HTTPServer(boot, authenticator: HomeTokens { (try? Keyring.robots(config)) ?? [:] }) { routes.add(to: $0) }
        link.start()
        defer { _ = link.stop() }
        var configuration = ServiceGroupConfiguration(
            services: [
                .init(service: http),
                .init(service: Waiter(orders: orders), successTerminationBehavior: .gracefullyShutdownGroup),
            ], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        configuration.maximumGracefulShutdownDuration = .seconds(5)
        do {
            try await ServiceGroup(configuration: configuration).run()
        } catch is CancellationError {}
        guard promoted.withLock({ $0 }) else { return false }
        health.set("replica", problem: nil)
        return true
    }

    /// Ends with the first order.
    private struct Waiter: Service {
        let orders: AsyncStream<Void>
        func run() async throws { for await _ in orders.cancelOnGracefulShutdown() { return } }
    }

    /// Raises the epoch, durably, before anything is served under it.
    private static func promote(_ link: ReplicaLink, _ config: BusConfig, force: Bool, done: () -> Void) throws -> Standing {
        let now = link.now
        guard let stream = now.stream else {
            throw Problem(.conflict, "this replica has no log yet: nothing was copied", hint: "see \(now.problem ?? "its log")")
        }
        guard !now.connected || force else {
            throw Problem(
                .conflict, "the bus at \(now.primary) answers: what it acknowledges in this moment would be left behind",
                hint: "stop it first; or, when that cannot be done, slipway bus promote --force")
        }
        guard now.hasKeys || force else {
            throw Problem(
                .conflict, "this replica has the events, but not yet the keys of the clients: as the bus it would let nobody in",
                hint: "start the old bus again for a moment; or copy keys/clients.json from its home; or slipway bus promote --force")
        }
        let log = link.stop()
        let before = try Standing.load(config.directory)
        let standing = Standing(
            stream: stream, epoch: Epoch.nextTerm(after: max(log.epoch, before?.epoch ?? 0, before?.supersededBy ?? 0)))
        try standing.save(config.directory)
        done()
        return standing
    }

    private static func words(_ now: ReplicaLink.Now) -> String {
        let aside = now.setAside.map { "; set aside: \($0)" } ?? ""
        let how =
            now.connected
            ? "has events up to \(now.last)" + (now.lag == 0 ? "" : ", \(now.lag) behind")
            : "cannot reach it (\(now.problem ?? "connecting")), has events up to \(now.last)"
        return "copies the bus at \(now.primary), \(how); serves nobody until it is promoted\(aside)"
    }
}

/// The suite's own tokens, known from the key files: all that can be checked while no bus is served.
struct HomeTokens: Authenticator {
    /// SHA-256 of a token to a component's name, or `admin`.
    let robots: @Sendable () -> [String: String]
    func authenticate(hash: String) async throws -> Principal? {
        robots()[hash].map { Principal(name: $0 == "admin" ? "admin" : "component:\($0)", role: .admin) }
    }
}

/// `/v1/bus/replica` and `/v1/bus/promote`, while this bus stands by.
struct ReplicaRoutes: Sendable {
    let link: ReplicaLink
    let promote: @Sendable (_ force: Bool) throws -> Standing

    func add(to routes: Routes) {
        routes.get("/v1/bus/replica", .role(.viewer)) { _, _ in try .json(link.now) }
        routes.post("/v1/bus/promote", .role(.operator)) { request, context in
            struct Body: Decodable { var force: Bool? }
            let body = try await request.json(Body.self, context, limit: 4 << 10)
            let standing = try promote(body.force ?? false)
            return try .json(Promoted(stream: standing.stream, epoch: standing.epoch ?? 0, last: link.now.last))
        }
    }

    struct Promoted: Codable {
        var stream: String
        var epoch: UInt64
        var last: UInt64
    }
}

/// After a failover: tells the bus that was replaced, as soon as it is back, so that it stops. Ends when it has heard it.
struct Herald: Service {
    let key: ComponentKey
    let witness: Witness
    let stream: String
    let epoch: UInt64
    let logger: Logger
    /// Called when the other one is the newer.
    let outdated: @Sendable (UInt64, String?) -> Void

    func run() async throws {
        let stopping = Locked(false)
        let wake = DispatchSemaphore(value: 0)
        let (stopped, stop) = AsyncStream<Never>.makeStream()
        @Sendable func end() {
            stopping.withLock { $0 = true }
            wake.signal()
            stop.finish()
        }
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await withCheckedContinuation { continuation in
                    let thread = Thread {
                        tell(until: { stopping.withLock { $0 } }, wake)
                        continuation.resume()
                    }
                    thread.name = "bus-herald"
                    thread.start()
                }
                // Its work is done; a service that ends would end the others.
                for await _ in stopped {}
            } onGracefulShutdown: {
                end()
            }
        } onCancel: {
            end()
        }
    }

    private func tell(until over: () -> Bool, _ wake: DispatchSemaphore) {
        let text = witness.text(stream: stream, epoch: epoch)
        while !over() {
            if let answer = try? once(text) {
                if answer.known == .error, answer.status == 410 {
                    logger.notice("the bus that was replaced has heard it, and stands still", metadata: ["at": "\(key.endpoint)"])
                    return
                }
                if answer.known == .welcome, let welcome = try? Coding.decode(Welcome.self, from: answer.body), welcome.stream == stream {
                    // An older one would have stopped; who welcomes is newer than this one, and says so to everybody.
                    return outdated(answer.a, welcome.witness)
                }
            }
            _ = wake.wait(timeout: .now() + .seconds(1))
        }
    }

    private func once(_ text: String) throws -> Frame {
        let connection = try PrimaryConnection(key)
        defer { connection.leave() }
        return try connection.hello("slipway-bus (after a failover)", epoch: epoch, witness: text)
    }
}
