import AsyncHTTPClient
import BusClient
import Contracts
import Foundation
import GRDB
import HTTPKit
import Kit
import Logging
import ServiceLifecycle
import Storage
import Synchronization

/// Wiring: makes the parts of the supervisor and hands them to each other.
public enum SupervisorComponent {
    public static func services(_ boot: Boot) async throws -> [any Service] {
        let config = SupervisorConfig(boot.config)
        // Others may pass through HOME/supervisor on the way to bundles, so no file here may be open to them by default.
        umask(0o077)
        try Files.makeDirectory(config.home.logs, mode: 0o711)
        try Files.makeDirectory(config.appLogs, mode: 0o700)
        for room in config.rooms { try Files.makeDirectory(room, mode: 0o711) }
        let opened = try boot.openStore(durability: .normal) { HostStore.migrations(&$0) }
        let store = HostStore(db: opened.db)
        let source = boot.source
        let logs = try LogTail(logger: boot.logger) { [bus = boot.bus] origin, lines in
            bus.emit(LogLines(origin: origin, lines: lines), source: source)
        }
        let reach = "http://\(boot.config.reach)"
        let siblings = Siblings(
            caller: HTTPCaller(boot), git: "\(reach):\(boot.config.port(.git))", registry: "\(reach):\(boot.config.port(.registry))")
        let cgroups = Cgroups(home: config.home.path, isRoot: config.isRoot)
        let sandbox = Sandbox(config: config, store: store, cgroups: cgroups)
        let bundles = Bundles(config: config, siblings: siblings)
        let probes = Probe.makeClient()
        let news = News(logger: boot.logger)
        let instances = InstanceRunner(
            config: config, store: store, sandbox: sandbox, bundles: bundles, logs: logs, probe: Probe(client: probes),
            logger: boot.logger, report: { await news.report($0) })
        let jobs = JobRunner(
            config: config, store: store, sandbox: sandbox, siblings: siblings, logs: logs, logger: boot.logger,
            report: { await news.report($0) })
        let loop = Loop(
            SupervisorCore.self, boot: boot, store: opened,
            perform: { effect, _ in
                switch effect {
                case .start(let instance, let generation, let spec):
                    return try await instances.start(instance, generation: generation, spec: spec)
                case .stop(let instance, let stop):
                    let notice = try await instances.stop(instance, stop)
                    // What is here of an app follows from what runs of it; when something stops, something may be left over.
                    let rows = try await news.read { $0.instances.values.filter { $0.instance.app == instance.app } }
                    await bundles.prune(instance.app, named: Set(rows.filter { $0.instance != instance }.map(\.spec.bundle)))
                    logs.prune(instance.app, in: config.appLogs, live: Set(rows.map(\.instance.text)))
                    return notice
                case .run(let order): return try await jobs.run(order)
                case .forget(let app):
                    await bundles.forget(app)
                    logs.remove(ofApp: app, in: config.appLogs)
                    return nil
                }
            },
            reconcile: { state in
                bundles.sweep()
                return [.joined(joined(boot, config))] + (try await instances.adopt(state.instances.values))
            })
        news.lead(to: loop)

        let haproxy = Program.haproxy()
        var notes = [cgroups.note].compactMap { $0 }
        if haproxy == nil {
            notes.append("HAProxy is not installed: instances are reachable on their own ports only (apt-get install haproxy)")
        }
        if let refusal = config.refusal { notes.append(refusal) }
        let keeper = ProgramKeeper(
            config: config, suite: boot.config, store: store, logs: logs, logger: boot.logger,
            programs: Program.suite(boot.config, binaries: try Program.ownDirectory(), haproxy: haproxy),
            beforeStop: {
                async let ended: Void = jobs.close()
                await instances.close(within: 7)
                await ended
                cgroups.removeEmpty()
                try? await probes.shutdown()
            })
        let programs = ProgramsQuery(keeper: keeper, loop: loop, notes: notes)
        boot.bus.serve(
            "supervisor",
            QueryRoutes()
                .on(ReadLogs.self) { query, _ in
                    LogsQuery.answer(query, directory: config.appLogs, live: try await loop.read { Set($0.instances.keys) })
                }
                .on(ListPrograms.self) { _, _ in try await programs.answer() })
        let server = HTTPServer(boot) { routes in ProgramRoutes.add(to: routes, programs) }
        for note in notes { boot.logger.notice("\(note)") }
        // The last one stops first: no more requests, then no more decisions, then everything that runs.
        return [OrphanReaper(logger: boot.logger), logs, keeper, UntilShutdown(loop), server]
    }

    private static func joined(_ boot: Boot, _ config: SupervisorConfig) -> HostJoined {
        HostJoined(
            host: config.host, address: boot.config.reach, version: Version.text, mode: config.mode,
            cores: ProcessInfo.processInfo.activeProcessorCount, memory: ProcFS.memory)
    }
}

/// The way of news from the runners to the loop, which is made after them.
final class News: Sendable {
    private let logger: Logger
    private let loop = Mutex<Loop<SupervisorCore>?>(nil)

    init(logger: Logger) { self.logger = logger }
    func lead(to loop: Loop<SupervisorCore>) { self.loop.withLock { $0 = loop } }

    /// A look at the loop's state.
    func read<T: Sendable>(_ body: @Sendable (SupervisorState) -> T) async throws -> T {
        guard let loop = loop.withLock({ $0 }) else { throw CancellationError() }
        return try await loop.read(body)
    }

    /// Durable when it returns; tried again while the state cannot be written.
    func report(_ notice: SupervisorNotice) async {
        guard let loop = loop.withLock({ $0 }) else { return }
        var pause = 0.05
        while !Task.isCancelled {
            do {
                try await loop.submit(notice)
                return
            } catch {
                logger.error("news cannot be written down", metadata: ["error": "\(error)"])
            }
            try? await Task.sleep(for: .seconds(pause))
            pause = min(pause * 2, 5)
        }
    }
}

/// Runs a service until the suite stops, then cancels it.
private struct UntilShutdown: Service {
    let service: any Service
    init(_ service: any Service) { self.service = service }
    func run() async throws {
        let service = service
        try await cancelWhenGracefulShutdown { try await service.run() }
    }
}
