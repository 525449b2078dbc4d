import Contracts
import Foundation
import TestKit
import Testing

@testable import BusService

@Suite("fsck", .serialized, .timeLimit(.minutes(3))) struct FsckTests {
    private func fsck(_ home: BusHome, _ arguments: String...) async throws -> Finished {
        try await TestKit.run(["\(Platform.binaries)/slipway-bus", "fsck", "--home", home.config.home.path] + arguments, within: 60)
    }

    @Test("a whole log is clean, a running bus is left alone, and damage is named, for people and for programs") func report() async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        try await home.run { home in
            try await home.client(.scheduler, outbox: outbox) { client in
                for value in 0..<300 { outbox.add("run.finished", value, bytes: 400) }
                client.outboxChanged()
                try await eventually("acknowledged") { outbox.state.withLock(\.entries.isEmpty) }
            }
        }
        let log = "\(home.config.home.directory(.bus))/log/\(SegmentHeader.fileName(1))"
        let before = try Data(contentsOf: URL(fileURLWithPath: log))
        let clean = try await fsck(home, "--json")
        #expect(clean.status == 0, "\(clean.output)")
        let report = try Coding.decode(LogReport.self, from: Data(clean.output.utf8))
        #expect(report.isClean && report.findings.isEmpty && report.first == 1 && report.last >= 300 && report.files == 1)
        #expect(try await fsck(home).output.hasSuffix("\nclean\n"))
        // One bit in the payload of an event in the middle.
        let at = try #require(before.range(of: Data(#""n":150,"#.utf8))).lowerBound
        try DiskFile(log).write(Data([before[at] ^ 1]), at: at)
        let changed = try Data(contentsOf: URL(fileURLWithPath: log))
        let damaged = try await fsck(home, "--json")
        #expect(damaged.status == 1)
        let findings = try Coding.decode(LogReport.self, from: Data(damaged.output.utf8))
        #expect(findings.lost == 1 && findings.findings.contains { $0.isDamage && $0.first == $0.last && $0.first ?? 0 > 100 })
        let text = try await fsck(home)
        #expect(text.status == 1 && text.output.contains("DAMAGE") && text.output.contains(", event "))
        #expect(try Data(contentsOf: URL(fileURLWithPath: log)) == changed)
        try DiskFile(log).write(Data([before[at]]), at: at)
        try await home.run { home in
            let refused = try await fsck(home)
            #expect(refused.status == 0 || refused.status == 2)
        }
    }

    @Test("wrong usage and a home that is none end with 2") func usage() async throws {
        let home = try BusHome()
        defer { home.remove() }
        #expect(try await fsck(home, "--colour").status == 2)
        let none = try await TestKit.run(["\(Platform.binaries)/slipway-bus", "fsck", "--home", "/nonexistent/slipway"], within: 60)
        #expect(none.status == 2 && none.errors.contains("there is no bus in"))
        let process = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        let running = try await fsck(home)
        #expect(running.status == 2 && running.errors.contains("the bus works in"), "\(running)")
        #expect(try await process.end(SIGTERM) == 0)
        #expect(try await fsck(home).status == 0)
    }

    @Test("a cursor beyond the log, one that rotted and a parked event that is gone are named") func bookkeeping() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        let bus = home.home.directory + "-books"
        defer { try? FileManager.default.removeItem(atPath: bus) }
        try FileManager.default.createDirectory(atPath: bus, withIntermediateDirectories: true)
        let stream: String
        do {
            let (log, _) = try home.open()
            try TestLog.append(log, 10)
            stream = log.stream
            try FileManager.default.copyItem(atPath: home.home.directory, toPath: bus + "/log")
            let store = CursorStore(
                store: try .init(path: bus + "/state.sqlite", durability: .normal, migrations: CursorStore.migrations))
            try store.note(first: 1, epoch: 1, stream: stream)
            var changes = Changes()
            changes.cursors[ConsumerKey(owner: "ada", name: "fine")] = Cursor(seq: 10, generation: 1)
            changes.cursors[ConsumerKey(owner: "ada", name: "ahead")] = Cursor(seq: 11, generation: 1)
            changes.cursors[ConsumerKey(owner: "ada", name: "rotten")] = Cursor(seq: 5, generation: 1)
            changes.queues[ConsumerKey(owner: "ada", name: "team")] = WorkQueue(next: 9, unsettled: [3: 1, 8: 2])
            changes.parked[ConsumerKey(owner: "ada", name: "team")] = [99: Parked(seq: 99, deliveries: 8, reason: "r", at: 0)]
            try store.save(changes, mark: log.mark, stream: stream)
            #expect(try store.consumers(stream: stream).spoiled.isEmpty)
            try store.store.db.writeWithoutTransaction { db in
                try db.execute(sql: "UPDATE cursors SET seq = seq + 4 WHERE consumer = 'rotten'")
            }
            let records = try store.consumers(stream: stream)
            #expect(records.spoiled == ["the cursor of consumer 'rotten' of 'ada' fails its CRC"])
            #expect(records.cursors.count == 2 && records.queues.count == 1)
        }
        let report = try LogCheck.run(bus)
        let damage = report.findings.filter(\.isDamage).map(\.message)
        #expect(damage.count == 3 && !report.isClean, "\(damage)")
        #expect(damage.contains { $0.contains("'ahead'") } && damage.contains { $0.contains("'rotten'") })
        #expect(damage.contains { $0.contains("event 99 is parked") })
        #expect(report.consumers == 2 && report.parked == 1)
    }
}
