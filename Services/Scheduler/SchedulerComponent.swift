import BusClient
import Contracts
import HTTPKit
import Kit
import ServiceLifecycle
import Storage

/// Wires the scheduler: the loop, its questions to git, its HTTP.
public enum SchedulerComponent {
    public static func services(_ boot: Boot) async throws -> [any Service] {
        // NORMAL is enough: nobody outside was told "done"; a scheduler that wakes up a moment earlier replays the same (promises.md 2.3).
        let store = try boot.openStore(durability: .normal) { _ in }
        let git = GitQuestions(bus: boot.bus)
        let loop = Loop(
            SchedulerCore.self, boot: boot, store: store, perform: { effect, _ in try await git.perform(effect) },
            // Nothing to compare with: runs are known from the log alone, and open questions are in the journal.
            reconcile: { _ in [] })
        let server = HTTPServer(boot) { routes in RunRoutes(loop: loop).add(to: routes) }
        return [loop, server]
    }
}
