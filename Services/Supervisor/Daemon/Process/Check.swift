import CSys
import Glibc

/// How a program shows that it is ready, or still well.
enum Check: Hashable, Sendable, CustomStringConvertible {
    /// Something accepts connections there.
    case tcp(host: String, port: Int)
    /// A GET is answered with a status of 200 to 399.
    case http(host: String, port: Int, path: String)
    /// A command exits with 0. No shell is used.
    case exec([String])
    /// It writes this text.
    case log(String)
    /// It sends READY=1 to the socket in NOTIFY_SOCKET (sd_notify(3)).
    case notify

    var description: String {
        switch self {
        case .tcp(let host, let port): "tcp:\(host):\(port)"
        case .http(let host, let port, let path): "http:\(host):\(port)\(path)"
        case .exec(let words): "exec:\(words.joined(separator: " "))"
        case .log(let text): "log:\(text)"
        case .notify: "notify"
        }
    }

    /// Throws `Complaint`.
    static func parse(_ text: String) throws -> Check {
        if text == "notify" || text == "sd_notify" { return .notify }
        guard let (kind, rest) = text.halves(at: ":"), !rest.isEmpty else {
            throw Complaint("'\(text)' is no check: tcp:PORT, http:PORT/PATH, exec:COMMAND, log:TEXT or notify")
        }
        func address(_ text: String) throws -> (String, Int) {
            let (host, port) = try Values.address(text)
            return (host.isEmpty ? "127.0.0.1" : host, port)
        }
        switch kind {
        case "tcp":
            let (host, port) = try address(rest)
            return .tcp(host: host, port: port)
        case "http":
            let bare = rest.hasPrefix("//") ? String(rest.dropFirst(2)) : rest
            let (place, path) = bare.halves(at: "/").map { ($0, "/" + $1) } ?? (bare, "/")
            guard path.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else { throw Complaint("'\(path)' is no path of a URL") }
            let (host, port) = try address(place)
            return .http(host: host, port: port, path: path)
        case "exec":
            let words = try Words.split(rest)
            guard !words.isEmpty else { throw Complaint("exec: names no command") }
            return .exec(words)
        case "log": return .log(rest)
        default: throw Complaint("'\(kind)' is no kind of check: tcp, http, exec, log or notify")
        }
    }

    /// Whether it can be asked again and again.
    var canBeAsked: Bool {
        switch self {
        case .tcp, .http, .exec: true
        case .log, .notify: false
        }
    }
}

/// One look: ends exactly once, at its limit at the latest, unless it is given up.
final class Probe: Watcher {
    private let check: Check
    private let daemon: Daemon
    private let directory: String?
    private var done: ((Bool) -> Void)?
    private var fd: Int32 = -1
    private var pid: Int32 = 0
    private var timer: Int?
    private var answer: [UInt8] = []
    private var isSent = false

    /// `limit` in milliseconds.
    init(
        _ check: Check, _ daemon: Daemon, environment: [String: String], user: Accounts.User?, directory: String?, limit: Int,
        _ done: @escaping (Bool) -> Void
    ) {
        self.check = check
        self.daemon = daemon
        self.directory = directory
        self.done = done
        timer = daemon.poller.after(limit) { [weak self] in self?.end(false) }
        switch check {
        case .tcp(let host, let port), .http(let host, let port, _): connect(host, port)
        case .exec(let words): run(words, environment, user)
        case .log, .notify: daemon.poller.soon { [weak self] in self?.end(false) }
        }
    }
    deinit { giveUp() }

    /// Nobody wants to know any more.
    func giveUp() {
        done = nil
        daemon.poller.cancel(timer)
        if fd >= 0 {
            daemon.poller.forget(fd)
            close(fd)
            fd = -1
        }
        if pid > 0 {
            kill(-pid, SIGKILL)
            pid = 0
        }
    }

    private func end(_ isWell: Bool) {
        let tell = done
        giveUp()
        tell?(isWell)
    }

