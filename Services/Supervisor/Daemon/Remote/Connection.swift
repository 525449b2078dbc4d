import CSys
import Glibc

/// A listening socket of the remote interface.
final class Listener: Watcher {
    let server: Server
    let fd: Int32
    private unowned let daemon: Daemon
    static let mostConnections = 512

    init(_ server: Server, _ fd: Int32, _ daemon: Daemon) {
        self.server = server
        self.fd = fd
        self.daemon = daemon
        daemon.poller.watch(fd, 1, self)
    }

    func ready(_ fd: Int32, _ events: Int32) {
        for _ in 0..<64 {
            let peer = csys_accept(fd)
            guard peer >= 0 else {
                if errno == EMFILE || errno == ENFILE {
                    // Asked again at once, the kernel would say the same.
                    daemon.poller.change(fd, 0)
                    daemon.poller.after(200) { [weak self] in if let self { self.daemon.poller.change(self.fd, 1) } }
                }
                return
            }
            makeRoom()
            daemon.connections[peer] = Connection(peer, server, daemon)
        }
    }

    /// Whoever has been silent for longest makes room for whoever comes: on its own socket, so that nobody is kept out of another one.
    private func makeRoom() {
        let mine = daemon.connections.values.filter { $0.server.name == server.name }
        guard mine.count >= Self.mostConnections else { return }
        (mine.filter(\.isIdle).min { $0.lastHeard < $1.lastHeard } ?? mine.min { $0.lastHeard < $1.lastHeard })?.close()
    }

    func close() {
        daemon.poller.forget(fd)
        Glibc.close(fd)
    }
}

/// Somebody who asks: XML-RPC, the page for browsers, and logs that are followed.
final class Connection: Watcher {
    private let fd: Int32
    let server: Server
    private unowned let daemon: Daemon
    private(set) var lastHeard = Clock.nanoseconds()
    private var reader = HTTPReader()
    private var out: [UInt8] = []
    private var sent = 0
    /// An answer is being made; what comes meanwhile waits.
    private var isBusy = false
    private var closesAfter = false
    private var tail: Tail?
    private var timer: Int?
    private var isWatchingWrites = false
    private var hasEnded = false
    /// Seconds for a request to be complete once it has begun, and without any.
    private static let requestLimit = 30
    private static let idleLimit = 600

    init(_ fd: Int32, _ server: Server, _ daemon: Daemon) {
        self.fd = fd
        self.server = server
        self.daemon = daemon
        daemon.poller.watch(fd, 1, self)
        limit(Self.requestLimit)
    }

    /// Its reader does not take what it asked for; no more is asked until it does.
    private var isFull: Bool { out.count - sent > 256 << 10 }

    /// It waits for nothing.
    var isIdle: Bool { !isBusy && tail == nil && out.isEmpty }

    private func limit(_ seconds: Int?) {
        daemon.poller.cancel(timer)
        timer = seconds.map { seconds in
            daemon.poller.after(seconds * 1000) { [weak self] in
                guard let self else { return }
                timer = nil
                if reader.isInside {
                    refuse(HTTPReader.Refusal(status: 408, why: "the request did not come in \(seconds) s"))
                } else {
                    close()
                }
            }
        }
    }

    func close() {
        guard daemon.connections.removeValue(forKey: fd) != nil else { return }
        daemon.poller.cancel(timer)
        tail?.end()
        tail = nil
        daemon.poller.forget(fd)
        Glibc.close(fd)
    }

    func ready(_ fd: Int32, _ events: Int32) {
        if events & 2 != 0, isWatchingWrites { flush() }
        guard events & 1 != 0, daemon.connections[fd] === self else { return }
        guard !isFull else { return daemon.poller.change(fd, 2) }
        let buffer = daemon.buffer
        let count = Glibc.read(fd, buffer.baseAddress, buffer.count)
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else {
            // Half a connection closed: who still waits for an answer gets it.
            hasEnded = true
            if isBusy, count == 0, tail == nil {
                // A hang-up is told again and again to whoever watches; what is to be sent is tried when it is there.
                if !isWatchingWrites { daemon.poller.forget(fd) }
                return
            }
            return close()
        }
        lastHeard = Clock.nanoseconds()
        if tail != nil || closesAfter { return }
        reader.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        if reader.waiting > HTTPReader.mostBody + 2 * HTTPReader.mostHead, isBusy { return close() }
        work()
    }

