import Foundation
import Kit

/// What /proc says about processes.
enum ProcFS {
    struct Stat: Sendable {
        var state: Character
        var parent: Int32
        var session: Int32
        /// Start time in clock ticks since boot.
        var ticks: UInt64
    }

    /// Nil when there is no such process.
    static func stat(_ pid: Int32) -> Stat? {
        guard let text = ProcFile.read("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
        // After the command's name, which may hold anything: state ppid pgrp session … starttime is field 22 of all.
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, let state = fields[0].first, let parent = Int32(fields[1]), let session = Int32(fields[3]),
            let ticks = UInt64(fields[19])
        else { return nil }
        return Stat(state: state, parent: parent, session: session, ticks: ticks)
    }

    /// Every process there is at the moment.
    static var all: [Int32] { ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { Int32($0) } }

    /// What a process was started with, its own name first; empty when it is gone.
    static func arguments(_ pid: Int32) -> [String] {
        (ProcFile.read("/proc/\(pid)/cmdline") ?? "").split(separator: "\0", omittingEmptySubsequences: false).dropLast().map(String.init)
    }

    /// The effective user it runs as; nil when it is gone.
    static func owner(_ pid: Int32) -> UInt32? {
        let line = ProcFile.read("/proc/\(pid)/status")?.split(separator: "\n").first { $0.hasPrefix("Uid:") }
        return line.flatMap { $0.split(whereSeparator: \.isWhitespace).dropFirst(2).first.flatMap { UInt32($0) } }
    }

    /// All processes of a session, zombies left out.
    static func session(_ id: Int32) -> [Int32] {
        all.filter { pid in
            guard let stat = stat(pid) else { return false }
            return stat.session == id && stat.state != "Z"
        }
    }

    /// Names this boot of the machine: pids and start times mean nothing beyond it.
    static let boot: String = (ProcFile.read("/proc/sys/kernel/random/boot_id") ?? "").trimmingCharacters(in: .whitespacesAndNewlines)

    /// Bytes of memory of the machine.
    static var memory: Int64 {
        let line = ProcFile.read("/proc/meminfo")?.split(separator: "\n").first { $0.hasPrefix("MemTotal:") }
        let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { Int64($0) } ?? 0
        return kibibytes * 1024
    }

    /// The user ids that have a name on this machine.
    static var namedUsers: Set<UInt32> {
        Set(
            (ProcFile.read("/etc/passwd") ?? "").split(separator: "\n").compactMap { line in
                let fields = line.split(separator: ":", omittingEmptySubsequences: false)
                return fields.count > 2 ? UInt32(fields[2]) : nil
            })
    }
}
