import CSys
import Glibc

/// Something that a person has to put right: in a configuration, on a command line, or on this host.
struct Complaint: Error, Hashable, CustomStringConvertible {
    var description: String
    init(_ text: String) { description = text }
}

/// What the kernel says, in its words.
func reason(_ error: Int32 = errno) -> String { String(cString: strerror(error)) }

/// Time in milliseconds. Intervals are measured by `monotonic`, which nobody sets; `wall` is for people.
enum Clock {
    static func monotonic() -> Int { read(CLOCK_MONOTONIC) }
    static func wall() -> Int { read(CLOCK_REALTIME) }

    /// Monotonic, too.
    static func nanoseconds() -> Int {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    private static func read(_ clock: clockid_t) -> Int {
        var now = timespec()
        clock_gettime(clock, &now)
        return now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    }

    /// Now, as RFC 3339 has it.
    static func utc() -> String {
        let now = wall()
        var time = time_t(now / 1000)
        var parts = tm()
        gmtime_r(&time, &parts)
        let day = "\(1900 + parts.tm_year)-\((parts.tm_mon + 1).padded(2))-\(parts.tm_mday.padded(2))"
        return "\(day)T\(parts.tm_hour.padded(2)):\(parts.tm_min.padded(2)):\(parts.tm_sec.padded(2)).\((now % 1000).padded(3))Z"
    }

    /// strftime(3) in local time. `seconds` since 1970.
    static func text(_ seconds: Int, _ format: String) -> String {
        var time = time_t(seconds)
        var parts = tm()
        localtime_r(&time, &parts)
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            guard let base = buffer.baseAddress, strftime(base, 128, format, &parts) > 0 else { return "" }
            return String(cString: base)
        }
    }
}

extension BinaryInteger {
    /// In decimal, with zeros in front up to `width`.
    func padded(_ width: Int) -> String {
        let text = String(self)
        return text.count < width ? String(repeating: "0", count: width - text.count) + text : text
    }
}

extension StringProtocol {
    /// Without white space at its ends.
    var trimmed: String {
        var rest = Substring(self)
        while let first = rest.first, first.isWhitespace { rest.removeFirst() }
        while let last = rest.last, last.isWhitespace { rest.removeLast() }
        return String(rest)
    }

    /// The two parts around the first `separator`.
    func halves(at separator: Character) -> (String, String)? {
        guard let at = firstIndex(of: separator) else { return nil }
        return (String(self[..<at]), String(self[index(after: at)...]))
    }
}

/// Files, as far as this program needs them.
enum Files {
    /// The whole of a regular file. Throws `Complaint`.
    static func read(_ path: String, most: Int = 16 << 20) throws -> [UInt8] {
        // Not blocking, or a FIFO would hold us for ever.
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard fd >= 0 else { throw Complaint("\(path): \(reason())") }
        defer { close(fd) }
        var info = stat()
        guard fstat(fd, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { throw Complaint("\(path): is not a regular file") }
        guard info.st_size <= most else { throw Complaint("\(path): is larger than \(most >> 20) MiB") }
        guard let data = read(fd, at: 0, count: most) else { throw Complaint("\(path): \(reason())") }
        return data
    }

    /// Up to `count` bytes from `offset`; nil with errno when they cannot be read.
    static func read(_ fd: Int32, at offset: Int, count: Int) -> [UInt8]? {
        var info = stat()
        guard fstat(fd, &info) == 0 else { return nil }
        let wanted = max(0, min(count, Int(info.st_size) - offset))
        var failed = false
        let data = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, filled in
            while filled < wanted {
                let got = pread(fd, buffer.baseAddress.map { $0 + filled }, wanted - filled, offset + filled)
                if got < 0, errno == EINTR { continue }
                if got < 0 { failed = true }
                guard got > 0 else { return }
                filled += got
            }
        }
        return failed ? nil : data
    }

    /// Writes all of it, or throws what kept it from that.
    static func write(_ fd: Int32, _ bytes: UnsafeRawBufferPointer) -> Bool {
        var done = 0
        while done < bytes.count {
            let count = Glibc.write(fd, bytes.baseAddress.map { $0 + done }, bytes.count - done)
            if count < 0 {
                if errno == EINTR { continue }
                // A terminal or a pipe that is full: whoever reads it decides how fast this goes, for a second at most.
                guard errno == EAGAIN else { return false }
                var item = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
                guard poll(&item, 1, 1000) > 0 else { return false }
                continue
            }
            done += count
        }
        return true
    }

