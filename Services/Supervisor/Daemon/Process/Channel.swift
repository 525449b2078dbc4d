import CSys
import Glibc

/// One output of one run of a process: its pipe, and where what comes out of it goes.
///
/// Nothing waits for its end: a grandchild that holds it open does not keep the process from being taken for ended.
final class Channel: Watcher {
    enum Which: String { case output = "stdout", error = "stderr" }
    let which: Which
    private(set) var fd: Int32
    private unowned let process: Process
    private let poller: Poller
    private let log: LogFile?
    private let settings: Program.Output
    private var isLarge = false
    /// How often it was read in this millisecond.
    private var reads = 0
    private var millisecond = 0
    private var pause: Int?
    private let stripsANSI: Bool
    private var capture: Capture?
    private var lines: JSONLines?

    init(_ which: Which, _ fd: Int32, _ process: Process, _ settings: Program.Output, log: LogFile?) {
        self.which = which
        self.fd = fd
        self.process = process
        self.settings = settings
        self.log = log
        poller = process.daemon.poller
        stripsANSI = process.daemon.settings.daemon.stripsANSI
        if settings.format == .json { lines = JSONLines(process.settings.name, process.group, process.pid, which) }
        if settings.captureMaxBytes > 0, process.listener == nil { capture = Capture(most: settings.captureMaxBytes) }
        csys_set_nonblocking(fd)
        _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
        poller.watch(fd, 1, self)
    }
    deinit { close() }

    /// What has been read and is not complete.
    var saved: State {
        var saved = State()
        if let lines { saved.set("line", .bytes(lines.begun)) }
        if let capture { saved.set("capture", capture.saved.value) }
        return saved
    }

    func restore(_ saved: State) {
        lines?.begun = saved.bytes("line") ?? []
        if let known = saved["capture"] { capture?.restore(State(known)) }
    }

    func ready(_ fd: Int32, _ events: Int32) {
        _ = read()
        guard self.fd >= 0 else { return }
        let now = Clock.monotonic()
        if now != millisecond { (millisecond, reads) = (now, 0) }
        reads += 1
        guard reads > 16 else { return }
        rest()
    }

    /// Who writes without end is let write for a millisecond, into a larger pipe: to be woken for each line costs both sides more than the
    /// line.
    private func rest() {
        if !isLarge {
            isLarge = true
            csys_set_pipe_size(fd, 1 << 20)
        }
        poller.forget(fd)
        pause = poller.after(1) { [weak self] in
            guard let self, fd >= 0 else { return }
            pause = nil
            poller.watch(fd, 1, self)
            for _ in 0..<8 where fd >= 0 { guard read() else { return } }
        }
    }

    /// Takes what is there once; false when there is nothing.
    private func read() -> Bool {
        guard fd >= 0 else { return false }
        let buffer = process.daemon.buffer
        let count = Glibc.read(fd, buffer.baseAddress, buffer.count)
        if count < 0 { return errno == EINTR }
        guard count > 0 else {
            flush()
            close()
            return false
        }
        take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        return true
    }

    /// What was written before the end, as far as it is there now; then nobody listens any more.
    func drain() {
        var passes = 0
        while passes < 256, read() { passes += 1 }
        flush()
        close()
    }

    private func close() {
        guard fd >= 0 else { return }
        poller.cancel(pause)
        poller.forget(fd)
        Glibc.close(fd)
        fd = -1
    }

    private func flush() {
        if let rest = capture?.rest() { rest.withUnsafeBytes { record($0) } }
        if let rest = lines?.rest() { rest.withUnsafeBytes { log?.append($0) } }
    }

    private func write(_ bytes: UnsafeRawBufferPointer) {
        guard lines != nil else { return log?.append(bytes) ?? () }
        lines?.take(bytes).withUnsafeBytes { log?.append($0) }
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        process.wrote(bytes)
        if process.listener != nil, which == .output { return process.hear(bytes, log: log) }
        guard capture != nil else { return record(bytes) }
        for piece in capture?.take(bytes) ?? [] {
            switch piece {
            case .plain(let bytes): bytes.withUnsafeBytes { record($0) }
            case .captured(let bytes): process.communicated(bytes, which)
            }
        }
    }

