import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

/// What an operator sees and can do, through the bus's HTTP and the command line.
@Suite("Looking after the bus", .timeLimit(.minutes(2))) struct OperationsTests {
    private static func slipway(_ home: BusHome, _ arguments: String...) async throws -> Finished {
        try await TestKit.run(
            ["\(Platform.binaries)/slipway"] + arguments + ["--home", home.config.home.path, "--port-base", "\(home.config.portBase)"],
            within: 30)
    }
    /// The value of a series in Prometheus' text form.
    private static func value(_ metrics: String, _ series: String) -> Double? {
        metrics.split(separator: "\n").first { $0.hasPrefix(series + " ") }.flatMap { Double($0.dropFirst(series.utf8.count + 1)) }
    }

    @Test("status and metrics say what has been stored, refused and denied, and who reads") func numbers() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let key = try Keyring.create(
                "script", publish: ["deploy.*"], subscribe: ["**"], call: ["bus.**", "nobody.*"], serve: [], home.config)
            try Files.write(try Coding.encode(key), to: "\(home.config.home.keys)/script.json", mode: 0o600)
            func scrape() async throws -> String { try await home.http("/metrics").body }
            let before = try #require(Self.value(try await scrape(), "slipway_bus_events_total"))
            for number in 1...3 {
                #expect(try await home.wire("script", "publish", "deploy.requested", "shop", "\(number)").status == 0)
            }
            #expect(try await home.wire("script", "publish", "git.push.received", "shop", "{}").status == 1)
            #expect(try await home.wire("script", "call", "nobody.there", "{}").status == 1)
            let read = try await home.wire("script", "work", "jobs", "--type", "deploy", "--since", "1", "--count", "3")
            #expect(read.status == 0, "\(read)")
            let metrics = try await scrape()
            for (series, least) in [
                ("slipway_bus_events_total", before + 3), ("slipway_bus_event_bytes_total", 300), ("slipway_bus_batches_total", 3),
                ("slipway_bus_refused_total{status=\"403\"}", 1), ("slipway_bus_denied_total", 1), ("slipway_bus_delivered_total", 3),
                ("slipway_bus_calls_total{status=\"503\"}", 1), ("slipway_bus_log_segments", 1), ("slipway_bus_log_bytes", 4096),
                ("slipway_bus_disk_free_bytes", 1), ("process_open_fds", 10), ("process_resident_memory_bytes", 1_000_000),
                ("slipway_bus_epoch", 1), ("slipway_bus_last_event", before + 3),
            ] as [(String, Double)] {
                let found = Self.value(metrics, series) ?? -1
                #expect(found >= least, "\(series) is \(found)")
            }
            #expect(metrics.contains("# TYPE slipway_bus_events_total counter") && metrics.contains("# TYPE slipway_bus_sessions gauge"))
            #expect(try #require(Self.value(metrics, "slipway_bus_flush_seconds_total")) > 0)
            #expect(metrics.contains(#"slipway_bus_lag_events{consumer="jobs",owner="script"}"#))
            let status = try Coding.decode(StatusRoutes.Status.self, from: Data(try await home.http("/v1/status").body.utf8))
            #expect(status.epoch == 1 && status.first == 1 && status.last >= 5 && status.stream.utf8.count == 32)
            #expect(status.log.segments == 1 && status.log.damage.isEmpty && !status.log.full && status.log.diskFree ?? 0 > 0)
            #expect(status.consumers.durable == 1 && status.retention.maxBytes ?? 0 > 0)
        }
    }

    @Test("the command line shows the bus, its consumers, permissions and parked events, and puts these back in line") func commands()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let away = try await Self.slipway(home, "bus", "status")
        #expect(away.status == 75 && away.errors.contains("not running"), "\(away)")
        try await home.run { home in
            let file = home.config.home.path + "/script.json"
            let made = try await Self.slipway(
                home, "key", "create", "script", "--publish", "job.*", "--subscribe", "**", "--subject", "shop/**", "--consumer", "jobs",
                "--out", file)
            #expect(made.status == 0, "\(made)")
            try FileManager.default.copyItem(atPath: file, toPath: "\(home.config.home.keys)/script.json")
            #expect(try await home.wire("script", "publish", "job.new", "shop/a", "{}").status == 0)
            let worked = try await home.wire(
                "script", "work", "jobs", "--type", "job", "--since", "1", "--timeout", "2", "--nak", "100", "--max", "2")
            #expect(worked.output.contains(#""deliveries": 2"#), "\(worked)")

            let status = try await Self.slipway(home, "bus", "status")
            #expect(status.status == 0 && status.output.contains("1: slipway bus parked"), "\(status)")
            let json = try await Self.slipway(home, "bus", "status", "--json")
            #expect(try Coding.decode(JSON.self, from: Data(json.output.utf8))["epoch"]?.int == 1)
            let consumers = try await Self.slipway(home, "bus", "consumers")
            #expect(consumers.output.contains("script  jobs      group"), "\(consumers)")
            let permissions = try await Self.slipway(home, "bus", "permissions", "script")
            #expect(
                permissions.output.contains("about      shop/**") && permissions.output.contains("consumers  jobs"), "\(permissions)")
            #expect(try await Self.slipway(home, "bus", "permissions", "nobody").status == 1)

            let parked = try await Self.slipway(home, "bus", "parked", "--json")
            let event = try #require(try Coding.decode([JSON].self, from: Data(parked.output.utf8)).first?["seq"]?.int)
            #expect(try await Self.slipway(home, "bus", "parked", "retry").status == 2)
            #expect(try await Self.slipway(home, "bus", "parked", "retry", "99999").status == 1)
            let retried = try await Self.slipway(home, "bus", "parked", "retry", "\(event)", "--owner", "script")
            #expect(retried.status == 0 && retried.output.contains("event \(event) goes to jobs again"), "\(retried)")
            #expect(try await Self.slipway(home, "bus", "parked").output.contains("Nothing is parked."))
            let again = try await home.wire("script", "work", "jobs", "--type", "job", "--timeout", "20", "--count", "1")
            #expect(again.status == 0, "\(again)")

            #expect(try await Self.slipway(home, "bus", "forget", "nobody").status == 1)
            let forgotten = try await Self.slipway(home, "bus", "forget", "jobs")
            #expect(forgotten.status == 0 && forgotten.output.contains("consumer jobs of script is forgotten"), "\(forgotten)")
            let left = try await Self.slipway(home, "bus", "consumers")
            #expect(left.status == 0 && !left.output.contains("jobs"), "\(left)")

            let promoted = try await Self.slipway(home, "bus", "promote")
            #expect(promoted.status == 1 && promoted.errors.contains("it is the bus already"), "\(promoted)")

            let shown = try await Self.slipway(home, "key", "show", "script", "--json")
            let secret = try Coding.decode(ComponentKey.self, from: Data(contentsOf: URL(fileURLWithPath: file))).secretKey
            #expect(shown.output.contains("serverKey") && !shown.output.contains(secret) && shown.output.contains("\"seen\""), "\(shown)")
            let revoked = try await Self.slipway(home, "key", "revoke", "script")
            #expect(revoked.status == 0 && revoked.output.contains("key script is revoked"))
            #expect(try await Self.slipway(home, "key", "show", "script").status == 1)
        }
        // What was forgotten stays so.
        try await home.run { home in
            let left = try await Self.slipway(home, "bus", "consumers")
            #expect(left.status == 0 && !left.output.contains("jobs"), "\(left)")
        }
    }

    @Test("a consumer that somebody reads as is not forgotten; one that is and comes again begins anew") func forget() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.say("p", "ada", Frame(.subscribe, handle: 7, body: Data(#"{"consumer":"mine","filters":["test.*"]}"#.utf8)))
        let key = ConsumerKey(owner: "ada", name: "mine")
        #expect(throws: Problem.self) { try bench.router.forget(key) }
        #expect(throws: Problem.self) { try bench.router.forget(ConsumerKey(owner: "bob", name: "mine")) }
        bench.say("p", "ada", Frame(.unsubscribe, handle: 7))
        _ = bench.router.takeChanges()
        try bench.router.forget(key)
        #expect(bench.router.cursors[key] == nil && bench.router.hasChanges)
        // It comes again before that is on disk: what is stored then is the new one.
        bench.say("p", "ada", Frame(.subscribe, handle: 8, body: Data(#"{"consumer":"mine","filters":["test.*"]}"#.utf8)))
        let changes = bench.router.takeChanges()
        #expect(changes.forgotten == [key])
        #expect(bench.router.cursors[key] != nil && bench.router.forgotten.isEmpty)
        bench.router.putBack(changes)
        #expect(bench.router.takeChanges().cursors[key] != nil)
    }
}
