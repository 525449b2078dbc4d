import CSys
import Glibc

/// The daemon: one thread, one loop, and everything that it owns.
final class Daemon {
    private(set) var settings: Settings
    let options: Options
    let poller: Poller
    let logger: Logger
    let logFollowers: Followers
    /// What children inherit.
    let environment: [String: String]
    let childFiles: (soft: UInt64, hard: UInt64)
    /// For whoever reads: nothing is kept in it between two reads.
    let buffer: UnsafeMutableRawBufferPointer
    private(set) var groups: [String: ProcessGroup] = [:]
    var connections: [Int32: Connection] = [:]
    private var listeners: [Listener] = []
    private var byPid: [Int32: Process] = [:]
    /// Commands that are no program's process.
    private var endings: [Int32: (csys_exit) -> Void] = [:]
    /// Sockets that are held for programs, by their address.
    private var held: [Program.Listen: Int32] = [:]
    /// Processes whose place another one has taken, until they have ended.
    private var leaving: [ObjectIdentifier: Process] = [:]
    var isChanging: Bool { !leaving.isEmpty }
    /// Those that wait for what they depend on.
    private var waiting: [ObjectIdentifier: Process] = [:]
    private var pools: [ListenerPool] = []
    private var serial = -1
    private(set) var isEnding = false
    private var isRestarting = false
    private var endingSince = 0
    private var groupsToStop: [ProcessGroup] = []
    private var stopping: ProcessGroup?
    private var endReport: Int?
    private var hasTicks = false
    private var lastTicks: [Int: Int] = [:]
    private var dateSecond = -1
    private var dateText = ""
    private(set) lazy var remote = Remote(self)
    private var signals: SignalReader?
    private var pidFile: Int32 = -1
    /// Forgotten with each change.
    var allInfo: ProcessInfo.All?

