import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

/// Row 16 of the failure tests: who is refused, that both sides learn of it, and that nobody else notices.
@Suite("Keys of the bus", .timeLimit(.minutes(2))) struct KeyTests {
    /// A key of the suite, in the file that `BusHome.wire` reads.
    private static func make(
        _ name: String, publish: [String] = ["deploy.*"], subscribe: [String] = ["**"], subject: [String]? = nil, _ home: BusHome
    ) throws {
        let key = try Keyring.create(
            name, publish: publish, subscribe: subscribe, call: ["git.*", "bus.*"], serve: [], subject: subject, home.config)
        try write(key, home)
    }
    private static func write(_ key: ComponentKey, _ home: BusHome) throws {
        try Files.write(try Coding.encode(key), to: "\(home.config.home.keys)/\(key.name).json", mode: 0o600)
    }
    private static func denied(_ home: BusHome) async throws -> [String] {
        let events = try Coding.decode([Envelope].self, from: Data(try await home.http("/v1/events?type=bus.denied&limit=1000").body.utf8))
        return events.compactMap { try? Coding.text($0.data) }
    }

    @Test("a key that is revoked while its program is connected ends its session within two seconds, and opens no other") func revoked()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            try Self.make("script", home)
            try Self.make("other", home)
            let script = "\(Platform.root)/Tests/Conformance/wire.py"
            let (file, neighbour) = ("\(home.config.home.keys)/script.json", "\(home.config.home.keys)/other.json")
            let connected = try Background(["/usr/bin/python3", script, file, "follow", "--since", "1", "--timeout", "60"])
            let bystander = try Background(
                ["/usr/bin/python3", script, neighbour, "follow", "--since", "1", "--until", "deploy.requested", "--timeout", "60"])
            try await eventually("both follow") {
                connected.text.contains("component.joined") && bystander.text.contains("component.joined")
            }
            #expect(try await home.http("/v1/permissions").body.contains(#""name":"script","publish":["deploy.*"]"#))
            try Keyring.revoke("script", home.config)
            try await eventually("the session is over", within: 10) { !connected.isRunning }
            let again = try await home.wire("script", "hello")
            #expect(again.status == 1 && again.errors.contains("refuses this key"), "\(again)")
            try await eventually("the operator is told") { try await Self.denied(home).contains { $0.contains("clients.json") } }
            // The other one has noticed nothing.
            let sent = try await home.wire("other", "publish", "deploy.requested", "shop", "{}")
            #expect(sent.status == 0, "\(sent)")
            try await eventually("the bystander has read it") { !bystander.isRunning }
        }
    }

    @Test("a key that is rotated keeps its rights and its place in the log; the old pair is refused") func rotated() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            try Self.make("script", subject: ["shop/**"], home)
            let before = try Keyring.client("script", home.config)
            let old = try Data(contentsOf: URL(fileURLWithPath: "\(home.config.home.keys)/script.json"))
            let new = try Keyring.rotate("script", home.config)
            let bus = try Keyring.load("bus", home.config)
            #expect(new.publicKey != before.publicKey && new.serverKey == bus.publicKey)
            var after = try Keyring.client("script", home.config)
            after.publicKey = before.publicKey
            #expect(after == before)
            let refused = try await home.wire("script", "hello")
            #expect(refused.status == 1 && refused.errors.contains("refuses this key"), "\(refused)")
            try Self.write(new, home)
            #expect(try await home.wire("script", "hello").status == 0)
            try Files.write(old, to: "\(home.config.home.keys)/script.json", mode: 0o600)
            #expect(try await home.wire("script", "hello").status == 1)
        }
    }

    @Test("a component's key is rotated with its file and token, and the bus's with all that know it") func componentsRotated() async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let before = try Keyring.load("git", home.config)
        let after = try Keyring.rotate("git", home.config)
        #expect(after.publicKey != before.publicKey && after.token == before.token && after.token != nil)
        #expect(try Keyring.load("git", home.config) == after)
        let key = try Keyring.rotateBus(home.config)
        #expect(try Keyring.load("git", home.config).serverKey == key && Keyring.load("bus", home.config).publicKey == key)
        #expect(throws: Problem.self) { try Keyring.revoke("git", home.config) }
        #expect(throws: Problem.self) { try Keyring.rotate("nobody", home.config) }
        for name in ["http", "git", "a b", "x@", "@y", "x@y@z", ""] {
            #expect(throws: Problem.self) { try Keyring.create(name, publish: [], subscribe: [], call: [], serve: [], home.config) }
        }
        try await home.run { home in
            try await home.client(.git) { client in #expect(client.isConnected) }
            try Self.make("backup@host2", home)
            #expect(try await home.wire("backup@host2", "hello").status == 0)
        }
        for name in ["clients", "bus", "git"] {
            let mode = try FileManager.default.attributesOfItem(atPath: "\(home.config.home.keys)/\(name).json")[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
    }

    @Test("what claims to be another's is refused to its publisher and told to the operator, on the wire and over HTTP") func forged()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            try Self.make("script", home)
            try Self.make("shopkeeper", subject: ["shop/**"], home)
            func publish(_ key: String, _ type: String, _ subject: String, source: String? = nil) async throws -> Finished {
                source == nil
                    ? try await home.wire(key, "publish", type, subject, "{}")
                    : try await home.wire(key, "publish", type, subject, "{}", "--source", source ?? "")
            }
            for (key, type, subject, source, allowed) in [
                ("script", "deploy.requested", "shop", nil, true), ("script", "deploy.requested", "shop", "script@laptop", true),
                ("script", "deploy.requested", "shop", "a-program", true), ("script", "deploy.requested", "shop", "scheduler@host1", false),
                ("script", "deploy.requested", "shop", "shopkeeper", false), ("script", "git.push.received", "shop", nil, false),
                ("shopkeeper", "deploy.requested", "shop/production", nil, true),
                ("shopkeeper", "deploy.requested", "blog/production", nil, false),
            ] as [(String, String, String, String?, Bool)] {
                let finished = try await publish(key, type, subject, source: source)
                #expect((finished.status == 0) == allowed, "\(key) \(type) \(subject) \(source ?? "-"): \(finished)")
                if !allowed { #expect(finished.errors.contains("may not publish"), "\(finished)") }
            }
            let http = try await home.http(
                "/v1/events",
                ["-H", "Content-Type: application/json", "-d", #"{"type":"a.b","subject":"x","data":1,"source":"script@laptop"}"#])
            #expect(http.status == 403 && http.body.contains("has a key"), "\(http)")
            for what in ["source scheduler@host1", "source shopkeeper", "subject blog/production", "git.push.received", "POST /v1/events"] {
                try await eventually("'\(what)' is told") { try await Self.denied(home).contains { $0.contains(what) } }
            }
            // Nothing of it is on the log.
            let stored = try await home.http("/v1/events?type=deploy&limit=1000").body
            #expect(!stored.contains("scheduler@host1") && !stored.contains("blog/production"))
        }
    }
}
