import CSys
import Glibc

/// supervisord, as a program: `arguments` are without its own name, the result is the exit code.
public enum Supervisord {
    public static func main(_ arguments: [String]) -> Int32 {
        do {
            switch try Options.parse(arguments) {
            case .print(let text):
                print(text, to: 1)
                return 0
            case .run(let options): return try run(options, arguments)
            }
        } catch {
            print("Error: \(error)\nFor help, use \(CommandLine.arguments.first ?? "supervisord") -h\n", to: 2)
            return 2
        }
    }

    private static func print(_ text: String, to fd: Int32) {
        var text = text
        _ = text.withUTF8 { Files.write(fd, UnsafeRawBufferPointer($0)) }
    }

    private static func run(_ given: Options, _ arguments: [String]) throws -> Int32 {
        var options = given
        let saved = try options.resume.map { try Reexec.load($0) }
        if let fd = options.resume { close(fd) }
        options.resume = nil
        if options.isCheck {
            var settings = try SettingsReader.read(options.configuration)
            try options.apply(to: &settings.daemon)
            return 0
        }
        var lasting = Self.lasting(arguments)
        if lasting.suffix(2) != ["-c", options.configuration] { lasting += ["-c", options.configuration] }
        return try run(options, lasting, resuming: saved)
    }

