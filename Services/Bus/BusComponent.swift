import Contracts
import Foundation
import HTTPKit
import Kit
import Logging
import ServiceLifecycle

/// Makes the parts of the bus and introduces them to each other.
public enum BusComponent {
    /// The services to run. The ZeroMQ socket is bound, and the log recovered, when this returns.
    public static func services(_ boot: Boot) async throws -> [any Service] { try await services(boot, unencryptedAs: nil) }

    /// `name` set: no CURVE, and everybody who connects is taken for that client. For the benchmark alone, which compares with
    /// peers in the clear; no configuration of the bus leads here.
    package static func services(_ boot: Boot, unencryptedAs name: String?) async throws -> [any Service] {
        let settings = boot.config
        var config = BusConfig(
            logDirectory: "\(boot.directory)/log", listen: settings.listen, port: settings.busPort, host: settings.host.text,
            descriptor: try InheritedSockets.descriptor(named: "bus-zmq"))
        config.unencryptedAs = name
        let space = Disk.space(in: boot.directory)
        config.apply(settings.bus, disk: space?.total)
        if let space { Reserve(directory: config.logDirectory, total: space.total).adjust(free: space.free, isFull: space.free < 4 << 20) }
        let keys = try KeyTable(path: Keyring.clientsFile(settings)) { try Keyring.clients(settings) }
        let logger = boot.logger
        for (name, why) in CursorStore.setAside("\(boot.directory)/state.sqlite", now: boot.now().milliseconds) {
            logger.critical(
                "the bookkeeping cannot be read and was set aside; consumers begin anew where they do not say where they are",
                metadata: ["file": "\(name)", "error": "\(why)"])
        }
        let store = CursorStore(store: try boot.openStore(durability: .normal, migrations: CursorStore.migrations))
        let standing = try Standing.load(config.directory)
        if let key = try ReplicaPhase.key(boot, standing) {
            // Returns when this bus has been promoted; told to end before, there is nothing to run.
            guard try await ReplicaPhase.run(boot, key, config, store) else { return [] }
        }
        let broker = try await Broker.start(
            config, secretKey: boot.key.secretKey, keys: keys, store: store, logger: logger, standing: StandingNow(health: boot.health)
        ) { error in
            // Not retried and not survived: after a failed write only a fresh start knows what the device holds.
            logger.critical("the log cannot be written; the bus ends here", metadata: ["error": "\(error)"])
            _exit(1)
        }
        logger.info(
            "the bus listens",
            metadata: [
                "port": "\(broker.port)", "stream": "\(broker.log.stream)", "epoch": "\(broker.log.epoch)", "last": "\(broker.log.last)",
            ])
        let authenticator = RouterAuthenticator(broker) { (try? Keyring.robots(settings)) ?? [:] }
        let http = HTTPServer(
            boot, authenticator: authenticator,
            refused: { principal, request, problem in
                broker.denied("http/\(principal.name)", request: "\(request.method) \(request.uri.path)", what: problem.message)
            }
        ) { routes in
            let metrics = BusMetrics(broker: broker, metrics: routes.metrics)
            routes.metrics.collect { await metrics.collect() }
            EventRoutes(broker: broker, host: settings.host, keys: keys).add(to: routes)
            ConsumerRoutes(broker: broker).add(to: routes)
            PermissionRoutes(broker: broker).add(to: routes)
            StatusRoutes(broker: broker, retention: config.retention).add(to: routes)
            routes.post("/v1/bus/promote", .role(.operator)) { _, _ in
                throw Problem(
                    .conflict, "this bus copies no other one's log: it is the bus already",
                    hint: "run it where the replica is; docs/replica.md says how one is made")
            }
            routes.get("/v1/bus/replicas", .role(.viewer)) { _, _ in try .json(try await broker.replicas()) }
        }
        var services: [any Service] = [broker, http]
        if let path = settings.bus.copyTo {
            services.append(SegmentCopier(log: broker.log, store: store, copyTo: path, health: boot.health, logger: logger))
        }
        if let path = settings.bus.replicaOf {
            // It was promoted: the bus that it copied must hear of it.
            services.append(
                Herald(
                    key: try ReplicaPhase.read(path), witness: Witness(secretKey: boot.key.secretKey), stream: broker.log.stream,
                    epoch: broker.log.epoch, logger: logger,
                    outdated: { epoch, witness in broker.met(epoch: epoch, witness: witness ?? "") }))
        }
        return services
    }
}
