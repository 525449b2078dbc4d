import Contracts

/// A manifest that names another as its subject, as the referrers listing shows it.
struct Referrer: Equatable, Sendable {
    var mediaType: String
    var digest: String
    var size: Int64
    var artifactType: String?
    var annotations: [String: String]

    var json: JSON {
        var members: [String: JSON] = ["mediaType": .string(mediaType), "digest": .string(digest), "size": .int(size)]
        if let artifactType { members["artifactType"] = .string(artifactType) }
        if !annotations.isEmpty { members["annotations"] = .object(annotations.mapValues { .string($0) }) }
        return .object(members)
    }

    /// The listing: an image index, also when it is empty.
    static func index(_ referrers: [Referrer]) -> JSON {
        .object([
            "schemaVersion": .int(2), "mediaType": .string(MediaType.ociIndex), "manifests": .array(referrers.map(\.json)),
        ])
    }

    /// Roughly how many bytes it takes in the listing; the page ends before clients would refuse the document (4 MiB).
    var weight: Int { annotations.reduce(400 + (artifactType?.utf8.count ?? 0)) { $0 + $1.key.utf8.count + $1.value.utf8.count + 8 } }
    static let pageWeight = 2 << 20
}
