import Contracts
import Foundation
import Kit

/// `HOME/bus/standing.json`: whether this bus may append to its log, as far as failovers go. Written durably before anybody
/// hears of it; without the file a bus may.
struct Standing: Codable, Hashable, Sendable {
    /// The log it is about; for another one it says nothing.
    var stream: String
    /// The next start takes at least this epoch: set when a replica is promoted, or a backup restored.
    var epoch: UInt64?
    /// A bus of this epoch has taken over. This one never appends again, until it has become a replica and is promoted.
    var supersededBy: UInt64?

    static func path(_ directory: String) -> String { "\(directory)/standing.json" }

    /// Throws `Problem` when the file is there and cannot be read: to guess would mean a second history.
    static func load(_ directory: String) throws -> Standing? {
        let path = path(directory)
        guard access(path, F_OK) == 0 else { return nil }
        guard let data = FileManager.default.contents(atPath: path), let standing = try? Coding.decode(Standing.self, from: data) else {
            throw Problem(
                .configuration, "\(path) cannot be read, so it is not known whether another bus has taken over from this one",
                hint: "look at the other bus; when none has, remove the file")
        }
        return standing
    }

    func save(_ directory: String) throws { try Files.write(try Coding.encode(self), to: Self.path(directory), mode: 0o600) }
}

/// The same, as the threads of the running bus see it; the reason is also one why the bus is not ready.
final class StandingNow: Sendable {
    private struct State: Sendable {
        var supersededBy: UInt64?
        var isWaiting = false
    }
    private let state = Locked(State())
    private let health: Health

    init(health: Health = Health()) { self.health = health }

    var supersededBy: UInt64? { state.withLock(\.supersededBy) }

    func supersede(by epoch: UInt64) {
        state.withLock { $0.supersededBy = epoch }
        health.set("epoch", problem: problem?.message)
    }

    /// With `sync_replica`: whether a replica has confirmed nothing for a while.
    func wait(_ isWaiting: Bool) {
        guard
            state.withLock({ state in
                defer { state.isWaiting = isWaiting }
                return state.isWaiting != isWaiting
            })
        else { return }
        health.set("sync_replica", problem: problem?.message)
    }

    /// Why nothing can be published, when that is so.
    var problem: Problem? {
        let now = state.withLock { $0 }
        if let epoch = now.supersededBy {
            return Problem(
                .gone, "another bus (epoch \(epoch)) has taken over this log; this one takes nothing any more",
                hint: "use that one; this one can come back as its replica: docs/replica.md")
        }
        guard now.isWaiting else { return nil }
        return Problem(
            .unavailable, "sync_replica is required, and no replica has confirmed anything for 5 s",
            hint: "start the replica; or, to go on without one, set 'sync_replica: off' and restart the bus")
    }
}
