import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import DiscoveryService

@Suite(
    "ingress with a real HAProxy", .serialized, .enabled("haproxy is not installed") { HAProxyProgram.path() != nil },
    .timeLimit(.minutes(3)))
struct IngressTests {
    private func curl(_ yard: Yard, _ host: String, _ path: String = "/", _ more: [String] = []) async throws -> Finished {
        try await run(
            ["curl", "-s", "-m", "5", "-w", " %{http_code}", "-H", "Host: \(host)"] + more + ["http://127.0.0.1:\(yard.port)\(path)"])
    }

    @Test("no request is lost in 20 switches under load, each old server killed the moment it is drained") func switches() async throws {
        try await Yard.open { yard in
            let base = try Yard.ports(21)
            var server = try await yard.server("v0", port: base)
            try await yard.take(Sample.route([(try Sample.id(1), base)]))
            let load = try Background(["python3", "-c", Scripts.load, "\(yard.port)", "shop.localhost", "16"])
            var times: [Double] = []
            for turn in 1...20 {
                let next = try await yard.server("v\(turn)", port: base + turn)
                times.append(try await yard.take(Sample.route([(try Sample.id(turn + 1), base + turn)])))
                server.send(signal: SIGKILL)
                server = next
                #expect(try await curl(yard, "shop.localhost").output == "v\(turn) 200")
            }
            let result = try await load.finish(within: 60)
            let words = result.output.split(separator: "\n").first?.split(separator: " ") ?? []
            #expect(words.count == 2 && words.last == "0", "\(result)")
            #expect((words.first.flatMap { Int($0) } ?? 0) > 200, "\(result)")
            print("switch: median \(times.sorted()[10] * 1000) ms, worst \((times.max() ?? 0) * 1000) ms; load: \(words)")
            let places = await yard.desk.state.routes["shop/production/web"]?.slots.count
            #expect(places == 1)
        }
    }

    @Test("a HAProxy that was killed and started again serves the same; one that was told otherwise is brought back") func restart()
        async throws
    {
        try await Yard.open { yard in
            let base = try Yard.ports(21)
            try await yard.server("here", port: base)
            try await yard.take(Sample.route([(try Sample.id(1), base)], hosts: ["shop.localhost", "shop.example.org"]))
            try await yard.killHAProxy()
            try await yard.startHAProxy()
            for host in ["shop.localhost", "SHOP.example.org:8080", "shop.localhost."] {
                #expect(try await curl(yard, host).output == "here 200")
            }
            // Killed again while the file on disk is behind by one change: the watch mends it.
            try await yard.killHAProxy()
            let file = "\(yard.directory)/hosts.map"
            try "stranger.localhost pool0\n".write(toFile: file, atomically: true, encoding: .utf8)
            try await yard.startHAProxy()
            #expect(try await curl(yard, "shop.localhost").output.hasSuffix("404"))
            await yard.watch()
            #expect(try await curl(yard, "shop.localhost").output == "here 200")
            #expect(try await curl(yard, "stranger.localhost").output == "no app answers to this host name: slipway app list\n 404")
        }
    }

    @Test("more routes than the pool holds: it grows by a reload without a lost request") func growth() async throws {
        try await Yard.open { yard in
            let base = try Yard.ports(21)
            try await yard.server("here", port: base)
            try await yard.take(Sample.route([(try Sample.id(1), base)]))
            let load = try Background(["python3", "-c", Scripts.load, "\(yard.port)", "shop.localhost", "6"])
            for number in 1...40 {
                try await yard.take(
                    Sample.route([(try Sample.id(1, app: "app\(number)"), base)], hosts: ["app\(number).localhost"], app: "app\(number)"))
            }
            #expect(try await curl(yard, "app40.localhost").output == "here 200")
            #expect(try yard.ask("show servers state").contains(" pool63 "))
            // And one route with more servers than there are places.
            try await yard.take(Sample.route(try (1...20).map { (try Sample.id($0), base) }))
            #expect(try await curl(yard, "shop.localhost").output == "here 200")
            let result = try await load.finish(within: 40)
            #expect(result.output.split(separator: "\n").first?.hasSuffix(" 0") == true, "\(result)")
        }
    }

