import Contracts
import Foundation
import Kit

/// The HAProxy on this machine and its processes. The supervisor starts and stops it; here it is only found and told to reload.
enum HAProxyProgram {
    /// Where the program is; nil: not installed. The places are the supervisor's, which starts it: who looked elsewhere would
    /// wait for one that never comes.
    static func path() -> String? {
        ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/bin/haproxy"].first { access($0, X_OK) == 0 }
    }

    /// The account of its worker: Debian's `haproxy` when root starts it, else nobody else's.
    static var account: String? { geteuid() == 0 && getpwnam("haproxy") != nil ? "haproxy" : nil }

    /// Asks the master of this worker to start a new worker from the file and to let the old one finish (a hitless reload).
    static func reload(worker: Int32) throws {
        guard let master = parent(of: worker), master > 1, name(of: master) == "haproxy" else {
            throw Problem(
                .failed, "HAProxy (pid \(worker)) has no master process, so it cannot be reloaded",
                hint: "it must be run as 'haproxy -W -db -f …'")
        }
        guard kill(master, SIGUSR2) == 0 else {
            throw Problem(.failed, "HAProxy's master (pid \(master)) cannot be told to reload: \(String(cString: strerror(errno)))")
        }
    }

    /// Whether an earlier worker of the same master still finishes requests.
    static func hasOldWorkers(besides worker: Int32) -> Bool {
        guard let master = parent(of: worker), let tasks = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(master)/task")
        else {
            return false
        }
        return tasks.contains { task in
            let children = ProcFile.read("/proc/\(master)/task/\(task)/children")
            return (children ?? "").split(separator: " ").compactMap { Int32($0) }.contains { $0 != worker && name(of: $0) == "haproxy" }
        }
    }

    /// The parent's id: the second field after the name, which stands in brackets and may hold anything.
    private static func parent(of pid: Int32) -> Int32? {
        guard let text = ProcFile.read("/proc/\(pid)/stat"), let bracket = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: bracket)...].split(separator: " ")
        return fields.count > 1 ? Int32(fields[1]) : nil
    }

    private static func name(of pid: Int32) -> String? {
        ProcFile.read("/proc/\(pid)/comm").map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }
    }
}
