import Contracts
import NIOCore

/// Streams a request's body to the end of an upload, hashing on the way.
///
/// At most one block is held while the next one gathers: memory does not grow with the blob, and a slow disk slows the sender
/// down (the body is not read while a block is being written).
struct UploadWriter: Sendable {
    /// Large enough that the hop to the disk's thread does not count, small enough for many uploads at once.
    static let block = 512 << 10
    let file: OpenFile

    /// Appends the body after the bytes that `hasher` covers, and gives the hasher that covers them all.
    ///
    /// Throws `OCIError` (`SIZE_INVALID`) as soon as more than `limit` bytes came. When the body breaks off, what came is kept
    /// for a resume and the body's own error is thrown on.
    func append<Body: AsyncSequence>(_ body: Body, after hasher: ContentHasher, limit: Int64?) async throws -> ContentHasher
    where Body.Element == ByteBuffer {
        var hasher = hasher
        var pending = ByteBuffer()
        var received: Int64 = 0
        do {
            for try await piece in body {
                received += Int64(piece.readableBytes)
                if let limit, received > limit {
                    throw OCIError(400, .sizeInvalid, "more bytes came than Content-Range said (\(limit))")
                }
                if pending.readableBytes == 0 { pending.reserveCapacity(Self.block) }
                pending.writeImmutableBuffer(piece)
                if pending.readableBytes >= Self.block {
                    hasher = try await write(pending, after: hasher)
                    pending = ByteBuffer()
                }
            }
        } catch let error as OCIError {
            throw error
        } catch {
            _ = try? await write(pending, after: hasher)
            throw error
        }
        return try await write(pending, after: hasher)
    }

    private func write(_ bytes: ByteBuffer, after hasher: ContentHasher) async throws -> ContentHasher {
        guard bytes.readableBytes > 0 else { return hasher }
        return try await Disk.run { [file] in
            var hasher = hasher
            try bytes.withUnsafeReadableBytes { raw in
                try file.write(raw, at: hasher.count)
                hasher.update(raw)
            }
            return hasher
        }
    }

    /// Hashes what lies in the file: after a restart, or when the digest asked for is of another algorithm.
    static func hash(_ file: OpenFile, _ algorithm: DigestAlgorithm) async throws -> ContentHasher {
        var hasher = ContentHasher(algorithm)
        while true {
            let before = hasher
            hasher = try await Disk.run {
                var next = before
                let bytes = try file.read(upTo: 1 << 20, at: next.count)
                bytes.withUnsafeReadableBytes { next.update($0) }
                return next
            }
            if hasher.count == before.count { return hasher }
        }
    }
}
