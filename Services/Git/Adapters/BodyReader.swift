import Contracts
import Hummingbird
import NIOCore

/// The body of a request as git wants it: in pieces, unpacked when it came gzipped, and counted.
///
/// It is handed from the route, which reads what stands in front, to the task that feeds git.
final class BodyReader: @unchecked Sendable {
    // Safe: one reader at a time. The route awaits `next` itself, and only then passes it on, never to use it again.
    private var iterator: RequestBody.AsyncIterator
    private let inflater: Inflater?
    private let limit: Int64
    private var total: Int64 = 0
    private var ended = false
    private var returned: [ByteBuffer] = []

    /// `limit` in bytes after unpacking. Throws `Problem` (`unsupported_media_type`) for an encoding other than gzip.
    init(_ request: Request, limit: Int64) throws {
        switch request.headers[.contentEncoding]?.lowercased() {
        case nil, "identity": inflater = nil
        case "gzip", "x-gzip": inflater = try Inflater()
        case .some(let other):
            throw Problem(.unsupportedMedia, "the body is encoded as \(Problem.quote(other)); expected gzip or nothing")
        }
        iterator = request.body.makeAsyncIterator()
        self.limit = limit
    }

    /// Gives pieces back that were only looked at: `next` gives them again, in this order.
    func unread(_ pieces: [ByteBuffer]) { returned += pieces.reversed() }

    /// The next piece, nil at the end. Throws `Problem`: `too_large` over the limit, `malformed` for a broken gzip stream.
    func next() async throws -> ByteBuffer? {
        if let piece = returned.popLast() { return piece }
        while !ended {
            if let piece = try inflater?.next() { return try count(piece) }
            guard let raw = try await iterator.next() else {
                ended = true
                if let inflater, !inflater.isFinished { throw Problem(.malformed, "the gzipped body ends too early") }
                return nil
            }
            guard let inflater else { return try count(raw) }
            inflater.feed(raw)
        }
        return nil
    }

    private func count(_ piece: ByteBuffer) throws -> ByteBuffer {
        total += Int64(piece.readableBytes)
        guard total <= limit else { throw Problem(.tooLarge, "the request is larger than \(limit) bytes") }
        return piece
    }
}
