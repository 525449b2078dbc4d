import Contracts
import Kit

/// The life of a run, from its file to its release.
extension SchedulerState {
    /// Seconds that a job may take.
    static let jobTimeout = 3600.0
    /// Seconds after that until a silent supervisor counts as lost. It ends jobs by itself; this is for when it never speaks again.
    static let silence = 600.0
    /// Seconds that a job may wait for its supervisor to take it: others may be before it, each with an hour.
    static let patience = 6 * 3600.0

    mutating func configRead(_ app: AppName, _ number: Int, _ file: ConfigFile, _ step: inout Step<SchedulerEffect>) {
        guard var run = run(app, number), run.state == .reading else { return }
        defer { startNext(app, &step) }
        let pipeline: Pipeline
        do {
            pipeline = try Pipeline.read(file, app: app)
        } catch let problem as Problem {
            return finish(run, .rejected, reason: problem.description, &step)
        } catch {
            return finish(run, .rejected, reason: "the configuration cannot be read: \(error)", &step)
        }
        switch run.target {
        case .environment(let name):
            guard pipeline.config.environments.contains(where: { $0.name == name }) else {
                let hint = Nearest.hint(name.text, among: pipeline.config.environments.map(\.name.text))
                return finish(run, .rejected, reason: "\(app) has no environment '\(name)' at this commit (\(hint))", &step)
            }
            run.environments = [name]
        case .rules, .rulesOrLast:
            run.environments = Self.targets(
                pipeline.config.environments, ref: run.ref, isDefault: run.isDefaultBranch, orLast: run.target == .rulesOrLast)
        }
        guard !run.environments.isEmpty else {
            let what = run.ref.branch.map { "branch \($0)" } ?? run.ref.text
            return finish(run, .succeeded, reason: "no environment takes \(what)", &step)
        }
        run.pipeline = pipeline
        run.state = .waiting
        runs[run.key] = run
    }

    /// Begins the oldest open run of an app when none is under way. Strictly in order: one whose file is still being read holds
    /// back those after it.
    mutating func startNext(_ app: AppName, _ step: inout Step<SchedulerEffect>) {
        guard let number = apps[app.text]?.open.first, var run = run(app, number), run.state == .waiting else { return }
        do {
            let jobs = try run.jobs()
            guard let first = jobs.first else { return }
            step.publish(
                RunStarted(app: app, run: number, ref: run.ref, commit: run.commit, jobs: jobs), cause: run.origin, actor: run.actor)
            run.state = .running(first)
            runs[run.key] = run
            request(first, run, &step)
        } catch {
            finish(run, .rejected, reason: "\(error)", &step)
        }
    }

    mutating func jobStarted(_ event: JobStarted, _ step: inout Step<SchedulerEffect>) {
        guard run(event.job.app, event.job.run)?.state == .running(event.job) else { return }
        step.wake(Self.timer(event.job), after: Self.jobTimeout + Self.silence)
    }

    mutating func jobFinished(_ event: JobFinished, _ step: inout Step<SchedulerEffect>) {
        guard var run = run(event.job.app, event.job.run), run.state == .running(event.job), let pipeline = run.pipeline else { return }
        step.cancel(Self.timer(event.job))
        defer { startNext(run.app, &step) }
        guard event.outcome == .succeeded else { return finish(run, .failed, reason: Self.reason(event), &step) }
        let jobs = (try? run.jobs()) ?? []
        if let index = jobs.firstIndex(of: event.job), index + 1 < jobs.count {
            run.state = .running(jobs[index + 1])
            runs[run.key] = run
            return request(jobs[index + 1], run, &step)
        }
        guard let bundle = event.bundle else { return finish(run, .failed, reason: "\(event.job.name): made no bundle", &step) }
        release(run, pipeline, bundle, &step)
    }

    /// No supervisor has told how the job ended.
    mutating func jobOverdue(_ key: String, _ step: inout Step<SchedulerEffect>) {
        guard key.hasPrefix("job|"), let job = try? JobID(String(key.dropFirst(4))), let run = run(job.app, job.run),
            run.state == .running(job)
        else { return }
        finish(run, .failed, reason: "\(job.name): no word from the supervisor of host '\(step.host)'", &step)
        startNext(job.app, &step)
    }

