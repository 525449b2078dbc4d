import AsyncHTTPClient
import Contracts
import Foundation
import Hummingbird
import Kit
import Logging
import NIOCore
import Synchronization
import Testing

@testable import HTTPKit

/// Knows three tokens.
struct FixedAuthenticator: Authenticator {
    let tokens: [String: Principal]
    func authenticate(hash: String) async throws -> Principal? { tokens[hash] }
}

@Suite("HTTP of a component", .timeLimit(.minutes(1))) struct ServerTests {
    static let admin = Token.make()
    static let viewer = Token.make()
    static let shopDeveloper = Token.make()
    static let component = Token.make()

    /// Runs a server with one route of each right on a free port.
    static func withServer(_ body: @Sendable (Int) async throws -> Void) async throws {
        let home = NSTemporaryDirectory() + "slipway-http-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let config = try SuiteConfig.load(ComponentOptions(home: home), environment: [:])
        try Keyring.prepare(config)
        let boot = try Boot.make(.git, config, Logger(label: "test"))
        let authenticator = FixedAuthenticator(tokens: [
            Token.hash(admin): Principal(name: "admin", role: .admin), Token.hash(viewer): Principal(name: "eve", role: .viewer),
            Token.hash(shopDeveloper): Principal(name: "ada", role: .developer, app: try AppName("shop")),
            Token.hash(component): Principal(name: "component:supervisor", role: .admin),
        ])
        let (ports, port) = AsyncStream.makeStream(of: Int.self)
        let server = HTTPServer(boot, port: 0, authenticator: authenticator, bound: { port.yield($0) }) { routes in
            routes.get("/open", .open) { _, _ in .text("open") }
            routes.get("/role", .role(.operator)) { _, _ in .text("role") }
            routes.get("/apps/:app", .app(.developer)) { _, context in .text(try context.app().text) }
            routes.get("/component", .component) { _, _ in .text("component") }
            routes.get("/fails", .open) { _, _ in throw NSError(domain: "/secret/path", code: 1) }
            routes.post("/json", .open) { request, context in try .json(try await request.json([String: Int].self, context, limit: 64)) }
            routes.get("/events", .open) { _, _ in
                .events(
                    AsyncStream { stream in
                        stream.yield(ServerSentEvent(id: "7", event: "push", data: "one\ntwo"))
                        stream.finish()
                    })
            }
        }
        let running = Task { try await server.run() }
        defer { running.cancel() }
        for await number in ports {
            try await body(number)
            break
        }
    }

    static func get(_ port: Int, _ path: String, token: String? = nil, host: String? = nil, headers: [(String, String)] = []) async throws
        -> (
            Int, String, HTTPClientResponse
        )
    {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
        if let token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if let host { request.headers.replaceOrAdd(name: "Host", value: host) }
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(10))
        return (Int(response.status.code), String(buffer: try await response.body.collect(upTo: 1 << 20)), response)
    }

    @Test("each right lets in exactly those it names") func rights() async throws {
        try await Self.withServer { (port: Int) async throws -> Void in
            let unknown = Token.make()
            let table: [(String, [String?: Int])] = [
                ("/open", [nil: 200, Self.viewer: 200]),
                ("/role", [nil: 401, unknown: 401, "nonsense": 401, Self.viewer: 403, Self.admin: 200, Self.shopDeveloper: 403]),
                ("/apps/shop", [nil: 401, Self.viewer: 403, Self.shopDeveloper: 200, Self.admin: 200]),
                ("/apps/bank", [Self.shopDeveloper: 404, Self.admin: 200]), ("/apps/%2e%2e", [Self.admin: 404]),
                ("/component", [nil: 401, Self.admin: 403, Self.component: 200]), ("/nothing", [nil: 404]),
            ]
            for (path, row) in table {
                for (token, status) in row {
                    let (answered, body, _) = try await Self.get(port, path, token: token)
                    #expect(answered == status, "\(path) with \(token ?? "no token"): \(body)")
                }
            }
        }
    }

    @Test("problems are RFC 9457, with a hint, and tell nothing of the inside") func problems() async throws {
        try await Self.withServer { (port: Int) async throws -> Void in
            let (status, body, response) = try await Self.get(port, "/role")
            #expect(status == 401 && response.headers.first(name: "Content-Type") == "application/problem+json")
            #expect(response.headers["WWW-Authenticate"].first?.hasPrefix("Basic") == true)
            #expect(body.contains(#""title":"unauthenticated""#) && body.contains(#""hint":"#))
            let (failed, text, _) = try await Self.get(port, "/fails")
            #expect(failed == 500 && !text.contains("secret") && text.contains("its log has the cause"))
            let (query, why, _) = try await Self.get(port, "/role?token=\(Self.admin)")
            #expect(query == 401 && why.contains("ends up in logs"))
        }
    }

    @Test("a host name that is not ours is refused, addresses and localhost are served") func hosts() async throws {
        try await Self.withServer { (port: Int) async throws -> Void in
            #expect(try await Self.get(port, "/open", host: "evil.example").0 == 421)
            #expect(try await Self.get(port, "/open", host: "localhost:\(port)").0 == 200)
            #expect(try await Self.get(port, "/open", host: "[::1]:\(port)").0 == 200)
        }
    }

    @Test("bodies are limited and must be what they say") func bodies() async throws {
        try await Self.withServer { (port: Int) async throws -> Void in
            func post(_ body: String, _ type: String) async throws -> Int {
                var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)/json")
                request.method = .POST
                request.headers.add(name: "Content-Type", value: type)
                request.body = .bytes(ByteBuffer(string: body))
                return Int(try await HTTPClient.shared.execute(request, timeout: .seconds(10)).status.code)
            }
            #expect(try await post(#"{"a":1}"#, "application/json") == 200)
            #expect(try await post(#"{"a":1}"#, "text/plain") == 415)
            #expect(try await post(#"{"a":"x"}"#, "application/json") == 400)
            #expect(try await post("{\"a\":\(String(repeating: "1", count: 100))}", "application/json") == 413)
            #expect(try await Self.get(port, "/open", headers: [("X-Long", String(repeating: "x", count: 40_000))]).0 >= 400)
        }
    }

    @Test("the four standard endpoints answer; ready tells what is missing") func standard() async throws {
        try await Self.withServer { (port: Int) async throws -> Void in
            #expect(try await Self.get(port, "/health").0 == 200)
            let (ready, reason, _) = try await Self.get(port, "/ready")
            #expect(ready == 503 && reason.contains("bus: "))
            #expect(try await Self.get(port, "/version").1.contains(#""component":"git""#))
            #expect(try await Self.get(port, "/metrics").1.contains("# TYPE slipway_http_requests_total counter"))
            #expect(try await Self.get(port, "/events").1.hasSuffix("id: 7\nevent: push\ndata: one\ndata: two\n\n"))
        }
    }

    @Test("an inherited descriptor is found by its name and only by its owner") func inherited() throws {
        let mine = ["LISTEN_PID": "\(getpid())", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "bus:git"]
        #expect(try InheritedSockets.descriptor(named: "api", environment: mine) == nil)
        #expect(try InheritedSockets.descriptor(named: "git", environment: mine.merging(["LISTEN_PID": "1"]) { $1 }) == nil)
        // The adoption itself is shown with a real socket in Tests/Platform; what is no socket is refused with a sentence.
        let many = (0..<40).map { _ in "x" }.joined(separator: ":") + ":git"
        #expect {
            try InheritedSockets.descriptor(named: "git", environment: mine.merging(["LISTEN_FDS": "41", "LISTEN_FDNAMES": many]) { $1 })
        } throws: { ($0 as? Problem)?.message.contains("no socket") == true }
    }
}
