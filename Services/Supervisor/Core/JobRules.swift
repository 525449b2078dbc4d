import Contracts
import Kit

/// The life of a job on this host: ordered, begun, done. What to do about a failure is the scheduler's decision.
enum JobRules {
    /// How many finished jobs are remembered, so that a repeated order does not run one again.
    static let remembered = 200

    static func order(_ order: JobRequested, _ state: inout SupervisorState, _ step: inout Step<SupervisorEffect>) {
        guard order.host == step.host, state.jobs[order.job.text] == nil else { return }
        guard order.timeout.isFinite, (0...86_400).contains(order.timeout) else {
            step.publish(
                JobFinished(job: order.job, host: step.host, outcome: .failed, reason: "timeout: expected 0 to 86400 seconds", seconds: 0))
            return
        }
        state.jobs[order.job.text] = JobRow(job: order.job, began: false)
        step.perform(.run(order))
    }

    static func began(_ job: JobID, _ state: inout SupervisorState, _ step: inout Step<SupervisorEffect>) {
        // After a crash the job runs again from the start; the fact that it began is not told twice.
        guard let row = state.jobs[job.text], !row.began, row.finished == nil else { return }
        state.jobs.update(job.text) { row in row.began = true }
        step.publish(JobStarted(job: job, host: step.host))
    }

    static func done(_ result: JobFinished, _ state: inout SupervisorState, _ step: inout Step<SupervisorEffect>) {
        guard let row = state.jobs[result.job.text], row.finished == nil else { return }
        state.jobs.update(result.job.text) { row in row.finished = step.now }
        step.publish(result)
        let old = state.jobs.values.filter { $0.finished != nil }.sorted {
            ($0.finished ?? step.now, $0.job) < ($1.finished ?? step.now, $1.job)
        }
        for row in old.dropLast(remembered) { state.jobs[row.job.text] = nil }
    }
}
