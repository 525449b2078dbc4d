import AsyncHTTPClient
import Contracts
import Crypto
import Foundation
import HTTPKit
import NIOCore
import NIOHTTP1

/// What the supervisor asks of git and the registry over HTTP. Both may be away for a moment: they are waited for.
struct Siblings: Sendable {
    let caller: HTTPCaller
    let git: String
    let registry: String

    static let manifestType = "application/vnd.oci.image.manifest.v1+json"
    static let bundleType = "application/vnd.slipway.bundle.v1"
    static let layerType = "application/vnd.slipway.bundle.v1.tar"
    private static let emptyType = "application/vnd.oci.empty.v1+json"

    /// Hands the files of a commit to `take`, as a tar archive in pieces. Throws `Problem` (`not_found` for no such commit).
    func checkout(_ app: AppName, _ commit: CommitID, _ take: (ByteBuffer) throws -> Void) async throws {
        let response = try await exchange(.GET, "\(git)/internal/\(app)/archive/\(commit).tar", timeout: 60)
        for try await piece in response.body { try take(piece) }
    }

    /// The layer of a bundle's manifest, which is checked against its digest.
    func layer(_ app: AppName, _ bundle: Contracts.Digest) async throws -> Contracts.Digest {
        let response = try await exchange(
            .GET, "\(registry)/v2/bundles/\(app)/manifests/\(bundle)", headers: [("Accept", Self.manifestType)], timeout: 30)
        let data = Data(buffer: try await response.body.collect(upTo: 4 << 20))
        guard Self.hex(SHA256.hash(data: data)) == bundle.hex else {
            throw Problem(.invalid, "the registry gave a manifest that does not match its digest \(bundle)")
        }
        let manifest = try Coding.decode(Manifest.self, from: data)
        guard manifest.layers.count == 1, let layer = manifest.layers.first, layer.mediaType == Self.layerType else {
            throw Problem(.unsupported, "\(bundle) is not a bundle of Slipway", hint: "a bundle has one layer of type \(Self.layerType)")
        }
        return layer.digest
    }

    /// Hands a blob to `take` in pieces; throws when, in the end, it does not match its digest.
    func blob(_ app: AppName, _ digest: Contracts.Digest, _ take: (ByteBuffer) throws -> Void) async throws {
        guard digest.algorithm == "sha256" else { throw Problem(.unsupported, "bundles are named by sha256, not by \(digest.algorithm)") }
        let response = try await exchange(.GET, "\(registry)/v2/bundles/\(app)/blobs/\(digest)", timeout: 60)
        var hash = SHA256()
        for try await piece in response.body {
            piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
            try take(piece)
        }
        guard Self.hex(hash.finalize()) == digest.hex else {
            throw Problem(.invalid, "the registry gave a blob that does not match its digest \(digest)")
        }
    }

    /// Stores a packed tree as a bundle. Returns the manifest's digest. What the registry has already is not sent again.
    func push(_ app: AppName, _ packed: TreePacker.Packed, file: String) async throws -> Contracts.Digest {
        let empty = Data("{}".utf8)
        let emptyDigest = try Contracts.Digest("sha256:" + Self.hex(SHA256.hash(data: empty)))
        try await upload(app, packed.digest, packed.size) {
            .stream(FileChunks(path: file, size: packed.size), length: .known(packed.size))
        }
        try await upload(app, emptyDigest, Int64(empty.count)) { .bytes(ByteBuffer(bytes: empty)) }
        let manifest = try Coding.encode(
            Manifest(
                schemaVersion: 2, mediaType: Self.manifestType, artifactType: Self.bundleType,
                config: .init(mediaType: Self.emptyType, digest: emptyDigest, size: Int64(empty.count)),
                layers: [.init(mediaType: Self.layerType, digest: packed.digest, size: packed.size)]))
        let digest = try Contracts.Digest("sha256:" + Self.hex(SHA256.hash(data: manifest)))
        _ = try await exchange(
            .PUT, "\(registry)/v2/bundles/\(app)/manifests/\(digest)", headers: [("Content-Type", Self.manifestType)], timeout: 30
        ) { .bytes(ByteBuffer(bytes: manifest)) }
        return digest
    }