    private func record(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        if stripsANSI {
            ANSI.stripped(bytes).withUnsafeBytes { write($0) }
        } else {
            write(bytes)
        }
        let daemon = process.daemon
        if settings.goesToSyslog { Syslog.write(process.settings.name, bytes) }
        if daemon.logger.isOn(.debug) {
            daemon.logger.debug("'\(process.settings.name)' \(which.rawValue) output:\n\(Channel.text(bytes))")
        }
        if settings.emitsEvents, process.listener == nil {
            let type: EventType = which == .output ? .logOutput : .logError
            daemon.emit(type) {
                let head = "processname:\(process.settings.name) groupname:\(process.group) pid:\(process.pid) channel:\(which.rawValue)\n"
                return Array(head.utf8) + Array(bytes)
            }
        }
    }

    /// As text, or said to be none.
    static func text(_ bytes: UnsafeRawBufferPointer) -> String {
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        var result = "Undecodable: b'"
        for byte in bytes.prefix(4096) {
            switch byte {
            case 0x0A: result += "\\n"
            case 0x0D: result += "\\r"
            case 0x09: result += "\\t"
            case 0x5C: result += "\\\\"
            case 0x27: result += "\\'"
            case 0x20...0x7E: result.append(Character(UnicodeScalar(byte)))
            default: result += "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }
        }
        return result + "'"
    }
}

/// Finds what stands between `<!--XSUPERVISOR:BEGIN-->` and `<!--XSUPERVISOR:END-->` in an output.
struct Capture {
    enum Piece: Equatable {
        case plain([UInt8])
        case captured([UInt8])
    }
    private static let begin = Array("<!--XSUPERVISOR:BEGIN-->".utf8)
    private static let end = Array("<!--XSUPERVISOR:END-->".utf8)
    let most: Int
    private var isInside = false
    private var waiting: [UInt8] = []
    /// The last `most` bytes of what is inside.
    private var captured: [UInt8] = []

    init(most: Int) { self.most = most }

    var saved: State {
        var saved = State()
        saved.set("inside", isInside)
        saved.set("waiting", .bytes(waiting))
        saved.set("captured", .bytes(captured))
        return saved
    }

    mutating func restore(_ saved: State) {
        isInside = saved.flag("inside")
        waiting = saved.bytes("waiting") ?? []
        captured = saved.bytes("captured") ?? []
    }

    mutating func take(_ bytes: UnsafeRawBufferPointer) -> [Piece] {
        var pieces: [Piece] = []
        waiting.append(contentsOf: bytes)
        while true {
            let token = isInside ? Self.end : Self.begin
            if let at = Self.find(token, in: waiting) {
                put(Array(waiting[..<at]), &pieces)
                waiting.removeFirst(at + token.count)
                if isInside {
                    pieces.append(.captured(captured))
                    captured = []
                }
                isInside.toggle()
                continue
            }
            // Its beginning may stand at the end.
            let kept = (1..<token.count).reversed().first { waiting.count >= $0 && waiting.suffix($0).elementsEqual(token.prefix($0)) } ?? 0
            put(Array(waiting.dropLast(kept)), &pieces)
            waiting = Array(waiting.suffix(kept))
            return pieces
        }
    }

    private mutating func put(_ bytes: [UInt8], _ pieces: inout [Piece]) {
        guard !bytes.isEmpty else { return }
        guard isInside else { return pieces.append(.plain(bytes)) }
        captured += bytes
        if captured.count > most { captured.removeFirst(captured.count - most) }
    }

    /// What is left when the output has ended: a begun token that was none.
    mutating func rest() -> [UInt8]? {
        defer { waiting = [] }
        return isInside || waiting.isEmpty ? nil : waiting
    }

    private static func find(_ token: [UInt8], in bytes: [UInt8]) -> Int? {
        guard let first = token.first, bytes.count >= token.count else { return nil }
        var at = 0
        while let next = bytes[at...].firstIndex(of: first), next + token.count <= bytes.count {
            if bytes[next...].starts(with: token) { return next }
            at = next + 1
        }
        return nil
    }
}

/// Lines of output as JSON (RFC 8259), each with the time at which it was read, in UTC with milliseconds.
struct JSONLines {
    private let tail: [UInt8]
    var begun: [UInt8] = []
    /// What has no end is cut here.
    static let mostLine = 64 << 10

