import Contracts
import Foundation
import Kit

/// `slipway-bus fsck`.
public enum BusCheck {
    /// Reads the whole log of the home and its bookkeeping. Throws `Problem` (`conflict`) while the bus runs, and when there is no such
    /// home.
    public static func run(_ config: SuiteConfig) throws -> LogReport {
        let directory = config.home.directory(.bus)
        guard FileManager.default.fileExists(atPath: directory) else {
            throw Problem(.notFound, "there is no bus in \(config.home.path)", hint: "give --home DIR")
        }
        let lock = open("\(directory)/lock", O_RDWR | O_CLOEXEC)
        defer { if lock >= 0 { close(lock) } }
        // The lock that a running bus holds.
        if lock >= 0, flock(lock, LOCK_EX | LOCK_NB) != 0 {
            throw Problem(.conflict, "the bus works in \(directory)", hint: "stop it first: slipway down")
        }
        do {
            return try LogCheck.run(directory)
        } catch let error as DiskError {
            throw Problem(.failed, "the log in \(directory)/log cannot be read: \(error)", hint: "run it as the user that runs the suite")
        }
    }
}
