import Contracts
import Dispatch
import Foundation
import Logging

/// Brings HAProxy into line with a table, and says when requests on leaving servers have ended.
///
/// It is always told the whole table and compares it with what HAProxy has, so that a HAProxy that was restarted, a discovery
/// that was restarted and a command that was lost all mend the same way. On a queue of its own, because its calls block.
actor Ingress {
    private let config: HAProxyConfig
    private let directory: String
    private let logger: Logger
    private let installed: Bool
    private let socket: HAProxySocket
    private let executor = BlockingExecutor(label: "slipway.discovery.ingress")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private var written: (config: String, map: String)?
    /// What the HAProxy worker with this process id was last brought to.
    private var served: (table: IngressTable, pid: Int32)?
    private var newest = -1
    private var reloaded: ContinuousClock.Instant?

    /// `directory` gets `haproxy.cfg` and `hosts.map`; `installed` says whether there is a HAProxy to wait for.
    init(config: HAProxyConfig, directory: String, logger: Logger, installed: Bool = HAProxyProgram.path() != nil) {
        self.config = config
        self.directory = directory
        self.logger = logger
        self.installed = installed
        socket = HAProxySocket(path: config.socket)
    }

    enum Outcome: Sendable { case served, notInstalled }

    /// Makes the running HAProxy serve the table, and the files hold it; both do when this returns `.served`.
    ///
    /// An older table than one already served changes nothing. Throws `Problem` when HAProxy is installed but does not answer
    /// or does not obey; calling again is always right.
    func serve(_ table: IngressTable) throws -> Outcome {
        guard table.version >= newest else {
            // Read before a newer one was given: as good as done once that one is served.
            guard installed else { return .notInstalled }
            guard let served, served.table.version >= table.version else {
                throw Problem(.unavailable, "the ingress is being brought to a newer table")
            }
            return .served
        }
        newest = table.version
        let pool = HAProxyConfig.Pool(for: table)
        guard installed else {
            try writeFiles(table, pool)
            return .notInstalled
        }
        var info: (pid: Int32, description: String)
        do {
            info = try HAProxyReport.info(socket.ask("show info"))
        } catch {
            // Not started yet, perhaps because its file was not there yet.
            try writeFiles(table, pool)
            throw error
        }
        if info.description != config.fingerprint(pool) {
            try writeFiles(table, pool)
            info.pid = try reload(info.pid, to: config.fingerprint(pool))
        }
        try bring(info.pid, to: table)
        // After the switch, so that nobody waits for the disk, and before it is told: a HAProxy that dies in between and reads
        // the old file is found by its new process id.
        try writeFiles(table, pool)
        return .served
    }

    /// Whether the worker that runs now is one that has not been looked at yet. False when none answers.
    func isUnknownWorker() -> Bool {
        guard installed, let info = try? HAProxyReport.info(socket.ask("show info")) else { return false }
        return info.pid != served?.pid
    }

    /// Requests that the leaving servers of a backend still have. Throws `Problem` when HAProxy does not answer.
    func requests(_ backend: Int, slots: Set<Int>) throws -> Int {
        let sessions = try HAProxyReport.sessions(socket.ask("show stat pool\(backend) 4 -1"), backend: backend)
        let now = slots.reduce(0) { $0 + (sessions[$1] ?? 0) }
        // A worker that was replaced may still have requests of its own on them, and does not tell how many.
        if now == 0, let reloaded, ContinuousClock.now - reloaded < .seconds(120), let pid = served?.pid,
            HAProxyProgram.hasOldWorkers(besides: pid)
        {
            return 1
        }
        return now
    }

    /// Takes drained servers out: those that still leave in the table that is given.
    func retire(_ table: IngressTable, backend: Int, slots: Set<Int>) throws {
        let servers = table.backends[backend]?.servers ?? [:]
        let names = slots.sorted().filter { servers[$0].map { $0.leaving != nil } ?? true }.map {
            "set server pool\(backend)/s\($0) state maint"
        }
        guard table.version >= newest, !names.isEmpty else { return }
        _ = try socket.ask(names.joined(separator: ";"))
    }

    private func writeFiles(_ table: IngressTable, _ pool: HAProxyConfig.Pool) throws {
        let text = try config.text(table, pool: pool)
        let map = HAProxyConfig.map(table.hosts)
        // The map first: a HAProxy that starts in between knows a host whose backend is not there yet, and answers 503, not 404.
        if written?.map != map { try DurableFile.write(map, to: "\(directory)/\(HAProxyConfig.mapName)", mode: 0o600) }
        if written?.config != text { try DurableFile.write(text, to: "\(directory)/haproxy.cfg", mode: 0o600) }
        written = (text, map)
    }

    private func reload(_ worker: Int32, to fingerprint: String) throws -> Int32 {
        logger.info("HAProxy is reloaded for a new structure", metadata: ["worker": "\(worker)"])
        try HAProxyProgram.reload(worker: worker)
        reloaded = .now
        let end = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < end {
            usleep(20_000)
            if let info = try? HAProxyReport.info(socket.ask("show info")), info.description == fingerprint { return info.pid }
        }
        throw Problem(
            .timeout, "HAProxy did not take its new configuration within 10 s",
            hint: "see its log; check with: haproxy -c -f \(directory)/haproxy.cfg")
    }

    /// Compares, commands, and compares again until nothing differs.
    private func bring(_ pid: Int32, to table: IngressTable) throws {
        let known = served?.pid == pid ? served?.table : nil
        let backends: Set<Int>?
        if let known {
            backends = Set(known.backends.keys).union(table.backends.keys).filter { known.backends[$0] != table.backends[$0] }
        } else {
            backends = nil
        }
        // Until it is done nothing is known: a failure in the middle must lead to a full look the next time.
        served = nil
        var replies: [String] = []
        for _ in 0..<3 {
            let servers = try actual(backends)
            let map: [String: String]? =
                known?.hosts == table.hosts ? nil : HAProxyReport.map(try socket.ask("show map \(HAProxyConfig.mapName)"))
            let plan = IngressPlan(table, backends: backends ?? Set(servers.keys), servers: servers, map: map)
            guard !plan.commands.isEmpty else {
                served = (table, pid)
                return
            }
            replies = try plan.lines.map { try socket.ask($0) }
        }
        let words = replies.joined(separator: " ").split(whereSeparator: \.isNewline).joined(separator: " ")
        throw Problem(
            .failed, "HAProxy does not take the new table: \(Problem.quote(words))", hint: "it is tried again; see the ingress's log")
    }

    private func actual(_ backends: Set<Int>?) throws -> [Int: [Int: HAProxyReport.Server]] {
        guard let backends else { return try HAProxyReport.servers(socket.ask("show servers state")) }
        var result: [Int: [Int: HAProxyReport.Server]] = [:]
        for backend in backends.sorted() {
            result.merge(try HAProxyReport.servers(socket.ask("show servers state pool\(backend)"))) { $1 }
        }
        return result
    }
}

/// Runs an actor whose calls block on a queue of its own.
final class BlockingExecutor: SerialExecutor {
    private let queue: DispatchQueue
    init(label: String) { queue = DispatchQueue(label: label) }
    func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        queue.async { unowned.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }
    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}
