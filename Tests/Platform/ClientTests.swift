import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    @Suite("Foreign clients", .serialized, .timeLimit(.minutes(5))) struct ClientTests {
        @Test("pyzmq and curl order deployments, skopeo copies images, dig finds services, every component tells of itself")
        func clients() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                for version in 1...2 {
                    try copy.write("v\(version)\n", to: "VERSION")
                    try await copy.commit("Version \(version)")
                    let pushed = try await copy.push()
                    #expect(pushed.status == 0, "\(pushed)")
                }
                #expect(await platform.page("hello").contains("v2"))

                // A program written against docs/wire.md alone.
                let key = "\(platform.home)-bot.json"
                defer { try? FileManager.default.removeItem(atPath: key) }
                let made = try await platform.slipway(
                    "key", "create", "bot", "--publish", "deploy.requested", "--subscribe", "**", "--call", "git.*", "--out", key)
                #expect(made.status == 0, "\(made)")
                let wire = "\(Platform.root)/Tests/Conformance/wire.py"
                let since = try await platform.lastSeq() + 1
                let data = #"{"app":"hello","environment":"production","release":1}"#
                let published = try await run(
                    ["/usr/bin/python3", wire, key, "publish", "deploy.requested", "hello/production", data], within: 30)
                #expect(published.status == 0, "\(published)")
                let followed = try await run(
                    ["/usr/bin/python3", wire, key, "follow", "--since", "\(since)", "--until", "deploy.succeeded", "--timeout", "60"],
                    within: 90)
                #expect(
                    followed.status == 0 && followed.output.contains("deploy.planned") && followed.output.contains("deploy.succeeded"),
                    "\(followed)")
                #expect(await platform.page("hello").contains("v1"))
                let refused = try await run(["/usr/bin/python3", wire, key, "publish", "git.push.received", "hello", "{}"], within: 30)
                #expect(
                    refused.status != 0 && refused.description.contains("may not publish"), "a key may say only what it may: \(refused)")

                // The same with curl.
                let before = try await platform.lastSeq()
                let token = try platform.operatorToken()
                let config = "\(platform.home)-curl"
                try "header = \"Authorization: Bearer \(token)\"\n".write(toFile: config, atomically: true, encoding: .utf8)
                defer { try? FileManager.default.removeItem(atPath: config) }
                let body =
                    #"{"type":"deploy.requested","subject":"hello/production","data":{"app":"hello","environment":"production","release":2}}"#
                let posted = try await run(
                    [
                        "curl", "-sS", "--fail-with-body", "-K", config, "-H", "Content-Type: application/json", "-d", body,
                        "http://127.0.0.1:\(platform.port(.bus))/v1/events",
                    ], within: 30)
                #expect(posted.status == 0, "\(posted)")
                try await platform.waitForEvent(DeploySucceeded.type, after: before)
                #expect(await platform.page("hello").contains("v2"))

                try await Self.registry(platform, token)
                try await Self.names(platform)
                for component in Component.allCases {
                    for path in ["/health", "/ready", "/version", "/metrics"] {
                        let answer = try await platform.ask(component, path, token: .some(nil))
                        #expect(answer.status == 200, "\(component.rawValue)\(path): \(answer)")
                    }
                    #expect(try await platform.ask(component, "/version", token: .some(nil)).body.contains("\"version\""))
                }
                let console = try await platform.ask(.api, "/", token: .some(nil))
                #expect(console.status == 200 && console.body.contains("<html"), "\(console)")
            }
        }

        /// A real image in and out again, its digests equal.
        static func registry(_ platform: Platform, _ token: String) async throws {
            let image = "\(platform.home)-image"
            defer { for suffix in ["", "-out", "-auth"] { try? FileManager.default.removeItem(atPath: image + suffix) } }
            let made = try await run(["/usr/bin/python3", "\(Platform.root)/Tests/Fixtures/make_image.py", image])
            #expect(made.status == 0, "\(made)")
            let registry = "127.0.0.1:\(platform.port(.registry))"
            let credentials = Data("slipway:\(token)".utf8).base64EncodedString()
            try #"{"auths":{"\#(registry)":{"auth":"\#(credentials)"}}}"#.write(toFile: image + "-auth", atomically: true, encoding: .utf8)
            let pushed = try await run(
                [
                    "skopeo", "--insecure-policy", "copy", "--authfile", image + "-auth", "--dest-tls-verify=false", "oci:\(image):v1",
                    "docker://\(registry)/team/tool:v1",
                ])
            #expect(pushed.status == 0, "\(pushed)")
            let pulled = try await run(
                [
                    "skopeo", "--insecure-policy", "copy", "--authfile", image + "-auth", "--src-tls-verify=false",
                    "docker://\(registry)/team/tool:v1", "dir:\(image)-out",
                ])
            #expect(pulled.status == 0, "\(pulled)")
            let blobs = try FileManager.default.contentsOfDirectory(atPath: "\(image)/blobs/sha256")
            let layers = try FileManager.default.contentsOfDirectory(atPath: image + "-out").filter { $0.count == 64 }
            #expect(layers.count >= 2 && layers.allSatisfy { blobs.contains($0) }, "\(layers) of \(blobs)")
            let manifest = try #require(FileManager.default.contents(atPath: image + "-out/manifest.json"))
            #expect(
                blobs.contains { FileManager.default.contents(atPath: "\(image)/blobs/sha256/\($0)") == manifest },
                "the manifest's bytes are unchanged")
            #expect(try await platform.events().contains { $0.as(ImagePushed.self)?.repository == "team/tool" })
        }

        static func names(_ platform: Platform) async throws {
            @Sendable func dig(_ arguments: String...) async throws -> String {
                try await run(["dig", "@127.0.0.1", "-p", "\(platform.dnsPort)", "+tries=1", "+time=3"] + arguments).output
            }
            #expect(try await dig("+short", "web.hello.production.slipway", "A") == "127.0.0.1\n")
            #expect(try await dig("+short", "+tcp", "WEB.hello.production.slipway", "A") == "127.0.0.1\n")
            @Sendable func service() async throws -> [Substring] {
                try await dig("+short", "web.hello.production.slipway", "SRV").split(separator: " ")
            }
            try await eventually(within: 30, "one instance, the old one gone") { try await service().count == 4 }
            let port = try #require(Int(try await service()[2]))
            #expect(await fetch("http://127.0.0.1:\(port)/", host: "localhost").status == 200)
            #expect(try await dig("nobody.hello.production.slipway", "A").contains("NXDOMAIN"))
            #expect(try await dig("example.org", "A").contains("REFUSED"))
        }
    }
}
