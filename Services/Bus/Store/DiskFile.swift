import CSys
import Foundation

/// A read, write or flush that the kernel refused.
struct DiskError: Error, Sendable, CustomStringConvertible {
    var action: String
    var code: Int32
    var isFull: Bool { code == ENOSPC || code == EDQUOT }
    /// Of this process, or of the whole machine.
    var isOutOfDescriptors: Bool { code == EMFILE || code == ENFILE }
    var description: String { "cannot \(action): \(String(cString: strerror(code)))" }

    /// To be made right after the call, before anything else can change errno.
    init(_ action: String, _ code: Int32 = errno) {
        self.action = action
        self.code = code
    }
}

/// Through which the log does all that it does to files.
///
/// In a running bus nobody listens. Tests record what is done, and make each single step fail.
struct Disk: Sendable {
    enum Operation: Sendable {
        case create(String)
        case read(String, offset: Int, count: Int)
        case write(String, offset: Int, Data)
        case flush(String)
        case rename(from: String, to: String)
        case remove(String)
        case flushDirectory(String)
    }
    /// Told of each step before it is done. What it throws is taken for the kernel's answer, and the step is not done. For a
    /// write: of how many bytes it shall be, fewer than asked for a short one; nil for all.
    var tap: (@Sendable (Operation) throws -> Int?)?

    func rename(_ old: String, to new: String) throws {
        _ = try tap?(.rename(from: old, to: new))
        guard Glibc.rename(old, new) == 0 else { throw DiskError("name \(new)") }
    }

    func remove(_ path: String) throws {
        _ = try tap?(.remove(path))
        guard unlink(path) == 0 else { throw DiskError("remove \(path)") }
    }

    /// What is free for us on the disk of a directory, and its whole size, in bytes; nil when that cannot be told.
    static func space(in path: String) -> (free: Int, total: Int)? {
        var info = statvfs()
        guard statvfs(path, &info) == 0 else { return nil }
        func bytes(_ blocks: UInt64) -> Int { Int(clamping: blocks.multipliedReportingOverflow(by: UInt64(info.f_frsize)).partialValue) }
        return (bytes(UInt64(info.f_bavail)), bytes(UInt64(info.f_blocks)))
    }
}

/// A file opened for positioned reads and writes. Any thread may hold it; closed when the last one lets go.
final class DiskFile: Sendable {
    let descriptor: Int32
    private enum Direct: Sendable {
        case untried
        case open(DirectFile)
        /// It was ended, or there is no such thing here.
        case off
    }
    private let direct = Locked(Direct.untried)
    private let disk: Disk
    private let name: Locked<String>
    var path: String { name.withLock { $0 } }

    init(_ path: String, create: Bool = false, readOnly: Bool = false, disk: Disk = Disk()) throws {
        if create { _ = try disk.tap?(.create(path)) }
        descriptor = open(path, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0o600)
        guard descriptor >= 0 else { throw DiskError("open \(path)") }
        self.disk = disk
        name = Locked(path)
    }

    deinit { close(descriptor) }

    /// Stays open under the new name.
    func rename(to new: String) throws {
        try disk.rename(path, to: new)
        name.withLock { $0 = new }
    }

    func size() throws -> Int {
        var info = stat()
        guard fstat(descriptor, &info) == 0 else { throw DiskError("look at \(path)") }
        return Int(info.st_size)
    }

    func write(_ data: Data, at offset: Int) throws { try data.withUnsafeBytes { try write($0, at: offset) } }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws {
        var done = 0
        while done < buffer.count {
            guard let start = buffer.baseAddress else { return }
            var ask = buffer.count - done
            if let tap = disk.tap {
                ask = min(ask, try tap(.write(path, offset: offset + done, Data(bytes: start + done, count: ask))) ?? ask)
            }
            let count = pwrite(descriptor, start + done, ask, off_t(offset + done))
            if count < 0 {
                let code = errno
                if code == EINTR { continue }
                throw DiskError("write \(path)", code)
            }
            done += count
        }
    }

