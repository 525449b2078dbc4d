import Contracts
import Foundation
import NIOCore
import Testing

@testable import RegistryService

@Suite("registry", .timeLimit(.minutes(3))) struct BehaviourTests {
    @Test("what may not be read answers as what does not exist; a refused push tells nothing either")
    func rights() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("private", tag: "v1")
            for path in ["manifests/v1", "manifests/\(digest)", "blobs/\(digestOf(Data("layer".utf8)))", "tags/list"] {
                let forbidden = try await registry.send(.GET, "/v2/private/\(path)", as: .shop)
                let missing = try await registry.send(.GET, "/v2/nothing/\(path)", as: .shop)
                #expect(forbidden.status == 404)
                #expect(forbidden.status == missing.status)
                #expect(forbidden.text.replacing("private", with: "nothing") == missing.text)
            }
            #expect(try await registry.send(.GET, "/v2/private/referrers/\(digest)", as: .shop).status == 200)
            for (caller, name) in [
                (TestRegistry.Caller.viewer, "private"), (.viewer, "new"), (.shop, "private"), (.shop, "new"), (.component, "new"),
            ] {
                let answer = try await registry.send(.POST, "/v2/\(name)/blobs/uploads/", as: caller)
                #expect(answer.status == 403)
                #expect(answer.code == "DENIED")
            }
            let put = try await registry.send(
                .PUT, "/v2/private/manifests/v2", as: .viewer, ["Content-Type": MediaType.ociManifest], body: bytes)
            #expect(put.status == 403)
            #expect(try await registry.send(.DELETE, "/v2/private/manifests/v1", as: .developer).status == 403)
            try await registry.pushImage("bundles/shop", tag: "v1", as: .component)
            try await registry.pushImage("shop/web", tag: "v1", as: .shop)
            #expect(try await registry.send(.GET, "/v2/bundles/shop/manifests/v1", as: .shop).status == 200)
        }
    }

    @Test("an upload is its owner's and its repository's")
    func foreignUploads() async throws {
        try await withRegistry { registry in
            let place = try await registry.begin("a", as: .developer)
            for method in ["GET", "PATCH", "DELETE"] {
                #expect(try await registry.send(.init(rawValue: method), place, as: .other).code == "BLOB_UPLOAD_UNKNOWN")
                let elsewhere = place.replacing("/v2/a/", with: "/v2/b/")
                #expect(try await registry.send(.init(rawValue: method), elsewhere, as: .developer).code == "BLOB_UPLOAD_UNKNOWN")
            }
            #expect(try await registry.send(.PUT, "\(place)?digest=\(digestOf(Data()))", as: .other).code == "BLOB_UPLOAD_UNKNOWN")
            #expect(try await registry.send(.GET, place, as: .developer).status == 204)
        }
    }

    @Test("of two parallel ends of an upload one succeeds")
    func parallelEnds() async throws {
        try await withRegistry { registry in
            let content = noise(1 << 20)
            let place = try await registry.begin("a")
            _ = try await registry.send(.PATCH, place, body: content)
            async let first = registry.send(.PUT, "\(place)?digest=\(digestOf(content))").status
            async let second = registry.send(.PUT, "\(place)?digest=\(digestOf(content))").status
            #expect(try await [first, second].sorted() == [201, 404])
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(digestOf(content))").body == content)
        }
    }

    @Test("every change is announced once, in the transaction that made it")
    func events() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("shop/web", tag: "v1", as: .developer)
            _ = try await registry.send(
                .PUT, "/v2/shop/web/manifests/\(digest)?tag=a&tag=b", ["Content-Type": MediaType.ociManifest], body: bytes)
            _ = try await registry.send(.DELETE, "/v2/shop/web/manifests/v1")
            _ = try await registry.send(.DELETE, "/v2/shop/web/manifests/\(digest)")
            _ = try await registry.send(.DELETE, "/v2/shop/web/manifests/\(digest)")
            let events = try await registry.events()
            #expect(events.map(\.type.text) == Array(repeating: "image.pushed", count: 3) + Array(repeating: "image.deleted", count: 4))
            #expect(Set(events.map(\.id)).count == events.count)
            #expect(events.allSatisfy { $0.source == "registry@testhost" && $0.subject == "shop/web" })
            let pushed = try #require(events.first?.as(ImagePushed.self))
            #expect(
                pushed
                    == ImagePushed(
                        repository: "shop/web", tag: "v1", digest: try Digest(digest), mediaType: MediaType.ociManifest,
                        size: Int64(bytes.count)))
            #expect(events.first?.actor == "dora")
            #expect(events.dropFirst().prefix(2).compactMap { $0.as(ImagePushed.self)?.tag } == ["a", "b"])
            #expect(events.suffix(4).map { $0.as(ImageDeleted.self)?.tag } == ["v1", "a", "b", nil])
        }
    }

    @Test("an upload goes on after a restart, and what was stored is still there")
    func restart() async throws {
        let home = NSTemporaryDirectory() + "slipway-registry-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let content = noise(1 << 20)
        let (place, image) = try await withRegistry(home: home) { registry in
            let place = try await registry.begin("a")
            _ = try await registry.send(.PATCH, place, body: content[..<700_000])
            return (place, try await registry.pushImage("a", tag: "v1"))
        }
        // A file of no upload, as a crash between making it and its row leaves behind.
        try Data("x".utf8).write(to: URL(fileURLWithPath: "\(home)/registry/uploads/\(UploadID.fresh())"))
        try await withRegistry(home: home) { registry in
            #expect(registry.openUploads.count == 1)
            let status = try await registry.send(.GET, place)
            #expect(status.header("Range") == "0-699999")
            _ = try await registry.send(.PATCH, place, ["Content-Range": "700000-\(content.count - 1)"], body: content[700_000...])
            #expect(try await registry.send(.PUT, "\(place)?digest=\(digestOf(content))").status == 201)
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").body == image.bytes)
        }
    }

    @Test("damaged content is not handed out, is named, and a new push mends it")
    func damage() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("a", tag: "v1")
            let layer = digestOf(Data("layer".utf8))
            try FileManager.default.removeItem(atPath: registry.path(of: layer))
            var damaged = bytes
            damaged[10] ^= 1
            try damaged.write(to: URL(fileURLWithPath: registry.path(of: digest)))
            #expect(try await registry.send(.HEAD, "/v2/a/blobs/\(layer)").status == 404)
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").status == 404)
            try await registry.pushImage("a", tag: "v1")
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(layer)").text == "layer")
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").body == bytes)
        }
    }

    @Test("a blob's file is named by its digest and no upload stays behind")
    func layout() async throws {
        try await withRegistry { registry in
            let digest = try await registry.pushBlob(Data("where".utf8), to: "a")
            #expect(FileManager.default.contents(atPath: registry.path(of: digest)) == Data("where".utf8))
            #expect(registry.openUploads.isEmpty)
        }
    }
}

@Suite("the desk of uploads") struct UploadDeskTests {
    @Test("a second request waits for the first, but not for ever")
    func waiting() async throws {
        let desk = UploadDesk(patience: .milliseconds(100))
        let id = UploadID.fresh()
        #expect(try await desk.take(id) == nil)
        await #expect { _ = try await desk.take(id) } throws: { ($0 as? OCIError)?.status == 409 }
        var hasher = ContentHasher(.sha256)
        Data("abc".utf8).withUnsafeBytes { hasher.update($0) }
        await desk.give(id, hasher)
        #expect(try await desk.take(id)?.count == 3)
    }
}
