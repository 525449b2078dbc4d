import AsyncHTTPClient
import Contracts
import Crypto
import Foundation
import HTTPKit
import Kit
import Logging
import NIOCore
import NIOHTTP1
import ServiceLifecycle
import Storage
import Testing

@testable import RegistryService

/// A registry that really listens, in a home of its own, and knows a few tokens.
struct TestRegistry: Sendable {
    /// Who asks; each has a token.
    enum Caller: String, CaseIterable {
        case viewer, developer, other, `operator`, shop, component

        var principal: Principal {
            switch self {
            case .viewer: Principal(name: "eve", role: .viewer)
            case .developer: Principal(name: "dora", role: .developer)
            case .other: Principal(name: "otto", role: .developer)
            case .operator: Principal(name: "olga", role: .operator)
            case .shop: Principal(name: "shop-bot", role: .operator, app: try? AppName("shop"))
            case .component: Principal(name: "component:supervisor", role: .admin)
            }
        }
    }
    struct Fixed: Authenticator {
        let holders: [String: Principal]
        func authenticate(hash: String) async throws -> Principal? { holders[hash] }
    }

    let home: String
    let port: Int
    let tokens: [Caller: String]
    let client: HTTPClient

    struct Answer {
        var status: Int
        var headers: HTTPHeaders
        var body: Data
        func header(_ name: String) -> String? { headers.first(name: name) }
        var json: JSON? { try? Coding.decode(JSON.self, from: body) }
        /// The code of the first error.
        var code: String? {
            guard case .array(let errors)? = json?["errors"] else { return nil }
            return errors.first?["code"]?.string
        }
        var text: String { String(decoding: body, as: UTF8.self) }
    }

    func send(
        _ method: HTTPMethod, _ path: String, as caller: Caller? = .operator, _ headers: [String: String] = [:], body: Data? = nil,
        stream: [Data]? = nil
    ) async throws -> Answer {
        var request = HTTPClientRequest(url: path.hasPrefix("http") ? path : "http://127.0.0.1:\(port)\(path)")
        request.method = method
        if let caller {
            let token = try #require(tokens[caller])
            request.headers.add(name: "Authorization", value: "Basic \(Data("me:\(token)".utf8).base64EncodedString())")
        }
        for (name, value) in headers { request.headers.replaceOrAdd(name: name, value: value) }
        if let body { request.body = .bytes(ByteBuffer(bytes: body)) }
        if let stream {
            let pieces = stream.map { ByteBuffer(bytes: $0) }
            request.body = .stream(
                AsyncStream { continuation in
                    for piece in pieces { continuation.yield(piece) }
                    continuation.finish()
                }, length: .unknown)
        }
        let response = try await client.execute(request, timeout: .seconds(30))
        let bytes = try await response.body.collect(upTo: 64 << 20)
        return Answer(status: Int(response.status.code), headers: response.headers, body: Data(buffer: bytes))
    }

    /// Pushes a blob in one request and gives its digest.
    @discardableResult
    func pushBlob(_ content: Data, to name: String, as caller: Caller = .operator, algorithm: DigestAlgorithm = .sha256) async throws
        -> String
    {
        let digest = digestOf(content, algorithm)
        let answer = try await send(.POST, "/v2/\(name)/blobs/uploads/?digest=\(digest)", as: caller, body: content)
        #expect(answer.status == 201)
        return digest
    }

    /// Pushes an image of one layer and gives the manifest's bytes and digest.
    @discardableResult
    func pushImage(
        _ name: String, tag: String? = nil, as caller: Caller = .operator, layer: String = "layer", subject: String? = nil,
        artifactType: String? = nil, annotations: [String: String] = [:]
    ) async throws -> (bytes: Data, digest: String) {
        try await pushBlob(Data("{}".utf8), to: name, as: caller)
        try await pushBlob(Data(layer.utf8), to: name, as: caller)
        let manifest = imageManifest(layer: layer, subject: subject, artifactType: artifactType, annotations: annotations)
        let answer = try await send(
            .PUT, "/v2/\(name)/manifests/\(tag ?? digestOf(manifest))", as: caller, ["Content-Type": MediaType.ociManifest], body: manifest)
        #expect(answer.status == 201, "\(answer.text)")
        #expect(answer.header("OCI-Subject") == subject)
        return (manifest, digestOf(manifest))
    }