    /// Without what belongs to one start, and with the file's whole path: the directory may have been changed since.
    private static func lasting(_ arguments: [String]) -> [String] {
        var result: [String] = []
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--resume" {
                _ = rest.popFirst()
            } else {
                result.append(argument)
            }
        }
        return result
    }

    private static func run(_ options: Options, _ arguments: [String], resuming: State?) throws -> Int32 {
        var resuming = resuming
        signal(SIGPIPE, SIG_IGN)
        var isDetached = false
        while true {
            var settings = try SettingsReader.read(options.configuration)
            try options.apply(to: &settings.daemon)
            let isResuming = resuming != nil
            if isResuming, !settings.daemon.isForeground { isDetached = true }
            // What whoever started us left open would live as long as we do; in the foreground it is meant for us.
            if !settings.daemon.isForeground, !isDetached { csys_close_from(3) }
            let files = try raiseLimits(settings.daemon)
            try dropPrivileges(settings.daemon)
            umask(settings.daemon.umask)
            absolutePaths(&settings)
            let lock = try PidLock(settings.daemon.pidfile, handedOver: resuming?.int32("lock"))
            let followers = Followers()
            let logger = try Self.logger(settings.daemon, followers, isDetached: isDetached)
            if !settings.daemon.keepsOldLogs, !isResuming { removeOldLogs(settings.daemon) }
            let sockets = try Self.sockets(settings.servers, resuming)
            if !settings.daemon.isForeground, !isDetached {
                guard csys_daemonize() == 0 else { throw Complaint("cannot become a daemon: \(reason())") }
                isDetached = true
                if let directory = settings.daemon.directory {
                    guard chdir(directory) == 0 else { throw Complaint("\(directory): \(reason())") }
                }
            }
            if geteuid() == 0, settings.daemon.user == nil {
                logger.critical(
                    "Supervisor is running as root.  Privileges were not dropped because no user is specified in the config file.  If you "
                        + "intend to run as root, you can set user=root in the config file to avoid this message.")
            }
            for note in settings.notes { logger.info(note) }
            for warning in settings.warnings { logger.warn(warning) }
            let daemon = try Daemon(settings, options, logger, followers, files: files)
            daemon.arguments = arguments
            daemon.lock = lock
            let again = try daemon.run(sockets, resuming)
            resuming = nil
            daemon.lock = nil
            withExtendedLifetime(lock) {}
            guard again else { return 0 }
        }
    }

    /// Those that were handed over, and new ones for what is new.
    private static func sockets(_ servers: [Server], _ saved: State?) throws -> [(Server, Int32)] {
        var known = Dictionary((saved?.list("servers") ?? []).map { ($0.text("address") ?? "", $0.int32("fd") ?? -1) }) { first, _ in first
        }
        let result = try servers.map { server in
            if let fd = known.removeValue(forKey: "\(server.address)"), fd >= 0 {
                _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
                return (server, fd)
            }
            return (server, try Sockets.open(server))
        }
        for fd in known.values where fd >= 0 { close(fd) }
        return result
    }

    /// Paths are those of the start, wherever the daemon goes afterwards.
    private static func absolutePaths(_ settings: inout Settings) {
        settings.daemon.logfile = Files.absolute(settings.daemon.logfile)
        settings.daemon.pidfile = Files.absolute(settings.daemon.pidfile)
        settings.daemon.childLogDirectory = Files.absolute(settings.daemon.childLogDirectory)
        for index in settings.servers.indices {
            if case .unix(let path, let mode, let owner, let group) = settings.servers[index].address {
                settings.servers[index].address = .unix(path: Files.absolute(path), mode: mode, owner: owner, group: group)
            }
        }
    }

    private static func logger(_ daemon: Settings.Daemon, _ followers: Followers, isDetached: Bool) throws -> Logger {
        let isNone = ["none", "off"].contains(Files.name(of: daemon.logfile).lowercased()) && !Files.exists(daemon.logfile)
        let file =
            isNone
            ? nil : try LogFile(daemon.logfile, maxBytes: daemon.logfileMaxBytes, backups: daemon.logfileBackups, followers: followers)
        return Logger(file: file, level: daemon.level, isOnStandardOutput: daemon.isForeground && !daemon.isSilent && !isDetached)
    }

    /// Enough descriptors for many programs; the answer is what the programs themselves get, as it would be without us.
    private static func raiseLimits(_ daemon: Settings.Daemon) throws -> (soft: UInt64, hard: UInt64) {
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        getrlimit(kind, &limit)
        let wanted = rlim_t(daemon.minimumFiles)
        if limit.rlim_max < wanted {
            var higher = rlimit(rlim_cur: wanted, rlim_max: wanted)
            guard setrlimit(kind, &higher) == 0 else {
                throw Complaint(
                    "\(wanted) file descriptors are wanted (minfds), and only \(limit.rlim_max) are allowed here: raise the limit, or lower minfds"
                )
            }
            limit = higher
        }
        let soft = childSoftLimit ?? limit.rlim_cur
        if childSoftLimit == nil { setenv("SLIPWAY_SUPERVISORD_FILES", "\(limit.rlim_cur)", 1) }
        var raised = rlimit(rlim_cur: max(limit.rlim_cur, min(limit.rlim_max, 1 << 20)), rlim_max: limit.rlim_max)
        setrlimit(kind, &raised)
        let processes = __rlimit_resource_t(Self.processLimit)
        var most = rlimit()
        getrlimit(processes, &most)
        if most.rlim_cur < rlim_t(daemon.minimumProcesses) {
            let wanted = rlim_t(daemon.minimumProcesses)
            var higher = rlimit(rlim_cur: wanted, rlim_max: max(wanted, most.rlim_max))
            guard setrlimit(processes, &higher) == 0 else {
                throw Complaint("\(wanted) processes are wanted (minprocs), and only \(most.rlim_cur) are allowed here")
            }
        }
        return (UInt64(max(soft, min(wanted, limit.rlim_max))), UInt64(limit.rlim_max))
    }

    /// RLIMIT_NPROC of Linux, which glibc's Swift module leaves out.
    private static let processLimit: UInt32 = 6

    /// What it was before it was raised here.
    private static var childSoftLimit: rlim_t? {
        getenv("SLIPWAY_SUPERVISORD_FILES").flatMap { rlim_t(String(cString: $0)) }
    }

    private static func dropPrivileges(_ daemon: Settings.Daemon) throws {
        guard let user = daemon.user, user.uid != geteuid() else { return }
        guard geteuid() == 0 else { throw Complaint("Can't drop privilege as nonroot user: only root can become \(user.name)") }
        guard setgroups(user.groups.count, user.groups) == 0, setgid(user.gid) == 0, setuid(user.uid) == 0 else {
            throw Complaint("cannot become user \(user.name): \(reason())")
        }
    }

    /// Logs that an earlier run named by itself.
    private static func removeOldLogs(_ daemon: Settings.Daemon) {
        let mark = "---\(daemon.identifier)-"
        for name in Files.list(daemon.childLogDirectory) {
            guard let at = name.ranges(of: mark).last?.upperBound, let dot = name[at...].firstIndex(of: ".") else { continue }
            let rest = name[dot...]
            guard rest == ".log" || (rest.hasPrefix(".log.") && rest.dropFirst(5).allSatisfy(\.isNumber)), !name[at..<dot].contains("-")
            else { continue }
            unlink("\(daemon.childLogDirectory)/\(name)")
        }
    }
}

/// Keeps a second daemon from using the same pid file; the kernel lets go of it however we end.
final class PidLock {
    let fd: Int32

    init(_ path: String, handedOver: Int32? = nil) throws {
        if let handedOver, handedOver >= 0 {
            fd = handedOver
            _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
            lockPath = path + ".lock"
            return
        }
        fd = open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        // Where no file can be made, the pid file cannot be written either, and that is said later.
        guard fd >= 0 else { return }
        guard flock(fd, LOCK_EX | LOCK_NB) == 0 else {
            close(fd)
            throw Complaint(
                "Another program is already running with the pid file \(path).  Shut it down first before starting supervisord.")
        }
        lockPath = path + ".lock"
    }
    private var lockPath: String?
    deinit {
        if let lockPath { unlink(lockPath) }
        if fd >= 0 { close(fd) }
    }
}

