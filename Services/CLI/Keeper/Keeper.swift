import CSys
import Contracts
import Dispatch
import Foundation
import Kit
import Synchronization

/// Keeps the supervisor running, and with it everything else: the one process that nothing has to restart.
///
/// It does little, so that little can go wrong: start the supervisor, start it again when it dies, collect the orphans of a
/// supervisor that was killed (it is their subreaper, so that the next supervisor finds them alive), and stop all in order.
final class Keeper: Sendable {
    private struct State {
        var supervisor: ProcessMark?
        var stopping = false
        var ended = false
        var failure: Problem?
        /// A supervisor has got past its settings: from then on nothing but an order ends the suite.
        var settled = false
    }
    private let config: SuiteConfig
    private let lock: HomeLock
    private let state = Mutex(State())
    /// Seconds that the suite has to stop in.
    static let stopSeconds = 75.0

    init(config: SuiteConfig, lock: HomeLock) {
        self.config = config
        self.lock = lock
    }

    /// Starts the supervisor, or goes on with the one that a keeper before left behind. Returns at once; `wait` waits for the end.
    func start() throws {
        csys_set_child_subreaper()
        let left = KeeperRecord.load(config.home)?.supervisor
        if let left, left.isAlive {
            try adopted(left)
        } else {
            try spawn()
        }
        let thread = Thread { [self] in watch() }
        thread.name = "keeper"
        thread.start()
    }

    var failure: Problem? { state.withLock(\.failure) }
    var hasEnded: Bool { state.withLock(\.ended) }

    /// Begins the orderly stop; a second call ends the supervisor at once.
    func stop() {
        let (supervisor, again) = state.withLock { state in
            defer { state.stopping = true }
            return (state.supervisor, state.stopping)
        }
        supervisor?.signal(again ? SIGKILL : SIGTERM)
    }

    private func adopted(_ mark: ProcessMark) throws {
        let stopping = state.withLock { state in
            state.supervisor = mark
            return state.stopping
        }
        // Told to stop while it was being started: the signal went to the one before.
        if stopping { mark.signal(SIGTERM) }
        try record(mark)
    }

    private func record(_ mark: ProcessMark) throws {
        guard let me = ProcessMark(pid: getpid()) else { return }
        try KeeperRecord(keeper: me, supervisor: mark, portBase: config.portBase).save(config.home)
    }