    init(_ process: String, _ group: String, _ pid: Int32, _ which: Channel.Which) {
        var tail = Array(",\"stream\":\"\(which.rawValue)\",\"process\":".utf8)
        Self.string(Array(process.utf8)[...], &tail)
        tail += Array(",\"group\":".utf8)
        Self.string(Array(group.utf8)[...], &tail)
        self.tail = tail + Array(",\"pid\":\(pid)}\n".utf8)
    }

    mutating func take(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        var result: [UInt8] = []
        begun += bytes
        var at = 0
        while at < begun.count {
            let limit = min(begun.count, at + Self.mostLine)
            if let end = begun[at..<limit].firstIndex(of: 10) {
                put(begun[at..<end], &result)
                at = end + 1
            } else if limit - at == Self.mostLine {
                put(begun[at..<limit], &result)
                at = limit
            } else {
                break
            }
        }
        begun.removeFirst(at)
        return result
    }

    /// What was begun when the output ended.
    mutating func rest() -> [UInt8] {
        var result: [UInt8] = []
        if !begun.isEmpty { put(begun[...], &result) }
        begun = []
        return result
    }

    private func put(_ line: ArraySlice<UInt8>, _ result: inout [UInt8]) {
        result += Array("{\"time\":\"\(Clock.utc())\",\"message\":".utf8)
        Self.string(line, &result)
        result += tail
    }

    /// Bytes that are no text become U+FFFD.
    private static func string(_ bytes: ArraySlice<UInt8>, _ result: inout [UInt8]) {
        result.append(UInt8(ascii: "\""))
        let text = String(validating: bytes, as: UTF8.self) == nil ? Array(String(decoding: bytes, as: UTF8.self).utf8)[...] : bytes
        for byte in text {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                result.append(UInt8(ascii: "\\"))
                result.append(byte)
            case 0..<32:
                let digits = String(byte, radix: 16)
                result += Array("\\u00\(digits.utf8.count == 1 ? "0" : "")\(digits)".utf8)
            default: result.append(byte)
            }
        }
        result.append(UInt8(ascii: "\""))
    }
}

/// Colours and cursor movements of terminals (ECMA-48, control sequences).
enum ANSI {
    static func stripped(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var at = 0
        while at < bytes.count {
            guard bytes[at] == 0x1B, at + 1 < bytes.count, bytes[at + 1] == 0x5B else {
                result.append(bytes[at])
                at += 1
                continue
            }
            at += 2
            while at < bytes.count, !(0x40...0x7E).contains(bytes[at]) { at += 1 }
            at += 1
        }
        return result
    }
}

/// syslog(3), a message a line.
enum Syslog {
    static func write(_ name: String, _ bytes: UnsafeRawBufferPointer) {
        for line in bytes.split(separator: 10) {
            let text = "\(name) \(String(decoding: line, as: UTF8.self))"
            text.withCString { text in withVaList([text]) { vsyslog(LOG_USER | LOG_INFO, "%s", $0) } }
        }
    }
}

/// Standard input of a process: what is to be written to it and does not fit yet.
final class Input: Watcher {
    private(set) var fd: Int32
    private let poller: Poller
    private(set) var waiting: [UInt8] = []
    /// What a process does not read is not kept without end.
    static let most = 16 << 20

    init(_ fd: Int32, _ poller: Poller) {
        self.fd = fd
        self.poller = poller
        csys_set_nonblocking(fd)
        _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
    }
    deinit { close() }

    var isOpen: Bool { fd >= 0 }

    /// False when nobody can read it any more, or when too much waits already.
    func write(_ bytes: [UInt8]) -> Bool {
        guard isOpen, waiting.count + bytes.count <= Self.most else { return false }
        let wasEmpty = waiting.isEmpty
        waiting += bytes
        flush()
        if isOpen, wasEmpty, !waiting.isEmpty { poller.watch(fd, 2, self) }
        return isOpen
    }

    func ready(_ fd: Int32, _ events: Int32) { flush() }

    private func flush() {
        while isOpen, !waiting.isEmpty {
            let count = waiting.withUnsafeBytes { Glibc.write(fd, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                if errno != EAGAIN { close() }
                return
            }
            waiting.removeFirst(count)
        }
        poller.forget(fd)
    }

    func close() {
        guard fd >= 0 else { return }
        poller.forget(fd)
        Glibc.close(fd)
        fd = -1
        waiting = []
    }
}
