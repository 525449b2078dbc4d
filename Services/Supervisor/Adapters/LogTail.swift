import CSys
import Contracts
import Foundation
import Logging
import ServiceLifecycle
import Synchronization

/// Follows log files that other processes append to: hands new lines to whoever listens, and rotates.
///
/// Programs write straight to their file (opened with O_APPEND), never into a pipe of ours: when the supervisor dies nothing
/// blocks and no line is lost. inotify tells of writes, so nothing polls.
final class LogTail: Service {
    typealias Emit = @Sendable (_ origin: String, _ lines: [String]) -> Void

    private struct Followed {
        var path: String
        /// Nil: only rotated.
        var origin: String?
        var descriptor: Int32
        var offset: Int64
        /// The end of what was read, when it was no whole line.
        var rest: [UInt8] = []
    }

    private let emit: Emit
    private let logger: Logger
    private let inotify: Int32
    private let wake: Int32
    private let files = Mutex<[Int32: Followed]>([:])
    private let stopping = Atomic<Bool>(false)

    init(logger: Logger, emit: @escaping Emit) throws {
        self.emit = emit
        self.logger = logger
        inotify = csys_inotify_create()
        wake = csys_eventfd()
        guard inotify >= 0, wake >= 0 else {
            throw Problem(.failed, "cannot watch log files: \(Spawn.message(errno))", hint: "raise fs.inotify.max_user_instances")
        }
    }

    deinit {
        close(inotify)
        close(wake)
    }

    func run() async throws {
        let thread = Thread { [self] in loop() }
        thread.name = "log-tail"
        thread.start()
        try? await gracefulShutdown()
        stopping.store(true, ordering: .relaxed)
        var one: UInt64 = 1
        write(wake, &one, 8)
    }

    // MARK: Files

