import Contracts
import Foundation
import NIOCore
import NIOPosix

/// Work that blocks (write, fsync, hash) runs on NIO's file threads, never on those that serve requests.
enum Disk {
    static func run<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
        try await NIOThreadPool.singleton.runIfActive(work)
    }

    /// The last system error as a problem; to be called before anything else touches errno.
    static func problem(_ what: String) -> Problem {
        let code = errno
        let reason = String(cString: strerror(code))
        if code == ENOSPC || code == EDQUOT {
            return Problem(.storageFull, "the registry's disk is full", hint: "free space below its home directory and push again")
        }
        return Problem(.failed, "\(what): \(reason)")
    }
}

/// An open file; closed when the last one lets go of it.
final class OpenFile: Sendable {
    private let descriptor: CInt

    /// Nil when there is no such file and `flags` do not make it.
    init?(_ path: String, flags: CInt) throws {
        descriptor = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw Disk.problem("cannot open \(path)")
        }
    }
    deinit { close(descriptor) }

    func size() throws -> Int64 {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw Disk.problem("fstat") }
        return Int64(status.st_size)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws {
        var done = 0
        while done < bytes.count {
            let count = pwrite(descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Disk.problem("write") }
            done += count
        }
    }

    /// Up to that many bytes; fewer only at the end of the file.
    func read(upTo limit: Int, at offset: Int64) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: limit)
        while buffer.readableBytes < limit {
            let place = off_t(offset) + off_t(buffer.readableBytes)
            let rest = limit - buffer.readableBytes
            let count = try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: rest) { space in
                while true {
                    let count = pread(descriptor, space.baseAddress, min(rest, space.count), place)
                    if count >= 0 { return count }
                    guard errno == EINTR else { throw Disk.problem("read") }
                }
            }
            if count == 0 { break }
        }
        return buffer
    }

    func truncate(to size: Int64) throws {
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw Disk.problem("truncate") }
    }
    func sync() throws {
        guard fsync(descriptor) == 0 else { throw Disk.problem("fsync") }
    }
}
