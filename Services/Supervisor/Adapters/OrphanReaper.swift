import CSys
import Foundation
import Logging
import ServiceLifecycle

/// Collects what the processes of apps leave behind: orphans become this process's children (it is their "subreaper"), and
/// would otherwise stay as zombies for ever.
struct OrphanReaper: Service {
    let logger: Logger

    func run() async throws {
        guard csys_set_child_subreaper() == 0 else {
            logger.warning("cannot become the parent of orphans", metadata: ["error": "\(Spawn.message(errno))"])
            try await gracefulShutdown()
            return
        }
        // A thread, because waitid blocks; it has nothing to lose and dies with the process.
        Thread.detachNewThread { Self.collect() }
        try await gracefulShutdown()
    }

    private static func collect() {
        while true {
            var ended = csys_exit()
            if csys_wait_any(&ended) != 0 {
                // ECHILD: there is no child at all, which changes only when one is started.
                usleep(500_000)
                continue
            }
            let ours = RunningProcess.children.withLock { known in
                if known.contains(ended.pid) { return true }
                _ = csys_collect(ended.pid, &ended)
                return false
            }
            // Whoever waits for it is about to collect it.
            if ours { usleep(1000) }
        }
    }
}