    /// Opens a log file for a process to append to, and follows it from where it ends now. The caller closes the descriptor.
    func open(_ path: String, origin: String?) throws -> Int32 {
        let descriptor = Glibc.open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Problem(.failed, "cannot open the log \(path): \(Spawn.message(errno))") }
        follow(path, origin: origin)
        return descriptor
    }

    /// Follows a file that exists, from where it ends now.
    func follow(_ path: String, origin: String?) {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { return }
        var stat = stat()
        fstat(descriptor, &stat)
        let refused = files.withLock { files in
            let watch = csys_inotify_watch_writes(inotify, path)
            guard watch >= 0 else { return true }
            if files[watch] != nil { return true }
            files[watch] = Followed(path: path, origin: origin, descriptor: descriptor, offset: Int64(stat.st_size))
            return false
        }
        if refused { close(descriptor) }
    }

    /// Hands out what is still unread and lets go of the file.
    func forget(_ path: String) {
        files.withLock { files in
            guard let watch = files.first(where: { $0.value.path == path })?.key, var file = files[watch] else { return }
            drain(&file)
            if !file.rest.isEmpty, let origin = file.origin { emit(origin, [Self.line(file.rest[...])]) }
            _ = csys_inotify_forget(inotify, watch)
            close(file.descriptor)
            files[watch] = nil
        }
    }

    /// The last lines of a log, also from before its last rotation.
    static func last(_ count: Int, of path: String, from: Int64 = 0) -> [String] {
        var lines = tail(count, of: path, from: from)
        if lines.count < count, from == 0 { lines = tail(count - lines.count, of: "\(path).1", from: 0) + lines }
        return lines
    }

    private static func tail(_ count: Int, of path: String, from: Int64) -> [String] {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0, count > 0 else { return [] }
        defer { close(descriptor) }
        let end = Int64(lseek(descriptor, 0, Int32(SEEK_END)))
        // A line is shown up to 4096 characters; this many bytes hold the wanted lines unless they are extraordinary.
        // A log that was cut since begins anew.
        let begin = max(from > end ? 0 : from, end - Int64(min(count, 2000)) * 4096)
        var bytes = [UInt8](repeating: 0, count: Int(end - begin))
        let read = pread(descriptor, &bytes, bytes.count, Int(begin))
        guard read > 0 else { return [] }
        var pieces = bytes[0..<read].split(separator: 0x0A, omittingEmptySubsequences: false)
        if pieces.last?.isEmpty == true { pieces.removeLast() }
        return pieces.suffix(count).map { line($0) }
    }

    /// Bytes as a line for people: what is no UTF-8 replaced, no carriage return, at most 4096 characters.
    private static func line(_ bytes: ArraySlice<UInt8>) -> String {
        var bytes = bytes.prefix(16384)
        if bytes.last == 0x0D { bytes.removeLast() }
        return String(String(decoding: bytes, as: UTF8.self).prefix(4096))
    }

    // MARK: The thread

    private func loop() {
        var watches = [Int32](repeating: 0, count: 512)
        while !stopping.load(ordering: .relaxed) {
            var items = [pollfd(fd: inotify, events: Int16(POLLIN), revents: 0), pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
            if poll(&items, 2, -1) < 0, errno != EINTR { return }
            let count = csys_inotify_read(inotify, &watches, Int32(watches.count))
            guard count > 0 else { continue }
            let touched = Set(watches[0..<Int(count)])
            files.withLock { files in
                // -1: the kernel's queue overflowed, so any file may have changed.
                let which = touched.contains(-1) ? Array(files.keys) : Array(touched)
                for watch in which {
                    guard var file = files[watch] else { continue }
                    drain(&file)
                    rotate(&file)
                    files[watch] = file
                }
            }
            // Lines that come together travel together: a writer of many small lines costs one wake-up a beat.
            usleep(10_000)
        }
    }

    private func drain(_ file: inout Followed) {
        var stat = stat()
        guard fstat(file.descriptor, &stat) == 0 else { return }
        let size = Int64(stat.st_size)
        if size < file.offset { file.offset = 0 }
        guard let origin = file.origin else {
            file.offset = size
            return
        }
        // Whoever prints faster than this can be sent is cut short in the live stream; the file has it all.
        let most: Int64 = 1 << 18
        if size - file.offset > most {
            emit(origin, ["… \(size - file.offset - most) bytes are left out of the live stream; the log file has them …"])
            file.offset = size - most
            file.rest = []
        }
        var piece = [UInt8](repeating: 0, count: 65536)
        var lines: [String] = []
        while file.offset < size {
            let count = pread(file.descriptor, &piece, min(piece.count, Int(size - file.offset)), Int(file.offset))
            guard count > 0 else { break }
            file.offset += Int64(count)
            var from = 0
            while let end = piece[from..<count].firstIndex(of: 0x0A) {
                lines.append(Self.line((file.rest + piece[from..<end])[...]))
                file.rest = []
                from = end + 1
            }
            file.rest += piece[from..<count]
            // A line without an end is cut, so that it cannot grow for ever.
            if file.rest.count > 16384 {
                lines.append(Self.line(file.rest[...]))
                file.rest = []
            }
        }
        for start in stride(from: 0, to: lines.count, by: 200) { emit(origin, Array(lines[start..<min(start + 200, lines.count)])) }
    }

    /// Removes the oldest logs of an app's instances and of its jobs beyond the newest `kept` of each; those of `live` stay.
    func prune(_ app: AppName, in directory: String, live: Set<String>) {
        var byKind: [Int: [(path: String, changed: Int)]] = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] where name.hasSuffix(".log") {
            // APP.ENV.SERVICE.N, or APP.run-N.JOB.
            let parts = name.dropLast(4).split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            guard parts.first == app.text, [3, 4].contains(parts.count), !live.contains(parts.joined(separator: "/")) else { continue }
            var info = stat()
            guard lstat("\(directory)/\(name)", &info) == 0 else { continue }
            byKind[parts.count, default: []].append(("\(directory)/\(name)", info.st_mtim.tv_sec))
        }
        for logs in byKind.values {
            for log in logs.sorted(by: { ($0.changed, $0.path) > ($1.changed, $1.path) }).dropFirst(Self.kept) {
                for path in [log.path] + (1..<SupervisorConfig.logFiles).map({ "\(log.path).\($0)" }) { unlink(path) }
            }
        }
    }
    static let kept = 100

    /// Removes the logs of an app's instances and jobs, which nobody writes any more.
    func remove(ofApp app: AppName, in directory: String) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] where name.hasPrefix("\(app).") {
            unlink("\(directory)/\(name)")
        }
    }

    /// Copies a file that has grown too large and cuts it to nothing: its writer holds it open, so it cannot be renamed away.
    /// What is written between the copy and the cut is lost; both follow each other at once.
    private func rotate(_ file: inout Followed) {
        guard file.offset >= SupervisorConfig.logSize else { return }
        for number in stride(from: SupervisorConfig.logFiles - 1, to: 0, by: -1) where number > 1 {
            rename("\(file.path).\(number - 1)", "\(file.path).\(number)")
        }
        let copy = Glibc.open("\(file.path).1", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        let source = Glibc.open(file.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        defer {
            if copy >= 0 { close(copy) }
            if source >= 0 { close(source) }
        }
        guard copy >= 0, source >= 0 else { return }
        var piece = [UInt8](repeating: 0, count: 1 << 18)
        var left = 4 * Int(SupervisorConfig.logSize)
        while left > 0 {
            let count = read(source, &piece, min(left, piece.count))
            guard count > 0 else { break }
            guard write(copy, piece, count) == count else {
                // A full disk: cutting is what helps then, and the loss is told.
                logger.warning("a log could not be kept whole when it was rotated", metadata: ["path": "\(file.path)"])
                break
            }
            left -= count
        }
        // What was written while it was copied is still to be told; a line without its end is not joined to what comes after the cut.
        drain(&file)
        if !file.rest.isEmpty, let origin = file.origin { emit(origin, [Self.line(file.rest[...])]) }
        file.rest = []
        guard ftruncate(source, 0) == 0 else { return }
        file.offset = 0
    }
}