    private func spawn() throws {
        let log = try Self.openLog(config.home, "supervisor")
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer {
            close(log)
            close(null)
        }
        var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("LISTEN_") }
        // A crash dump would hold the restart back for many seconds (swift-notes); the exit is recorded all the same.
        if environment["SWIFT_BACKTRACE"] == nil { environment["SWIFT_BACKTRACE"] = "enable=no" }
        let pid = try Spawn(
            path: try Spawn.sibling("slipway-supervisor"),
            arguments: ["slipway-supervisor"] + Self.flags(config), environment: environment, descriptors: [null, log, log]
        ).start()
        guard let mark = ProcessMark(pid: pid) else {
            var ended = csys_exit()
            _ = csys_collect(pid, &ended)
            throw Problem(.failed, "the supervisor ended at once", hint: "see \(config.home.logs)/supervisor.log")
        }
        try adopted(mark)
    }

    /// What every program of the suite is told on its command line.
    static func flags(_ config: SuiteConfig) -> [String] {
        ["--home", config.home.path, "--port-base", String(config.portBase), "--log-level", config.logLevel.rawValue]
    }

    /// Opens HOME/logs/NAME.log at its end; one that has grown large is put aside first.
    static func openLog(_ home: Home, _ name: String) throws -> Int32 {
        let path = "\(home.logs)/\(name).log"
        var info = stat()
        if stat(path, &info) == 0, info.st_size > 10 << 20 { rename(path, path + ".1") }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Problem(.failed, "cannot write \(path): \(String(cString: strerror(errno)))") }
        return descriptor
    }

    // MARK: The watching thread

    private func watch() {
        var pause = 0.0
        var startedAt = ContinuousClock.now
        while true {
            guard let supervisor = state.withLock(\.supervisor) else { break }
            let status = awaitEnd(of: supervisor)
            let lived = ContinuousClock.now - startedAt
            let isRefusal = status.map { !$0.by_signal && $0.status == 2 } ?? false
            let (stopping, settled) = state.withLock { state in
                // One that was there before this keeper counts as well: its end cannot be read.
                if !isRefusal || lived > .seconds(5) { state.settled = true }
                return (state.stopping, state.settled)
            }
            if stopping { break }
            if isRefusal, !settled {
                // Wrong settings do not get better by trying again, and nothing is lost by saying so: nothing runs yet.
                fail(Problem(.configuration, "the supervisor refuses its settings: \(lastLine("supervisor"))", hint: "slipway doctor"))
                break
            }
            // From here on apps depend on us. A half-saved suite.yml or a moment without memory must not take them down.
            pause = lived > .seconds(30) ? 0 : min(pause == 0 ? 0.1 : pause * 2, 5)
            respawn(after: pause > 0.1 ? pause : 0, &startedAt)
            if state.withLock(\.stopping), state.withLock({ $0.supervisor == supervisor }) { break }
        }
        clear()
        KeeperRecord.remove(config.home)
        state.withLock { $0.ended = true }
    }

    /// Starts the supervisor again, however often that takes; returns early when told to stop.
    private func respawn(after seconds: Double, _ startedAt: inout ContinuousClock.Instant) {
        var pause = seconds
        while true {
            let deadline = ContinuousClock.now + .seconds(pause)
            while ContinuousClock.now < deadline {
                if state.withLock(\.stopping) { return }
                Thread.sleep(forTimeInterval: 0.05)
            }
            if state.withLock(\.stopping) { return }
            do {
                startedAt = .now
                return try spawn()
            } catch {
                StandardError.write("slipway up: cannot start the supervisor, trying again: \(error)\n")
                pause = min(max(pause * 2, 0.5), 5)
            }
        }
    }

    private func fail(_ problem: Problem) { state.withLock { $0.failure = problem } }

    /// Waits for the process, collecting every orphan that ends meanwhile. Nil when it was nobody's child here.
    private func awaitEnd(of mark: ProcessMark) -> csys_exit? {
        while true {
            var ended = csys_exit()
            switch csys_collect(mark.pid, &ended) {
            case 1: return ended
            case 0:
                // A child: the kernel says which of all the children ended, the supervisor or an orphan.
                guard csys_wait_any(&ended) == 0, ended.pid != mark.pid else { continue }
                _ = csys_collect(ended.pid, &ended)
            default:
                // An adopted one is not a child: its descriptor tells. The short wait bounds how long an orphan stays a zombie.
                collectOrphans(but: mark.pid)
                if mark.wait(seconds: 2) { return nil }
            }
        }
    }

    private func collectOrphans(but supervisor: Int32) {
        let me = getpid()
        for pid in Processes.all() where pid != supervisor && Processes.parent(pid) == me {
            var ended = csys_exit()
            _ = csys_collect(pid, &ended)
        }
    }

    /// What a supervisor that was killed while stopping left behind: told to stop, then ended.
    private func clear() {
        let me = getpid()
        func orphans() -> [ProcessMark] {
            Processes.all().filter { Processes.parent($0) == me }.compactMap { ProcessMark(pid: $0) }
        }
        for (signal, seconds) in [(SIGTERM, 10.0), (SIGKILL, 5.0)] {
            let deadline = ContinuousClock.now + .seconds(seconds)
            for orphan in orphans() { orphan.signal(signal) }
            while ContinuousClock.now < deadline {
                collectOrphans(but: 0)
                if orphans().isEmpty { return }
                Thread.sleep(forTimeInterval: 0.05)
            }
        }
    }

    private func lastLine(_ name: String) -> String { Self.lastLine(config.home, name) }

    /// The last line of a log, for a message.
    static func lastLine(_ home: Home, _ name: String) -> String {
        guard let data = FileManager.default.contents(atPath: "\(home.logs)/\(name).log") else { return "see \(home.logs)/\(name).log" }
        let lines = String(decoding: data.suffix(4096), as: UTF8.self).split(separator: "\n")
        return lines.last { !$0.hasPrefix("  hint:") }.map { Terminal.inert(String($0), limit: 300) } ?? "its log is empty"
    }

    // MARK: Signals

    /// Calls `stop` on SIGTERM and SIGINT (and SIGHUP when a terminal went away). Keep the result alive.
    func stopOnSignals(alsoHangup: Bool) -> [any DispatchSourceSignal] {
        if !alsoHangup { signal(SIGHUP, SIG_IGN) }
        return ([SIGTERM, SIGINT] + (alsoHangup ? [SIGHUP] : [])).map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [self] in stop() }
            source.activate()
            return source
        }
    }
}