    private func upload(_ app: AppName, _ digest: Contracts.Digest, _ size: Int64, _ body: @escaping () -> HTTPClientRequest.Body)
        async throws
    {
        let repository = "\(registry)/v2/bundles/\(app)/blobs"
        let known = try await exchange(.HEAD, "\(repository)/\(digest)", timeout: 30, missing: true)
        if known.status == .ok { return }
        let begun = try await exchange(.POST, "\(repository)/uploads/", timeout: 30) { .bytes(ByteBuffer()) }
        guard let location = begun.headers.first(name: "Location"), !location.isEmpty else {
            throw Problem(.failed, "the registry began an upload without saying where")
        }
        // The answer's place is relative or on the registry itself; a token is sent nowhere else.
        guard location.hasPrefix("/") || location.hasPrefix(registry + "/") else {
            throw Problem(.failed, "the registry sends an upload elsewhere: \(Problem.quote(location))")
        }
        let place = (location.hasPrefix("/") ? registry + location : location) + (location.contains("?") ? "&" : "?") + "digest=\(digest)"
        _ = try await exchange(.PUT, place, headers: [("Content-Type", "application/octet-stream")], timeout: 600, body)
    }

    /// One request. An answer of 500 or more counts as "away for a moment".
    private func exchange(
        _ method: HTTPMethod, _ url: String, headers: [(String, String)] = [], timeout: Double, missing: Bool = false,
        _ body: (() -> HTTPClientRequest.Body)? = nil
    ) async throws -> HTTPClientResponse {
        let response = try await caller.send(
            method, url, headers: headers, body: body?(), timeout: timeout, accept: Set(500..<600).union(missing ? [404] : []))
        guard response.status.code < 500 else { throw Problem(.unavailable, "\(url) answered \(response.status.code)") }
        return response
    }

    /// Does something as often as it takes for a sibling to come back, at most `SupervisorConfig.patience` seconds.
    static func patiently<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
        let deadline = ContinuousClock.now + .seconds(SupervisorConfig.patience)
        var pause = 0.05
        while true {
            do {
                return try await body()
            } catch let problem as Problem where problem.code == .unavailable || problem.code == .timeout {
                guard ContinuousClock.now < deadline else { throw problem }
            } catch let error where !(error is Problem) && !(error is CancellationError) {
                // A connection that broke in the middle of a body.
                guard ContinuousClock.now < deadline else { throw Problem(.unavailable, "the transfer broke off: \(error)") }
            }
            try await Task.sleep(for: .seconds(pause))
            pause = min(pause * 2, 1)
        }
    }

    static func hex(_ digest: some Sequence<UInt8>) -> String {
        digest.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    /// An OCI image manifest, as far as a bundle needs one.
    private struct Manifest: Codable {
        struct Descriptor: Codable {
            var mediaType: String
            var digest: Contracts.Digest
            var size: Int64
        }
        var schemaVersion: Int
        var mediaType: String?
        var artifactType: String?
        var config: Descriptor
        var layers: [Descriptor]
    }
}

/// A file's content in pieces.
private struct FileChunks: AsyncSequence, Sendable {
    let path: String
    let size: Int64

    final class Iterator: AsyncIteratorProtocol {
        private let descriptor: Int32
        private var left: Int64
        init(_ path: String, _ size: Int64) {
            descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
            left = size
        }
        deinit { if descriptor >= 0 { close(descriptor) } }
        func next() async throws -> ByteBuffer? {
            guard left > 0 else { return nil }
            var buffer = ByteBuffer()
            let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 1 << 17) { raw in
                Swift.max(0, read(descriptor, raw.baseAddress, Int(Swift.min(left, Int64(raw.count)))))
            }
            guard count > 0 else { throw Problem(.failed, "cannot read \(path): \(Spawn.message(errno))") }
            left -= Int64(count)
            return buffer
        }
        private var path: String { "the packed bundle" }
    }
    func makeAsyncIterator() -> Iterator { Iterator(path, size) }
}
