import Contracts
import Hummingbird
import NIOCore

/// `/v2/NAME/blobs/uploads/`: how a blob gets here.
extension RegistryRoutes {
    func beginUpload(in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        let algorithm = try algorithm(call.query["digest-algorithm"])
        if let text = call.query["mount"] {
            let digest = try Reference.digest(text)
            if try await mount(digest, into: name, from: call.query["from"], call) {
                metrics.add("slipway_registry_blobs_mounted_total")
                return .registry(201, [("Location", "/v2/\(name)/blobs/\(digest)"), ("Docker-Content-Digest", digest.text)])
            }
            // The same answer as to a fresh upload, so that nobody learns what another repository holds.
        } else if let text = call.query["digest"] {
            return try await wholeUpload(try Reference.digest(text), in: name, call)
        }
        let upload = Upload(id: .fresh(), repository: name.text, principal: call.principal.name, algorithm: algorithm, created: now())
        let files = files
        try await Disk.run { _ = try files.open(upload.id, create: true) }
        do {
            try await store.openUpload(upload)
        } catch {
            try? await Disk.run { try files.remove(upload.id) }
            throw error
        }
        return accepted(upload.id, name, offset: 0, status: 202)
    }

    func uploadStatus(_ id: UploadID, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        _ = try await require(id, name, call)
        return accepted(id, name, offset: try await length(id), status: 204)
    }

    func patchUpload(_ id: UploadID, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        let range = try call.header("Content-Range").map { text throws(OCIError) in try ChunkRange(text) }
        let offset = try await working(on: id, name, call) { upload, file, hasher in
            let hasher = try await append(call, range, to: file, upload, hasher)
            return (hasher.count, hasher)
        }
        return accepted(id, name, offset: offset, status: 202)
    }

    func finishUpload(_ id: UploadID, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        guard let text = call.query["digest"] else {
            throw OCIError(400, .digestInvalid, "?digest=… is missing: it says what the upload must be")
        }
        let digest = try Reference.digest(text)
        let range = try call.header("Content-Range").map { text throws(OCIError) in try ChunkRange(text) }
        try await working(on: id, name, call) { upload, file, hasher in
            let hasher = try await append(call, range, to: file, upload, hasher)
            try await commit(id, file, hasher, as: digest, to: name)
            return ((), nil)
        }
        return stored(digest, name)
    }

    func cancelUpload(_ id: UploadID, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        try await working(on: id, name, call) { _, _, _ in
            try await discard(id)
            return ((), nil)
        }
        return .registry(204)
    }

    /// A blob in one request. It has no row: when it breaks off there is nothing to resume.
    private func wholeUpload(_ digest: Digest, in name: RepositoryName, _ call: Call) async throws -> Response {
        let id = UploadID.fresh()
        let files = files
        do {
            guard let file = try await Disk.run({ try files.open(id, create: true) }) else {
                throw Problem(.failed, "an upload lost its file")
            }
            let hasher = try await UploadWriter(file: file).append(call.request.body, after: ContentHasher(digest.known), limit: nil)
            try await commit(id, file, hasher, as: digest, to: name)
        } catch {
            try? await Disk.run { try files.remove(id) }
            throw error
        }
        return stored(digest, name)
    }

    /// Takes the upload for this request alone and does the work, which gives the hasher that covers the file afterwards.
    private func working<T: Sendable>(
        on id: UploadID, _ name: RepositoryName, _ call: Call,
        _ work: (Upload, OpenFile, ContentHasher?) async throws -> (T, ContentHasher?)
    ) async throws -> T {
        _ = try await require(id, name, call)
        let known = try await desk.take(id)
        do {
            // Once more: the request that had it before may have ended it.
            let upload = try await require(id, name, call)
            let files = files
            guard let file = try await Disk.run({ try files.open(id) }) else { throw OCIError.uploadUnknown }
            let (result, hasher) = try await work(upload, file, known)
            await desk.give(id, hasher)
            return result
        } catch {
            // Still good if the file is as long as before: bytes are only ever added behind those that it covers.
            await desk.give(id, known)
            throw error
        }
    }

