import Contracts
import Foundation
import Kit
import Logging
import ServiceLifecycle

/// Keeps the suite's own programs running, and stops everything in order at the end.
///
/// It works without the bus, because it starts the bus. What an earlier supervisor started and still runs is adopted, so a
/// supervisor that dies takes nobody with it.
actor ProgramKeeper: Service {
    private struct Status {
        var state = "starting"
        var process: RunningProcess?
        var since: Timestamp?
        var restarts = 0
        var note: String?
    }

    private let config: SupervisorConfig
    private let suite: SuiteConfig
    private let store: HostStore
    private let logs: LogTail
    private let logger: Logger
    private let programs: [Program]
    private let started = Timestamp.now()
    private let beforeStop: @Sendable () async -> Void
    private var status: [String: Status] = [:]
    /// By the program's name.
    private var sockets: [String: Int32] = [:]
    private var stopping = false

    /// `beforeStop` ends instances and jobs, which go before the suite does.
    init(
        config: SupervisorConfig, suite: SuiteConfig, store: HostStore, logs: LogTail, logger: Logger, programs: [Program],
        beforeStop: @escaping @Sendable () async -> Void
    ) {
        self.config = config
        self.suite = suite
        self.store = store
        self.logs = logs
        self.logger = logger
        self.programs = programs
        self.beforeStop = beforeStop
    }

    func run() async throws {
        await withTaskGroup { group in
            for program in programs { group.addTask { await self.keep(program) } }
            try? await gracefulShutdown()
            await stop()
            group.cancelAll()
        }
    }

    // MARK: One program

    private func keep(_ program: Program) async {
        var failures = 0
        status[program.name] = Status()
        if let record = try? await store.process(program.name), let process = RunningProcess.adopt(record) {
            logs.follow(config.log(program: program.name), origin: nil)
            logger.info("\(program.name) still runs and is adopted", metadata: ["pid": "\(process.pid)"])
            note(program, process, record.since)
            failures = await watch(program, process, since: ContinuousClock.now, failures)
        } else if let process = RunningProcess.stray(of: program) {
            // Started by a supervisor that died before it could write that down.
            logs.follow(config.log(program: program.name), origin: nil)
            logger.warning("\(program.name) runs without a record of it and is adopted", metadata: ["pid": "\(process.pid)"])
            let now = Timestamp.now()
            try? await store.save(
                ProcessRecord(name: program.name, pid: process.pid, ticks: process.ticks, boot: ProcFS.boot, generation: 1, since: now))
            note(program, process, now)
            failures = await watch(program, process, since: ContinuousClock.now, failures)
        }
        while !stopping, !Task.isCancelled {
            await prerequisites(of: program)
            guard !stopping, !Task.isCancelled else { return }
            let began = ContinuousClock.now
            do {
                let process = try await start(program)
                failures = await watch(program, process, since: began, failures)
            } catch {
                let (counted, delay) = Backoff.programs.next(failures: failures, lived: 0)
                failures = counted
                status[program.name]?.state = "backoff"
                status[program.name]?.note = "\(error)"
                logger.error("\(program.name) cannot be started", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: .seconds(max(delay, 0.5)))
            }
            status[program.name]?.restarts += 1
        }
    }

    private func prerequisites(of program: Program) async {
        status[program.name]?.state = "starting"
        if let needs = program.needs, access(needs, R_OK) != 0 {
            status[program.name]?.note = "waits for \(needs)"
            // Only at the very first start, before discovery has written it.
            while access(needs, R_OK) != 0, !stopping, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(50)) }
            status[program.name]?.note = nil
        }
        guard program.name != Component.bus.rawValue, program.name != Program.ingress else { return }
        // Those that join the bus need not try in vain while it starts; when it takes longer they wait by themselves.
        let deadline = ContinuousClock.now + .seconds(2)
        while ContinuousClock.now < deadline, !stopping, !Task.isCancelled, await Ports.refusal(suite.busPort, within: 0.1) != nil {
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    private func start(_ program: Program) async throws -> RunningProcess {
        let output = try logs.open(config.log(program: program.name), origin: nil)
        defer { close(output) }
        let process = try RunningProcess.start(
            program.launch(
                home: config.home.path, environment: ProcessInfo.processInfo.environment, output: output, listener: socket(of: program)))
        let now = Timestamp.now()
        try? await store.save(
            ProcessRecord(name: program.name, pid: process.pid, ticks: process.ticks, boot: ProcFS.boot, generation: 1, since: now))
        note(program, process, now)
        // Told to stop while it was being started.
        if stopping { process.signal(SIGTERM) }
        return process
    }

    /// Opened at the first start, or when a program that was adopted has ended; closed with this process. Nil when that cannot be:
    /// then the program binds for itself, and says what is in the way.
    private func socket(of program: Program) -> Int32? {
        guard let socket = program.socket else { return nil }
        if let known = sockets[program.name] { return known }
        do {
            let descriptor = try HeldSocket.open(socket)
            sockets[program.name] = descriptor
            return descriptor
        } catch {
            logger.warning("\(program.name) gets no socket from here: \(error)")
            return nil
        }
    }

    private func note(_ program: Program, _ process: RunningProcess, _ since: Timestamp) {
        status[program.name]?.state = "running"
        status[program.name]?.process = process
        status[program.name]?.since = since
        status[program.name]?.note = nil
    }

    /// Waits for the end of a program and for the time until it is started again. Returns the failures to count from then on.
    private func watch(_ program: Program, _ process: RunningProcess, since began: ContinuousClock.Instant, _ failures: Int) async -> Int {
        guard let end = await process.ended() else { return failures }
        status[program.name]?.process = nil
        status[program.name]?.since = .now()
        status[program.name]?.state = stopping ? "stopped" : "backoff"
        try? await store.forget(process: program.name)
        guard !stopping else { return failures }
        await process.killSession(within: 1)
        let lived = Double((ContinuousClock.now - began) / .milliseconds(1)) / 1000
        // The bus is what all others wait for, and a second of life is enough to know that it can start.
        let backoff = program.name == Component.bus.rawValue ? Backoff.bus : Backoff.programs
        var (counted, delay) = backoff.next(failures: failures, lived: lived)
        let last = LogTail.last(1, of: config.log(program: program.name)).last
        if end.status == 2 {
            // Its settings are wrong; trying quickly cannot help.
            delay = max(delay, 15)
            status[program.name]?.note = "wrong configuration: \(last ?? "see \(config.log(program: program.name))")"
        } else if counted > 2 {
            status[program.name]?.note = "\(Exits.reason(end)); see \(config.log(program: program.name))"
        }
        logger.warning(
            "\(program.name) \(Exits.reason(end)); it is started again in \(Exits.text(delay)) s",
            metadata: ["pid": "\(process.pid)", "last": "\(last ?? "")"])
        if delay > 0 { try? await Task.sleep(for: .seconds(delay)) }
        return counted
    }

    // MARK: The end

    private func stop() async {
        stopping = true
        let deadline = ContinuousClock.now + .seconds(SupervisorConfig.shutdown)
        await beforeStop()
        await end(Program.ingress, within: 1)
        // The bus goes last, so that what the others still have to say is kept.
        for component in Program.order.reversed() {
            let left = Double((deadline - ContinuousClock.now) / .milliseconds(1)) / 1000
            await end(component.rawValue, within: min(component == .bus ? 3 : 2, max(0.2, left)))
        }
    }

    private func end(_ name: String, within seconds: Double) async {
        guard let process = status[name]?.process else { return }
        status[name]?.state = "stopping"
        process.signal(SIGTERM)
        if await process.ended(within: seconds) == nil {
            logger.warning("\(name) did not stop within \(Exits.text(seconds)) s and is killed")
            process.signalGroup(SIGKILL)
            _ = await process.ended(within: 2)
        }
        await process.killSession(within: 1)
        try? await store.forget(process: name)
        status[name]?.state = "stopped"
    }

    // MARK: Looking at it

    /// The suite's programs as they are now, this one first, and what people should know.
    func list() -> ListPrograms.Reply {
        var reply = ListPrograms.Reply(
            programs: [
                ListPrograms.Program(
                    name: Component.supervisor.rawValue, state: stopping ? "stopping" : "running", pid: getpid(), since: started,
                    restarts: 0)
            ], notes: [])
        for program in programs {
            let known = status[program.name] ?? Status()
            reply.programs.append(
                ListPrograms.Program(
                    name: program.name, state: known.state, pid: known.process?.pid, since: known.since, restarts: known.restarts))
            if let note = known.note { reply.notes.append("\(program.name): \(note)") }
        }
        return reply
    }
}
