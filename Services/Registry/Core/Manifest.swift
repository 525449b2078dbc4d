import Contracts
import Foundation

/// A manifest or index, checked, with all that the registry must know of it. The bytes themselves are kept as they came.
struct Manifest: Equatable, Sendable {
    /// A piece of content that a manifest names.
    struct Part: Equatable, Sendable {
        enum Kind: String, Sendable { case config, layer, child, subject }
        var kind: Kind
        var mediaType: String
        var digest: Digest
        var size: Int64
        /// Whether the registry must hold it before it takes the manifest.
        var required: Bool
    }

    var mediaType: String
    var parts: [Part]
    /// What it is attached to (a signature's image, for instance).
    var subject: Digest?
    /// As the referrers listing shows it: its own, or for an image the config's media type.
    var artifactType: String?
    var annotations: [String: String]

    /// Checks a manifest as it was pushed. `contentType` is the header, nil when there was none. Throws `OCIError`
    /// (`MANIFEST_INVALID`) with the member at fault.
    init(_ bytes: [UInt8], contentType: String?) throws(OCIError) {
        guard case .object(let document) = try StrictJSON.parse(bytes) else { throw .manifestInvalid("is not a JSON object") }
        let stated = try Self.text("mediaType", in: document)
        let header = contentType.map(MediaType.bare)
        if let stated, let header, stated != header {
            throw .manifestInvalid("its mediaType \(Problem.quote(stated)) is not the Content-Type \(Problem.quote(header))")
        }
        guard let type = header ?? stated else { throw .manifestInvalid("has neither a Content-Type nor a mediaType") }
        guard MediaType.manifests.contains(type) else {
            throw .manifestInvalid(
                "media type \(Problem.quote(type)) is not supported; use one of \(MediaType.manifests.sorted().joined(separator: ", "))")
        }
        guard document["schemaVersion"] == .int(2) else { throw .manifestInvalid("schemaVersion must be 2") }
        // Two readers must not see two different things in one document (CVE-2021-41190).
        let foreign = MediaType.images.contains(type) ? ["manifests", "fsLayers", "history"] : ["layers", "config", "fsLayers", "history"]
        if let member = foreign.first(where: { document[$0] != nil }) { throw .manifestInvalid("\(type) must not have '\(member)'") }

        mediaType = type
        annotations = try Self.strings("annotations", in: document)
        artifactType = try Self.text("artifactType", in: document).flatMap { $0.isEmpty ? nil : $0 }
        parts = []
        if MediaType.images.contains(type) {
            guard let config = document["config"] else { throw .manifestInvalid("'config' is missing") }
            let part = try Self.part(config, .config, at: "config")
            parts.append(part)
            if artifactType == nil { artifactType = part.mediaType }
            for (index, layer) in try Self.list("layers", in: document).enumerated() {
                parts.append(try Self.part(layer, .layer, at: "layers[\(index)]"))
            }
        } else {
            for (index, child) in try Self.list("manifests", in: document).enumerated() {
                parts.append(try Self.part(child, .child, at: "manifests[\(index)]"))
            }
        }
        if let value = document["subject"], value != .null {
            let part = try Self.part(value, .subject, at: "subject")
            parts.append(part)
            subject = part.digest
        }
    }

    private static func text(_ key: String, in document: [String: JSON]) throws(OCIError) -> String? {
        guard let value = document[key] else { return nil }
        guard let text = value.string else { throw .manifestInvalid("'\(key)' must be text") }
        return text
    }

    private static func strings(_ key: String, in document: [String: JSON]) throws(OCIError) -> [String: String] {
        guard let value = document[key], value != .null else { return [:] }
        guard case .object(let members) = value else { throw .manifestInvalid("'\(key)' must be an object of text") }
        var result: [String: String] = [:]
        for (name, member) in members {
            guard let text = member.string else { throw .manifestInvalid("'\(key).\(name.prefix(100))' must be text") }
            result[name] = text
        }
        return result
    }

    private static func list(_ key: String, in document: [String: JSON]) throws(OCIError) -> [JSON] {
        guard let value = document[key] else { throw .manifestInvalid("'\(key)' is missing") }
        guard case .array(let elements) = value else { throw .manifestInvalid("'\(key)' must be a list") }
        return elements
    }

    private static func part(_ value: JSON, _ kind: Part.Kind, at place: String) throws(OCIError) -> Part {
        guard case .object(let members) = value else { throw .manifestInvalid("'\(place)' must be a descriptor") }
        guard let type = members["mediaType"]?.string, !type.isEmpty else { throw .manifestInvalid("'\(place).mediaType' is missing") }
        guard let text = members["digest"]?.string, let digest = try? Digest(text) else {
            throw .manifestInvalid("'\(place).digest' is not a sha256 or sha512 digest")
        }
        guard let size = members["size"]?.int, size >= 0 else { throw .manifestInvalid("'\(place).size' must be a whole number from 0") }
        if let urls = members["urls"], urls != .null {
            guard case .array(let elements) = urls else { throw .manifestInvalid("'\(place).urls' must be a list of text") }
            for element in elements {
                guard let url = element.string?.lowercased(), url.hasPrefix("https://") || url.hasPrefix("http://") else {
                    throw .manifestInvalid("'\(place).urls' may hold http and https addresses only")
                }
            }
        }
        if let data = members["data"], data != .null {
            guard let text = data.string, let content = Data(base64Encoded: text) else {
                throw .manifestInvalid("'\(place).data' is not base64")
            }
            guard Int64(content.count) == size, ContentHasher.matches(Array(content), digest) else {
                throw .manifestInvalid("'\(place).data' is not what its digest and size say")
            }
        }
        _ = try strings("annotations", in: members)
        // A layer that may not be handed on is fetched from its own addresses; a subject may be pushed later, or never.
        let absent = kind == .subject || (kind == .layer && MediaType.isNonDistributable(type))
        return Part(kind: kind, mediaType: type, digest: digest, size: size, required: !absent)
    }
}