    /// Appends the body. With a `Content-Range`, only exactly that piece at exactly the end; otherwise nothing of it stays.
    private func append(
        _ call: Call, _ range: ChunkRange?, to file: OpenFile, _ upload: Upload, _ known: ContentHasher?
    ) async throws -> ContentHasher {
        let offset = try await Disk.run { try file.size() }
        if let range {
            guard range.start == offset else {
                throw OCIError(
                    416, .uploadInvalid, "the next byte is \(offset), not \(range.start)",
                    headers: ["Range": ChunkRange.progress(offset), "Location": "/v2/\(upload.repository)/blobs/uploads/\(upload.id)"])
            }
            if let length = call.header("Content-Length"), length != String(range.count) {
                throw OCIError(400, .sizeInvalid, "Content-Length is \(Problem.quote(length)), but Content-Range has \(range.count) bytes")
            }
        }
        // The digest of an empty file is known without reading.
        let start: ContentHasher
        if let known, known.count == offset {
            start = known
        } else if offset == 0 {
            start = ContentHasher(upload.algorithm)
        } else {
            start = try await UploadWriter.hash(file, upload.algorithm)
        }
        do {
            let hasher = try await UploadWriter(file: file).append(call.request.body, after: start, limit: range?.count)
            if let range, hasher.count != range.end {
                throw OCIError(400, .sizeInvalid, "\(hasher.count - offset) bytes came, but Content-Range has \(range.count)")
            }
            metrics.add("slipway_registry_blob_bytes_received_total", Double(hasher.count - offset))
            return hasher
        } catch let error as OCIError {
            try await Disk.run { try file.truncate(to: offset) }
            throw error
        }
    }

    /// Checks the digest and makes the upload a blob; an upload that is something else is removed.
    private func commit(_ id: UploadID, _ file: OpenFile, _ hasher: ContentHasher, as digest: Digest, to name: RepositoryName) async throws
    {
        let hasher = hasher.algorithm == digest.known ? hasher : try await UploadWriter.hash(file, digest.known)
        guard hasher.digestText == digest.text else {
            try await discard(id)
            throw OCIError(
                400, .digestInvalid, "what came is not what the digest says",
                detail: .object(["expected": .string(digest.text), "received": .string(hasher.digestText), "size": .int(hasher.count)]))
        }
        let files = files
        try await Disk.run { try files.commit(id, as: digest) }
        try await store.commitBlob(digest, size: hasher.count, to: name, upload: id, now: now())
        metrics.add("slipway_registry_blobs_stored_total")
    }

    private func discard(_ id: UploadID) async throws {
        // The bytes first: on a full disk it is they that leave no room for the row's end. An upload without bytes is unknown.
        let files = files
        try await Disk.run { try files.remove(id) }
        try await store.closeUpload(id)
    }

    /// From the named repository, or from any that the caller may read.
    private func mount(_ digest: Digest, into name: RepositoryName, from text: String?, _ call: Call) async throws -> Bool {
        let sources: [RepositoryName]
        if let text {
            sources = [try RepositoryName(text)].filter { Access.allows(call.principal, .pull, $0) }
        } else {
            sources = try await store.holders(of: digest).filter { Access.allows(call.principal, .pull, $0) }
        }
        let files = files
        guard !sources.isEmpty, try await Disk.run({ files.size(digest) != nil }) else { return false }
        return try await store.mount(digest, into: name, from: sources, now: now())
    }

    private func require(_ id: UploadID, _ name: RepositoryName, _ call: Call) async throws -> Upload {
        guard let upload = try await store.upload(id, of: name, by: call.principal.name) else { throw OCIError.uploadUnknown }
        return upload
    }

    private func length(_ id: UploadID) async throws -> Int64 {
        let files = files
        guard let size = try await Disk.run({ try files.open(id)?.size() }) else { throw OCIError.uploadUnknown }
        return size
    }

    private func algorithm(_ text: String?) throws(OCIError) -> DigestAlgorithm {
        guard let text else { return .sha256 }
        guard let algorithm = DigestAlgorithm(rawValue: text) else {
            throw OCIError(400, .unsupported, "digest-algorithm=\(Problem.quote(text)): expected sha256 or sha512")
        }
        return algorithm
    }

    private func accepted(_ id: UploadID, _ name: RepositoryName, offset: Int64, status: Int) -> Response {
        .registry(
            status,
            [
                ("Location", "/v2/\(name)/blobs/uploads/\(id)"), ("Range", ChunkRange.progress(offset)), ("Docker-Upload-UUID", id.text),
            ])
    }

    private func stored(_ digest: Digest, _ name: RepositoryName) -> Response {
        .registry(201, [("Location", "/v2/\(name)/blobs/\(digest)"), ("Docker-Content-Digest", digest.text)])
    }
}