    /// The parts one after another, and zeros as far as `end`. `start` and `end` are where blocks begin. Past the page cache (O_DIRECT)
    /// where that is possible: what is flushed at once need not be copied first into pages that nobody reads. From then on reads go
    /// past it, too, until `endDirect`: open(2) advises against both ways into the same bytes.
    func write(blocks parts: [[UInt8]], from start: Int, to end: Int) throws {
        try withUnsafeTemporaryAllocation(byteCount: end - start, alignment: Self.block) { blocks in
            var filled = 0
            for part in parts {
                UnsafeMutableRawBufferPointer(rebasing: blocks[filled...]).copyBytes(from: part)
                filled += part.count
            }
            UnsafeMutableRawBufferPointer(rebasing: blocks[filled...]).initializeMemory(as: UInt8.self, repeating: 0)
            try write(blocks: UnsafeRawBufferPointer(blocks), at: start)
        }
    }

    private func write(blocks: UnsafeRawBufferPointer, at offset: Int) throws {
        guard let direct = beginDirect() else { return try write(blocks, at: offset) }
        while true {
            let count = pwrite(direct.descriptor, blocks.baseAddress, blocks.count, off_t(offset))
            if count == blocks.count { return }
            if count >= 0 { throw DiskError("write \(path)", EIO) }
            let code = errno
            if code == EINTR { continue }
            guard code == EINVAL else { throw DiskError("write \(path)", code) }
            // The file system took the flag and does not take the write.
            endDirect()
            return try write(blocks, at: offset)
        }
    }

    private func beginDirect() -> DirectFile? {
        let path = path
        // Who listens wants to hear of each write, and have it done by `write`.
        guard disk.tap == nil else { return nil }
        return direct.withLock { direct in
            if case .untried = direct { direct = DirectFile(path).map { .open($0) } ?? .off }
            if case .open(let file) = direct { return file }
            return nil
        }
    }

    /// Nothing more is written in blocks; reads go through the page cache.
    func endDirect() {
        direct.withLock { $0 = .off }
        forgetCached()
    }

