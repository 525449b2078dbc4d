import Contracts
import Foundation

/// How processes end, in words.
enum Exits {
    private static let signals: [(name: String, number: Int32)] = [
        ("HUP", SIGHUP), ("INT", SIGINT), ("QUIT", SIGQUIT), ("ILL", SIGILL), ("TRAP", SIGTRAP), ("ABRT", SIGABRT), ("BUS", SIGBUS),
        ("FPE", SIGFPE), ("KILL", SIGKILL), ("USR1", SIGUSR1), ("SEGV", SIGSEGV), ("USR2", SIGUSR2), ("PIPE", SIGPIPE),
        ("ALRM", SIGALRM), ("TERM", SIGTERM), ("XCPU", SIGXCPU), ("XFSZ", SIGXFSZ), ("WINCH", SIGWINCH), ("SYS", SIGSYS),
    ]

    /// `TERM` and `SIGTERM` alike; nil for what is no signal.
    static func number(of name: String) -> Int32? {
        let short = name.uppercased().hasPrefix("SIG") ? String(name.uppercased().dropFirst(3)) : name.uppercased()
        return signals.first { $0.name == short }?.number
    }
    static func name(of number: Int) -> String {
        signals.first { Int($0.number) == number }.map { "SIG\($0.name)" } ?? "signal \(number)"
    }

    static func reason(_ end: RunningProcess.End, outOfMemory: Bool = false, limit: Int64? = nil) -> String {
        if outOfMemory {
            return "ran out of memory and was ended by the kernel" + (limit.map { " (its limit is \($0 / (1 << 20)) MiB)" } ?? "")
        }
        if let signal = end.signal { return "was ended by \(name(of: signal))" }
        switch end.status {
        case nil: return "ended, and how is not known: an earlier supervisor had started it"
        case 126: return "exited with status 126: the command was found but could not be run (is the file executable?)"
        case 127: return "exited with status 127: the command, or a program it needs, was not found"
        case let status?: return "exited with status \(status)"
        }
    }

    /// As a shell counts: 128 + n after signal n.
    static func status(_ end: RunningProcess.End) -> Int? { end.status ?? end.signal.map { 128 + $0 } }

    /// Seconds without a needless `.0`.
    static func text(_ seconds: Double) -> String { seconds == seconds.rounded() ? "\(Int(seconds))" : "\(seconds)" }
}
