import Glibc

/// A log file that is written in whole pieces, and moved away when it is large: NAME, NAME.1 … NAME.n.
///
/// The size is counted, not asked for. A file that was removed or moved by somebody else is made anew with the next `reopen`, or when a
/// write after a second finds that its name leads elsewhere.
final class LogFile {
    let path: String
    let maxBytes: Int
    let backups: Int
    private(set) var fd: Int32 = -1
    private(set) var size = 0
    /// Bytes that could not be written, because the disk was full or the file was refused.
    private(set) var dropped = 0
    private var lookedAt = 0
    private let isRegular: Bool
    /// Told after each write, and after the file was changed for another.
    private let followers: Followers?

    /// Opens it for appending, making it when it is not there. Throws `Complaint`. `maxBytes` 0: never moved away.
    init(_ path: String, maxBytes: Int, backups: Int, followers: Followers? = nil) throws {
        self.followers = followers
        self.path = path
        self.maxBytes = maxBytes
        self.backups = backups
        // Without O_NONBLOCK, a FIFO that nobody reads would hold us.
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o666)
        guard fd >= 0 else { throw Complaint("\(path): \(reason())") }
        var info = stat()
        isRegular = fstat(fd, &info) == 0 && info.st_mode & S_IFMT == S_IFREG
        size = isRegular ? Int(info.st_size) : 0
        lookedAt = Clock.monotonic()
    }
    deinit { if fd >= 0 { close(fd) } }

    func append(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        if isRegular, maxBytes > 0 {
            // No file is longer than the limit, and a line is cut only when it is longer than that itself.
            var rest = bytes
            while size + rest.count > maxBytes {
                let room = max(0, maxBytes - size)
                let end = rest.prefix(room).lastIndex(of: 10).map { $0 + 1 } ?? (size == 0 ? room : 0)
                if end > 0 { write(UnsafeRawBufferPointer(rebasing: rest.prefix(end))) }
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(end))
                rotate()
                // It could not be moved away.
                if size >= maxBytes { break }
            }
            write(rest)
        } else {
            write(bytes)
        }
        followers?.tell()
    }

    private func write(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        if isRegular {
            let now = Clock.monotonic()
            if now - lookedAt > 1000 {
                lookedAt = now
                if isElsewhere { reopen() }
            }
        }
        if Files.write(fd, bytes) { size += bytes.count } else { dropped += bytes.count }
    }

    /// Whether the name does not lead to the open file any more.
    private var isElsewhere: Bool {
        var open = stat()
        var named = stat()
        guard fstat(fd, &open) == 0 else { return true }
        return stat(path, &named) != 0 || named.st_ino != open.st_ino || named.st_dev != open.st_dev
    }

    private func rotate() {
        guard isRegular else { return }
        if backups > 0 {
            for number in stride(from: backups - 1, through: 1, by: -1) where Files.exists("\(path).\(number)") {
                rename("\(path).\(number)", "\(path).\(number + 1)")
            }
            rename(path, "\(path).1")
            reopen()
        } else {
            ftruncate(fd, 0)
            size = 0
        }
    }

    /// Opens the name again, for after it was moved away; the old file goes on being used when that fails.
    func reopen() {
        let fresh = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o666)
        guard fresh >= 0 else { return }
        close(fd)
        fd = fresh
        var info = stat()
        size = isRegular && fstat(fd, &info) == 0 ? Int(info.st_size) : 0
        followers?.tell()
    }

    /// Removes it and begins anew. Throws `Complaint`.
    func clear() throws {
        guard isRegular else { return }
        guard unlink(path) == 0 || errno == ENOENT else { throw Complaint("\(path): \(reason())") }
        reopen()
    }
}

/// Those who want to hear of each change of a log, whether or not its file is open yet.
final class Followers {
    private var all: [ObjectIdentifier: () -> Void] = [:]
    func add(_ who: AnyObject, _ action: @escaping () -> Void) { all[ObjectIdentifier(who)] = action }
    func remove(_ who: AnyObject) { all[ObjectIdentifier(who)] = nil }
    func tell() {
        guard !all.isEmpty else { return }
        for action in all.values { action() }
    }
}

/// Slices of log files, as the remote interface gives them out.
enum LogSlice {
    enum Refusal: Error { case badArguments, failed }
    /// A slice has to fit into memory a few times over.
    static let most = 64 << 20

    /// From `offset`, `length` bytes, or all when that is 0; a negative offset asks for the last bytes.
    static func read(_ path: String, offset: Int, length: Int) throws(Refusal) -> [UInt8] {
        guard length >= 0, offset >= 0 || length == 0 else { throw .badArguments }
        let (fd, size) = try open(path)
        defer { close(fd) }
        let start = offset < 0 ? max(0, size + offset) : min(offset, size)
        let count = offset < 0 || length == 0 ? size - start : min(length, size - start)
        guard count <= most, let data = Files.read(fd, at: start, count: count) else { throw .failed }
        return data
    }

    /// The last `length` bytes, where the log ends, and whether that leaves out some after `offset`.
    static func tail(_ path: String, offset: Int, length: Int) throws(Refusal) -> (data: [UInt8], end: Int, overflow: Bool) {
        let (fd, size) = try open(path)
        defer { close(fd) }
        let (sum, isHuge) = max(0, offset).addingReportingOverflow(max(0, length))
        let overflow = !isHuge && size > sum
        let count = !overflow && offset >= size ? 0 : min(size, max(0, length))
        guard count <= most, let data = Files.read(fd, at: size - count, count: count) else { throw .failed }
        return (data, size, overflow)
    }

    private static func open(_ path: String) throws(Refusal) -> (Int32, Int) {
        let fd = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        var info = stat()
        guard fd >= 0 else { throw .failed }
        guard fstat(fd, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(fd)
            throw .failed
        }
        return (fd, Int(info.st_size))
    }
}
