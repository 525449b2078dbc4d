import Glibc

enum Level: Int, Hashable, Sendable, Comparable {
    case blather = 3
    case trace = 5
    case debug = 10
    case info = 20
    case warn = 30
    case error = 40
    case critical = 50

    static func < (one: Level, other: Level) -> Bool { one.rawValue < other.rawValue }

    /// Throws `Complaint`.
    static func parse(_ text: String) throws -> Level {
        switch text.lowercased() {
        case "blat", "blather": return .blather
        case "trac", "trace": return .trace
        case "debg", "debug": return .debug
        case "info": return .info
        case "warn": return .warn
        case "erro", "error": return .error
        case "crit", "critical": return .critical
        default: throw Complaint("bad logging level name '\(text)' (critical, error, warn, info, debug, trace, blather)")
        }
    }

    var mark: String {
        switch self {
        case .blather: "BLAT"
        case .trace: "TRAC"
        case .debug: "DEBG"
        case .info: "INFO"
        case .warn: "WARN"
        case .error: "ERRO"
        case .critical: "CRIT"
        }
    }
}

/// The daemon's own log: lines `YYYY-MM-DD HH:MM:SS,mmm LEVL text`, in a file and, in the foreground, on standard output. Their words are
/// part of what supervisord's users and tools rely on.
final class Logger {
    let file: LogFile?
    private let level: Level
    private let isOnStandardOutput: Bool
    /// The date changes once a second.
    private var second = -1
    private var date = ""

    init(file: LogFile?, level: Level, isOnStandardOutput: Bool) {
        self.file = file
        self.level = level
        self.isOnStandardOutput = isOnStandardOutput
    }

    func isOn(_ level: Level) -> Bool { level >= self.level }

    func log(_ level: Level, _ text: @autoclosure () -> String) {
        guard level >= self.level else { return }
        let now = Clock.wall()
        if now / 1000 != second {
            second = now / 1000
            date = Clock.text(second, "%Y-%m-%d %H:%M:%S")
        }
        var line = "\(date),\((now % 1000).padded(3)) \(level.mark) \(text())\n"
        line.withUTF8 { bytes in
            let bytes = UnsafeRawBufferPointer(bytes)
            file?.append(bytes)
            if isOnStandardOutput { _ = Files.write(1, bytes) }
        }
    }

    func debug(_ text: @autoclosure () -> String) { log(.debug, text()) }
    func info(_ text: @autoclosure () -> String) { log(.info, text()) }
    func warn(_ text: @autoclosure () -> String) { log(.warn, text()) }
    func error(_ text: @autoclosure () -> String) { log(.error, text()) }
    func critical(_ text: @autoclosure () -> String) { log(.critical, text()) }
}
