import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("Room on the disk") struct SpaceTests {
    @Test("events are refused below a twentieth of the disk or 1 GiB, and taken again when there is a quarter more") func reserve() {
        #expect(SpaceWatch.reserve(total: 1000 << 30) == 1 << 30 && SpaceWatch.reserve(total: 10 << 30) == 512 << 20)
        var watch = SpaceWatch()
        let total = 100 << 20
        let sequence: [(Int, Bool, Bool)] = [
            (50 << 20, false, false), (5 << 20, false, false), ((5 << 20) - 1, true, true), (6 << 20, false, true),
            ((6 << 20) + (1 << 18), true, false), (0, true, true),
        ]
        for (free, changes, full) in sequence {
            #expect(watch.look(free: free, total: total) == changes && watch.isFull == full)
        }
    }

    @Test("a publisher is told 507, then 425, resumes in order, and a duplicate is a duplicate all the same") func refusals() {
        var bench = Bench()
        bench.hello("a", "ada")
        bench.publish("a", "ada", from: 1, ["one"])
        bench.flush()
        _ = bench.heard("a")
        bench.router.look(free: 1, total: 100 << 30)
        bench.publish("a", "ada", from: 2, ["one", "two", "three"])
        bench.flush()
        #expect(Bench.exceptions(bench.heard("a").first { $0.known == .publishAck }) == [2: 208, 3: 507, 4: 425])
        bench.router.look(free: 50 << 30, total: 100 << 30)
        bench.publish("a", "ada", from: 3, ["two", "three"], flags: Router.resume)
        bench.flush()
        #expect(Bench.exceptions(bench.heard("a").first { $0.known == .publishAck }) == [:])
        #expect(bench.router.last >= 3)
    }
}

@Suite("A full disk", .serialized, .timeLimit(.minutes(3)), .enabled(if: geteuid() == 0, "a small disk is mounted, which only root may"))
struct FullDiskTests {
    @Test("on a full disk events are refused and read; the bus starts there too; publishers go on in order when there is room") func full()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let bus = home.config.home.directory(.bus)
        try FileManager.default.createDirectory(atPath: bus, withIntermediateDirectories: true)
        // The disk outlives the bus: its mount namespace is held by a process that sleeps.
        let holder = Process()
        holder.executableURL = URL(fileURLWithPath: "/usr/bin/unshare")
        holder.arguments = ["-m", "/bin/sh", "-c", "mount -t tmpfs -o size=48m,mode=700 tmpfs \"$0\" && exec sleep 600", bus]
        try holder.run()
        defer { kill(holder.processIdentifier, SIGKILL) }
        let within = ["/usr/bin/nsenter", "-t", "\(holder.processIdentifier)", "-m", "--"]
        try await eventually("the small disk is mounted") {
            try await TestKit.run(within + ["/bin/sh", "-c", "grep -q ' '\"$0\"' ' /proc/mounts", bus], within: 10).status == 0
        }
        func start() async throws -> BusProcess {
            let process = try BusProcess(home.config, prefix: within)
            try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
            return process
        }
        func publish() async throws -> Int {
            try await home.http(
                "/v1/events", ["-H", "Content-Type: application/json", "-d", #"{"type":"test.one","subject":"x","data":{}}"#]
            ).status
        }
        var process = try await start()
        #expect(try await publish() == 202)
        let outbox = MemoryOutbox()
        for value in 0..<50 { outbox.add("run.finished", value) }
        let filled = try await TestKit.run(
            within + [
                "/bin/sh", "-c",
                "dd if=/dev/zero of=\"$0/fill\" bs=64k 2>/dev/null; rm -f \"$0/log/reserve\"; dd if=/dev/zero of=\"$0/fill2\" bs=4k 2>/dev/null; df \"$0\" | tail -1",
                bus,
            ], within: 30)
        #expect(filled.output.contains("100%"), "\(filled.output)")
        try await eventually("events are refused") { try await publish() == 507 }
        let read = try await home.http("/v1/events?type=test")
        #expect(read.status == 200 && read.body.contains("test.one"))
        try await home.client(.scheduler, outbox: outbox) { client in
            client.outboxChanged()
            // Consumers are served from it all the while.
            let subscription = try await client.subscribe(SubscriptionRequest(consumer: "core", filters: ["**"], from: .first))
            for try await delivery in subscription where !delivery.events.isEmpty {
                subscription.ack(delivery.last)
                break
            }
            #expect(outbox.state.withLock(\.entries.count) == 50)
            _ = try await TestKit.run(within + ["/bin/sh", "-c", "rm -f \"$0/fill\" \"$0/fill2\"", bus], within: 10)
            try await eventually("the publisher goes on", within: 40) { outbox.state.withLock(\.entries.isEmpty) }
        }
        let stored = try await home.http("/v1/events?type=run&limit=1000")
        let events = try Coding.decode([Envelope].self, from: Data(stored.body.utf8))
        #expect(events.compactMap { $0.data["n"]?.int } == (0..<50).map { Int64($0) })
        // Killed, and started while the disk is full again.
        _ = try await TestKit.run(within + ["/bin/sh", "-c", "dd if=/dev/zero of=\"$0/fill\" bs=64k 2>/dev/null", bus], within: 30)
        #expect(try await process.end(SIGKILL) != 0)
        process = try await start()
        #expect(try await publish() == 507)
        #expect(try await home.http("/v1/events?type=run&limit=1000").body == stored.body)
        _ = try await TestKit.run(within + ["/bin/sh", "-c", "rm -f \"$0/fill\"", bus], within: 10)
        try await eventually("events are taken again") { try await publish() == 202 }
        #expect(try await process.end(SIGTERM) == 0)
    }
}
