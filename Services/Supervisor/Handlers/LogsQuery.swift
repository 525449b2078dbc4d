import Contracts
import Foundation

/// Answers `supervisor.logs` from the files of HOME/logs/apps.
enum LogsQuery {
    static func answer(_ query: ReadLogs, directory: String, live: Set<String>) -> ReadLogs.Reply {
        let count = min(max(query.lines, 0), 2000)
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).filter { $0.hasSuffix(".log") }
        let origins: [(path: String, origin: String, order: Int)] = names.compactMap { name in
            let parts = name.dropLast(4).split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            let path = "\(directory)/\(name)"
            if let run = query.run {
                guard parts.count == 3, let job = try? JobID(parts.joined(separator: "/")), job.app == query.app, job.run == run else {
                    return nil
                }
                return (path, job.text, modified(path))
            }
            guard parts.count == 4, let instance = try? InstanceID(parts.joined(separator: "/")), instance.app == query.app,
                query.environment == nil || instance.environment == query.environment,
                query.service == nil || instance.service == query.service
            else { return nil }
            return (path, instance.text, modified(path))
        }
        // Oldest first. Of instances those that run; when none does, the last one that wrote.
        let all = origins.sorted { ($0.order, $0.origin) < ($1.order, $1.origin) }
        let running = all.filter { live.contains($0.origin) }
        let sorted = query.run != nil ? all : running.isEmpty ? all.suffix(1) : running
        return ReadLogs.Reply(logs: sorted.map { ReadLogs.Log(origin: $0.origin, lines: LogTail.last(count, of: $0.path)) })
    }

    private static func modified(_ path: String) -> Int {
        var stat = stat()
        return lstat(path, &stat) == 0 ? stat.st_mtim.tv_sec : 0
    }
}