    /// The app is gone: its open runs end, what it had is forgotten, its counters stay.
    mutating func deleted(_ app: AppName, _ step: inout Step<SchedulerEffect>) {
        for number in apps[app.text]?.open ?? [] {
            guard let run = run(app, number) else { continue }
            if case .running(let job) = run.state { step.cancel(Self.timer(job)) }
            finish(run, .failed, reason: "app '\(app)' was deleted", &step)
        }
        for run in runs(of: app) { runs[run.key] = nil }
        for key in releases.keys where key.hasPrefix("\(app)/") { releases[key] = nil }
        apps.update(app.text) {
            $0.deleted = true
            $0.defaultBranch = nil
        }
    }

    private static func timer(_ job: JobID) -> String { "job|\(job)" }

    private static func reason(_ event: JobFinished) -> String {
        guard let failed = event.failedStep else { return "\(event.job.name): \(event.reason ?? event.outcome.rawValue)" }
        if let status = event.status { return "\(event.job.name): \(Problem.quote(failed)) exited with status \(status)" }
        return "\(event.job.name): \(Problem.quote(failed)): \(event.reason ?? "failed")"
    }

    private mutating func request(_ job: JobID, _ run: Run, _ step: inout Step<SchedulerEffect>) {
        guard let pipeline = run.pipeline else { return }
        let isBuild = job.name.text == "build"
        var environment = ["CI": "true", "SLIPWAY_APP": run.app.text, "SLIPWAY_COMMIT": run.commit.text, "SLIPWAY_RUN": "\(run.number)"]
        environment["SLIPWAY_REF"] = run.ref.text
        step.publish(
            JobRequested(
                job: job, host: step.host, commit: run.commit, steps: isBuild ? pipeline.build : pipeline.test, environment: environment,
                timeout: Self.jobTimeout, bundle: isBuild ? pipeline.artifact : nil), cause: run.origin, actor: run.actor)
        step.wake(Self.timer(job), after: Self.patience)
    }

    private mutating func release(_ run: Run, _ pipeline: Pipeline, _ bundle: Digest, _ step: inout Step<SchedulerEffect>) {
        let number = (apps[run.app.text]?.releases ?? 0) + 1
        apps.update(run.app.text) { $0.releases = number }
        releases["\(run.app)/\(run.commit)"] = ReleaseRecord(number: number, environments: pipeline.config.environments)
        step.publish(
            ReleaseCreated(
                app: run.app, number: number, ref: run.ref, commit: run.commit, run: run.number, title: run.title, bundle: bundle,
                config: pipeline.config), cause: run.origin, actor: run.actor)
        step.publish(
            TagRequested(app: run.app, tag: "v\(number)", commit: run.commit, message: "Release v\(number) of \(run.app)"),
            cause: run.origin, actor: run.actor)
        for environment in run.environments {
            step.publish(DeployRequested(app: run.app, environment: environment, release: number), cause: run.origin, actor: run.actor)
        }
        var released = run
        released.release = number
        finish(released, .succeeded, reason: nil, &step)
    }

    mutating func finish(_ run: Run, _ outcome: RunOutcome, reason: String?, _ step: inout Step<SchedulerEffect>) {
        var ended = run
        ended.state = .ended(outcome)
        ended.pipeline = nil
        ended.reason = reason
        ended.ended = step.now
        if ended.release == nil { ended.environments = [] }
        runs[run.key] = ended
        apps.update(run.app.text) { $0.open.removeAll { $0 == run.number } }
        runs["\(run.app)/\(run.number - Self.keptRuns)"].map { if !$0.isOpen { runs[$0.key] = nil } }
        step.log("\(run.app): run \(run.number) of \(run.commit.short) \(outcome.rawValue)\(reason.map { ": \($0)" } ?? "")")
        step.publish(
            RunFinished(
                app: run.app, run: run.number, ref: run.ref, commit: run.commit, outcome: outcome, reason: reason,
                release: ended.release, environments: ended.environments), cause: run.origin, actor: run.actor)
        guard run.target != .rules, ended.environments.isEmpty else { return }
        // It was an order that named a ref: whoever gave it waits for its end, and no deployment will bring one.
        var named: EnvName?
        if case .environment(let environment) = run.target { named = environment }
        step.publish(
            DeployFailed(
                app: run.app, environment: named, release: ended.release,
                reason: reason ?? "no environment of \(run.app) takes \(run.ref)", hint: "slipway logs \(run.app) --run \(run.number)",
                order: run.origin), cause: run.origin, actor: run.actor)
    }
}