    init(_ settings: Settings, _ options: Options, _ logger: Logger, _ followers: Followers, files: (soft: UInt64, hard: UInt64)) throws {
        self.settings = settings
        self.options = options
        self.logger = logger
        logFollowers = followers
        environment = Environment.now
        childFiles = files
        poller = try Poller()
        buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 4096)
    }
    deinit { buffer.deallocate() }

    /// What children are told to reach us by.
    var serverURL: String? {
        for server in settings.servers { if case .unix(let path, _, _, _) = server.address { return "unix://\(Files.absolute(path))" } }
        for server in settings.servers {
            if case .inet(let host, let port) = server.address { return "http://\(host.isEmpty ? "localhost" : host):\(port)" }
        }
        return nil
    }

    /// For the head of an answer (RFC 9110, 5.6.7); made once a second.
    var date: String {
        let now = Clock.wall() / 1000
        if now != dateSecond {
            dateSecond = now
            var time = time_t(now)
            var parts = tm()
            gmtime_r(&time, &parts)
            let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            let day = "\(days[Int(parts.tm_wday)]), \(parts.tm_mday.padded(2)) \(months[Int(parts.tm_mon)]) \(1900 + parts.tm_year)"
            dateText = "\(day) \(parts.tm_hour.padded(2)):\(parts.tm_min.padded(2)):\(parts.tm_sec.padded(2)) GMT"
        }
        return dateText
    }

    // MARK: life

    /// The command line without its program and without what belongs to one start.
    var arguments: [String] = []
    /// Held while this runs.
    var lock: PidLock?

    /// What the program that takes the place of this one has to know.
    var saved: State {
        var saved = State()
        saved.set("version", Reexec.version)
        saved.set("serial", serial)
        saved.set("pidfile", pidFile)
        saved.set("lock", lock?.fd ?? -1)
        saved.set(
            "servers",
            listeners.map { listener in
                var one = State()
                one.set("address", "\(listener.server.address)")
                one.set("fd", listener.fd)
                return one
            })
        saved.set(
            "held",
            held.map { address, fd in
                var one = State()
                one.set("address", address.description)
                one.set("fd", fd)
                return one
            })
        saved.set("pools", pools.map(\.saved))
        saved.set("processes", ordered.map(\.saved))
        return saved
    }

    var descriptors: [Int32] {
        (listeners.map(\.fd) + ordered.flatMap(\.descriptors) + held.values + [pidFile, lock?.fd ?? -1]).filter { $0 >= 0 }
    }

    private func resume(_ saved: State) {
        serial = saved.int("serial") ?? -1
        for socket in saved.list("held") {
            guard let address = try? Program.Listen.parse(socket.text("address") ?? ""), let fd = socket.int32("fd") else { continue }
            _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
            held[address] = fd
        }
        for process in saved.list("processes") {
            if let own = groups[process.text("group") ?? ""]?.processes[process.text("name") ?? ""] {
                own.restore(process)
            } else if let pid = process.int("pid"), pid > 0 {
                logger.critical(
                    "process \(pid) ('\(process.text("name") ?? "")') runs, and the configuration knows nothing of it; end it by hand")
            }
        }
        for pool in saved.list("pools") { groups[pool.text("name") ?? ""]?.pool?.restore(pool) }
        poller.soon { [weak self] in for pool in self?.pools ?? [] { pool.dispatch() } }
        logger.info("supervisord goes on with pid \(getpid())")
    }

    func pauseLooking(_ isPaused: Bool) {
        for process in ordered { if isPaused { process.stopLooking() } else { process.goOnLooking() } }
    }

    func reexec(_ refused: @escaping (String) -> Void, accepted: @escaping () -> Void = {}) {
        Reexec.begin(
            self,
            { [weak self] why in
                self?.logger.critical("this program stays, because \(why)")
                refused(why)
            }, accepted: accepted)
    }

    /// Runs until it is told to end; true when it shall begin again.
    func run(_ sockets: [(Server, Int32)], _ saved: State? = nil) throws -> Bool {
        signals = try SignalReader(self)
        csys_set_child_subreaper()
        listeners = sockets.map { Listener($0.0, $0.1, self) }
        for (server, _) in sockets {
            logger.info("RPC interface 'supervisor' initialized")
            if server.username == nil { logger.critical("Server '\(server.name)' running without any HTTP authentication checking") }
        }
        for group in settings.groups { groups[group.name] = ProcessGroup(group, self) }
        if let saved {
            pidFile = saved.int32("pidfile") ?? -1
            if pidFile >= 0 { _ = fcntl(pidFile, F_SETFD, FD_CLOEXEC) }
            collectPools()
            resume(saved)
        } else {
            writePid()
            logger.info("supervisord started with pid \(getpid())")
            collectPools()
            emit(.supervisorRunning) { [] }
            // One that another depends on may have been started for that one.
            for process in ordered where process.settings.autostart && process.state == .stopped { process.spawn() }
        }
        poller.run()
        for listener in listeners { listener.close() }
        for connection in connections.values { connection.close() }
        // While this is still here for them to look at.
        pools = []
        leaving = [:]
        groups = [:]
        closeSockets()
        for (server, _) in sockets { if case .unix(let path, _, _, _) = server.address { unlink(path) } }
        if pidFile >= 0 {
            unlink(settings.daemon.pidfile)
            close(pidFile)
        }
        return isRestarting
    }

    private func writePid() {
        let path = settings.daemon.pidfile
        pidFile = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard pidFile >= 0, ftruncate(pidFile, 0) == 0,
            "\(getpid())\n".utf8.withContiguousStorageIfAvailable({ Files.write(pidFile, UnsafeRawBufferPointer($0)) }) ?? false
        else { return logger.critical("could not write pidfile \(path): \(reason())") }
    }

    /// Stops everything, group by group from the highest priority number down, and ends the loop.
    func end(restart: Bool) {
        if restart, !isEnding {
            // What cannot be started again is not stopped.
            do { _ = try SettingsReader.read(options.configuration) } catch {
                return logger.critical("not restarted, because the configuration cannot be read: \(error)")
            }
        }
        guard !isEnding else {
            if !restart { isRestarting = false }
            return
        }
        isEnding = true
        isRestarting = restart
        endingSince = Clock.monotonic()
        emit(.supervisorStopping) { [] }
        // What others depend on goes after them.
        var depths: [String: Int] = [:]
        func depth(_ group: ProcessGroup) -> Int {
            if let known = depths[group.name] { return known }
            depths[group.name] = 0
            let below = group.ordered.flatMap { dependencies(of: $0) }.filter { $0.group != group.name }
            let own = below.compactMap { groups[$0.group] }.map { depth($0) + 1 }.max() ?? 0
            depths[group.name] = own
            return own
        }
        groupsToStop = groups.values.map { (depth($0), $0.settings.priority, $0.name, $0) }
            .sorted { ($0.0, $0.1, $0.2) < ($1.0, $1.1, $1.2) }.map(\.3)
        report()
        poller.soon { [weak self] in self?.stopNext() }
    }

    private func report() {
        endReport = poller.after(3000) { [weak self] in
            guard let self else { return }
            let names = ordered.filter { !$0.state.isStopped }.map(\.settings.name)
            if !names.isEmpty { logger.info("waiting for \(names.joined(separator: ", ")) to die") }
            report()
        }
    }

    private func stopNext() {
        while stopping == nil
            || (stopping?.isStopped == true && !leaving.values.contains { $0.group == stopping?.name && !$0.state.isStopped })
        {
            guard let group = groupsToStop.popLast() else { return linger() }
            stopping = group
            for process in group.ordered.reversed() where process.state.isRunning { _ = process.stop() }
            for process in leaving.values where process.group == group.name && process.state.isRunning { _ = process.stop() }
        }
    }

    /// Who asked for the end a moment ago may ask once more what became of it.
    private func linger() {
        guard endReport != nil else { return }
        poller.cancel(endReport)
        endReport = nil
        let pause = connections.isEmpty ? 0 : max(0, 250 - (Clock.monotonic() - endingSince))
        poller.after(pause) { [weak self] in self?.poller.isRunning = false }
    }

    // MARK: processes

    /// By priority of groups, then of processes.
    var ordered: [Process] {
        groups.values.sorted { ($0.settings.priority, $0.name) < ($1.settings.priority, $1.name) }.flatMap(\.ordered)
    }

    func started(_ process: Process) {
        byPid[process.pid] = process
        allInfo = nil
    }
    func forget(_ pid: Int32) { byPid[pid] = nil }

    /// The sockets of a program, opened when they are not yet. Throws `Complaint`.
    func sockets(of program: Program) throws -> [(name: String, fd: Int32)] {
        try program.listen.map { address in
            if let fd = held[address] { return (program.name, fd) }
            let fd = try Sockets.open(address, user: program.user)
            held[address] = fd
            return (program.name, fd)
        }
    }

    /// Those that no program asks for any more.
    private func closeSockets() {
        let wanted = Set(groups.values.flatMap { $0.ordered.flatMap(\.settings.listen) })
        for (address, fd) in held where !wanted.contains(address) {
            close(fd)
            held[address] = nil
            if case .unix(let path) = address { unlink(path) }
        }
    }

    /// Starts another one of the same beside it; once that runs it takes its place, and the old one is stopped. When it does not come up the old one
    /// stays. `done` gets the reason then.
    func replace(_ old: Process, in group: ProcessGroup, _ done: @escaping (String?) -> Void) {
        let new = old.makeTwin()
        old.twin = new
        leaving[ObjectIdentifier(new)] = new
        var why: String?
        func look(_ new: Process) -> Bool {
            if new.state == .running, why == nil {
                if groups[group.name] === group, group.processes[new.settings.name] === old, old.twin === new, !isEnding {
                    takePlace(new, of: old, in: group, done)
                    return true
                }
                why = "it was stopped meanwhile"
            }
            switch new.state {
            case .starting, .stopping: return false
            case .running, .backoff:
                // It is not tried again: the old one serves.
                if why == nil { why = new.spawnError.isEmpty ? "it ended" : new.spawnError }
                new.isDismissed = true
                _ = new.stop()
                guard new.state.isStopped else { return false }
            default: break
            }
            new.isDismissed = true
            if old.twin === new { old.twin = nil }
            let reason = why ?? (new.spawnError.isEmpty ? "it was stopped" : new.spawnError)
            logger.warn("\(new.settings.name) is not changed for a new process: \(reason)")
            poller.soon { [weak self] in self?.leaving[ObjectIdentifier(new)] = nil }
            done(reason)
            return true
        }
        new.spawn()
        if new.settings.startSeconds == 0, new.settings.ready == nil { new.hasStayedUp() }
        if !look(new) { new.observe(look) }
    }

    private func takePlace(_ new: Process, of old: Process, in group: ProcessGroup, _ done: @escaping (String?) -> Void) {
        old.twin = nil
        old.isDismissed = true
        leaving[ObjectIdentifier(new)] = nil
        group.replace(old, by: new)
        allInfo = nil
        logger.info("\(new.settings.name) (\(new.pid)) takes the place of \(old.pid)")
        leaving[ObjectIdentifier(old)] = old
        if old.state.isRunning { _ = old.stop() }
        func look(_ old: Process) -> Bool {
            guard old.state.isStopped else { return false }
            // After those that look at its end have looked.
            poller.soon { [weak self] in self?.leaving[ObjectIdentifier(old)] = nil }
            done(nil)
            return true
        }
        if !look(old) { old.observe(look) }
    }

    func onEnd(of pid: Int32, _ action: @escaping (csys_exit) -> Void) { endings[pid] = action }

    /// The processes that have to run, or to have succeeded, before it; empty when it depends on nothing.
    func dependencies(of process: Process) -> [Process] {
        process.settings.dependsOn.flatMap { name -> [Process] in
            let (group, own) = name.halves(at: ":") ?? (name, "*")
            guard let found = groups[group] else { return [] }
            return own == "*" ? found.ordered : found.processes[own].map { [$0] } ?? []
        }
    }

    func waits(_ process: Process, _ isWaiting: Bool) { waiting[ObjectIdentifier(process)] = isWaiting ? process : nil }

    func changed(_ process: Process) {
        allInfo = nil
        if !waiting.isEmpty, !isEnding {
            // After what follows by itself: one that ended may have been started again by then.
            poller.soon { [weak self] in
                self?.poller.soon { for process in self?.waiting.values.map({ $0 }) ?? [] { process.lookAtDependencies() } }
            }
        }
        if isEnding, process.state.isStopped { poller.soon { [weak self] in self?.stopNext() } }
    }

    func collect() {
        var end = csys_exit()
        while csys_collect_any(&end) == 1 {
            if let ended = endings.removeValue(forKey: end.pid) {
                ended(end)
                continue
            }
            guard let process = byPid[end.pid] else {
                logger.info(
                    "reaped unknown pid \(end.pid) (\(end.by_signal ? "terminated by \(Signals.name(end.status))" : "exit status \(end.status)"))"
                )
                continue
            }
            process.ended(end)
        }
    }

    /// False when it is there already.
    func add(_ group: Group) -> Bool {
        guard groups[group.name] == nil else { return false }
        let made = ProcessGroup(group, self)
        groups[group.name] = made
        collectPools()
        emit(.groupAdded) { Array("groupname:\(group.name)\n".utf8) }
        poller.soon { [weak self] in
            guard self?.isEnding == false else { return }
            for process in made.ordered where process.settings.autostart && process.state == .stopped && process.lastStart == 0 {
                process.spawn()
            }
        }
        return true
    }

    /// False when something of it runs.
    func remove(_ group: ProcessGroup) -> Bool {
        guard group.isStopped, !leaving.values.contains(where: { $0.group == group.name }) else { return false }
        groups[group.name] = nil
        closeSockets()
        collectPools()
        emit(.groupRemoved) { Array("groupname:\(group.name)\n".utf8) }
        return true
    }

    /// Brings a group to other settings: processes whose own are the same go on, the others are stopped, and those that are new started once nothing is
    /// left of what was stopped.
    func update(
        _ group: ProcessGroup, to settings: Group, _ done: @escaping (_ kept: [Process], _ stopped: [Process], _ started: [Process]) -> Void
    ) {
        let kept = group.ordered.filter { settings.programs.contains($0.settings) }
        let gone = group.ordered.filter { process in !kept.contains { $0 === process } }
        var isDone = false
        func finish() {
            guard !isDone, gone.allSatisfy(\.state.isStopped) else { return }
            isDone = true
            for process in gone { leaving[ObjectIdentifier(process)] = nil }
            guard groups[group.name] === group, !isEnding else { return done(kept, gone, []) }
            let fresh = ProcessGroup(settings, self, keeping: kept)
            groups[group.name] = fresh
            closeSockets()
            allInfo = nil
            let new = fresh.ordered.filter { process in !kept.contains { $0 === process } }
            for process in new where process.settings.autostart { process.spawn() }
            done(kept, gone, new)
        }
        for process in gone {
            process.isDismissed = true
            leaving[ObjectIdentifier(process)] = process
            if process.state.isRunning { _ = process.stop() }
            if !process.state.isStopped {
                process.observe { [weak self] process in
                    guard process.state.isStopped else { return false }
                    self?.poller.soon(finish)
                    return true
                }
            }
        }
        poller.soon(finish)
    }

    /// Reads the configuration again; the names of groups that are new, different and gone. Throws `Complaint`, and then nothing has changed.
    func reread() throws -> (added: [String], changed: [String], removed: [String]) {
        let fresh = try SettingsReader.read(options.configuration)
        for warning in fresh.warnings { logger.warn(warning) }
        for note in fresh.notes { logger.info(note) }
        settings.groups = fresh.groups
        let names = Set(fresh.groups.map(\.name))
        return (
            fresh.groups.filter { groups[$0.name] == nil }.map(\.name),
            fresh.groups.filter { group in groups[group.name].map { $0.settings != group } ?? false }.map(\.name),
            groups.keys.filter { !names.contains($0) }.sorted()
        )
    }

    func reopenLogs() {
        logger.file?.reopen()
        logger.info("supervisord logreopen")
        for group in groups.values { for process in group.ordered { process.reopenLogs() } }
    }

    // MARK: events

    private func collectPools() {
        allInfo = nil
        pools = groups.values.sorted { $0.name < $1.name }.compactMap(\.pool)
        if !hasTicks, pools.contains(where: { pool in [.tick5, .tick60, .tick3600].contains { pool.wants($0) } }) {
            hasTicks = true
            for period in [5, 60, 3600] { lastTicks[period] = Clock.wall() / 1000 / period }
            tick()
        }
    }

    /// Gives an event to the pools that want it; the payload is made only then.
    func emit(_ type: EventType, _ payload: () -> [UInt8]) {
        var event: Event?
        for pool in pools where pool.wants(type) {
            if event == nil {
                serial += 1
                event = Event(type: type, payload: payload(), serial: serial)
            }
            if let event { pool.take(event) }
        }
    }

    private func tick() {
        let now = Clock.wall()
        for (period, type) in [(5, EventType.tick5), (60, .tick60), (3600, .tick3600)] where now / 1000 / period != lastTicks[period] {
            lastTicks[period] = now / 1000 / period
            emit(type) { Array("when:\(now / 1000 / period * period)".utf8) }
        }
        poller.after(5000 - now % 5000 + 1) { [weak self] in self?.tick() }
    }
}

