/// The media types that this registry reads, and what they mean.
enum MediaType {
    static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
    static let ociIndex = "application/vnd.oci.image.index.v1+json"
    static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    static let dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

    static let images: Set<String> = [ociManifest, dockerManifest]
    static let indexes: Set<String> = [ociIndex, dockerList]
    static var manifests: Set<String> { images.union(indexes) }

    /// Layers that may not be handed on, so that a registry need not have them (OCI image specification, "Non-Distributable Layers").
    static func isNonDistributable(_ type: String) -> Bool {
        type.hasPrefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    }

    /// The type alone, in lower case: `text/plain; charset=utf-8` is `text/plain`.
    static func bare(_ header: String) -> String {
        let type = header.prefix { $0 != ";" }.lowercased()
        return String(type.drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}
