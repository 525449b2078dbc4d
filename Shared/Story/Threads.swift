import Contracts

/// One way of a commit through tests and build, as far as its events told.
struct RunThread: Sendable {
    var number: Int
    var commit: CommitID
    var release: Int?
    var outcome: RunOutcome?
    var reason: String?
    var environments: [EnvName] = []
    var jobs: [ServiceName: JobThread] = [:]
}

/// One job of a run.
struct JobThread: Sendable {
    /// Nil: its order was not seen.
    var steps: [String]?
    /// The last lines that were shown live, so that a failure does not print them twice.
    var shown: [String] = []
    var ended = false

    mutating func show(_ line: String) {
        shown.append(line)
        if shown.count > 50 { shown.removeFirst(shown.count - 50) }
    }

    /// The lines of a tail that were not shown live. The live stream may have lost some: where the last shown lines are not
    /// found in the tail, all of it is new.
    func unseen(_ tail: [String]) -> [String] {
        let mark = Array(shown.suffix(3))
        guard !mark.isEmpty, tail.count >= mark.count else { return tail }
        for end in stride(from: tail.count, through: mark.count, by: -1) where Array(tail[end - mark.count..<end]) == mark {
            return Array(tail[end...])
        }
        return tail
    }
}

/// One deployment, as far as its events told.
struct DeployThread: Sendable, Equatable {
    enum Result: Sendable, Equatable { case live(url: String?), failed(String) }
    var environment: EnvName
    var release: Int
    var order: EventID
    var kind: DeploymentHead.Kind
    /// The instances that it starts, and when each was started.
    var instances: [InstanceID: Timestamp?] = [:]
    /// Instances whose traffic line was printed.
    var routed: Set<ServiceName> = []
    var result: Result?
    /// The last lines that were told of an instance that ended.
    var tail: [String]?
}
