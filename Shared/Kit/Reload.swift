import Contracts
import Dispatch
import Foundation
import Logging
import Synchronization

/// The level of this process's log. One for all loggers, so that it can be changed while they are in use.
enum LogLevel {
    private static let level = Mutex(Logger.Level.info)
    static var now: Logger.Level {
        get { level.withLock { $0 } }
        set { level.withLock { $0 = newValue } }
    }
}

/// SIGHUP: reads HOME/suite.yml again. Its `log_level` counts at once; a file that is wrong is told of and changes nothing.
///
/// Ports, listeners and trust are fixed at the start, because the other programs of the suite rely on them.
enum Reload {
    /// Listens until the result is let go of.
    static func onHangup(_ config: SuiteConfig, _ logger: Logger) -> any DispatchSourceSignal {
        signal(SIGHUP, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGHUP, queue: .global())
        source.setEventHandler {
            do {
                if let level = try SuiteConfig.writtenLogLevel(config.home) { LogLevel.now = level }
                logger.notice("\(config.home.suiteFile) was read again", metadata: ["log_level": "\(LogLevel.now)"])
            } catch {
                logger.error("\(config.home.suiteFile) cannot be read again, and nothing changes: \(error)")
            }
        }
        source.activate()
        return source
    }
}
