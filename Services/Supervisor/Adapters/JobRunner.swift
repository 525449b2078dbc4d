import Contracts
import Foundation
import Logging

/// Runs jobs: a clean checkout, the steps one after another, and the bundle that comes of it.
///
/// A job that was under way when the supervisor died is ended and run again from a clean checkout.
actor JobRunner {
    typealias Report = @Sendable (SupervisorNotice) async -> Void

    private let config: SupervisorConfig
    private let store: HostStore
    private let sandbox: Sandbox
    private let siblings: Siblings
    private let logs: LogTail
    private let logger: Logger
    private let report: Report
    /// As many jobs at once as the machine has cores; the others wait here in the order of their orders.
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []
    private var running: [JobID: RunningProcess] = [:]
    private var closing = false

    init(
        config: SupervisorConfig, store: HostStore, sandbox: Sandbox, siblings: Siblings, logs: LogTail, logger: Logger,
        report: @escaping Report
    ) {
        self.config = config
        self.store = store
        self.sandbox = sandbox
        self.siblings = siblings
        self.logs = logs
        self.logger = logger
        self.report = report
        free = max(1, ProcessInfo.processInfo.activeProcessorCount)
    }

    /// Runs a job to its end, whatever that is.
    func run(_ order: JobRequested) async throws -> SupervisorNotice {
        await takeSlot()
        defer { giveSlot() }
        try Task.checkCancellation()
        guard !closing else { throw CancellationError() }
        await report(.jobBegan(order.job))
        let began = ContinuousClock.now
        let path = config.log(order.job)
        let interrupted = await clear(order.job)
        unlink(path)
        var result = JobFinished(job: order.job, host: config.host, outcome: .succeeded, seconds: 0)
        do {
            try await work(order, again: interrupted, &result)
        } catch let problem as Problem {
            result.outcome = .failed
            result.reason = problem.description
        }
        logs.forget(path)
        await clear(order.job)
        // A job that was ended because the suite stops is run again when it starts.
        if closing { throw CancellationError() }
        result.tail = LogTail.last(50, of: path).map { String($0.prefix(500)) }
        result.seconds = Double((ContinuousClock.now - began) / .milliseconds(1)) / 1000
        return .jobDone(result)
    }

    private func work(_ order: JobRequested, again: Bool, _ result: inout JobFinished) async throws {
        let job = order.job
        let user = try await sandbox.user(of: job.app)
        let room = config.room(job)
        try sandbox.makeRoom(room, user: user)
        let source = "\(room)/src"
        let output = try logs.open(config.log(job), origin: job.text)
        defer { Glibc.close(output) }
        if again { say("(the supervisor was restarted meanwhile: this job begins again, from a clean checkout)", to: output) }
        let deadline = ContinuousClock.now + .seconds(min(max(1, order.timeout), 86_400))
        try await Siblings.patiently { [siblings] in
            Trash.remove(source)
            guard mkdir(source, 0o755) == 0, chmod(source, 0o755) == 0, user.map({ chown(source, $0, $0) == 0 }) ?? true else {
                throw Problem(.failed, "cannot make \(source): \(Spawn.message(errno))")
            }
            do {
                try await Archive.unpack(to: source, owner: user) { take in
                    try await siblings.checkout(job.app, order.commit) { try take($0) }
                }
            } catch let problem as Problem where [.invalid, .malformed, .tooLarge].contains(problem.code) {
                throw Problem(problem.code, "checkout \(problem.message)", hint: problem.hint)
            }
        }
        for command in order.steps {
            say("$ \(command)", to: output)
            guard let end = try await step(command, order, source, room, user, output, deadline) else {
                result.outcome = .failed
                result.failedStep = command
                result.reason = "the job did not finish within \(Exits.text(order.timeout)) s"
                return
            }
            guard end.status == 0 else {
                result.outcome = .failed
                result.failedStep = command
                result.status = Exits.status(end)
                result.reason = "\(Problem.quote(command)) \(Exits.reason(end))"
                return
            }
        }
        guard let bundle = order.bundle else { return }
        let file = room + ".tar"
        let packer = TreePacker(owner: user, limits: SupervisorConfig.archive)
        // Beside the room, which belongs to the app's user: what is pushed is what was packed.
        defer { unlink(file) }
        let packed = try packer.pack(bundle, of: source, to: file)
        result.bundle = try await Siblings.patiently { [siblings] in try await siblings.push(job.app, packed, file: file) }
        result.bundleSize = packed.size
    }

    /// Runs one command line. Nil: the time was over, and it was ended.
    private func step(
        _ command: String, _ order: JobRequested, _ source: String, _ room: String, _ user: UInt32?, _ output: Int32,
        _ deadline: ContinuousClock.Instant
    ) async throws -> RunningProcess.End? {
        let job = order.job
        let limits = LimitSpec(processes: 2048)
        let group = try sandbox.cgroups.group(job.fileName, limits: limits)
        let joins = try group.open()
        defer { for descriptor in joins { Glibc.close(descriptor) } }
        let launch = sandbox.shell(
            command, in: source, room: room, environment: Self.environment(order), user: user, limits: limits, group: joins, output: output)
        guard !closing else { throw CancellationError() }
        let process = try RunningProcess.start(launch)
        running[job] = process
        try? await store.save(
            ProcessRecord(name: job.text, pid: process.pid, ticks: process.ticks, boot: ProcFS.boot, generation: 1, since: .now()))
        let left = Double((deadline - ContinuousClock.now) / .milliseconds(1)) / 1000
        let end = await process.ended(within: max(0, left))
        // Whatever the step has left running must not touch the tree that the next one, or the packing, reads.
        if end == nil { process.signalGroup(SIGKILL) }
        await group.kill()
        await process.killSession()
        _ = await process.ended(within: 5)
        running[job] = nil
        try? await store.forget(process: job.text)
        try Task.checkCancellation()
        return end
    }

    static func environment(_ order: JobRequested) -> [String: String] {
        var result = order.environment
        result["CI"] = "true"
        result["SLIPWAY_APP"] = order.job.app.text
        result["SLIPWAY_RUN"] = "\(order.job.run)"
        result["SLIPWAY_JOB"] = order.job.text
        result["SLIPWAY_COMMIT"] = order.commit.text
        return result
    }

    private func say(_ line: String, to output: Int32) {
        let bytes = Array((line + "\n").utf8)
        _ = write(output, bytes, bytes.count)
    }

    /// Ends what is left of a job and removes its room. True: a step of it had been under way.
    @discardableResult
    private func clear(_ job: JobID) async -> Bool {
        var found = false
        if let record = try? await store.process(job.text) {
            if let process = RunningProcess.adopt(record) {
                process.signalGroup(SIGKILL)
                _ = await process.ended(within: 5)
                await process.killSession()
            }
            found = true
            try? await store.forget(process: job.text)
        }
        let group = sandbox.cgroups.existing(job.fileName)
        await group.kill()
        await group.remove()
        Trash.remove(config.room(job))
        unlink(config.room(job) + ".tar")
        return found
    }

    private func takeSlot() async {
        if free > 0 {
            free -= 1
        } else {
            await withCheckedContinuation { waiting.append($0) }
        }
    }
    private func giveSlot() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }

    /// Ends every job at once, because the suite stops.
    func close() async {
        closing = true
        for process in running.values { process.signalGroup(SIGKILL) }
        let deadline = ContinuousClock.now + .seconds(3)
        while !running.isEmpty, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(10)) }
    }
}
