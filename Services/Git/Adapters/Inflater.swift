import CZlib
import Contracts
import Foundation
import NIOCore

/// Unpacks a gzip stream piece by piece (RFC 1952), never more than a piece at a time in memory.
final class Inflater {
    private let stream: UnsafeMutablePointer<z_stream>
    private var input: [UInt8] = []
    private var offset = 0
    /// The last piece was filled: more may wait inside zlib, also without further input.
    private var isFull = false
    private(set) var isFinished = false
    private static let piece = 128 << 10

    /// Throws `Problem` (`failed`) when zlib cannot begin.
    init() throws {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 15 bits of window, +16: a gzip header is expected.
        guard inflateInit2_(stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            stream.deallocate()
            throw Problem(.failed, "zlib cannot begin")
        }
    }
    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    func feed(_ bytes: ByteBuffer) {
        input = Array(bytes.readableBytesView)
        offset = 0
    }

    /// The next piece, or nil when more input is needed. Throws `Problem` (`malformed`) for what is not gzip.
    func next() throws -> ByteBuffer? {
        guard !isFinished, offset < input.count || isFull else { return nil }
        var output = [UInt8](repeating: 0, count: Self.piece)
        var produced = 0
        let code = input.withUnsafeMutableBufferPointer { source in
            output.withUnsafeMutableBufferPointer { target in
                stream.pointee.next_in = source.baseAddress.map { $0 + offset }
                stream.pointee.avail_in = UInt32(source.count - offset)
                stream.pointee.next_out = target.baseAddress
                stream.pointee.avail_out = UInt32(target.count)
                let code = inflate(stream, Z_NO_FLUSH)
                offset = source.count - Int(stream.pointee.avail_in)
                produced = target.count - Int(stream.pointee.avail_out)
                return code
            }
        }
        switch code {
        case Z_STREAM_END: isFinished = true
        case Z_OK, Z_BUF_ERROR: break
        default: throw Problem(.malformed, "the body says gzip and is not (zlib \(code))")
        }
        isFull = produced == Self.piece
        return produced > 0 ? ByteBuffer(bytes: output[..<produced]) : nil
    }
}
