import Contracts
import Foundation
import Logging

/// Starts, watches and stops the processes of instances.
actor InstanceRunner {
    typealias Report = @Sendable (SupervisorNotice) async -> Void

    private struct Live {
        var process: RunningProcess
        var generation: Int
        var spec: InstanceSpec
        var ports: [String: Int]
        var group: Cgroup
        /// Where its own output begins in the log, which it shares with its predecessors.
        var logStart: Int64
        var memory: Int64?
        var probe: Task<Void, Never>?
        var monitor: Task<Void, Never>?
        /// Set by whoever stops it: then its end is not news.
        var stopping: String?
    }

    private let config: SupervisorConfig
    private let store: HostStore
    private let sandbox: Sandbox
    private let bundles: Bundles
    private let logs: LogTail
    private let probe: Probe
    private let logger: Logger
    private let report: Report
    private var live: [InstanceID: Live] = [:]
    private var endings: [InstanceID: Ending] = [:]
    private var closing = false

    init(
        config: SupervisorConfig, store: HostStore, sandbox: Sandbox, bundles: Bundles, logs: LogTail, probe: Probe, logger: Logger,
        report: @escaping Report
    ) {
        self.config = config
        self.store = store
        self.sandbox = sandbox
        self.bundles = bundles
        self.logs = logs
        self.probe = probe
        self.logger = logger
        self.report = report
    }

    // MARK: Start

    func start(_ instance: InstanceID, generation: Int, spec: InstanceSpec) async throws -> SupervisorNotice {
        guard !closing else { throw CancellationError() }
        if let known = live[instance], known.generation == generation {
            try await save(instance, known.process, generation)
            return .started(instance, generation: generation, pid: known.process.pid, ports: known.ports)
        }
        do {
            let user = try await sandbox.user(of: instance.app)
            let names = spec.service.ports.map(\.name.text)
            let ports = try await Ports(store: store).claim(names, for: instance)
            // A start that was under way when the supervisor died may have succeeded.
            if let record = try await store.process(instance.text), record.generation == generation,
                let process = RunningProcess.adopt(record)
            {
                attach(instance, process, generation, spec, ports, isReady: false)
                return .started(instance, generation: generation, pid: process.pid, ports: ports)
            }
            await clear(instance)
            let directory = try await bundles.directory(instance.app, spec.bundle, user: user)
            let room = config.room(instance)
            try sandbox.makeRoom(room, user: user)
            let group = try sandbox.cgroups.group(instance.fileName, limits: spec.service.limits)
            let joins = try group.open()
            defer { for descriptor in joins { Glibc.close(descriptor) } }
            let output = try logs.open(config.log(instance), origin: instance.text)
            defer { Glibc.close(output) }
            let logStart = Int64(lseek(output, 0, Int32(SEEK_END)))
            guard !closing else { throw CancellationError() }
            let launch = sandbox.shell(
                spec.service.run, in: directory, room: room, environment: Self.environment(instance, spec, ports), user: user,
                limits: spec.service.limits, group: joins, output: output)
            let process = try RunningProcess.start(launch)
            attach(instance, process, generation, spec, ports, isReady: false, logStart: logStart)
            try await save(instance, process, generation)
            return .started(instance, generation: generation, pid: process.pid, ports: ports)
        } catch let problem as Problem {
            let final: Set<Problem.Code> = [.forbidden, .notFound, .invalid, .malformed, .tooLarge, .unsupported]
            return .refused(instance, generation: generation, reason: problem.description, final: final.contains(problem.code))
        }
    }

    /// What an instance finds in its environment beside PATH, HOME, TMPDIR and LANG.
    static func environment(_ instance: InstanceID, _ spec: InstanceSpec, _ ports: [String: Int]) -> [String: String] {
        var result = spec.environment
        for (name, port) in ports {
            result["PORT_" + name.uppercased().replacing("-", with: "_")] = "\(port)"
        }
        if let first = spec.service.ports.first, let port = ports[first.name.text] { result["PORT"] = "\(port)" }
        result["SLIPWAY_APP"] = instance.app.text
        result["SLIPWAY_ENVIRONMENT"] = instance.environment.text
        result["SLIPWAY_SERVICE"] = instance.service.text
        result["SLIPWAY_INSTANCE"] = instance.text
        result["SLIPWAY_RELEASE"] = "v\(spec.release)"
        result["SLIPWAY_COMMIT"] = spec.commit.text
        return result
    }

    private func save(_ instance: InstanceID, _ process: RunningProcess, _ generation: Int) async throws {
        try await store.save(
            ProcessRecord(
                name: instance.text, pid: process.pid, ticks: process.ticks, boot: ProcFS.boot, generation: generation, since: .now()))
    }

    private func attach(
        _ instance: InstanceID, _ process: RunningProcess, _ generation: Int, _ spec: InstanceSpec, _ ports: [String: Int],
        isReady: Bool, logStart: Int64 = 0
    ) {
        logs.follow(config.log(instance), origin: instance.text)
        var entry = Live(
            process: process, generation: generation, spec: spec, ports: ports,
            group: sandbox.cgroups.existing(instance.fileName), logStart: logStart, memory: spec.service.limits.memory)
        entry.monitor = Task { [weak self] in
            guard let end = await process.ended() else { return }
            await self?.ended(instance, generation, end)
        }
        entry.probe = Task { [probe, report] in
            await Self.watch(instance, generation, spec, ports, isReady: isReady, probe, report)
        }
        live[instance] = entry
    }

    // MARK: Health

    private static func watch(
        _ instance: InstanceID, _ generation: Int, _ spec: InstanceSpec, _ ports: [String: Int], isReady: Bool, _ probe: Probe,
        _ report: Report
    ) async {
        let health = spec.service.health
        let port = spec.service.ports.first.flatMap { ports[$0.name.text] }
        let check = health.check ?? (port == nil ? .running : .tcp)
        var count = ProbeCount(healthy: health.healthy, isReady: isReady)
        guard let port, check != .running else {
            // Nothing to ask: what has stayed up this long is taken to work.
            if !isReady {
                do { try await Task.sleep(for: .seconds(health.interval * Double(max(1, health.healthy)))) } catch { return }
                await report(.ready(instance, generation: generation))
            }
            return
        }
        var number = 0
        while !Task.isCancelled {
            let problem = await probe.problem(check, port: port, timeout: health.timeout)
            guard !Task.isCancelled else { return }
            switch count.take(passed: problem == nil) {
            case true: await report(.ready(instance, generation: generation))
            case false: await report(.unready(instance, generation: generation, reason: problem ?? "fails its health check"))
            case nil: break
            }
            do { try await Task.sleep(for: .seconds(count.pause(number, interval: health.interval))) } catch { return }
            number += 1
        }
    }

    // MARK: End

    private func ended(_ instance: InstanceID, _ generation: Int, _ end: RunningProcess.End) async {
        guard let entry = live[instance], entry.generation == generation else { return }
        entry.probe?.cancel()
        // What it left behind goes with it: a daemon of a dead instance would hold its port.
        await entry.group.kill()
        await entry.process.killSession()
        let ooms = entry.group.outOfMemoryKills
        logs.forget(config.log(instance))
        let tail = LogTail.last(20, of: config.log(instance), from: entry.logStart)
        let stopping = live[instance]?.stopping
        let ending = Ending(
            status: end.status, signal: end.signal,
            reason: stopping ?? Exits.reason(end, outOfMemory: ooms > 0, limit: entry.memory), tail: tail)
        live[instance] = nil
        await entry.group.remove()
        try? await store.forget(process: instance.text)
        if stopping != nil {
            endings[instance] = ending
        } else if !closing {
            await report(.exited(instance, generation: generation, ending))
        }
    }

    /// Stops an instance and forgets all that it had on this host but its log.
    func stop(_ instance: InstanceID, _ stop: StopSpec) async throws -> SupervisorNotice {
        var ending: Ending?
        if live[instance] != nil {
            await halt(instance, stop, within: stop.timeout)
            ending = endings.removeValue(forKey: instance)
        } else if let record = try await store.process(instance.text), let process = RunningProcess.adopt(record) {
            let asked = await Self.ask(process, stop, within: stop.timeout)
            if !asked { await Self.force(process, sandbox.cgroups.existing(instance.fileName)) }
            ending = Ending(reason: asked ? Self.told : Self.killed(stop, stop.timeout), tail: LogTail.last(20, of: config.log(instance)))
        }
        await clear(instance)
        try await store.releasePorts(of: instance)
        Trash.remove(config.room(instance))
        return .stopped(instance, ending)
    }

    private func halt(_ instance: InstanceID, _ stop: StopSpec, within seconds: Double) async {
        guard let entry = live[instance] else { return }
        live[instance]?.stopping = Self.told
        entry.probe?.cancel()
        if !(await Self.ask(entry.process, stop, within: seconds)) {
            live[instance]?.stopping = Self.killed(stop, seconds)
            await Self.force(entry.process, entry.group)
        }
        guard entry.process.end != nil else {
            logger.error("a process cannot be killed", metadata: ["instance": "\(instance)", "pid": "\(entry.process.pid)"])
            live[instance] = nil
            return
        }
        await entry.monitor?.value
    }

    private static let told = "was told to stop"
    private static func killed(_ stop: StopSpec, _ seconds: Double) -> String {
        "did not stop within \(Exits.text(seconds)) s of \(stop.signal) and was killed"
    }

    /// Asks a process to stop. False: it did not, in its time.
    private static func ask(_ process: RunningProcess, _ stop: StopSpec, within seconds: Double) async -> Bool {
        process.signalGroup(Exits.number(of: stop.signal) ?? SIGTERM)
        return await process.ended(within: seconds) != nil
    }
    private static func force(_ process: RunningProcess, _ group: Cgroup) async {
        process.signalGroup(SIGKILL)
        await group.kill()
        _ = await process.ended(within: 5)
    }

    /// Ends whatever may still be there of an earlier process of this instance.
    private func clear(_ instance: InstanceID) async {
        if let record = try? await store.process(instance.text) {
            if let process = RunningProcess.adopt(record) {
                process.signalGroup(SIGKILL)
                _ = await process.ended(within: 5)
                await process.killSession()
            }
            try? await store.forget(process: instance.text)
        }
        let group = sandbox.cgroups.existing(instance.fileName)
        await group.kill()
        await group.remove()
    }

    // MARK: The supervisor's own start and end

    /// Compares what should run with what does: adopts what lives, and gives the news of what does not.
    func adopt(_ rows: [InstanceRow]) async throws -> [SupervisorNotice] {
        var notices: [SupervisorNotice] = []
        let records = Dictionary(try await store.processes().map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        for row in rows where [.running, .ready, .unready].contains(row.phase) && live[row.instance] == nil {
            let record = records[row.instance.text]
            if let record, record.generation == row.generation, let process = RunningProcess.adopt(record) {
                attach(row.instance, process, row.generation, row.spec, row.ports, isReady: row.phase == .ready)
            } else {
                await clear(row.instance)
                let reason = record == nil ? "was stopped together with the suite" : "ended while the supervisor was away"
                let tail = record == nil ? [] : LogTail.last(20, of: config.log(row.instance))
                notices.append(.exited(row.instance, generation: row.generation, Ending(reason: reason, tail: tail, interrupted: true)))
            }
        }
        let wanted = Set(rows.map(\.instance))
        for name in records.keys.sorted() {
            guard let instance = try? InstanceID(name), !wanted.contains(instance) else { continue }
            logger.warning("an instance runs that nobody ordered; it is ended", metadata: ["instance": "\(instance)"])
            await clear(instance)
        }
        return notices
    }

    /// Stops everything, because the suite stops; orders stay as they are, so all of it comes back with the suite.
    func close(within seconds: Double) async {
        closing = true
        await withTaskGroup { group in
            for (instance, entry) in live {
                group.addTask {
                    await self.halt(instance, entry.spec.service.stop, within: min(seconds, entry.spec.service.stop.timeout))
                }
            }
        }
    }
}