    private func work() {
        while !isBusy, !isFull, tail == nil, !closesAfter, daemon.connections[fd] === self {
            do throws(HTTPReader.Refusal) {
                switch try reader.next() {
                case .more:
                    limit(reader.isInside ? Self.requestLimit : Self.idleLimit)
                    return
                case .proceed:
                    send(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
                    return
                case .request(let request):
                    limit(nil)
                    answer(request)
                }
            } catch {
                return refuse(error)
            }
        }
    }

    private func refuse(_ refusal: HTTPReader.Refusal) {
        closesAfter = true
        respond(refusal.status, "text/plain; charset=utf-8", Array("\(refusal.why)\n".utf8), isVersion10: false)
    }

    // MARK: answers

    private func answer(_ request: HTTPRequest) {
        if request.wantsToClose { closesAfter = true }
        guard isAllowed(request) else {
            return respond(
                401, "text/plain; charset=utf-8", Array("a user name and a password are needed\n".utf8), isVersion10: request.isVersion10,
                more: "WWW-Authenticate: Basic realm=\"default\"\r\n")
        }
        if request.path == "/RPC2" || request.path == "/RPC2/" { return remote(request) }
        guard request.method == "GET" || request.method == "HEAD" else { return plain(400, "only GET is possible here", request) }
        if request.path == "/mainlogtail" {
            guard let file = daemon.logger.file else { return plain(404, "there is no log", request) }
            return follow(file.path, daemon.logFollowers, request)
        }
        if request.path.hasPrefix("/logtail/") { return logtail(request) }
        guard request.path == "/" || request.path == "/index.html" else { return plain(404, "nothing is here", request) }
        respond(200, "text/html; charset=utf-8", Page.html(daemon), isVersion10: request.isVersion10, hasBody: request.method == "GET")
    }

    private func isAllowed(_ request: HTTPRequest) -> Bool {
        guard let username = server.username, let password = server.password else { return true }
        guard let (scheme, code) = request.headers["authorization"]?.halves(at: " "), scheme.lowercased() == "basic",
            let plain = Base64.decode(code.trimmed.utf8), let colon = plain.firstIndex(of: UInt8(ascii: ":"))
        else { return false }
        let given = Array(plain[(colon + 1)...])
        let isRight: Bool
        if password.hasPrefix("{SHA}") {
            isRight = Self.isSame(Array(SHA1.hex(given).utf8), Array(password.dropFirst(5).lowercased().utf8))
        } else {
            isRight = Self.isSame(given, Array(password.utf8))
        }
        return Self.isSame(Array(plain[..<colon]), Array(username.utf8)) && isRight
    }

    /// Takes as long for one that is nearly right.
    private static func isSame(_ one: [UInt8], _ other: [UInt8]) -> Bool {
        guard one.count == other.count else { return false }
        return zip(one, other).reduce(UInt8(0)) { $0 | $1.0 ^ $1.1 } == 0
    }

    private func remote(_ request: HTTPRequest) {
        guard request.method == "POST" else { return plain(400, "calls come by POST", request) }
        let call: MethodCall
        do throws(CallReader.Malformed) { call = try CallReader.read(request.body) } catch {
            daemon.logger.error("a call cannot be read: \(error.why)")
            return plain(400, "the call cannot be read: \(error.why)", request)
        }
        isBusy = true
        daemon.remote.call(call) { [weak self] result in
            guard let self, daemon.connections[fd] === self else { return }
            isBusy = false
            let body =
                switch result {
                case .success(let value): AnswerWriter.answer(value)
                case .failure(let fault): AnswerWriter.fault(fault)
                }
            respond(200, "text/xml", body, isVersion10: request.isVersion10)
            // Calls that were sent before this one was answered.
            daemon.poller.soon { [weak self] in self?.work() }
        }
    }

    private func plain(_ status: Int, _ text: String, _ request: HTTPRequest) {
        respond(
            status, "text/plain; charset=utf-8", Array("\(text)\n".utf8), isVersion10: request.isVersion10,
            hasBody: request.method != "HEAD")
    }

    private static let phrases = [
        200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 408: "Request Timeout", 411: "Length Required",
        413: "Content Too Large", 431: "Request Header Fields Too Large", 505: "HTTP Version Not Supported",
    ]

    private func respond(
        _ status: Int, _ type: String, _ body: [UInt8], isVersion10: Bool, more: String = "", hasBody: Bool = true
    ) {
        var head = "HTTP/1.1 \(status) \(Self.phrases[status] ?? "Error")\r\nServer: slipway-supervisord\r\nDate: \(daemon.date)\r\n"
        head += "Content-Type: \(type)\r\nContent-Length: \(body.count)\r\n\(more)"
        head += closesAfter || hasEnded ? "Connection: close\r\n\r\n" : isVersion10 ? "Connection: keep-alive\r\n\r\n" : "\r\n"
        send(Array(head.utf8) + (hasBody ? body : []))
    }

    // MARK: logs

    private func logtail(_ request: HTTPRequest) {
        let parts = request.path.dropFirst("/logtail/".count).split(separator: "/", omittingEmptySubsequences: false)
        let channel = parts.count == 2 ? parts[1] : "stdout"
        guard parts.count <= 2, let name = parts.first, channel == "stdout" || channel == "stderr" else {
            return plain(404, "there is no such channel: stdout or stderr", request)
        }
        let (group, process) =
            name.split(separator: ":", maxSplits: 1).count == 2 ? name.halves(at: ":") ?? ("", "") : (String(name), String(name))
        guard let process = daemon.groups[group]?.processes[process] else { return plain(404, "there is no process \(name)", request) }
        let path = channel == "stdout" ? process.outputPath : process.errorPath
        guard let path, Files.exists(path) else { return plain(404, "\(name) has no log of its \(channel)", request) }
        follow(path, channel == "stdout" ? process.outputFollowers : process.errorFollowers, request)
    }

    private func follow(_ path: String, _ followers: Followers, _ request: HTTPRequest) {
        guard let tail = Tail(path, followers, last: 1024) else { return plain(404, "\(path) cannot be read", request) }
        var head = "HTTP/1.1 200 OK\r\nServer: slipway-supervisord\r\nDate: \(daemon.date)\r\nContent-Type: text/plain; charset=utf-8\r\n"
        head += request.isVersion10 ? "Connection: close\r\n\r\n" : "Transfer-Encoding: chunked\r\n\r\n"
        send(Array(head.utf8))
        guard request.method == "GET" else {
            closesAfter = true
            return flush()
        }
        self.tail = tail
        tail.isChunked = !request.isVersion10
        tail.begin { [weak self] in self?.pump() }
        pump()
    }

    /// Sends on what the log has gained, as long as the reader takes it.
    private func pump() {
        while let tail, out.count - sent < 256 << 10, let piece = tail.next() {
            if tail.isChunked {
                out += Array("\(String(piece.count, radix: 16))\r\n".utf8) + piece + [13, 10]
            } else {
                out += piece
            }
        }
        flush()
    }

    // MARK: sending

    private func send(_ bytes: [UInt8]) {
        if out.isEmpty { out = bytes } else { out += bytes }
        flush()
    }

    private func flush() {
        guard daemon.connections[fd] === self else { return }
        while sent < out.count {
            let count = out.withUnsafeBytes { bytes in
                Glibc.send(fd, bytes.baseAddress.map { $0 + sent }, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0 {
                if errno == EINTR { continue }
                guard errno == EAGAIN else { return close() }
                if !isWatchingWrites {
                    isWatchingWrites = true
                    if hasEnded { daemon.poller.watch(fd, 2, self) } else { daemon.poller.change(fd, isFull ? 2 : 3) }
                }
                return
            }
            sent += count
        }
        out.removeAll(keepingCapacity: out.capacity <= 64 << 10)
        sent = 0
        if isWatchingWrites {
            isWatchingWrites = false
            if hasEnded { daemon.poller.forget(fd) } else { daemon.poller.change(fd, 1) }
            daemon.poller.soon { [weak self] in self?.work() }
            if tail != nil { return daemon.poller.soon { [weak self] in self?.pump() } }
        }
        if tail == nil, !isBusy, closesAfter || hasEnded { close() }
    }
}

/// A log from near its end, and what it gains: also over a change of its file for another, and over a cut.
final class Tail {
    private let path: String
    private let followers: Followers
    private var fd: Int32
    private var offset: Int
    var isChunked = true

    init?(_ path: String, _ followers: Followers, last: Int) {
        self.path = path
        self.followers = followers
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        var info = stat()
        guard fd >= 0, fstat(fd, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            if fd >= 0 { close(fd) }
            return nil
        }
        offset = max(0, Int(info.st_size) - last)
    }
    deinit { close(fd) }

    func begin(_ action: @escaping () -> Void) { followers.add(self, action) }
    func end() { followers.remove(self) }

    /// The next piece; nil when nothing is new.
    func next() -> [UInt8]? {
        while true {
            if let data = Files.read(fd, at: offset, count: 64 << 10), !data.isEmpty {
                offset += data.count
                return data
            }
            var open = stat()
            var named = stat()
            guard fstat(fd, &open) == 0, stat(path, &named) == 0 else { return nil }
            if named.st_ino != open.st_ino || named.st_dev != open.st_dev {
                let fresh = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                guard fresh >= 0 else { return nil }
                close(fd)
                fd = fresh
                offset = 0
                continue
            }
            guard Int(open.st_size) < offset else { return nil }
            offset = 0
            return Array("==> File truncated <==\n".utf8)
        }
    }
}

/// What a browser sees: the processes, to look at.
enum Page {
    static func html(_ daemon: Daemon) -> [UInt8] {
        var writer = AnswerWriter()
        writer.put("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Processes</title>\n")
        writer.put("<style>body{font:15px system-ui,sans-serif;margin:2em}table{border-collapse:collapse}")
        writer.put("td,th{text-align:left;padding:.3em 1em;border-bottom:1px solid #ddd}</style></head><body>\n<h1>")
        writer.escape(daemon.settings.daemon.identifier)
        writer.put("</h1>\n<table><tr><th>State</th><th>Name</th><th>Description</th></tr>\n")
        let now = Clock.wall() / 1000
        for group in daemon.groups.values.sorted(by: { $0.name < $1.name }) {
            for process in group.byName {
                writer.put("<tr><td>")
                writer.escape(process.state.name)
                writer.put("</td><td>")
                writer.escape(process.group == process.settings.name ? process.group : "\(process.group):\(process.settings.name)")
                writer.put("</td><td>")
                writer.escape(
                    ProcessInfo.description(process) ?? "pid \(process.pid), uptime \(ProcessInfo.uptime(max(0, now - process.lastStart)))")
                writer.put("</td></tr>\n")
            }
        }
        writer.put("</table></body></html>\n")
        return writer.bytes
    }
}