/// Listening sockets.
enum Sockets {
    /// Throws `Complaint`.
    static func open(_ server: Server) throws -> Int32 {
        switch server.address {
        case .unix(let path, let mode, let owner, let group): return try unix(path, mode, owner, group)
        case .inet(let host, let port): return try inet(host, port)
        }
    }

    private static let inUse =
        "Another program is already listening on a port that one of our HTTP servers is configured to use.  Shut this program down first "
        + "before starting supervisord."

    private static func withUnixAddress<T>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix(107)) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }

    /// One that is held for a program; it blocks, as programs expect. Throws `Complaint`.
    static func open(_ address: Program.Listen, user: Accounts.User?) throws -> Int32 {
        let fd: Int32
        switch address {
        case .tcp(let host, let port): fd = try inet(host, port)
        case .unix(let path): fd = try unix(path, 0o666, user?.uid, user?.gid)
        }
        let flags = fcntl(fd, F_GETFL)
        _ = fcntl(fd, F_SETFL, flags & ~O_NONBLOCK)
        return fd
    }

    /// For messages from one user. Throws `Complaint`.
    static func datagram(_ path: String, _ user: Accounts.User?) throws -> Int32 {
        guard path.utf8.count <= 107 else { throw Complaint("the path of a socket has at most 107 bytes: \(path)") }
        unlink(path)
        let fd = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        let old = umask(0o177)
        let result = fd < 0 ? -1 : withUnixAddress(path) { bind(fd, $0, $1) }
        umask(old)
        if result == 0, user == nil || user?.uid == geteuid() || chown(path, user?.uid ?? .max, user?.gid ?? .max) == 0 { return fd }
        let why = reason()
        if fd >= 0 { close(fd) }
        throw Complaint("\(path): \(why)")
    }

    /// Made under another name and put into place, so that nobody meets it before its mode is right.
    private static func unix(_ path: String, _ mode: mode_t, _ owner: uid_t?, _ group: gid_t?) throws -> Int32 {
        if Files.exists(path) {
            let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            defer { close(probe) }
            if withUnixAddress(path, { connect(probe, $0, $1) }) == 0 || errno == EAGAIN { throw Complaint("\(inUse) (\(path))") }
            var info = stat()
            guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFSOCK else { throw Complaint("\(path) is there and is no socket") }
        }
        let draft = "\(path).\(getpid())"
        guard draft.utf8.count <= 107 else { return try bound(path, at: path, mode, owner, group, replaces: true) }
        unlink(draft)
        return try bound(path, at: draft, mode, owner, group, replaces: false)
    }

    private static func bound(_ path: String, at place: String, _ mode: mode_t, _ owner: uid_t?, _ group: gid_t?, replaces: Bool) throws
        -> Int32
    {
        if replaces { unlink(place) }
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard fd >= 0 else { throw Complaint("socket: \(reason())") }
        func fail(_ what: String) -> Complaint {
            let why = reason()
            close(fd)
            unlink(place)
            return Complaint("Cannot open a socket: \(what) \(path): \(why)")
        }
        let old = umask(0o177)
        let result = withUnixAddress(place) { bind(fd, $0, $1) }
        umask(old)
        guard result == 0 else { throw fail("cannot bind") }
        if owner != nil || group != nil, chown(place, owner ?? .max, group ?? .max) != 0 { throw fail("cannot change the owner of") }
        guard chmod(place, mode) == 0 else { throw fail("cannot change the mode of") }
        guard listen(fd, 1024) == 0 else { throw fail("cannot listen on") }
        if place != path, rename(place, path) != 0 { throw fail("cannot make") }
        return fd
    }

    private static func inet(_ host: String, _ port: Int) throws -> Int32 {
        var hints = addrinfo()
        hints.ai_family = host.isEmpty ? AF_INET : AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_PASSIVE
        var found: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host.isEmpty ? nil : host, "\(port)", &hints, &found)
        guard code == 0, let first = found else {
            throw Complaint("Cannot open a socket: \(host): \(String(cString: gai_strerror(code)))")
        }
        defer { freeaddrinfo(found) }
        let fd = socket(
            first.pointee.ai_family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard fd >= 0 else { throw Complaint("socket: \(reason())") }
        var on: Int32 = 1
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        guard bind(fd, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0, listen(fd, 1024) == 0 else {
            let why = errno
            close(fd)
            throw Complaint(why == EADDRINUSE ? "\(inUse) (port \(port))" : "Cannot open a socket: \(host):\(port): \(reason(why))")
        }
        return fd
    }
}
