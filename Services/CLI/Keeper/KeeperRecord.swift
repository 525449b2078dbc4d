import CSys
import Contracts
import Foundation
import Kit

/// A process, told from a later one with the same number by the moment at which it started.
struct ProcessMark: Codable, Hashable, Sendable {
    var pid: Int32
    /// Clock ticks after boot: field 22 of /proc/PID/stat (proc(5)).
    var start: UInt64

    /// The running process with that number; nil when there is none.
    init?(pid: Int32) {
        // The name may hold anything, so the fields are counted after its closing parenthesis.
        guard pid > 0, let fields = ProcFile.read("/proc/\(pid)/stat"), let close = fields.lastIndex(of: ")") else { return nil }
        let rest = fields[close...].split(separator: " ")
        guard rest.count > 20, let start = UInt64(rest[20]), rest[1] != "Z" else { return nil }
        self.pid = pid
        self.start = start
    }

    var isAlive: Bool { ProcessMark(pid: pid) == self }

    /// Sends a signal to this very process and no other. False when it is gone.
    @discardableResult
    func signal(_ number: Int32) -> Bool {
        let descriptor = csys_pidfd_open(pid)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // The descriptor holds on to whatever has the number now; only then is it compared.
        guard isAlive else { return false }
        return csys_pidfd_send_signal(descriptor, number) == 0
    }

    /// Waits for its end. False when it still lives after that many seconds.
    func wait(seconds: Double) -> Bool {
        let descriptor = csys_pidfd_open(pid)
        guard descriptor >= 0, isAlive else {
            if descriptor >= 0 { close(descriptor) }
            return true
        }
        defer { close(descriptor) }
        return csys_pidfd_wait(descriptor, Int32(seconds * 1000)) == 1
    }
}

/// `HOME/run/keeper.json`: who keeps the suite of this home running.
struct KeeperRecord: Codable, Sendable {
    var keeper: ProcessMark
    var supervisor: ProcessMark?
    var portBase: Int

    /// Whether anything of what it names still runs.
    var isAlive: Bool { keeper.isAlive || supervisor?.isAlive == true }

    static func path(_ home: Home) -> String { "\(home.run)/keeper.json" }
    static func load(_ home: Home) -> KeeperRecord? {
        FileManager.default.contents(atPath: path(home)).flatMap { try? Coding.decode(KeeperRecord.self, from: $0) }
    }
    func save(_ home: Home) throws { try Files.write(try Coding.encode(self), to: Self.path(home), mode: 0o600) }
    static func remove(_ home: Home) { unlink(path(home)) }
}

/// Keeps a second keeper out of a home. The kernel lets go of it however the process ends.
final class HomeLock: Sendable {
    let descriptor: Int32
    private init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }

    /// One that another process took and passed on.
    static func inherited(_ descriptor: Int32) -> HomeLock { HomeLock(descriptor) }

    private static func path(_ home: Home) -> String { "\(home.run)/keeper.lock" }

    /// Whether somebody holds it; makes nothing.
    static func isHeld(_ home: Home) -> Bool {
        let descriptor = open(path(home), O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) != 0
    }

    /// Throws `Problem` when somebody holds it.
    static func take(_ home: Home) throws -> HomeLock {
        let descriptor = open(path(home), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw Problem(
                .configuration, "cannot write in \(home.run): \(String(cString: strerror(errno)))",
                hint: "give --home a directory that you may write to")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw running(home)
        }
        return HomeLock(descriptor)
    }

    static func running(_ home: Home) -> Problem {
        let who = KeeperRecord.load(home).map { " (process \($0.keeper.pid))" } ?? ""
        return Problem(
            .conflict, "Slipway is already running in \(home.path)\(who)",
            hint: "slipway status; to stop it: slipway down; for a second suite give --home and --port-base")
    }
}