    private func connect(_ host: String, _ port: Int) {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        // Names would be looked up, and that would hold everything else.
        hints.ai_flags = AI_NUMERICHOST
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host == "localhost" ? "127.0.0.1" : host, "\(port)", &hints, &found) == 0, let first = found else {
            return daemon.poller.soon { [weak self] in self?.end(false) }
        }
        defer { freeaddrinfo(found) }
        fd = socket(first.pointee.ai_family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard fd >= 0, Glibc.connect(fd, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 || errno == EINPROGRESS else {
            return daemon.poller.soon { [weak self] in self?.end(false) }
        }
        daemon.poller.watch(fd, 2, self)
    }

    func ready(_ fd: Int32, _ events: Int32) {
        if !isSent {
            var error: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            guard getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0, error == 0 else { return end(false) }
            guard case .http(let host, _, let path) = check else { return end(true) }
            isSent = true
            let request = Array(
                "GET \(path) HTTP/1.1\r\nHost: \(host)\r\nUser-Agent: slipway-supervisord\r\nConnection: close\r\n\r\n".utf8)
            let sent = request.withUnsafeBytes { send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard sent == request.count else { return end(false) }
            daemon.poller.change(fd, 1)
            return
        }
        let count = read(fd, daemon.buffer.baseAddress, 4096)
        if count < 0, errno == EAGAIN { return }
        guard count > 0 else { return end(false) }
        answer += daemon.buffer[..<count]
        // "HTTP/1.1 200": the rest does not matter.
        guard answer.count >= 12 else { return }
        let status = Int(String(decoding: answer[9..<12], as: UTF8.self))
        end(answer.starts(with: Array("HTTP/1.".utf8)) && status.map { (200...399).contains($0) } ?? false)
    }

    private func run(_ words: [String], _ environment: [String: String], _ user: Accounts.User?) {
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        guard null >= 0, let path = Executable.find(words[0], environment["PATH"]) else {
            return daemon.poller.soon { [weak self] in self?.end(false) }
        }
        let started = Spawner.start(
            path, words, environment: environment, directory: directory, descriptors: [null, null, null], user: user, umask: nil,
            files: daemon.childFiles)
        guard started.pid > 0 else { return daemon.poller.soon { [weak self] in self?.end(false) } }
        close(started.pidfd)
        pid = started.pid
        daemon.onEnd(of: started.pid) { [weak self] end in
            guard let self, pid == end.pid else { return }
            pid = 0
            self.end(!end.by_signal && end.status == 0)
        }
    }
}

/// Where programs are.
enum Executable {
    /// The file that a name means, by PATH when it holds no slash; nil when there is none that can be run.
    static func find(_ name: String, _ search: String?) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        return (search ?? "/bin:/usr/bin:/usr/local/bin").split(separator: ":").map { "\($0)/\(name)" }.first {
            access($0, X_OK) == 0 && !Files.isDirectory($0)
        }
    }
}

/// The socket to which a program says that it is ready, as sd_notify(3) has it.
final class NotifySocket: Watcher {
    let path: String
    let fd: Int32
    private let poller: Poller
    private let isReady: () -> Void

    /// Throws `Complaint`.
    init(_ path: String, _ user: Accounts.User?, _ poller: Poller, _ isReady: @escaping () -> Void) throws {
        self.path = path
        self.poller = poller
        self.isReady = isReady
        fd = try Sockets.datagram(path, user)
        poller.watch(fd, 1, self)
    }

    /// One that was handed over.
    init(_ fd: Int32, _ path: String, _ poller: Poller, _ isReady: @escaping () -> Void) {
        self.path = path
        self.poller = poller
        self.isReady = isReady
        self.fd = fd
        _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
        poller.watch(fd, 1, self)
    }
    deinit {
        poller.forget(fd)
        close(fd)
        unlink(path)
    }

    func ready(_ fd: Int32, _ events: Int32) {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            while true {
                let count = recv(fd, buffer.baseAddress, buffer.count, 0)
                guard count > 0 else { return }
                let lines = buffer[..<count].split(separator: 10)
                if lines.contains(where: { $0.elementsEqual("READY=1".utf8) }) { isReady() }
            }
        }
    }
}