    static func isDirectory(_ path: String) -> Bool {
        var info = stat()
        return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    static func name(of path: String) -> String { path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? path }

    /// Without `.`, `..` and doubled slashes; from the working directory when it is relative.
    static func absolute(_ path: String) -> String {
        var parts: [Substring] = []
        let full = path.hasPrefix("/") ? path : workingDirectory + "/" + path
        for part in full.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return "/" + parts.joined(separator: "/")
    }

    static var workingDirectory: String {
        guard let text = getcwd(nil, 0) else { return "/" }
        defer { free(text) }
        return String(cString: text)
    }

    /// Names in a directory, sorted.
    static func list(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// glob(3), sorted.
    static func matches(_ pattern: String) -> [String] {
        var found = glob_t()
        defer { globfree(&found) }
        guard glob(pattern, 0, nil, &found) == 0 else { return [] }
        return (0..<Int(found.gl_pathc)).compactMap { found.gl_pathv[$0].map { String(cString: $0) } }.sorted()
    }
}

/// The environment of this process.
enum Environment {
    static var now: [String: String] {
        var result: [String: String] = [:]
        var at = environ
        while let entry = at.pointee {
            if let (name, value) = String(cString: entry).halves(at: "=") { result[name] = value }
            at += 1
        }
        return result
    }
}

/// Users and groups of this host.
enum Accounts {
    struct User: Hashable {
        var uid: uid_t
        var gid: gid_t
        var name: String
        var groups: [gid_t]
    }

    /// By name or number. Throws `Complaint`.
    static func user(_ text: String) throws -> User {
        let entry: UnsafeMutablePointer<passwd>?
        if let number = UInt32(text) {
            entry = getpwuid(number)
            if entry == nil { throw Complaint("Invalid user id \(text)") }
        } else {
            entry = getpwnam(text)
        }
        guard let entry else { throw Complaint("Invalid user name \(text)") }
        let name = String(cString: entry.pointee.pw_name)
        let gid = entry.pointee.pw_gid
        var count: Int32 = 64
        var groups = [gid_t](repeating: 0, count: 64)
        if getgrouplist(name, gid, &groups, &count) < 0 {
            groups = [gid_t](repeating: 0, count: Int(count))
            guard getgrouplist(name, gid, &groups, &count) >= 0 else { throw Complaint("the groups of \(name) cannot be read") }
        }
        return User(uid: entry.pointee.pw_uid, gid: gid, name: name, groups: Array(groups.prefix(Int(count))))
    }

    static func group(_ text: String) throws -> gid_t {
        if let number = UInt32(text) {
            guard getgrgid(number) != nil else { throw Complaint("Invalid group id \(text)") }
            return number
        }
        guard let entry = getgrnam(text) else { throw Complaint("Invalid group name \(text)") }
        return entry.pointee.gr_gid
    }
}

/// Signals by their names.
enum Signals {
    private static let names: [(String, Int32)] = [
        ("HUP", SIGHUP), ("INT", SIGINT), ("QUIT", SIGQUIT), ("ILL", SIGILL), ("TRAP", SIGTRAP), ("ABRT", SIGABRT), ("BUS", SIGBUS),
        ("FPE", SIGFPE), ("KILL", SIGKILL), ("USR1", SIGUSR1), ("SEGV", SIGSEGV), ("USR2", SIGUSR2), ("PIPE", SIGPIPE),
        ("ALRM", SIGALRM), ("TERM", SIGTERM), ("STKFLT", 16), ("CHLD", SIGCHLD), ("CONT", SIGCONT), ("STOP", SIGSTOP),
        ("TSTP", SIGTSTP), ("TTIN", SIGTTIN), ("TTOU", SIGTTOU), ("URG", SIGURG), ("XCPU", SIGXCPU), ("XFSZ", SIGXFSZ),
        ("VTALRM", SIGVTALRM), ("PROF", SIGPROF), ("WINCH", SIGWINCH), ("IO", SIGIO), ("PWR", SIGPWR), ("SYS", SIGSYS),
        ("CLD", SIGCHLD), ("POLL", SIGIO), ("IOT", SIGABRT),
    ]

    /// A number, or a name with or without SIG.
    static func number(_ text: String) -> Int32? {
        let name = text.trimmed.uppercased()
        if let number = Int32(name) { return (1...64).contains(number) ? number : nil }
        let short = name.hasPrefix("SIG") ? String(name.dropFirst(3)) : name
        return names.first { $0.0 == short }?.1
    }

    static func name(_ number: Int32) -> String { names.first { $0.1 == number }.map { "SIG\($0.0)" } ?? "signal \(number)" }
}
