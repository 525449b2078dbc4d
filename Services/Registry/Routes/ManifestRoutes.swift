import Contracts
import Hummingbird
import NIOCore

/// `/v2/NAME/manifests/REFERENCE`.
extension RegistryRoutes {
    /// Tags that one request may set.
    private static let tagLimit = 100

    func readManifest(_ reference: Reference, in name: RepositoryName, _ call: Call) async throws -> Response {
        let unknown = OCIError.manifestUnknown(reference.description)
        try allow(.pull, name, call, missing: unknown)
        guard let found = try await store.manifest(reference, in: name) else { throw unknown }
        let tag = "\"\(found.digest)\""
        let headers = [("Docker-Content-Digest", found.digest.text), ("ETag", tag), ("Content-Type", found.mediaType)]
        if matches(call.header("If-None-Match"), tag) { return .registry(304, headers) }
        if call.request.method == .head { return .registry(200, headers + [("Content-Length", String(found.size))]) }
        let files = files
        let bytes = try await Disk.run { try files.open(found.digest)?.read(upTo: Int(found.size) + 1, at: 0) }
        // Small enough to be checked each time; what is damaged must not be handed out.
        guard let bytes, ContentHasher.matches(Array(bytes.readableBytesView), found.digest) else {
            logger.error(
                "stored content is missing or damaged; push it again",
                metadata: ["digest": "\(found.digest)", "path": "\(files.path(found.digest))"])
            throw unknown
        }
        return .registry(200, headers, body: ResponseBody(byteBuffer: bytes))
    }

    func putManifest(_ reference: Reference, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.push, name, call)
        let extra = try tags(in: call)
        let bytes = try await collect(call.request.body)
        let digest: Digest
        var tags: [TagName] = []
        switch reference {
        case .digest(let stated):
            guard ContentHasher.matches(bytes, stated) else {
                throw OCIError(400, .digestInvalid, "the manifest is not what the digest says")
            }
            digest = stated
        case .tag(let tag):
            digest = try Digest(ContentHasher.digestText(bytes, .sha256))
            tags = [tag]
        }
        for tag in extra where !tags.contains(tag) { tags.append(tag) }
        let manifest = try Manifest(bytes, contentType: call.header("Content-Type"))
        let files = files
        try await Disk.run { try files.store(bytes, as: digest) }
        try await store.putManifest(manifest, digest: digest, size: Int64(bytes.count), in: name, tags: tags, change(call))
        changed()
        metrics.add("slipway_registry_manifests_stored_total")
        logger.info(
            "an image was pushed",
            metadata: [
                "repository": "\(name)", "tags": "\(tags.map(\.text).joined(separator: " "))", "digest": "\(digest)",
                "actor": "\(call.principal.name)",
            ])
        var headers = [("Location", "/v2/\(name)/manifests/\(digest)"), ("Docker-Content-Digest", digest.text)]
        if let subject = manifest.subject { headers.append(("OCI-Subject", subject.text)) }
        if !extra.isEmpty { headers.append(("OCI-Tag", extra.map(\.text).joined(separator: ", "))) }
        return .registry(201, headers)
    }

    func deleteManifest(_ reference: Reference, in name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.delete, name, call)
        try requireDeletes()
        let removed =
            switch reference {
            case .tag(let tag): try await store.removeTag(tag, from: name, change(call))
            case .digest(let digest): try await store.removeManifest(digest, from: name, change(call))
            }
        guard removed else { throw OCIError.manifestUnknown(reference.description) }
        changed()
        logger.info(
            "an image was deleted", metadata: ["repository": "\(name)", "reference": "\(reference)", "actor": "\(call.principal.name)"])
        return .registry(202)
    }

    /// `?tag=a&tag=b`.
    private func tags(in call: Call) throws -> [TagName] {
        let texts = call.query.all("tag")
        guard texts.count <= Self.tagLimit else { throw OCIError(400, .manifestInvalid, "more than \(Self.tagLimit) tags at once") }
        return try texts.map { text in
            guard let tag = TagName(text) else { throw OCIError(400, .manifestInvalid, "tag \(Problem.quote(text)) is not a tag") }
            return tag
        }
    }

    /// The limit holds while reading: a body without an end is not waited for.
    private func collect(_ body: RequestBody) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in body {
            guard bytes.count + piece.readableBytes <= config.manifestLimit else {
                throw OCIError(413, .sizeInvalid, "a manifest may have \(config.manifestLimit) bytes")
            }
            bytes.append(contentsOf: piece.readableBytesView)
        }
        return bytes
    }
}
