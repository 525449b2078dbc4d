import CSys
import Glibc

/// A configured process and its life: the states of supervisord, at the same moments and with the same words.
final class Process {
    enum Life: Int {
        case stopped = 0
        case starting = 10
        case running = 20
        case backoff = 30
        case stopping = 40
        case exited = 100
        case fatal = 200
        case unknown = 1000

        var name: String { "\(self)".uppercased() }
        /// There is, or there is about to be, a process.
        var isRunning: Bool { self == .running || self == .backoff || self == .starting }
        var isStopped: Bool { self == .stopped || self == .exited || self == .fatal || self == .unknown }
        var isSignallable: Bool { self == .running || self == .starting || self == .stopping }
    }

    /// A finished run of a one-shot program. Times in seconds since 1970.
    struct Run {
        var began: Int
        var ended: Int
        /// Nil after a signal.
        var status: Int?
        var signal: Int32?
        var succeeded: Bool
    }

    let settings: Program
    let group: String
    unowned let daemon: Daemon
    private let poller: Poller
    private(set) var state = Life.stopped
    private(set) var pid: Int32 = 0
    /// Seconds since 1970; 0: never.
    private(set) var lastStart = 0
    private(set) var lastStop = 0
    private(set) var spawnError = ""
    private(set) var exitStatus: Int?
    private(set) var runs: [Run] = []
    private var startedAt = 0
    private var attempts = 0
    private var isKilling = false
    private var timer: Int?
    private var probe: Probe?
    private var pauseOfProbe: Int?
    private var notifySocket: NotifySocket?
    /// It was not ready in time, or not well, and is being ended for that.
    private var isUnready = false
    private var isUnwell = false
    private var failures = 0
    /// The end of what it wrote before it was ready.
    private var written: [UInt8] = []
    /// Lives of less than a second, one after the other.
    private var shortLives = 0
    var outputLog: LogFile?
    var errorLog: LogFile?
    private(set) var outputFollowers = Followers()
    private(set) var errorFollowers = Followers()
    private(set) var outputPath: String?
    private(set) var errorPath: String?
    private var channels: [Channel] = []
    private var input: Input?
    /// Set for event listeners.
    var listener: ListenerState?
    weak var pool: ListenerPool?
    /// Asked after each change of state; those that answer true are done.
    private var observers: [(Process) -> Bool] = []
    /// The parts of the answer to getProcessInfo that stay as they are until the state changes.
    var encoded: EncodedInfo?

    /// `logs`: the files of the one whose place it takes.
    init(_ settings: Program, in group: String, _ daemon: Daemon, logs: (String?, String?)? = nil) {
        self.settings = settings
        self.group = group
        self.daemon = daemon
        poller = daemon.poller
        outputPath = logs.map(\.0) ?? Self.path(settings.output, settings, "stdout", daemon)
        errorPath = logs.map(\.1) ?? (settings.redirectsError ? nil : Self.path(settings.error, settings, "stderr", daemon))
    }
    deinit { poller.cancel(timer) }

