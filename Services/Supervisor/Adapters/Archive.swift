import Contracts
import NIOCore

/// The one extractor of the suite: a tar archive that arrives in pieces, into an empty directory.
enum Archive {
    /// `source` is called once and hands every piece to what it is given. Throws `Problem` that names the entry at fault;
    /// what was unpacked until then is left for the caller to remove.
    static func unpack(
        to directory: String, owner: UInt32?, limits: ArchiveLimits = SupervisorConfig.archive,
        from source: ((ByteBuffer) throws -> Void) async throws -> Void
    ) async throws {
        var reader = Tar.Reader(limits: limits)
        var writer = try TreeWriter(directory, owner: owner)
        defer { writer.close() }
        try await source { buffer in
            try reader.feed(buffer.readableBytesView) { piece in try writer.take(piece) }
        }
        try reader.finish()
    }
}