    /// Begins an upload and gives where it goes on.
    func begin(_ name: String, as caller: Caller = .operator, query: String = "") async throws -> String {
        let answer = try await send(.POST, "/v2/\(name)/blobs/uploads/\(query)", as: caller)
        #expect(answer.status == 202)
        return try #require(answer.header("Location"))
    }

    /// The events that are waiting for the bus.
    func events() async throws -> [Envelope] {
        let store = try Store(path: "\(home)/registry/state.sqlite", durability: .normal)
        return try await store.db.read { db in
            try Outbox.pending(after: 0, limit: 1000, in: db).map { try Coding.decode(Envelope.self, from: $0.payload) }
        }
    }

    func path(of digest: String) -> String {
        "\(home)/registry/blobs/\(digest.prefix(6))/\(digest.dropFirst(7).prefix(2))/\(digest.dropFirst(7))"
    }
    var openUploads: [String] { (try? FileManager.default.contentsOfDirectory(atPath: "\(home)/registry/uploads")) ?? [] }
}

func digestOf(_ content: Data, _ algorithm: DigestAlgorithm = .sha256) -> String { ContentHasher.digestText(Array(content), algorithm) }

func imageManifest(
    layer: String = "layer", subject: String? = nil, artifactType: String? = nil, annotations: [String: String] = [:]
) -> Data {
    func descriptor(_ type: String, _ content: String) -> JSON {
        .object([
            "mediaType": .string(type), "digest": .string(digestOf(Data(content.utf8))), "size": .int(Int64(content.utf8.count)),
        ])
    }
    var document: [String: JSON] = [
        "schemaVersion": .int(2), "mediaType": .string(MediaType.ociManifest),
        "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
        "layers": .array([descriptor("application/vnd.oci.image.layer.v1.tar", layer)]),
    ]
    if let subject {
        document["subject"] = .object(["mediaType": .string(MediaType.ociManifest), "digest": .string(subject), "size": .int(7)])
    }
    if let artifactType { document["artifactType"] = .string(artifactType) }
    if !annotations.isEmpty { document["annotations"] = .object(annotations.mapValues { .string($0) }) }
    return (try? Coding.encode(JSON.object(document))) ?? Data()
}

/// Random content, different at every call.
func noise(_ count: Int) -> Data { Data((0..<count).map { _ in UInt8.random(in: .min ... .max) }) }

/// Runs the real component on a free port and stops it afterwards. Without `home` in a fresh one, removed at the end.
func withRegistry<T: Sendable>(
    home: String? = nil, deletes: Bool = true, _ body: @Sendable (TestRegistry) async throws -> T
) async throws -> T {
    let directory = home ?? NSTemporaryDirectory() + "slipway-registry-\(UUID().uuidString)"
    defer { if home == nil { try? FileManager.default.removeItem(atPath: directory) } }
    let settings = try SuiteConfig.load(ComponentOptions(home: directory), environment: ["SLIPWAY_HOST": "testhost"])
    try Keyring.prepare(settings)
    var logger = Logger(label: "registry")
    logger.logLevel = .critical
    let boot = try Boot.make(.registry, settings, logger)
    var tokens: [TestRegistry.Caller: String] = [:]
    var holders: [String: Principal] = [:]
    for caller in TestRegistry.Caller.allCases {
        let token = Token.make()
        tokens[caller] = token
        holders[Token.hash(token)] = caller.principal
    }
    var config = try RegistryConfig()
    config.deletes = deletes
    let (ports, told) = AsyncStream.makeStream(of: Int.self)
    let services = try await RegistryComponent.services(
        boot, config: config, port: 0, authenticator: TestRegistry.Fixed(holders: holders), bound: { told.yield($0) })
    let group = ServiceGroup(configuration: ServiceGroupConfiguration(services: services, logger: logger))
    let client = HTTPClient(eventLoopGroupProvider: .singleton)
    let known = tokens
    do {
        let result = try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            guard let port = await ports.first(where: { _ in true }) else { throw Problem(.failed, "the registry did not start") }
            let result = try await body(TestRegistry(home: directory, port: port, tokens: known, client: client))
            try await client.shutdown()
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
            return result
        }
        return result
    } catch {
        try? await client.shutdown()
        throw error
    }
}
