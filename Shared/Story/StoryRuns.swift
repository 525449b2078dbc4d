import Contracts

/// The first half of a story: tests, build, release.
extension Story {
    mutating func takeRun(_ event: Envelope) -> [String] {
        if let started = event.as(RunStarted.self) { return runStarted(started, event) }
        if let requested = event.as(JobRequested.self) { return jobRequested(requested) }
        if let started = event.as(JobStarted.self) { return jobStarted(started) }
        if let finished = event.as(JobFinished.self) { return jobFinished(finished) }
        if let created = event.as(ReleaseCreated.self) { return releaseCreated(created) }
        if let finished = event.as(RunFinished.self) { return runFinished(finished, event) }
        if let rejected = event.as(TagRejected.self) { return tagRejected(rejected) }
        return []
    }

    /// Whether a run of this commit, begun by that event, is the subject's.
    private func concerns(_ app: AppName, _ commit: CommitID, _ cause: EventID?) -> Bool {
        switch subject {
        case .commit(let wanted, let id): wanted == app && id == commit
        case .order(let wanted, let id): wanted == app && id == cause
        }
    }

    private mutating func runStarted(_ started: RunStarted, _ event: Envelope) -> [String] {
        guard concerns(started.app, started.commit, event.cause), runs[started.run] == nil else { return [] }
        runs[started.run] = RunThread(number: started.run, commit: started.commit)
        for job in started.jobs { runs[started.run]?.jobs[job.name] = JobThread() }
        let branch = started.ref.branch ?? started.ref.tag ?? started.ref.text
        return ["run \(started.run): \(started.commit.short) on \(Inert.line(branch, limit: 100))"]
    }

    private mutating func jobRequested(_ requested: JobRequested) -> [String] {
        guard requested.job.app == app, runs[requested.job.run] != nil else { return [] }
        runs[requested.job.run]?.jobs[requested.job.name, default: JobThread()].steps = requested.steps
        return []
    }

    private mutating func jobStarted(_ started: JobStarted) -> [String] {
        guard started.job.app == app, let job = runs[started.job.run]?.jobs[started.job.name], !job.ended else { return [] }
        guard let steps = job.steps else { return ["\(started.job.name): started"] }
        return steps.isEmpty
            ? ["\(started.job.name): packing the checkout"]
            : steps.map { "\(started.job.name): \(Self.command($0))" }
    }

    private mutating func jobFinished(_ finished: JobFinished) -> [String] {
        guard finished.job.app == app, let job = runs[finished.job.run]?.jobs[finished.job.name], !job.ended else { return [] }
        runs[finished.job.run]?.jobs[finished.job.name]?.ended = true
        switch finished.outcome {
        case .succeeded: return ["\(finished.job.name): done (\(Self.seconds(finished.seconds)))"]
        case .canceled: return ["\(finished.job.name): canceled" + (finished.reason.map { ": \(Inert.line($0))" } ?? "")]
        case .failed:
            var lines = job.unseen(finished.tail.map { Inert.line($0) }).map { "    \($0)" }
            lines.append("\(finished.job.name): failed after \(Self.seconds(finished.seconds)): \(Self.failure(finished))")
            return lines
        }
    }

    private func tagRejected(_ rejected: TagRejected) -> [String] {
        guard rejected.app == app, runs.values.contains(where: { $0.release.map { "v\($0)" } == rejected.tag }) else { return [] }
        return ["release \(rejected.tag) has no tag in git: \(Inert.line(rejected.reason))"]
    }

    /// A command line for people: of several lines the first.
    static func command(_ text: String) -> String {
        let lines = text.split(whereSeparator: \.isNewline)
        guard let first = lines.first else { return "" }
        return Inert.line(String(first), limit: 200) + (lines.count > 1 ? " …" : "")
    }

    /// The failing command and its status, or the reason when no command failed.
    static func failure(_ finished: JobFinished) -> String {
        guard let step = finished.failedStep else { return Inert.line(finished.reason ?? "no reason was given") }
        let command = "'\(Self.command(step))'"
        return finished.status.map { "\(command) exited with status \($0)" }
            ?? "\(command): \(Inert.line(finished.reason ?? "failed"))"
    }

    private mutating func releaseCreated(_ created: ReleaseCreated) -> [String] {
        guard created.app == app, runs[created.run] != nil, runs[created.run]?.release == nil else { return [] }
        runs[created.run]?.release = created.number
        return ["release v\(created.number)"]
    }

    private mutating func runFinished(_ finished: RunFinished, _ event: Envelope) -> [String] {
        // A rejected commit may have a run that never started.
        if runs[finished.run] == nil, concerns(finished.app, finished.commit, event.cause) {
            runs[finished.run] = RunThread(number: finished.run, commit: finished.commit)
        }
        guard finished.app == app, let run = runs[finished.run], run.outcome == nil else { return [] }
        let reason = finished.reason.map { Inert.line($0, limit: 2000) }
        runs[finished.run]?.outcome = finished.outcome
        runs[finished.run]?.reason = reason
        runs[finished.run]?.environments = finished.environments
        if let release = finished.release { runs[finished.run]?.release = release }
        switch finished.outcome {
        case .succeeded where finished.environments.isEmpty:
            return ["no environment takes this branch: nothing to deploy"]
        case .succeeded: return []
        case .failed: return ["failed: \(reason ?? "run \(finished.run) failed"); nothing was deployed"]
        case .rejected: return ["rejected: \(reason ?? "this commit cannot be run"); nothing was deployed"]
        case .superseded: return ["superseded: \(reason ?? "a newer push came first")"]
        }
    }
}