    /// A file that is named by itself is made at once, so that its name is known.
    private static func path(_ output: Program.Output, _ settings: Program, _ channel: String, _ daemon: Daemon) -> String? {
        switch output.file {
        case .none: return nil
        case .path(let path): return path
        case .automatic:
            let model =
                "\(daemon.settings.daemon.childLogDirectory)/\(settings.name)-\(channel)---\(daemon.settings.daemon.identifier)-XXXXXX.log"
            var bytes = model.utf8CString
            let fd = bytes.withUnsafeMutableBufferPointer { $0.baseAddress.map { mkstemps($0, 4) } ?? -1 }
            guard fd >= 0 else {
                daemon.logger.error(
                    "no log file for \(settings.name) can be made in \(daemon.settings.daemon.childLogDirectory): \(reason())")
                return nil
            }
            close(fd)
            return String(decoding: bytes.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    // MARK: starting

    /// Why it cannot be started at all.
    enum Unstartable: Error {
        case notFound(String)
        case notExecutable(String)
        var text: String {
            switch self {
            case .notFound(let text), .notExecutable(let text): text
            }
        }
    }

    /// The program's file and its arguments.
    func executable() throws(Unstartable) -> (path: String, arguments: [String]) {
        let words: [String]
        do { words = try Words.split(settings.command) } catch {
            throw .notExecutable("can't parse command '\(settings.command)': \(error)")
        }
        guard let name = words.first, !name.isEmpty else { throw .notExecutable("command is empty") }
        var path = name
        if !name.contains("/") {
            guard let found = Executable.find(name, settings.environment["PATH"] ?? daemon.environment["PATH"]) else {
                throw .notFound("can't find command '\(name)'")
            }
            path = found
        }
        var info = stat()
        guard stat(path, &info) == 0 else { throw .notFound("can't find command '\(path)'") }
        if info.st_mode & S_IFMT == S_IFDIR { throw .notExecutable("command at '\(path)' is a directory") }
        if info.st_mode & 0o111 == 0 { throw .notExecutable("command at '\(path)' is not executable") }
        if access(path, X_OK) != 0 { throw .notExecutable("no permission to run command '\(path)'") }
        return (path, words)
    }

    /// EXITED, FATAL, BACKOFF or STOPPED to STARTING; to BACKOFF when there is no process after all.
    func spawn() {
        guard pid == 0 else { return daemon.logger.warn("process '\(settings.name)' already running") }
        guard !isDismissed else { return }
        isKilling = false
        spawnError = ""
        exitStatus = nil
        lastStart = Clock.wall() / 1000
        startedAt = Clock.monotonic()
        change(to: .starting)
        guard !lookAtDependencies() else { return }
        begin()
    }

    private func begin() {
        startedAt = Clock.monotonic()
        do {
            let (path, arguments) = try executable()
            try start(path, arguments)
        } catch let why as Unstartable {
            failed(why.text)
        } catch {
            failed("\(error)")
        }
    }

    /// What it waits for before it is started; empty when for nothing.
    private(set) var waitsFor = ""

    /// True when something that it depends on does not run yet; what could, is started. Once all do, it is started itself.
    @discardableResult
    func lookAtDependencies() -> Bool {
        guard state == .starting, pid == 0 else { return false }
        let missing = daemon.dependencies(of: self).filter { !$0.satisfies }
        let wasWaiting = !waitsFor.isEmpty
        guard !missing.isEmpty else {
            stopWaiting()
            if wasWaiting { begin() }
            return false
        }
        // What is not there is started once, when the waiting begins; what then ends, or is stopped, is not.
        if let broken = missing.first(where: { $0.state == .fatal || (wasWaiting && ($0.state == .exited || $0.state == .stopped)) }) {
            stopWaiting()
            failed("\(broken.settings.name), which it depends on, has \(broken.state == .stopped ? "been stopped" : "failed")")
            return true
        }
        let names = missing.map(\.settings.name).joined(separator: ", ")
        if names != waitsFor {
            waitsFor = names
            encoded = nil
            daemon.logger.info("\(settings.name) waits for \(names)")
        }
        daemon.waits(self, true)
        if !wasWaiting { for process in missing where process.state == .stopped || process.state == .exited { process.spawn() } }
        return true
    }

    private func stopWaiting() {
        guard !waitsFor.isEmpty else { return }
        waitsFor = ""
        encoded = nil
        daemon.waits(self, false)
    }

    /// What depends on it may start.
    private var satisfies: Bool { settings.kind == .oneshot ? state == .exited && runs.last?.succeeded == true : state == .running }

    private func failed(_ why: String) {
        spawnError = why
        encoded = nil
        daemon.logger.info("spawnerr: \(why)")
        change(to: .backoff)
    }

    private func start(_ path: String, _ arguments: [String]) throws {
        if outputLog == nil, let outputPath { outputLog = try Self.open(outputPath, settings.output, outputFollowers) }
        if errorLog == nil, let errorPath { errorLog = try Self.open(errorPath, settings.error, errorFollowers) }
        if settings.ready == .notify {
            // Of its own for each run: a twin's is open at the same time.
            let path = "\(daemon.settings.daemon.childLogDirectory)/\(settings.name)-\(getpid())-\(Clock.nanoseconds()).notify"
            notifySocket = nil
            notifySocket = try NotifySocket(path, settings.user, poller) { [weak self] in self?.isReady(.notify) }
        }
        let listeners = try daemon.sockets(of: settings)
        var ours: [Int32] = []
        var theirs: [Int32] = []
        defer { for fd in theirs { close(fd) } }
        func pipe(toChild: Bool) throws {
            var ends: (Int32, Int32) = (-1, -1)
            let result = withUnsafeMutablePointer(to: &ends) { $0.withMemoryRebound(to: Int32.self, capacity: 2) { csys_pipe($0) } }
            guard result == 0 else {
                let why = errno
                for fd in ours { close(fd) }
                throw Complaint(
                    why == EMFILE || why == ENFILE
                        ? "too many open files to spawn '\(settings.name)'"
                        : "unknown error making dispatchers for '\(settings.name)': \(reason(why))")
            }
            ours.append(toChild ? ends.1 : ends.0)
            theirs.append(toChild ? ends.0 : ends.1)
        }
        try pipe(toChild: true)
        try pipe(toChild: false)
        if !settings.redirectsError { try pipe(toChild: false) }
        let result = Spawner.start(
            path, arguments, environment: environment, directory: settings.directory,
            descriptors: [theirs[0], theirs[1], theirs[settings.redirectsError ? 1 : 2]], user: settings.user, umask: settings.umask,
            files: daemon.childFiles, listeners: listeners, limits: settings.limits)
        guard result.pid > 0 else {
            for fd in ours { close(fd) }
            throw Spawner.complaint(result, path, settings)
        }
        close(result.pidfd)
        pid = result.pid
        encoded = nil
        daemon.started(self)
        daemon.logger.info("spawned: '\(settings.name)' with pid \(pid)")
        isUnready = false
        isUnwell = false
        if listener != nil { listener = ListenerState() }
        input = Input(ours[0], daemon.poller)
        channels = [Channel(.output, ours[1], self, settings.output, log: outputLog)]
        if !settings.redirectsError { channels.append(Channel(.error, ours[2], self, settings.error, log: errorLog)) }
        if let ready = settings.ready {
            awaitReadiness(ready)
        } else if settings.startSeconds == 0 {
            daemon.poller.soon { [weak self, pid] in if self?.pid == pid { self?.hasStayedUp() } }
        } else {
            wait(settings.startSeconds * 1000 + 1) { $0.hasStayedUp() }
        }
    }

    private static func open(_ path: String, _ output: Program.Output, _ followers: Followers) throws -> LogFile {
        do { return try LogFile(path, maxBytes: output.maxBytes, backups: output.backups, followers: followers) } catch {
            throw Complaint("the log cannot be opened: \(error)")
        }
    }

    private var environment: [String: String] {
        var variables = daemon.environment
        variables["SUPERVISOR_ENABLED"] = "1"
        variables["SUPERVISOR_PROCESS_NAME"] = settings.name
        variables["SUPERVISOR_GROUP_NAME"] = group
        if let notifySocket { variables["NOTIFY_SOCKET"] = notifySocket.path }
        if let url = settings.serverURL ?? daemon.serverURL { variables["SUPERVISOR_SERVER_URL"] = url }
        variables.merge(settings.environment) { _, own in own }
        return variables
    }

    /// STARTING to RUNNING, when it has lived for longer than startsecs.
    func hasStayedUp() {
        guard state == .starting, pid != 0, settings.ready == nil else { return }
        attempts = 0
        change(to: .running)
        daemon.logger.info(
            "success: \(settings.name) entered RUNNING state, process has stayed up for > than \(settings.startSeconds) seconds (startsecs)"
        )
    }

    // MARK: readiness and life

    private func awaitReadiness(_ check: Check) {
        wait(settings.readyTimeout * 1000) { process in
            process.isUnready = true
            process.daemon.logger.warn(
                "'\(process.settings.name)' is not ready after \(process.settings.readyTimeout) s (\(check)), and is ended")
            process.endIt()
        }
        if check.canBeAsked { askWhetherReady(check) }
    }

    private func askWhetherReady(_ check: Check) {
        ask(check, limit: 5000) { process, isWell in
            guard process.state == .starting, !process.isUnready else { return }
            if isWell { return process.isReady(check) }
            process.pauseOfProbe = process.poller.after(100) { [weak process] in process?.askWhetherReady(check) }
        }
    }

    /// STARTING to RUNNING, because the program said so or was found so.
    private func isReady(_ check: Check) {
        guard state == .starting, pid != 0, !isUnready else { return }
        attempts = 0
        change(to: .running)
        daemon.logger.info("success: \(settings.name) entered RUNNING state, it is ready (\(check))")
    }

    private func watchLife() {
        guard let check = settings.alive else { return }
        failures = 0
        look(check)
    }

    private func look(_ check: Check) {
        pauseOfProbe = poller.after(settings.aliveInterval * 1000) { [weak self] in
            self?.ask(check, limit: (self?.settings.aliveTimeout ?? 5) * 1000) { process, isWell in
                guard process.state == .running else { return }
                process.failures = isWell ? 0 : process.failures + 1
                guard process.failures >= process.settings.aliveFailures else { return process.look(check) }
                process.daemon.logger.warn(
                    "'\(process.settings.name)' (\(process.pid)) has failed \(check) \(process.failures) times, and is started anew")
                process.isUnwell = true
                process.endIt()
            }
        }
    }

    private func ask(_ check: Check, limit: Int, _ done: @escaping (Process, Bool) -> Void) {
        probe = Probe(check, daemon, environment: environment, user: settings.user, directory: settings.directory, limit: limit) {
            [weak self, pid] isWell in
            guard let self, self.pid == pid, pid != 0 else { return }
            done(self, isWell)
        }
    }

    /// The stop signal, and SIGKILL when it does not help; the state stays as it is until the end is seen.
    private func endIt() {
        _ = deliver(settings.stopSignal, asGroup: settings.stopsGroup)
        wait(settings.stopWaitSeconds * 1000) { _ = $0.deliver(SIGKILL, asGroup: $0.settings.killsGroup) }
    }

    /// What it writes may be the sign that it is ready.
    func wrote(_ bytes: UnsafeRawBufferPointer) {
        guard state == .starting, case .log(let text)? = settings.ready else { return }
        let wanted = Array(text.utf8)
        let all = written + Array(bytes)
        if all.count >= wanted.count, (0...(all.count - wanted.count)).contains(where: { all[$0...].starts(with: wanted) }) {
            written = []
            return isReady(.log(text))
        }
        written = Array(all.suffix(wanted.count - 1))
    }

    // MARK: stopping

    /// RUNNING or STARTING to STOPPING, BACKOFF to STOPPED. The answer says why it could not be done.
    func stop() -> String? {
        // What was about to take its place is not wanted either.
        if let twin { _ = twin.stop() }
        return kill(settings.stopSignal)
    }

    private func kill(_ signal: Int32) -> String? {
        if state == .starting, pid == 0 {
            stopWaiting()
            change(to: .stopped)
            return nil
        }
        if state == .backoff {
            daemon.logger.debug("Attempted to kill \(settings.name), which is in BACKOFF state.")
            change(to: .stopped)
            return nil
        }
        guard pid != 0 else { return "attempted to kill \(settings.name) with sig \(Signals.name(signal)) but it wasn't running" }
        let asGroup = state == .stopping ? settings.killsGroup : settings.stopsGroup
        daemon.logger.debug("killing \(settings.name) (pid \(pid)) \(asGroup ? "process group " : "")with signal \(Signals.name(signal))")
        isKilling = true
        if state != .stopping {
            change(to: .stopping)
            wait(settings.stopWaitSeconds * 1000) { process in
                process.daemon.logger.warn("killing '\(process.settings.name)' (\(process.pid)) with SIGKILL")
                _ = process.kill(SIGKILL)
            }
        }
        return deliver(signal, asGroup: asGroup)
    }

    /// Sends a signal that is not meant to end it.
    func signal(_ number: Int32) -> String? {
        guard pid != 0 else { return "attempted to send \(settings.name) sig \(Signals.name(number)) but it wasn't running" }
        daemon.logger.debug("sending \(settings.name) (pid \(pid)) sig \(Signals.name(number))")
        return deliver(number, asGroup: false)
    }

    private func deliver(_ signal: Int32, asGroup: Bool) -> String? {
        // It is collected by us alone, so until then its number is nobody else's.
        guard Glibc.kill(asGroup ? -pid : pid, signal) != 0, errno != ESRCH else { return nil }
        return "unknown problem sending sig \(Signals.name(signal)) to \(settings.name) (\(pid)): \(reason())"
    }

    // MARK: the end

    func ended(_ end: csys_exit) {
        for channel in channels { channel.drain() }
        channels = []
        input?.close()
        input = nil
        endProbe()
        notifySocket = nil
        let lived = Clock.monotonic() - startedAt
        lastStop = Clock.wall() / 1000
        let status = end.by_signal ? -1 : Int(end.status)
        var how = end.by_signal ? "terminated by \(Signals.name(end.status))" : "exit status \(status)"
        if end.dumped_core { how += " (core dumped)" }
        let isExpected = settings.exitCodes.contains(status)
        let level: Level = isExpected ? .info : .warn
        let ending = pid
        shortLives = lived < 1000 ? shortLives + 1 : 0
        if settings.kind == .oneshot { remember(end, isExpected && !isKilling) }
        pid = 0
        daemon.forget(ending)
        if isKilling {
            isKilling = false
            exitStatus = status
            change(to: .stopped, pid: ending)
            daemon.logger.log(level, "stopped: \(settings.name) (\(how))")
        } else if state == .starting, settings.ready != nil || (settings.startSeconds > 0 && lived < settings.startSeconds * 1000) {
            exitStatus = nil
            spawnError =
                isUnready
                ? "not ready within \(settings.readyTimeout) s"
                : settings.ready == nil
                    ? "Exited too quickly (process log may have details)" : "Exited before it was ready (process log may have details)"
            daemon.logger.warn("exited: \(settings.name) (\(how); not expected)")
            change(to: .backoff)
        } else {
            attempts = 0
            exitStatus = status
            if state == .starting { hasStayedUpUntilTheEnd(ending) }
            if !isExpected { spawnError = "Bad exit code \(status)" }
            daemon.logger.log(level, "exited: \(settings.name) (\(how); \(isExpected ? "" : "not ")expected)")
            change(to: .exited, pid: ending, isExpected: isExpected)
        }
        if let event = listener?.event {
            listener?.event = nil
            pool?.putBack(event)
        }
    }

    private func hasStayedUpUntilTheEnd(_ ending: Int32) { change(to: .running, pid: ending) }

    private func remember(_ end: csys_exit, _ succeeded: Bool) {
        runs.append(
            Run(
                began: lastStart, ended: lastStop, status: end.by_signal ? nil : Int(end.status), signal: end.by_signal ? end.status : nil,
                succeeded: succeeded))
        if runs.count > settings.historyLength { runs.removeFirst(runs.count - settings.historyLength) }
    }

    // MARK: changes

    private func endProbe() {
        poller.cancel(pauseOfProbe)
        pauseOfProbe = nil
        probe?.giveUp()
        probe = nil
    }

    /// Runs after so many milliseconds, unless the state changes first.
    private func wait(_ milliseconds: Int, _ action: @escaping (Process) -> Void) {
        daemon.poller.cancel(timer)
        timer = daemon.poller.after(milliseconds) { [weak self] in
            guard let self else { return }
            timer = nil
            action(self)
        }
    }

    private func change(to next: Life, pid: Int32? = nil, isExpected: Bool = true) {
        guard next != state else { return }
        let before = state
        state = next
        encoded = nil
        daemon.poller.cancel(timer)
        timer = nil
        endProbe()
        if next == .running { watchLife() }
        if next == .backoff { attempts += 1 }
        daemon.emit(Self.type(next)) {
            var text = "processname:\(settings.name) groupname:\(group) from_state:\(before.name)"
            switch next {
            case .starting, .backoff: text += " tries:\(attempts)"
            case .exited: text += " expected:\(isExpected ? 1 : 0) pid:\(pid ?? self.pid)"
            case .running, .stopping, .stopped: text += " pid:\(pid ?? self.pid)"
            case .fatal, .unknown: break
            }
            return Array(text.utf8)
        }
        // What an observer does may change the state again, and bring new observers.
        let asked = observers
        observers = []
        observers = asked.filter { !$0(self) } + observers
        daemon.changed(self)
        // What follows by itself, once those that look have looked.
        switch next {
        case .backoff: daemon.poller.soon { [weak self] in self?.tryAgain() }
        case .exited: daemon.poller.soon { [weak self] in self?.restart() }
        case .running: if listener != nil { daemon.poller.soon { [weak self] in self?.pool?.dispatch() } }
        default: break
        }
    }

    private static func type(_ state: Life) -> EventType {
        switch state {
        case .stopped: .stopped
        case .starting: .starting
        case .running: .running
        case .backoff: .backoff
        case .stopping: .stopping
        case .exited: .exited
        case .fatal: .fatal
        case .unknown: .unknown
        }
    }

    private func tryAgain() {
        guard state == .backoff, !daemon.isEnding, !isDismissed else { return }
        if attempts > settings.startRetries {
            attempts = 0
            change(to: .fatal)
            daemon.logger.info("gave up: \(settings.name) entered FATAL state, too many start retries too quickly")
            return
        }
        let pause = settings.retry?.pause(attempts, chance: Double.random(in: 0...1)) ?? attempts * 1000
        wait(pause) { $0.daemon.isEnding ? () : $0.spawn() }
    }

    private func restart() {
        guard state == .exited, !daemon.isEnding, !isDismissed else { return }
        let code = exitStatus ?? 0
        guard
            settings.restart == .always || (isUnwell && settings.restart != .never)
                || (settings.restart == .unexpected && !settings.exitCodes.contains(code))
        else { return }
        // At once; what does nothing but end is not run more often than supervisord would, once a second.
        guard shortLives > 3 else { return spawn() }
        wait(min(1000, 50 << min(shortLives - 4, 5))) { $0.daemon.isEnding ? () : $0.spawn() }
    }

    /// Calls it after each change of state until it answers true.
    func observe(_ observer: @escaping (Process) -> Bool) { observers.append(observer) }

    // MARK: talking

    /// False when its standard input takes nothing any more.
    func write(_ bytes: [UInt8]) -> Bool { input?.write(bytes) ?? false }

    var isBeingKilled: Bool { isKilling }

    func communicated(_ bytes: [UInt8], _ which: Channel.Which) {
        daemon.emit(which == .output ? .communicationOutput : .communicationError) {
            Array("processname:\(settings.name) groupname:\(group) pid:\(pid)\n".utf8) + bytes
        }
    }

    func give(_ event: PoolEvent, as bytes: [UInt8]) {
        guard let news = listener?.give(event) else { return }
        tell(news)
        if !write(bytes) {
            daemon.logger.warn("rebuffered event \(event.event.serial): \(settings.name) does not take it")
            listener?.event = nil
            pool?.putBack(event)
        }
    }

    func hear(_ bytes: UnsafeRawBufferPointer, log: LogFile?) {
        log?.append(bytes)
        if daemon.logger.isOn(.debug) { daemon.logger.debug("'\(settings.name)' stdout output:\n\(Channel.text(bytes))") }
        for news in listener?.hear(bytes) ?? [] { tell(news) }
        pool?.dispatch()
    }

    private func tell(_ news: ListenerState.News) {
        switch news {
        case .became(let state, let before):
            daemon.logger.debug("\(settings.name): \(before.rawValue) -> \(state.rawValue)")
            if state == .unknown {
                daemon.logger.warn(
                    "\(settings.name): has entered the UNKNOWN state and will no longer receive events, this usually indicates the process "
                        + "violated the eventlistener protocol")
                returnEvent()
            }
        case .done:
            daemon.logger.debug("\(settings.name): event was processed")
            listener?.event = nil
        case .rejected:
            daemon.logger.warn("\(settings.name): event was rejected")
            returnEvent()
        case .misspoke(let line):
            daemon.logger.warn("\(settings.name): bad result line: '\(line)'")
        }
    }

    private func returnEvent() {
        guard let event = listener?.event else { return }
        listener?.event = nil
        pool?.putBack(event)
    }

    /// Opens the logs again, for after they were moved.
    func reopenLogs() {
        outputLog?.reopen()
        errorLog?.reopen()
    }

    /// Removes the logs and begins them anew. Throws `Complaint`.
    func clearLogs() throws {
        for (log, path) in [(outputLog, outputPath), (errorLog, errorPath)] {
            if let log {
                try log.clear()
            } else if let path, Files.exists(path) {
                guard truncate(path, 0) == 0 else { throw Complaint("\(path): \(reason())") }
            }
        }
    }

    /// Removes files that were named by themselves.
    func removeAutomaticLogs() {
        if settings.output.file == .automatic, let outputPath { unlink(outputPath) }
        if settings.error.file == .automatic, let errorPath { unlink(errorPath) }
    }

    /// The one that is about to take its place.
    weak var twin: Process?
    /// It is not started again, whatever becomes of it.
    var isDismissed = false

    /// Another one of the same, to be started beside it and to take its place; it goes on with the same logs.
    func makeTwin() -> Process {
        let twin = Process(settings, in: group, daemon, logs: (outputPath, errorPath))
        twin.outputLog = outputLog
        twin.errorLog = errorLog
        twin.outputFollowers = outputFollowers
        twin.errorFollowers = errorFollowers
        twin.runs = runs
        if listener != nil { twin.listener = ListenerState() }
        twin.pool = pool
        return twin
    }

    // MARK: handing over

    /// Ends what looks whether it is ready or well, before this program becomes another; `goOnLooking` begins again should it not.
    func stopLooking() { endProbe() }

    func goOnLooking() {
        if state == .running { watchLife() }
        if state == .starting, pid != 0, !isUnready, let check = settings.ready, check.canBeAsked { askWhetherReady(check) }
    }

    var descriptors: [Int32] { channels.map(\.fd) + [input?.fd ?? -1, notifySocket?.fd ?? -1] }

    var saved: State {
        var saved = State()
        saved.set("group", group)
        saved.set("name", settings.name)
        saved.set("state", state.rawValue)
        saved.set("pid", pid)
        saved.set("start", lastStart)
        saved.set("stop", lastStop)
        saved.set("age", Clock.monotonic() - startedAt)
        saved.set("attempts", attempts)
        saved.set("killing", isKilling)
        saved.set("unready", isUnready)
        saved.set("unwell", isUnwell)
        saved.set("short", shortLives)
        saved.set("error", spawnError)
        if let exitStatus { saved.set("exit", exitStatus) }
        saved.set("stdout", outputPath)
        saved.set("stderr", errorPath)
        for channel in channels where channel.fd >= 0 {
            saved.set("fd-\(channel.which.rawValue)", channel.fd)
            saved.set("part-\(channel.which.rawValue)", channel.saved.value)
        }
        if let input, input.isOpen {
            saved.set("fd-stdin", input.fd)
            saved.set("unread", .bytes(input.waiting))
        }
        if let notifySocket {
            saved.set("fd-notify", notifySocket.fd)
            saved.set("notify", notifySocket.path)
        }
        saved.set(
            "runs",
            runs.map { run in
                var one = State()
                one.set("began", run.began)
                one.set("ended", run.ended)
                if let status = run.status { one.set("status", status) }
                if let signal = run.signal { one.set("signal", signal) }
                one.set("succeeded", run.succeeded)
                return one
            })
        if !written.isEmpty { saved.set("written", .bytes(written)) }
        if let listener { saved.set("listener", listener.saved.value) }
        return saved
    }

    /// Goes on where the program before this one was.
    func restore(_ saved: State) {
        state = saved.int("state").flatMap { Life(rawValue: $0) } ?? .stopped
        lastStart = saved.int("start") ?? 0
        lastStop = saved.int("stop") ?? 0
        startedAt = Clock.monotonic() - (saved.int("age") ?? 0)
        attempts = saved.int("attempts") ?? 0
        isKilling = saved.flag("killing")
        isUnready = saved.flag("unready")
        isUnwell = saved.flag("unwell")
        shortLives = saved.int("short") ?? 0
        spawnError = saved.text("error") ?? ""
        exitStatus = saved.int("exit")
        written = saved.bytes("written") ?? []
        for (name, path) in [("stdout", \Process.outputPath), ("stderr", \Process.errorPath)] where saved.text(name) != self[keyPath: path]
        {
            // Of one that is named by itself, the name is the old one's.
            if let own = self[keyPath: path] { unlink(own) }
            self[keyPath: path] = saved.text(name)
        }
        runs = saved.list("runs").map { run in
            Run(
                began: run.int("began") ?? 0, ended: run.int("ended") ?? 0, status: run.int("status"), signal: run.int32("signal"),
                succeeded: run.flag("succeeded"))
        }
        if listener != nil, let known = saved["listener"] { listener = ListenerState(State(known)) }
        guard let pid = saved.int32("pid"), pid > 0 else { return goOn() }
        self.pid = pid
        daemon.started(self)
        if let outputPath { outputLog = try? Self.open(outputPath, settings.output, outputFollowers) }
        if let errorPath { errorLog = try? Self.open(errorPath, settings.error, errorFollowers) }
        if let fd = saved.int32("fd-stdin") {
            input = Input(fd, poller)
            if let unread = saved.bytes("unread"), !unread.isEmpty { _ = input?.write(unread) }
        }
        for (which, output, log) in [(Channel.Which.output, settings.output, outputLog), (.error, settings.error, errorLog)] {
            guard let fd = saved.int32("fd-\(which.rawValue)") else { continue }
            let channel = Channel(which, fd, self, output, log: log)
            if let part = saved["part-\(which.rawValue)"] { channel.restore(State(part)) }
            channels.append(channel)
        }
        if let fd = saved.int32("fd-notify"), let path = saved.text("notify") {
            notifySocket = NotifySocket(fd, path, poller) { [weak self] in self?.isReady(.notify) }
        }
        goOn()
    }

    /// Sets the clocks again that the state has.
    private func goOn() {
        let age = Clock.monotonic() - startedAt
        switch state {
        case .starting where pid == 0: poller.soon { [weak self] in if self?.lookAtDependencies() == false { self?.begin() } }
        case .starting where isUnready, .running where isUnwell:
            wait(settings.stopWaitSeconds * 1000) { _ = $0.deliver(SIGKILL, asGroup: $0.settings.killsGroup) }
        case .starting where settings.ready != nil: if let ready = settings.ready { awaitReadiness(ready) }
        case .starting: wait(max(0, settings.startSeconds * 1000 + 1 - age)) { $0.hasStayedUp() }
        case .running: watchLife()
        case .backoff: poller.soon { [weak self] in self?.tryAgain() }
        case .stopping:
            wait(settings.stopWaitSeconds * 1000) { process in
                process.daemon.logger.warn("killing '\(process.settings.name)' (\(process.pid)) with SIGKILL")
                _ = process.kill(SIGKILL)
            }
        case .exited: poller.soon { [weak self] in self?.restart() }
        case .stopped, .fatal, .unknown: break
        }
    }
}