    @Test("a dead server is out at once, the last sick one stays, and both are back when ready") func health() async throws {
        try await Yard.open { yard in
            let base = try Yard.ports(21)
            try await yard.server("one", port: base)
            try await yard.server("two", port: base + 1)
            let first = try Sample.id(1)
            let second = try Sample.id(2)
            try await yard.take(Sample.ready(first, port: base))
            try await yard.take(Sample.ready(second, port: base + 1))
            try await yard.take(Sample.route([(first, base), (second, base + 1)]))
            func seen() async throws -> Set<String> {
                var seen: Set<String> = []
                for _ in 0..<6 { seen.insert(try await curl(yard, "shop.localhost").output) }
                return seen
            }
            #expect(try await seen() == ["one 200", "two 200"])
            try await yard.take(Sample.unready(first))
            #expect(try await seen() == ["two 200"])
            try await yard.take(Sample.unready(second))
            #expect(try await seen() == ["one 200", "two 200"])
            try await yard.take(Sample.exited(first))
            #expect(try await seen() == ["two 200"])
            try await yard.take(Sample.exited(second))
            #expect(try await seen() == ["No instance of this app is ready: slipway ps APP\n 503"])
            try await yard.take(Sample.ready(first, port: base))
            #expect(try await seen() == ["one 200"])
        }
    }

    @Test("what a client says about its origin never reaches an instance; odd requests get one clear line") func edges() async throws {
        try await Yard.open { yard in
            let base = try Yard.ports(21)
            try await yard.server("here", port: base)
            try await yard.take(Sample.route([(try Sample.id(1), base)]))
            let lies = [
                "X-Forwarded-For: 6.6.6.6", "x_forwarded_for: 6.6.6.6", "X.Forwarded.For: 6.6.6.6", "X-Forwarded-Proto: 6.6.6.6",
                "X-Real-IP: 6.6.6.6",
                "X.Real.Ip: 6.6.6.6", "X_Real_Ip: 6.6.6.6", "Forwarded: for=6.6.6.6", "Proxy: 6.6.6.6", "X-Forwarded-Whatever: 6.6.6.6",
                "Connection: X-Forwarded-For, x-real-ip",
            ]
            let headers = try await curl(yard, "shop.localhost", "/headers", lies.flatMap { ["-H", $0] }).output.lowercased()
            #expect(!headers.contains("6.6.6.6") && !headers.contains("connection: x-"))
            for line in ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: shop.localhost"] {
                #expect(headers.contains(line))
            }
            #expect(try await curl(yard, "nobody.localhost").output == "no app answers to this host name: slipway app list\n 404")
            for (target, method, code) in [
                ("/", "TRACE", "405"), ("shop.localhost:80", "CONNECT", "405"), ("*", "OPTIONS", "400"),
                ("http://other.localhost/", "GET", "400"),
            ] {
                let answer = try await curl(yard, "shop.localhost", "/", ["-X", method, "--request-target", target])
                #expect(answer.output.hasSuffix(code), "\(method) \(target): \(answer)")
            }
            #expect(try await curl(yard, "shop.localhost", "/", ["--http2-prior-knowledge"]).output.contains("here") == false)
        }
    }

    @Test("the configuration is one that HAProxy itself accepts, also with IPv6 and an account") func accepted() async throws {
        for (listen, account) in [("127.0.0.1", nil), ("::1", nil), ("0.0.0.0", HAProxyProgram.account)] as [(String, String?)] {
            let directory = "/tmp/slipway cfg \(UUID().uuidString.prefix(8))"
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            let config = HAProxyConfig(listen: listen, port: 7780, socket: "\(directory)/haproxy.sock", account: account)
            let table = IngressTable(
                version: 1, hosts: ["a.b": 0],
                backends: [0: .init(route: "r", servers: [0: .init(address: "fd00::1", port: 80, mode: .ready, leaving: nil)])])
            try DurableFile.write(try config.text(table, pool: .init(for: table)), to: "\(directory)/haproxy.cfg", mode: 0o600)
            try DurableFile.write(HAProxyConfig.map(table.hosts), to: "\(directory)/hosts.map", mode: 0o600)
            let result = try await run([HAProxyProgram.path() ?? "haproxy", "-c", "-f", "\(directory)/haproxy.cfg"])
            #expect(result.status == 0 && !result.description.contains("WARNING"), "\(result)")
            try? FileManager.default.removeItem(atPath: directory)
        }
    }
}
