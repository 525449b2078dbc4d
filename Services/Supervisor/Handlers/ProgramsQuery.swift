import Contracts
import Kit

/// Answers `supervisor.programs`, and `GET /v1/programs` with the same.
struct ProgramsQuery: Sendable {
    let keeper: ProgramKeeper
    let loop: Loop<SupervisorCore>
    /// What is missing on this host.
    let notes: [String]

    func answer() async throws -> ListPrograms.Reply {
        var reply = await keeper.list()
        reply.notes += notes
        reply.programs += try await loop.read { state in
            state.instances.values.map { row in
                let name: String =
                    switch row.phase {
                    case .starting: "starting"
                    case .running, .unready: "running"
                    case .ready: "ready"
                    case .backoff: "backoff"
                    case .stopping: "stopping"
                    }
                return ListPrograms.Program(name: row.instance.text, state: name, pid: row.pid, since: row.since, restarts: row.restarts)
            }
        }
        return reply
    }
}
