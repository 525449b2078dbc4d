import CSys
import Dispatch
import Foundation
import Synchronization

/// A process on this host, known by a process descriptor: a child, or one that an earlier supervisor started.
///
/// Its end is noticed through the descriptor, never by polling; for a stranger's child the status stays unknown.
final class RunningProcess: Sendable {
    let pid: Int32
    /// Start time, against pids that are used again.
    let ticks: UInt64
    private let pidfd: Int32
    // DispatchSource is thread-safe but not marked so; it is only cancelled after it was made.
    private nonisolated(unsafe) let source: any DispatchSourceRead
    private let state = Mutex<State>(State())

    private struct State {
        var end: End?
        var waiters: [AsyncStream<End>.Continuation] = []
    }

    /// How it ended; both nil when that is not known.
    struct End: Sendable, Hashable {
        var status: Int?
        var signal: Int?
    }

    /// The children of this process that somebody here waits for; all others are orphans to collect.
    static let children = Mutex<Set<Int32>>([])

    /// Starts one.
    static func start(_ launch: Launch) throws -> RunningProcess {
        // Under the lock, so that the orphan reaper cannot take a child that ends at once for a stranger.
        try children.withLock { known in
            let (pid, pidfd) = try Spawn.start(launch)
            known.insert(pid)
            // A zombie still has its line in /proc, so this is there even if it has ended already.
            return RunningProcess(pid: pid, pidfd: pidfd, ticks: ProcFS.stat(pid)?.ticks ?? 0)
        }
    }

    /// The process of a record, when it still runs.
    static func adopt(_ record: ProcessRecord) -> RunningProcess? {
        guard record.boot == ProcFS.boot else { return nil }
        let pidfd = csys_pidfd_open(record.pid)
        guard pidfd >= 0 else { return nil }
        // The descriptor is bound now: if the start time fits, it is bound to the right one.
        guard let stat = ProcFS.stat(record.pid), stat.ticks == record.ticks, stat.state != "Z" else {
            close(pidfd)
            return nil
        }
        return RunningProcess(pid: record.pid, pidfd: pidfd, ticks: record.ticks)
    }

    /// A process that was started with exactly this program's arguments and is nobody's child but its keeper's.
    static func stray(of program: Program) -> RunningProcess? {
        let wanted = [program.executable] + program.arguments
        for pid in ProcFS.all where ProcFS.arguments(pid) == wanted {
            // A worker of the same program has the same arguments; the first of a session is the one that was started.
            guard let stat = ProcFS.stat(pid), stat.session == pid, stat.state != "Z", ProcFS.owner(pid) == geteuid() else { continue }
            let record = ProcessRecord(name: program.name, pid: pid, ticks: stat.ticks, boot: ProcFS.boot, generation: 1, since: .now())
            if let process = adopt(record) { return process }
        }
        return nil
    }

    private init(pid: Int32, pidfd: Int32, ticks: UInt64) {
        self.pid = pid
        self.pidfd = pidfd
        self.ticks = ticks
        let source = DispatchSource.makeReadSource(fileDescriptor: pidfd, queue: Self.queue)
        self.source = source
        source.setEventHandler { [self] in ended() }
        source.setCancelHandler { close(pidfd) }
        source.resume()
    }

    private static let queue = DispatchQueue(label: "slipway.supervisor.exits")

    private func ended() {
        var found = csys_exit()
        let collected = csys_collect(pid, &found)
        if collected == 0 { return }
        let end: End =
            collected < 0
            ? End() : found.by_signal ? End(status: nil, signal: Int(found.status)) : End(status: Int(found.status), signal: nil)
        Self.children.withLock { _ = $0.remove(pid) }
        let waiters = state.withLock { state in
            guard state.end == nil else { return [AsyncStream<End>.Continuation]() }
            state.end = end
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters {
            waiter.yield(end)
            waiter.finish()
        }
        // Also breaks the handler's hold on this object.
        source.cancel()
    }

    /// How it ended; nil while it runs.
    var end: End? { state.withLock { $0.end } }

    /// Waits for the end: nil when the time (seconds) is over or the task is cancelled.
    func ended(within seconds: Double? = nil) async -> End? {
        let (stream, waiter) = AsyncStream<End>.makeStream()
        let already = state.withLock { state in
            if state.end == nil { state.waiters.append(waiter) }
            return state.end
        }
        if let already { return already }
        guard let seconds else {
            for await end in stream { return end }
            return nil
        }
        return await withTaskGroup(of: End?.self) { group in
            group.addTask {
                for await end in stream { return end }
                return nil
            }
            group.addTask {
                try? await Task.sleep(for: .seconds(seconds))
                return nil
            }
            defer { group.cancelAll() }
            return await group.next() ?? nil
        }
    }

    /// Signals this process alone.
    func signal(_ number: Int32) { if end == nil { _ = csys_pidfd_send_signal(pidfd, number) } }

    /// Signals its process group, which it leads: a shell passes no signal on to what it waits for.
    func signalGroup(_ number: Int32) {
        // While it is not collected its number, and so its group's, cannot be another's.
        if end == nil, kill(-pid, number) == 0 { return }
        signal(number)
    }

    /// Ends every process of its session that is still there, until none is or `seconds` are over. For hosts without cgroups;
    /// what made a session of its own escapes.
    func killSession(within seconds: Double = 2) async {
        await Self.killSession(pid, within: seconds)
    }
    static func killSession(_ session: Int32, within seconds: Double = 2) async {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while true {
            let members = ProcFS.session(session)
            guard !members.isEmpty, ContinuousClock.now < deadline else { return }
            for pid in members { kill(pid, SIGKILL) }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
