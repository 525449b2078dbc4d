import Contracts
import Foundation
import Testing

@testable import RegistryService

/// The list C1–C29 of the design page, each line against the real component over HTTP.
@Suite("OCI Distribution 1.1", .timeLimit(.minutes(3))) struct ConformanceTests {
    static let unknown = "sha256:" + String(repeating: "0", count: 64)

    @Test("C1: /v2/ asks for a token and then says which API this is")
    func base() async throws {
        try await withRegistry { registry in
            let stranger = try await registry.send(.GET, "/v2/", as: nil)
            #expect(stranger.status == 401)
            #expect(stranger.header("WWW-Authenticate") == "Basic realm=\"slipway\"")
            #expect(stranger.code == "UNAUTHORIZED")
            #expect(stranger.header("Docker-Distribution-Api-Version") == "registry/2.0")
            let wrong = try await registry.send(.GET, "/v2/", as: nil, ["Authorization": "Bearer slp_wrong"])
            #expect(wrong.status == 401)
            #expect(wrong.header("WWW-Authenticate") == "Basic realm=\"slipway\"")
            #expect(wrong.code == "UNAUTHORIZED")
            let answer = try await registry.send(.GET, "/v2/", as: .viewer)
            #expect(answer.status == 200)
            #expect(answer.header("Docker-Distribution-Api-Version") == "registry/2.0")
            let bearer = try await registry.send(.GET, "/v2", as: nil, ["Authorization": "Bearer \(registry.tokens[.viewer] ?? "")"])
            #expect(bearer.status == 200)
        }
    }

    @Test("C2: a blob is served with its length and digest, only by repositories that hold it")
    func blobs() async throws {
        try await withRegistry { registry in
            let content = noise(3 << 20)
            let digest = try await registry.pushBlob(content, to: "a/b")
            let get = try await registry.send(.GET, "/v2/a/b/blobs/\(digest)")
            #expect(get.status == 200)
            #expect(get.body == content)
            #expect(get.header("Content-Length") == "\(content.count)")
            #expect(get.header("Docker-Content-Digest") == digest)
            let head = try await registry.send(.HEAD, "/v2/a/b/blobs/\(digest)")
            #expect(head.status == 200)
            #expect(head.body.isEmpty)
            #expect(head.header("Content-Length") == "\(content.count)")
            for path in ["/v2/a/b/blobs/\(Self.unknown)", "/v2/other/blobs/\(digest)"] {
                let missing = try await registry.send(.GET, path)
                #expect(missing.status == 404)
                #expect(missing.code == "BLOB_UNKNOWN")
                #expect(try await registry.send(.HEAD, path).status == 404)
            }
            let cached = try await registry.send(.GET, "/v2/a/b/blobs/\(digest)", ["If-None-Match": "\"\(digest)\""])
            #expect(cached.status == 304)
        }
    }

    @Test("C3: parts of a blob")
    func ranges() async throws {
        try await withRegistry { registry in
            let content = noise(1000)
            let digest = try await registry.pushBlob(content, to: "a")
            for (range, expected) in [("0-9", 0..<10), ("990-", 990..<1000), ("-10", 990..<1000), ("900-5000", 900..<1000)] {
                let answer = try await registry.send(.GET, "/v2/a/blobs/\(digest)", ["Range": "bytes=\(range)"])
                #expect(answer.status == 206, "\(range)")
                #expect(answer.body == content[expected])
                #expect(answer.header("Content-Range") == "bytes \(expected.lowerBound)-\(expected.upperBound - 1)/1000")
                #expect(answer.header("Content-Length") == "\(expected.count)")
            }
            for range in ["500-0", "1000-", "5000-6000"] {
                let answer = try await registry.send(.GET, "/v2/a/blobs/\(digest)", ["Range": "bytes=\(range)"])
                #expect(answer.status == 416, "\(range)")
                #expect(answer.header("Content-Range") == "bytes */1000")
                #expect(answer.code == "SIZE_INVALID")
            }
            let stale = try await registry.send(.GET, "/v2/a/blobs/\(digest)", ["Range": "bytes=0-9", "If-Range": "\"other\""])
            #expect(stale.status == 200)
        }
    }

    @Test("C4, C15: a manifest comes back byte for byte, by tag and by digest")
    func manifests() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("a/b", tag: "v1")
            for reference in ["v1", digest] {
                let get = try await registry.send(.GET, "/v2/a/b/manifests/\(reference)")
                #expect(get.status == 200)
                #expect(get.body == bytes)
                #expect(get.header("Content-Type") == MediaType.ociManifest)
                #expect(get.header("Docker-Content-Digest") == digest)
                let head = try await registry.send(.HEAD, "/v2/a/b/manifests/\(reference)")
                #expect(head.status == 200)
                #expect(head.header("Content-Length") == "\(bytes.count)")
                #expect(head.body.isEmpty)
            }
            let missing = try await registry.send(.GET, "/v2/a/b/manifests/v2")
            #expect(missing.status == 404)
            #expect(missing.code == "MANIFEST_UNKNOWN")
            #expect(try await registry.send(.GET, "/v2/a/b/manifests/sha256:zz").status == 400)
            let put = try await registry.send(
                .PUT, "/v2/a/b/manifests/\(Self.unknown)", ["Content-Type": MediaType.ociManifest], body: bytes)
            #expect(put.status == 400)
            #expect(put.code == "DIGEST_INVALID")
            let with = try await registry.send(
                .PUT, "/v2/a/b/manifests/v3", ["Content-Type": MediaType.ociManifest + "; charset=utf-8"], body: bytes)
            #expect(with.status == 201)
            #expect(with.header("Location") == "/v2/a/b/manifests/\(digest)")
            #expect(with.header("Docker-Content-Digest") == digest)
        }
    }

    @Test("C5–C8, C10, C11: an upload in chunks and in a stream, its status, its end")
    func uploads() async throws {
        try await withRegistry { registry in
            let content = noise(2 << 20)
            let place = try await registry.begin("a/b")
            #expect(place.hasPrefix("/v2/a/b/blobs/uploads/"))
            let half = content.count / 2
            let first = try await registry.send(.PATCH, place, ["Content-Range": "0-\(half - 1)"], body: content[..<half])
            #expect(first.status == 202)
            #expect(first.header("Range") == "0-\(half - 1)")
            for range in ["0-\(half - 1)", "\(half + 1)-\(content.count - 1)", "\(half - 1)-\(content.count - 1)"] {
                let refused = try await registry.send(.PATCH, place, ["Content-Range": range], body: content[half...])
                #expect(refused.status == 416, "\(range)")
                #expect(refused.header("Range") == "0-\(half - 1)")
            }
            for range in ["5-2", "bytes 0-1", "\(half)-9223372036854775808"] {
                #expect(try await registry.send(.PATCH, place, ["Content-Range": range], body: Data("x".utf8)).status == 400)
            }
            let lie = try await registry.send(.PATCH, place, ["Content-Range": "\(half)-\(content.count)"], body: content[half...])
            #expect(lie.status == 400)
            #expect(lie.code == "SIZE_INVALID")
            let long = try await registry.send(
                .PATCH, place, ["Content-Range": "\(half)-\(half + 9)"], stream: [Data(content[half...])])
            #expect(long.code == "SIZE_INVALID")
            let status = try await registry.send(.GET, place)
            #expect(status.status == 204)
            #expect(status.header("Range") == "0-\(half - 1)")
            #expect(status.header("Location") == place)
            let rest = try await registry.send(
                .PATCH, place, stream: [Data(content[half..<(half + 1000)]), Data(content[(half + 1000)...])])
            #expect(rest.status == 202)
            #expect(rest.header("Range") == "0-\(content.count - 1)")
            let digest = digestOf(content)
            let end = try await registry.send(.PUT, "\(place)?digest=\(digest)")
            #expect(end.status == 201)
            #expect(end.header("Location") == "/v2/a/b/blobs/\(digest)")
            #expect(try await registry.send(.GET, "/v2/a/b/blobs/\(digest)").body == content)
            #expect(try await registry.send(.GET, place).code == "BLOB_UPLOAD_UNKNOWN")

            let given = try await registry.begin("a/b")
            _ = try await registry.send(.PATCH, given, body: Data("abc".utf8))
            #expect(try await registry.send(.DELETE, given).status == 204)
            #expect(registry.openUploads.isEmpty)
            #expect(try await registry.send(.DELETE, given).code == "BLOB_UPLOAD_UNKNOWN")
        }
    }

    @Test("C6, C9: one request, or a last chunk; a wrong digest stores nothing")
    func monolithic() async throws {
        try await withRegistry { registry in
            let digest = try await registry.pushBlob(Data("one".utf8), to: "a")
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(digest)").text == "one")
            let empty = try await registry.pushBlob(Data(), to: "a")
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(empty)").body.isEmpty)

            let place = try await registry.begin("a")
            let put = try await registry.send(.PUT, "\(place)?digest=\(digestOf(Data("two".utf8)))", body: Data("two".utf8))
            #expect(put.status == 201)

            let wrong = try await registry.send(.POST, "/v2/a/blobs/uploads/?digest=\(Self.unknown)", body: Data("x".utf8))
            #expect(wrong.status == 400)
            #expect(wrong.code == "DIGEST_INVALID")
            let other = try await registry.begin("a")
            #expect(try await registry.send(.PUT, other, body: Data("x".utf8)).code == "DIGEST_INVALID")
            let late = try await registry.send(.PUT, "\(other)?digest=\(Self.unknown)", body: Data("x".utf8))
            #expect(late.code == "DIGEST_INVALID")
            #expect(try await registry.send(.HEAD, "/v2/a/blobs/\(Self.unknown)").status == 404)
            #expect(registry.openUploads.isEmpty)
        }
    }

    @Test("C12, C13: a blob is mounted from what the caller may read, and never tells more")
    func mounts() async throws {
        try await withRegistry { registry in
            let digest = try await registry.pushBlob(Data("shared".utf8), to: "private")
            func mount(_ query: String, to name: String, as caller: TestRegistry.Caller) async throws -> Int {
                try await registry.send(.POST, "/v2/\(name)/blobs/uploads/?mount=\(digest)\(query)", as: caller).status
            }
            #expect(try await mount("&from=private", to: "shop/a", as: .shop) == 202)
            #expect(try await mount("", to: "shop/a", as: .shop) == 202)
            #expect(try await mount("&from=none", to: "b", as: .developer) == 202)
            #expect(try await registry.send(.HEAD, "/v2/b/blobs/\(digest)").status == 404)
            let done = try await registry.send(.POST, "/v2/b/blobs/uploads/?mount=\(digest)&from=private", as: .developer)
            #expect(done.status == 201)
            #expect(done.header("Location") == "/v2/b/blobs/\(digest)")
            #expect(try await mount("", to: "c/d", as: .developer) == 201)
            #expect(try await registry.send(.GET, "/v2/c/d/blobs/\(digest)").text == "shared")
        }
    }

    @Test("C14: sha512 everywhere; other algorithms are 400")
    func sha512() async throws {
        try await withRegistry { registry in
            let content = Data("strong".utf8)
            let digest = try await registry.pushBlob(content, to: "a", algorithm: .sha512)
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(digest)").body == content)
            let place = try await registry.begin("a", query: "?digest-algorithm=sha512")
            _ = try await registry.send(.PATCH, place, body: Data("chunk".utf8))
            #expect(try await registry.send(.PUT, "\(place)?digest=\(digestOf(Data("chunk".utf8), .sha512))").status == 201)
            // Announced as one, ended as the other.
            let mixed = try await registry.begin("a")
            _ = try await registry.send(.PATCH, mixed, body: Data("mixed".utf8))
            #expect(try await registry.send(.PUT, "\(mixed)?digest=\(digestOf(Data("mixed".utf8), .sha512))").status == 201)
            #expect(try await registry.send(.POST, "/v2/a/blobs/uploads/?digest-algorithm=md5").status == 400)

            try await registry.pushImage("a")
            let manifest = imageManifest()
            let strong = digestOf(manifest, .sha512)
            let put = try await registry.send(
                .PUT, "/v2/a/manifests/\(strong)?tag=s", ["Content-Type": MediaType.ociManifest], body: manifest)
            #expect(put.status == 201)
            #expect(put.header("Docker-Content-Digest") == strong)
            #expect(try await registry.send(.GET, "/v2/a/manifests/s").header("Docker-Content-Digest") == strong)
            #expect(try await registry.send(.DELETE, "/v2/a/manifests/\(strong)").status == 202)
            #expect(try await registry.send(.DELETE, "/v2/a/blobs/\(digest)").status == 202)
        }
    }

    @Test("C16, C17: missing parts are listed; a missing subject is fine")
    func missingParts() async throws {
        try await withRegistry { registry in
            let manifest = imageManifest(layer: "absent", subject: Self.unknown)
            let put = try await registry.send(.PUT, "/v2/a/manifests/v1", ["Content-Type": MediaType.ociManifest], body: manifest)
            #expect(put.status == 404)
            #expect(put.code == "MANIFEST_BLOB_UNKNOWN")
            #expect(put.text.contains(digestOf(Data("absent".utf8))))
            #expect(try await registry.send(.GET, "/v2/a/tags/list").code == "NAME_UNKNOWN")
            try await registry.pushImage("a", tag: "v1", layer: "absent", subject: Self.unknown)

            let index = Data(
                #"{"schemaVersion":2,"manifests":[{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(Self.unknown)","size":1}]}"#.utf8)
            let lacking = try await registry.send(.PUT, "/v2/a/manifests/i", ["Content-Type": MediaType.ociIndex], body: index)
            #expect(lacking.code == "MANIFEST_BLOB_UNKNOWN")
            let child = try await registry.pushImage("a", tag: "child")
            let good = Data(
                #"{"schemaVersion":2,"manifests":[{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(child.digest)","size":\#(child.bytes.count)}]}"#
                    .utf8)
            #expect(try await registry.send(.PUT, "/v2/a/manifests/i", ["Content-Type": MediaType.ociIndex], body: good).status == 201)
            let lie = Data(
                #"{"schemaVersion":2,"manifests":[{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(child.digest)","size":1}]}"#.utf8)
            #expect(
                try await registry.send(.PUT, "/v2/a/manifests/i", ["Content-Type": MediaType.ociIndex], body: lie).code
                    == "MANIFEST_INVALID")
        }
    }

    @Test("C18: 4 MiB of manifest are taken, one byte more is 413")
    func large() async throws {
        try await withRegistry { registry in
            func index(_ size: Int) -> Data {
                let empty = #"{"schemaVersion":2,"manifests":[],"annotations":{"a":""}}"#
                return Data(empty.replacing(#""a":"""#, with: #""a":"\#(String(repeating: "x", count: size - empty.utf8.count))""#).utf8)
            }
            let fits = try await registry.send(.PUT, "/v2/a/manifests/v1", ["Content-Type": MediaType.ociIndex], body: index(4 << 20))
            #expect(fits.status == 201)
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").body.count == 4 << 20)
            let over = try await registry.send(
                .PUT, "/v2/a/manifests/v2", ["Content-Type": MediaType.ociIndex], stream: [index((4 << 20) + 1)])
            #expect(over.status == 413)
            #expect(over.code == "SIZE_INVALID")
        }
    }

    @Test("C19: a manifest that could be read in two ways is refused")
    func ambiguous() async throws {
        try await withRegistry { registry in
            try await registry.pushImage("a")
            let image = imageManifest()
            let mismatch = try await registry.send(.PUT, "/v2/a/manifests/v1", ["Content-Type": MediaType.ociIndex], body: image)
            #expect(mismatch.status == 400)
            #expect(mismatch.code == "MANIFEST_INVALID")
            for text in ["{", "[]", #"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "\u{FEFF}{}"] {
                let answer = try await registry.send(
                    .PUT, "/v2/a/manifests/v1", ["Content-Type": MediaType.ociIndex], body: Data(text.utf8))
                #expect(answer.code == "MANIFEST_INVALID", "\(text)")
            }
        }
    }

    @Test("C20: several tags at once")
    func severalTags() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("a")
            let tags = (1...12).map { "t\($0)" }
            let put = try await registry.send(
                .PUT, "/v2/a/manifests/\(digest)?" + tags.map { "tag=\($0)" }.joined(separator: "&"),
                ["Content-Type": MediaType.ociManifest],
                body: bytes)
            #expect(put.status == 201)
            #expect(put.headers["OCI-Tag"] == [tags.joined(separator: ", ")] || put.headers["OCI-Tag"] == tags)
            for tag in tags { #expect(try await registry.send(.HEAD, "/v2/a/manifests/\(tag)").header("Docker-Content-Digest") == digest) }
            let bad = try await registry.send(
                .PUT, "/v2/a/manifests/\(digest)?tag=good&tag=.bad", ["Content-Type": MediaType.ociManifest], body: bytes)
            #expect(bad.status == 400)
            #expect(try await registry.send(.HEAD, "/v2/a/manifests/good").status == 404)
        }
    }

    @Test("C21: tags in the order of their bytes, page by page")
    func tagLists() async throws {
        try await withRegistry { registry in
            let (bytes, _) = try await registry.pushImage("a/b", tag: "b")
            for tag in ["a", "B", "_", "1"] {
                _ = try await registry.send(.PUT, "/v2/a/b/manifests/\(tag)", ["Content-Type": MediaType.ociManifest], body: bytes)
            }
            func tags(_ answer: TestRegistry.Answer) -> [String] {
                guard case .array(let list)? = answer.json?["tags"] else { return ["no list"] }
                return list.compactMap(\.string)
            }
            let all = try await registry.send(.GET, "/v2/a/b/tags/list")
            #expect(tags(all) == ["1", "B", "_", "a", "b"])
            #expect(all.json?["name"] == .string("a/b"))
            #expect(all.header("Link") == nil)
            var seen: [String] = []
            var next: String? = "/v2/a/b/tags/list?n=2"
            while let page = next {
                let answer = try await registry.send(.GET, page)
                seen += tags(answer)
                next = answer.header("Link").map { String($0.dropFirst().prefix { $0 != ">" }) }
            }
            #expect(seen == ["1", "B", "_", "a", "b"])
            #expect(tags(try await registry.send(.GET, "/v2/a/b/tags/list?last=_")) == ["a", "b"])
            let none = try await registry.send(.GET, "/v2/a/b/tags/list?n=0")
            #expect(tags(none).isEmpty)
            #expect(none.header("Link") == nil)
            for bad in ["-1", "abc", "99999999999999999999"] {
                #expect(try await registry.send(.GET, "/v2/a/b/tags/list?n=\(bad)").status == 400)
            }
            #expect(tags(try await registry.send(.GET, "/v2/a/b/tags/list?n=999999999999")).count == 5)
            let unknown = try await registry.send(.GET, "/v2/none/tags/list")
            #expect(unknown.status == 404)
            #expect(unknown.code == "NAME_UNKNOWN")
        }
    }

    @Test("C22: referrers are listed, filtered, paged, and never 404")
    func referrers() async throws {
        try await withRegistry { registry in
            func listed(_ path: String) async throws -> (TestRegistry.Answer, [JSON]) {
                let answer = try await registry.send(.GET, path)
                #expect(answer.status == 200)
                #expect(answer.header("Content-Type") == MediaType.ociIndex)
                guard case .array(let list)? = answer.json?["manifests"] else { return (answer, [.null]) }
                return (answer, list)
            }
            #expect(try await listed("/v2/never/referrers/\(Self.unknown)").1.isEmpty)
            #expect(try await registry.send(.GET, "/v2/a/referrers/sha256:zz").status == 400)
            let image = try await registry.pushImage("a", tag: "v1")
            let signature = try await registry.pushImage(
                "a", layer: "signature", subject: image.digest, artifactType: "application/sig", annotations: ["by": "ada"])
            let plain = try await registry.pushImage("a", layer: "plain", subject: image.digest)
            let index = Data(
                #"{"schemaVersion":2,"manifests":[],"subject":{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(image.digest)","size":7}}"#
                    .utf8)
            _ = try await registry.send(.PUT, "/v2/a/manifests/i", ["Content-Type": MediaType.ociIndex], body: index)
            let (_, all) = try await listed("/v2/a/referrers/\(image.digest)")
            #expect(Set(all.compactMap { $0["digest"]?.string }) == [signature.digest, plain.digest, digestOf(index)])
            let signed = all.first { $0["digest"]?.string == signature.digest }
            #expect(signed?["artifactType"] == .string("application/sig"))
            #expect(signed?["annotations"]?["by"] == .string("ada"))
            #expect(signed?["size"] == .int(Int64(signature.bytes.count)))
            #expect(
                all.first { $0["digest"]?.string == plain.digest }?["artifactType"] == .string("application/vnd.oci.image.config.v1+json"))
            #expect(all.first { $0["digest"]?.string == digestOf(index) }?["artifactType"] == nil)
            let (filtered, some) = try await listed("/v2/a/referrers/\(image.digest)?artifactType=application/sig")
            #expect(filtered.header("OCI-Filters-Applied") == "artifactType")
            #expect(some.count == 1)
            var count = 0
            var next: String? = "/v2/a/referrers/\(image.digest)?n=1"
            while let page = next {
                let (answer, list) = try await listed(page)
                count += list.count
                next = answer.header("Link").map { String($0.dropFirst().prefix { $0 != ">" }) }
            }
            #expect(count == 3)
            #expect(try await registry.send(.DELETE, "/v2/a/manifests/\(signature.digest)").status == 202)
            #expect(try await listed("/v2/a/referrers/\(image.digest)").1.count == 2)
        }
    }

    @Test("C24, C25: a tag goes alone, a digest with all its tags")
    func deletes() async throws {
        try await withRegistry { registry in
            let (bytes, digest) = try await registry.pushImage("a", tag: "v1")
            for tag in ["v2", "v3"] {
                _ = try await registry.send(.PUT, "/v2/a/manifests/\(tag)", ["Content-Type": MediaType.ociManifest], body: bytes)
            }
            #expect(try await registry.send(.DELETE, "/v2/a/manifests/v1").status == 202)
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").status == 404)
            for reference in ["v2", "v3", digest] { #expect(try await registry.send(.GET, "/v2/a/manifests/\(reference)").status == 200) }
            #expect(try await registry.send(.DELETE, "/v2/a/manifests/\(digest)").status == 202)
            for reference in ["v2", "v3", digest] { #expect(try await registry.send(.GET, "/v2/a/manifests/\(reference)").status == 404) }
            #expect(try await registry.send(.DELETE, "/v2/a/manifests/\(digest)").code == "MANIFEST_UNKNOWN")
            #expect(try await registry.send(.GET, "/v2/a/tags/list").status == 200)
        }
    }

    @Test("C25: 405 for tags, digests and blobs when deletion is off")
    func deletesOff() async throws {
        try await withRegistry(deletes: false) { registry in
            let (_, digest) = try await registry.pushImage("a", tag: "v1")
            for path in ["manifests/v1", "manifests/\(digest)", "blobs/\(digestOf(Data("layer".utf8)))"] {
                let answer = try await registry.send(.DELETE, "/v2/a/\(path)")
                #expect(answer.status == 405)
                #expect(answer.code == "UNSUPPORTED")
            }
            #expect(try await registry.send(.GET, "/v2/a/manifests/v1").status == 200)
            #expect(try await registry.send(.DELETE, try await registry.begin("a")).status == 204)
        }
    }

    @Test("C26: a deleted blob is gone here and stays with others")
    func deleteBlob() async throws {
        try await withRegistry { registry in
            let digest = try await registry.pushBlob(Data("both".utf8), to: "a")
            try await registry.pushBlob(Data("both".utf8), to: "b")
            #expect(try await registry.send(.DELETE, "/v2/a/blobs/\(digest)").status == 202)
            #expect(try await registry.send(.GET, "/v2/a/blobs/\(digest)").status == 404)
            #expect(try await registry.send(.GET, "/v2/b/blobs/\(digest)").status == 200)
            #expect(try await registry.send(.DELETE, "/v2/a/blobs/\(digest)").code == "BLOB_UNKNOWN")
        }
    }

    @Test("C27: every error is in the specification's form, those of the framework too")
    func errors() async throws {
        try await withRegistry { registry in
            let codes: Set<String> = [
                "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
                "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED",
                "TOOMANYREQUESTS",
            ]
            for (method, path) in [
                ("GET", "/v2/a"), ("GET", "/v2/a/x/y/z"), ("POST", "/v2/"), ("PUT", "/v2/a/tags/list"),
                ("POST", "/v2/a/blobs/\(Self.unknown)"),
                ("OPTIONS", "/v2/"), ("OPTIONS", "/v2/a/manifests/v1"), ("GET", "/v2/a/blobs/uploads/"), ("PATCH", "/v2/a/manifests/v1"),
                ("GET", "/v2/%zz/tags/list"), ("DELETE", "/v2/_catalog"),
            ] {
                let answer = try await registry.send(.init(rawValue: method), path)
                #expect((400..<500).contains(answer.status), "\(method) \(path)")
                #expect(codes.contains(answer.code ?? "none"), "\(method) \(path): \(answer.text)")
                #expect(answer.header("Content-Type") == "application/json", "\(method) \(path)")
            }
            #expect(try await registry.send(.GET, "/nowhere").status == 404)
            #expect(try await registry.send(.GET, "/health", as: nil).status == 200)
        }
    }

    @Test("C28: the catalog shows what the caller may pull")
    func catalog() async throws {
        try await withRegistry { registry in
            for name in ["b", "shop/web", "a/c", "bundles/shop", "shopping"] { try await registry.pushImage(name, tag: "v1") }
            try await registry.pushBlob(Data("unfinished".utf8), to: "zz")
            func names(_ query: String, as caller: TestRegistry.Caller) async throws -> JSON? {
                try await registry.send(.GET, "/v2/_catalog\(query)", as: caller).json?["repositories"]
            }
            #expect(
                try await names("", as: .viewer)
                    == .array([.string("a/c"), .string("b"), .string("bundles/shop"), .string("shop/web"), .string("shopping")]))
            #expect(try await names("", as: .shop) == .array([.string("bundles/shop"), .string("shop/web")]))
            #expect(try await names("", as: .component) == .array([.string("bundles/shop")]))
            #expect(try await names("?n=2&last=a/c", as: .viewer) == .array([.string("b"), .string("bundles/shop")]))
            let page = try await registry.send(.GET, "/v2/_catalog?n=1", as: .shop)
            #expect(page.header("Link") == "</v2/_catalog?n=1&last=bundles%2Fshop>; rel=\"next\"")
            #expect(try await registry.send(.GET, "/v2/_catalog?n=-1").status == 400)
        }
    }

    @Test("C29: names by the specification's grammar, 255 bytes with the host")
    func names() async throws {
        try await withRegistry { registry in
            for bad in ["TEAM/app", "a..b", "a//b", String(repeating: "a", count: 256), String(repeating: "a", count: 240)] {
                let answer = try await registry.send(.POST, "/v2/\(bad)/blobs/uploads/")
                #expect(answer.status == 400, "\(bad)")
                #expect(answer.code == "NAME_INVALID", "\(bad)")
            }
            let (bytes, _) = try await registry.pushImage("a")
            for tag in [String(repeating: "a", count: 129), ".a", "-a"] {
                let answer = try await registry.send(.PUT, "/v2/a/manifests/\(tag)", ["Content-Type": MediaType.ociManifest], body: bytes)
                #expect(answer.status == 400, "\(tag)")
            }
        }
    }
}
