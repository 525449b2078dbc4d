import AsyncHTTPClient
import Contracts
import Foundation
import GRDB
import Kit
import Logging
import ServiceLifecycle
import Storage
import TestKit
import Testing

@testable import APIService

/// Who gets what from every route: a new route without a row here fails.
@Suite("Rights", .timeLimit(.minutes(2))) struct RightsTests {
    /// The columns, in this order.
    static let holders = ["none", "wrong", "expired", "viewer", "developer-of-other", "developer", "operator", "admin"]

    /// Expected status by column. 0: let in, whatever the answer is then.
    static let table: [String: [Int]] = [
        "POST /v1/tokens": [401, 401, 401, 0, 0, 0, 0, 0],
        "GET /v1/tokens": [401, 401, 401, 200, 200, 200, 200, 200],
        "DELETE /v1/tokens/:name": [401, 401, 401, 404, 404, 404, 404, 404],
        "GET /v1/whoami": [401, 401, 401, 200, 200, 200, 200, 200],
        "POST /v1/apps": [401, 401, 401, 403, 0, 0, 0, 0],
        "GET /v1/apps": [401, 401, 401, 200, 200, 200, 200, 200],
        "GET /v1/apps/:app": [401, 401, 401, 200, 404, 200, 200, 200],
        "DELETE /v1/apps/:app": [401, 401, 401, 403, 404, 403, 0, 0],
        "GET /v1/apps/:app/releases": [401, 401, 401, 200, 404, 200, 200, 200],
        "GET /v1/apps/:app/deployments": [401, 401, 401, 200, 404, 200, 200, 200],
        "GET /v1/apps/:app/instances": [401, 401, 401, 200, 404, 200, 200, 200],
        "GET /v1/instances": [401, 401, 401, 200, 200, 200, 200, 200],
        "GET /v1/apps/:app/why": [401, 401, 401, 404, 404, 404, 404, 404],
        "POST /v1/apps/:app/deployments": [401, 401, 401, 403, 404, 404, 404, 404],
        "POST /v1/apps/:app/rollbacks": [401, 401, 401, 403, 404, 404, 404, 404],
        "GET /v1/apps/:app/plan": [401, 401, 401, 404, 404, 404, 404, 404],
        "GET /v1/apps/:app/story": [401, 401, 401, 404, 404, 404, 404, 404],
        "GET /v1/events": [401, 401, 401, 0, 0, 0, 0, 0],
        "POST /v1/events": [401, 401, 401, 403, 403, 403, 0, 0],
        "GET /v1/logs": [401, 401, 401, 400, 400, 400, 400, 400],
        "GET /v1/status": [401, 401, 401, 0, 0, 0, 0, 0],
        "GET /": [200, 200, 200, 200, 200, 200, 200, 200],
        "GET /console.css": [200, 200, 200, 200, 200, 200, 200, 200],
        "GET /console.js": [200, 200, 200, 200, 200, 200, 200, 200],
        "POST /login": [400, 400, 400, 400, 400, 400, 400, 400],
        "POST /logout": [200, 200, 200, 200, 200, 200, 200, 200],
    ]

    @Test("every route of the api has a row") func complete() throws {
        let folder = Platform.root + "/Services/API/Routes"
        var found: Set<String> = []
        for file in try FileManager.default.contentsOfDirectory(atPath: folder) where file.hasSuffix(".swift") {
            let text = try String(contentsOfFile: "\(folder)/\(file)", encoding: .utf8)
            for match in text.matches(of: /routes\.(get|post|put|patch|delete|head)\("([^"]+)"/) {
                found.insert("\(match.1.uppercased()) \(match.2)")
            }
        }
        #expect(found == Set(Self.table.keys))
    }

    @Test("every route answers every holder as its row says") func rights() async throws {
        let home = "/tmp/slipway-rights-\(UUID().uuidString.prefix(8).lowercased())"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let base = try Ports.freeBase()
        let config = try SuiteConfig.load(ComponentOptions(home: home, portBase: base), environment: [:])
        try Keyring.prepare(config)
        let tokens = try Self.fill(config)
        let boot = try Boot.make(.api, config, Logger(label: "test"))
        let services = try await APIComponent.services(boot)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for service in services { group.addTask { try await service.run() } }
            try await eventually(within: 10, "the api") { await fetch("http://127.0.0.1:\(base)/health", host: "localhost").status == 200 }
            try await withThrowingTaskGroup(of: Void.self) { checks in
                for (route, row) in Self.table {
                    checks.addTask {
                        for (holder, expected) in zip(Self.holders, row) where expected != 0 {
                            let status = try await Self.ask(route, tokens[holder] ?? nil, base)
                            #expect(status == expected, "\(route) as \(holder)")
                        }
                    }
                }
                try await checks.waitForAll()
            }
            group.cancelAll()
            // Stopped from outside: how each service says so is no matter here.
            while let result = await group.nextResult() { _ = result }
        }
    }

    /// Writes an app and a token of each kind where the api will find them.
    private static func fill(_ config: SuiteConfig) throws -> [String: String?] {
        var world = World()
        try world.event(RepositoryCreated(app: World.shop, defaultBranch: "main"))
        var tokens: [String: String?] = ["none": nil, "wrong": Token.make()]
        func add(_ name: String, _ role: Role, app: AppName? = nil, expires: Timestamp? = nil) {
            let token = Token.make()
            tokens[name] = token
            world.notice(
                .tokenCreated(
                    TokenRow(
                        name: name, hash: Token.hash(token), role: role, app: app, environment: nil, createdAt: world.now,
                        createdBy: "test",
                        expires: expires)))
        }
        add("expired", .admin, expires: Timestamp(milliseconds: 1))
        add("viewer", .viewer)
        add("developer-of-other", .developer, app: try AppName("other"))
        add("developer", .developer)
        add("operator", .operator)
        add("admin", .admin)
        let store = try Store(path: "\(config.home.directory(.api))/state.sqlite", durability: .normal)
        let rows =
            try world.state.apps.values.map { ("apps", $0.name.text, try Coding.encode($0)) }
            + world.state.tokens.values.map { ("tokens", $0.hash, try Coding.encode($0)) }
        try store.db.write { db in for (table, key, body) in rows { try StateRows.save(table, key, body, in: db) } }
        return tokens
    }

    private static func ask(_ route: String, _ token: String?, _ base: Int) async throws -> Int {
        let parts = route.split(separator: " ").map(String.init)
        let path = parts[1].replacing(":app", with: "shop").replacing(":name", with: "nobody")
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(base)\(path)")
        request.method = .init(rawValue: parts[0])
        if let token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if parts[0] == "POST" {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(Data("{}".utf8))
        }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(30))
        for try await _ in response.body {}
        return Int(response.status.code)
    }
}
