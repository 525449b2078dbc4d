import Contracts
import Hummingbird
import NIOCore

/// `/v2/NAME/blobs/DIGEST`.
extension RegistryRoutes {
    /// Bytes read and sent at a time.
    private static let block = 256 << 10

    func readBlob(_ digest: Digest, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.pull, name, call, missing: .blobUnknown(digest))
        guard let size = try await store.blobSize(digest, in: name) else { throw OCIError.blobUnknown(digest) }
        let file = try await content(digest, size: size, in: name)
        let tag = "\"\(digest)\""
        let headers = [
            ("Docker-Content-Digest", digest.text), ("ETag", tag), ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream"),
            ("Cache-Control", "private, max-age=31536000, immutable"),
        ]
        if matches(call.header("If-None-Match"), tag) { return .registry(304, headers) }
        if call.request.method == .head { return .registry(200, headers + [("Content-Length", String(size))]) }
        // If-Range asks for the part only if it is of the same content (RFC 9110, section 13.1.5).
        let asked = call.header("If-Range").map { $0 == tag } ?? true ? call.header("Range") : nil
        switch ByteRange(header: asked, size: size) {
        case .whole: return .registry(200, headers, body: body(file, 0..<size))
        case .part(let part):
            return .registry(
                206, headers + [("Content-Range", "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(size)")], body: body(file, part))
        case .unsatisfiable:
            throw OCIError(
                416, .sizeInvalid, "the range is not within the blob's \(size) bytes", headers: ["Content-Range": "bytes */\(size)"])
        }
    }

    func deleteBlob(_ digest: Digest, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.delete, name, call)
        try requireDeletes()
        guard try await store.removeBlob(digest, from: name) else { throw OCIError.blobUnknown(digest) }
        logger.info("a blob was deleted", metadata: ["repository": "\(name)", "digest": "\(digest)", "actor": "\(call.principal.name)"])
        return .registry(202)
    }

    func requireDeletes() throws(OCIError) {
        guard config.deletes else { throw OCIError(405, .unsupported, "deleting is switched off on this registry") }
    }

    /// The file of content that a row tells of. What is not there in full answers as unknown, so that clients push it again.
    func content(_ digest: Digest, size: Int64, in name: RepositoryName) async throws -> OpenFile {
        let files = files
        let file = try await Disk.run { () -> OpenFile? in
            guard let file = try files.open(digest), try file.size() == size else { return nil }
            return file
        }
        guard let file else {
            logger.error(
                "stored content is missing or damaged; push it again", metadata: ["digest": "\(digest)", "path": "\(files.path(digest))"])
            throw OCIError.blobUnknown(digest)
        }
        return file
    }

    func matches(_ ifNoneMatch: String?, _ tag: String) -> Bool {
        guard let ifNoneMatch else { return false }
        return ifNoneMatch.split(separator: ",").contains { part in
            let candidate = part.filter { $0 != " " }
            return candidate == tag || candidate == "W/" + tag || candidate == "*"
        }
    }

    private func body(_ file: OpenFile, _ range: Range<Int64>) -> ResponseBody {
        ResponseBody(contentLength: Int(range.count)) { [metrics] writer in
            var at = range.lowerBound
            while at < range.upperBound {
                let place = at
                let wanted = Int(min(Int64(Self.block), range.upperBound - at))
                let bytes = try await Disk.run { try file.read(upTo: wanted, at: place) }
                // The answer's length is promised already; all that is left is to break off.
                guard bytes.readableBytes == wanted else { throw Problem(.failed, "a blob's file became shorter while it was read") }
                try await writer.write(bytes)
                at += Int64(wanted)
            }
            metrics.add("slipway_registry_blob_bytes_sent_total", Double(range.count))
            try await writer.finish(nil)
        }
    }
}
