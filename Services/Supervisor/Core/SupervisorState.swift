import Contracts
import Kit

/// An instance that this host was ordered to run.
struct InstanceRow: Codable, Hashable, Sendable {
    enum Phase: String, Codable, Hashable, Sendable { case starting, running, ready, unready, backoff, stopping }
    var instance: InstanceID
    var spec: InstanceSpec
    var phase: Phase
    /// The attempt: 1 for the first process, one more for each that follows. News of an earlier one is stale.
    var generation: Int
    var pid: Int32?
    var ports: [String: Int] = [:]
    var since: Timestamp
    /// How often it was started again, and how many short lives it had in a row.
    var restarts = 0
    var failures = 0
    /// It answered its health check before the news of its start was written down.
    var readyEarly: Bool?
}

/// A job that this host was ordered to run; kept for a while after its end so that a repeated order is known.
struct JobRow: Codable, Hashable, Sendable {
    var job: JobID
    var began: Bool
    var finished: Timestamp?
}

struct SupervisorState: CoreState {
    var instances = Table<InstanceRow>()
    var jobs = Table<JobRow>()
    init() {}
    mutating func tables(_ visit: inout some TableVisitor) throws {
        try visit.table("instances", &instances)
        try visit.table("jobs", &jobs)
    }
}

/// What the core wants done. Starting what runs and stopping what is gone is success.
enum SupervisorEffect: Codable, Hashable, Sendable {
    case start(InstanceID, generation: Int, spec: InstanceSpec)
    case stop(InstanceID, StopSpec)
    case run(JobRequested)
    /// Removes what a deleted app left on this host: bundles and logs.
    case forget(AppName)
}

/// News from the host.
enum SupervisorNotice: Codable, Hashable, Sendable {
    case joined(HostJoined)
    case started(InstanceID, generation: Int, pid: Int32, ports: [String: Int])
    /// It could not be started. `final`: trying again cannot help.
    case refused(InstanceID, generation: Int, reason: String, final: Bool)
    case ready(InstanceID, generation: Int)
    case unready(InstanceID, generation: Int, reason: String)
    case exited(InstanceID, generation: Int, Ending)
    /// Nothing of it is left.
    case stopped(InstanceID, Ending?)
    case jobBegan(JobID)
    case jobDone(JobFinished)
}

/// How a process ended.
struct Ending: Codable, Hashable, Sendable {
    var status: Int?
    var signal: Int?
    var reason: String
    /// Its last lines, at most 20.
    var tail: [String] = []
    /// It did not end by itself: the suite was stopped, or the machine, and nobody saw how.
    var interrupted: Bool?
}