    /// Takes what is clean of it out of the page cache.
    func forgetCached() { posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    /// Nil when that is to be read through the page cache.
    private func readDirect(at offset: Int, count: Int) throws -> Data? {
        guard case .open(let direct) = direct.withLock({ $0 }), offset >= 0, count > 0 else { return nil }
        let start = offset / Self.block * Self.block
        let end = (offset + count + Self.block - 1) / Self.block * Self.block
        return try withUnsafeTemporaryAllocation(byteCount: end - start, alignment: Self.block) { blocks -> Data? in
            var done = 0
            while done < blocks.count, let base = blocks.baseAddress {
                let got = pread(direct.descriptor, base + done, blocks.count - done, off_t(start + done))
                if got < 0 {
                    let code = errno
                    if code == EINTR { continue }
                    if code == EINVAL { return nil }
                    throw DiskError("read \(path)", code)
                }
                done += got
                // The end of the file.
                if got == 0 || done % Self.block != 0 { break }
            }
            let from = min(offset - start, done)
            return Data(UnsafeRawBufferPointer(rebasing: blocks[from..<max(from, min(done, from + count))]))
        }
    }

    /// At most `count` bytes; fewer only at the end of the file.
    func read(at offset: Int, count: Int) throws -> Data {
        _ = try disk.tap?(.read(path, offset: offset, count: count))
        if let data = try readDirect(at: offset, count: count) { return data }
        var data = Data(count: max(0, count))
        let done = try data.withUnsafeMutableBytes { buffer -> Int in
            var done = 0
            while done < buffer.count {
                guard let start = buffer.baseAddress else { break }
                let got = pread(descriptor, start + done, buffer.count - done, off_t(offset + done))
                if got < 0 {
                    let code = errno
                    if code == EINTR { continue }
                    throw DiskError("read \(path)", code)
                }
                if got == 0 { break }
                done += got
            }
            return done
        }
        return done == data.count ? data : Data(data.prefix(done))
    }

    /// What stands from `start` on, up to the last byte that is not zero, in a buffer whose offsets are the file's. Blocks that the
    /// device cannot read are filled with ones, and named.
    func readAround(from start: Int, size: Int) throws -> (Data, unreadable: [Int]) {
        var unreadable: [Int] = []
        func piece(_ from: Int, _ to: Int) throws -> Data {
            do { return try read(at: from, count: to - from) } catch let error as DiskError where error.code == EIO {
                var data = Data(capacity: to - from)
                var at = from
                while at < to {
                    // As far as the next block.
                    let end = min(to, (at & ~4095) + 4096)
                    do { data += try read(at: at, count: end - at) } catch let error as DiskError where error.code == EIO {
                        data += Data(repeating: 0xFF, count: end - at)
                        unreadable.append(at)
                    }
                    at = end
                }
                return data
            }
        }
        // From the end, so that a segment that is nearly empty costs no memory.
        let step = 1 << 20
        var end = size
        while end > start {
            let from = max(start, end - step)
            let used = LogScan.endOfData(try piece(from, end))
            guard used == 0 else {
                end = min(size, (from + used + 63) & ~63)
                break
            }
            end = from
        }
        unreadable = []
        var data = Data(count: end)
        for from in stride(from: start, to: end, by: step) {
            let part = try piece(from, min(end, from + step))
            data.replaceSubrange(from..<from + part.count, with: part)
        }
        return (data, unreadable)
    }

    func sync() throws {
        _ = try disk.tap?(.flush(path))
        // Never retried: after a failure the kernel may have dropped the pages and marked them clean.
        guard fdatasync(descriptor) == 0 else { throw DiskError("flush \(path)") }
    }

    /// Of the file system, as far as this code cares: a write of whole blocks needs nothing read.
    static let block = 4096

    /// Overwrites with zeros, so that the blocks are allocated and written before they are needed.
    func zero(from start: Int, to end: Int) throws {
        if start % Self.block == 0, end % Self.block == 0, try zeroPastTheCache(from: start, to: end) { return }
        let block = Data(count: 1 << 20)
        var at = start
        while at < end {
            try write(block.prefix(min(block.count, end - at)), at: at)
            at += block.count
        }
    }

    /// The same without the page cache (O_DIRECT): it takes no processor time for copies, pushes nothing useful out of memory, and
    /// leaves no heap of dirty pages for which the next flush of another file would have to wait. False where the file system has no
    /// such thing; then nothing was done.
    private func zeroPastTheCache(from start: Int, to end: Int) throws -> Bool {
        // Who listens wants to hear of each write, and have it done by `write`.
        guard disk.tap == nil, start < end, let direct = DirectFile(path) else { return false }
        let size = min(256 << 10, end - start)
        return try withUnsafeTemporaryAllocation(byteCount: size, alignment: Self.block) { zeros in
            zeros.initializeMemory(as: UInt8.self, repeating: 0)
            var at = start
            while at < end {
                let count = pwrite(direct.descriptor, zeros.baseAddress, min(size, end - at), off_t(at))
                if count < 0 {
                    let code = errno
                    if code == EINTR { continue }
                    if code == EINVAL, at == start { return false }
                    throw DiskError("write \(path)", code)
                }
                // Less than asked: nearly full. What follows no longer begins at a block; the caller does it all again.
                guard count % Self.block == 0, count > 0 else { return false }
                at += count
            }
            return true
        }
    }
}

/// The same file, opened to be read and written past the page cache; closed when the last one lets go.
private final class DirectFile: Sendable {
    let descriptor: Int32

    /// Nil where the file system has no such thing.
    init?(_ path: String) {
        descriptor = csys_open_direct(path)
        if descriptor < 0 { return nil }
    }

    deinit { close(descriptor) }
}

/// A directory held open.
final class DiskDirectory: Sendable {
    private let descriptor: Int32
    private let path: String
    private let disk: Disk

    init(_ path: String, disk: Disk = Disk()) throws {
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw DiskError("open \(path)") }
        self.path = path
        self.disk = disk
    }

    deinit { close(descriptor) }

    /// Makes a creation or a rename in it durable.
    func sync() throws {
        _ = try disk.tap?(.flushDirectory(path))
        guard fsync(descriptor) == 0 else { throw DiskError("flush \(path)") }
    }
}