/// Signals, as something that the loop can wait for.
final class SignalReader: Watcher {
    static let taken = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD]
    private let fd: Int32
    private unowned let daemon: Daemon

    init(_ daemon: Daemon) throws {
        self.daemon = daemon
        fd = csys_signals(Self.taken, Int32(Self.taken.count))
        guard fd >= 0 else { throw Complaint("signalfd: \(reason())") }
        daemon.poller.watch(fd, 1, self)
        // Those that ended before this was here.
        daemon.poller.soon { [weak daemon] in daemon?.collect() }
    }
    deinit { close(fd) }

    func ready(_ fd: Int32, _ events: Int32) {
        while true {
            let signal = csys_next_signal(fd)
            switch signal {
            case 0: return
            case SIGCHLD:
                daemon.logger.debug("received SIGCHLD indicating a child quit")
                daemon.collect()
            case SIGHUP:
                if daemon.isEnding {
                    daemon.logger.warn("ignored SIGHUP indicating restart request (shutdown in progress)")
                } else {
                    daemon.logger.warn("received SIGHUP indicating restart request")
                    daemon.end(restart: true)
                }
            case SIGUSR1:
                daemon.logger.warn("received SIGUSR1 indicating a change of this program for its new version")
                daemon.reexec { _ in }
            case SIGUSR2:
                if daemon.isEnding {
                    daemon.logger.warn("ignored SIGUSR2 indicating log reopen request (shutdown in progress)")
                } else {
                    daemon.logger.info("received SIGUSR2 indicating log reopen request")
                    daemon.reopenLogs()
                }
            default:
                daemon.logger.warn("received \(Signals.name(signal)) indicating exit request")
                daemon.end(restart: false)
            }
        }
    }
}
