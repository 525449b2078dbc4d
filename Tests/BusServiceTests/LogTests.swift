import Foundation
import Testing
import Wire

@testable import BusService

/// A log in a directory of its own.
struct TestLog {
    let directory: String
    var durable: DurableMark?
    var segmentBytes = 1 << 20
    var firstSegmentBytes = 256 << 10

    init() { directory = NSTemporaryDirectory() + "slipway-log-\(UUID().uuidString)" }

    var settings: EventLog.Settings {
        var settings = EventLog.Settings(directory: directory)
        settings.segmentBytes = segmentBytes
        settings.firstSegmentBytes = firstSegmentBytes
        return settings
    }

    func open() throws -> (EventLog, RecoveredLog) { try EventLog.open(settings, durable: durable) }

    static func event(_ number: Int, size: Int = 20) -> BatchEvent {
        BatchEvent(topic: "test.event", producer: "tester", id: "id-\(number)", payload: Data(repeating: UInt8(number % 251), count: size))
    }

    /// One batch of events numbered from the log's last on.
    @discardableResult
    static func append(_ log: EventLog, _ count: Int, size: Int = 20, outbox: UInt64? = nil) throws -> EventRun {
        let first = log.last + 1
        let batch = Batch(
            first: first, events: (0..<count).map { event(Int(first) + $0, size: size) },
            outboxes: outbox.map { [OutboxKey(producer: "tester", outbox: "box"): $0] } ?? [:])
        guard case .durable(let run, _, _) = try log.append(batch, time: Clock.wall()) else {
            Issue.record("the disk is full")
            return EventRun(firstSeq: first, bytes: [], places: [])
        }
        return run
    }

    /// Everything from `seq` on that can be read.
    static func readAll(_ log: EventLog, from seq: UInt64 = 1) throws -> [UInt64] {
        var result: [UInt64] = []
        var next = seq
        while next <= log.last {
            for record in try log.read(from: next, bytes: 64 << 10) {
                #expect(record.seq == next)
                next = record.seq + 1
                result.append(record.seq)
            }
        }
        return result
    }

    func file(_ first: UInt64 = 1) -> String { "\(directory)/\(SegmentHeader.fileName(first))" }
    func remove() { Self.remove(directory) }

    /// Also when the thread that makes the spare segment is still at it.
    static func remove(_ directory: String) {
        for _ in 0..<500 where FileManager.default.fileExists(atPath: directory) {
            if (try? FileManager.default.removeItem(atPath: directory)) == nil { usleep(2000) }
        }
    }

    func overwrite(_ path: String, at offset: Int, _ bytes: [UInt8]) throws {
        let file = try DiskFile(path)
        try file.write(Data(bytes), at: offset)
    }
}

@Suite("The log on disk") struct LogTests {
    @Test("batches may end at any place of a block, also over starts") func blocks() throws {
        let home = TestLog()
        defer { home.remove() }
        var opened = try home.open().0
        var ends: Set<Int> = []
        // Records are padded to 8 bytes, so that there are 512 places.
        for (number, size) in stride(from: 20, to: 20 + 4096 + 64, by: 8).enumerated() {
            if number % 100 == 99 { opened = try home.open().0 }
            let run = try TestLog.append(opened, 1 + number % 3, size: size)
            ends.insert((opened.segments.last?.end ?? 0) % DiskFile.block)
            let read = try opened.read(from: run.firstSeq, bytes: 64 << 10)
            #expect(Array(read) == Array(run))
        }
        #expect(ends.contains(0) && ends.count > 200, "\(ends.count)")
        let last = opened.last
        let hash = opened.hash
        let (log, recovered) = try home.open()
        #expect(log.last == last && log.hash == hash && recovered.damage.isEmpty && recovered.cut == nil)
        #expect(try TestLog.readAll(log) == Array(1...last))
        #expect(log.segments.count > 1)
    }

    @Test("what was appended is read back, also after it is opened again, and the epoch counts starts") func roundTrip() throws {
        let home = TestLog()
        defer { home.remove() }
        let stream: String
        let hash: Data
        do {
            let (log, _) = try home.open()
            #expect(log.last == 0 && log.first == 1 && log.epoch == 1)
            for count in [1, 5, 300] { try TestLog.append(log, count) }
            #expect(log.last == 306)
            #expect(try TestLog.readAll(log) == Array(1...306))
            stream = log.stream
            hash = log.hash
        }
        let (log, recovered) = try home.open()
        #expect(log.last == 306 && log.stream == stream && log.hash == hash && log.epoch == 2)
        #expect(recovered.damage.isEmpty && recovered.cut == nil)
        #expect(try TestLog.readAll(log, from: 300) == Array(300...306))
        #expect(recovered.recent.count == 306)
        try TestLog.append(log, 1)
        #expect(try log.read(from: 307, bytes: 1).count == 1)
    }

    @Test("a record is the same on disk and in the answer of a read") func sameBytes() throws {
        let home = TestLog()
        defer { home.remove() }
        let (log, _) = try home.open()
        let live = try TestLog.append(log, 3)
        let read = try log.read(from: 1, bytes: 1 << 20)
        #expect(read.map { Data($0.bytes) } == live.map { Data($0.bytes) })
        var reader = Reader(read[1].bytes)
        let record = try Record(from: &reader)
        #expect(record.seq == 2 && record.id == "id-2" && record.producer == "tester" && reader.remaining == 0)
    }

    @Test("segments follow each other, and the spare is used") func segments() throws {
        var home = TestLog()
        home.segmentBytes = 64 << 10
        home.firstSegmentBytes = 64 << 10
        defer { home.remove() }
        do {
            let (log, _) = try home.open()
            for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
            // One event larger than a segment grows its segment.
            try TestLog.append(log, 1, size: 100 << 10)
            try TestLog.append(log, 2)
            #expect(try TestLog.readAll(log) == Array(1...603))
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: home.directory).filter { $0.hasSuffix(".log") }
        #expect(files.count > 4)
        let (log, recovered) = try home.open()
        #expect(recovered.damage.isEmpty && log.last == 603)
        #expect(log.bytes(after: 603) < 200 << 10 && log.bytes(after: 0) > 400 << 10 && log.bytes(after: 300) < log.bytes(after: 200))
        #expect(try TestLog.readAll(log, from: 250) == Array(250...603))
    }

    @Test("highest outbox numbers are rebuilt exactly") func outboxes() throws {
        let home = TestLog()
        defer { home.remove() }
        do {
            let (log, _) = try home.open()
            for number in [4, 9, 12] as [UInt64] { try TestLog.append(log, 3, outbox: number) }
            try TestLog.append(log, 3)
        }
        let (_, recovered) = try home.open()
        #expect(recovered.outboxes == [OutboxKey(producer: "tester", outbox: "box"): 12])
    }

    @Test("the first event at or after a time is found") func times() throws {
        let home = TestLog()
        defer { home.remove() }
        let (log, _) = try home.open()
        for step in 1...40 as ClosedRange<UInt64> {
            let batch = Batch(first: log.last + 1, events: (0..<50).map { TestLog.event($0, size: 200) }, outboxes: [:])
            _ = try log.append(batch, time: step * 1000)
        }
        #expect(try log.firstSeq(since: 0) == 1)
        #expect(try log.firstSeq(since: 1001) == 51)
        #expect(try log.firstSeq(since: 30_000) == 29 * 50 + 1)
        #expect(try log.firstSeq(since: 40_001) == 2001)
    }
}

@Suite("Recovery of the log") struct RecoveryTests {
    /// Three batches; the offset where the last one begins, and its end.
    private func prepared(_ home: TestLog) throws -> (lastBatch: Int, end: Int) {
        let (log, _) = try home.open()
        try TestLog.append(log, 4)
        try TestLog.append(log, 3)
        let start = log.mark.offset
        try TestLog.append(log, 5)
        return (start, log.mark.offset)
    }

    @Test("a torn last batch is cut wherever it was torn, and nothing before it is lost") func torn() throws {
        let template = TestLog()
        defer { template.remove() }
        let (start, end) = try prepared(template)
        let original = try Data(contentsOf: URL(fileURLWithPath: template.file()))
        for offset in stride(from: start, to: end, by: 8) {
            for kind in 0..<3 {
                let home = TestLog()
                defer { home.remove() }
                try FileManager.default.createDirectory(atPath: home.directory, withIntermediateDirectories: true)
                var bytes = original
                switch kind {
                case 0: bytes.replaceSubrange(offset..<bytes.count, with: Data(count: bytes.count - offset))
                case 1: for at in offset..<min(offset + 8, end) { bytes[at] ^= 0x5A }
                default: bytes = bytes.prefix(offset)
                }
                try bytes.write(to: URL(fileURLWithPath: home.file()))
                let (log, recovered) = try home.open()
                // The very end of the mark may be padding that was never anything else than zero.
                let untouched = bytes.prefix(end) == original.prefix(end)
                #expect(log.last == (untouched ? 12 : 7), "kind \(kind), offset \(offset - start)")
                #expect(recovered.damage.isEmpty, "kind \(kind), offset \(offset - start): \(recovered.damage)")
                let next = log.last + 1
                try TestLog.append(log, 2)
                #expect(try TestLog.readAll(log) == Array(1...next + 1))
                let (again, afterwards) = try home.open()
                #expect(again.last == next + 1 && afterwards.damage.isEmpty && afterwards.cut == nil)
            }
        }
    }

    @Test("damage before the tail is named and never cut, and the rest is served") func damage() throws {
        let template = TestLog()
        defer { template.remove() }
        let (lastBatch, end) = try prepared(template)
        let original = try Data(contentsOf: URL(fileURLWithPath: template.file()))
        for offset in stride(from: SegmentHeader.length, to: lastBatch, by: 8) {
            let home = TestLog()
            defer { home.remove() }
            try FileManager.default.createDirectory(atPath: home.directory, withIntermediateDirectories: true)
            var bytes = original
            bytes[offset + 4] ^= 0x10
            try bytes.write(to: URL(fileURLWithPath: home.file()))
            let (log, recovered) = try home.open()
            #expect(log.last == 12, "offset \(offset)")
            #expect(recovered.cut == nil)
            if bytes[offset + 4] == 0x10, recovered.damage.isEmpty { continue }  // padding
            #expect(!recovered.damage.isEmpty, "offset \(offset)")
            let lost = Set(recovered.damage.filter { $0.first <= $0.last }.flatMap { Array($0.first...$0.last) })
            var readable: [UInt64] = []
            var next: UInt64 = 1
            while next <= log.last {
                do {
                    let records = try log.read(from: next, bytes: 1 << 16)
                    readable.append(contentsOf: records.map(\.seq))
                    next = (readable.last ?? next) + 1
                } catch let damage as DamagedRange {
                    #expect(damage.first <= next && next <= damage.last)
                    next = damage.last + 1
                }
            }
            // The chain names the whole batch when only the hash tells; its events are still readable.
            #expect(Set(readable).union(lost) == Set(1...12), "offset \(offset)")
            #expect(readable.count >= 11, "offset \(offset): \(readable)")
            try TestLog.append(log, 1)
            #expect(try log.read(from: 13, bytes: 1).first?.seq == 13)
            #expect(try Data(contentsOf: URL(fileURLWithPath: home.file()))[offset + 4] == bytes[offset + 4])
        }
        #expect(end > lastBatch)
    }

    @Test("damage in the last batch is told from a torn tail by the flush that is remembered") func remembered() throws {
        var home = TestLog()
        defer { home.remove() }
        let (start, _) = try prepared(home)
        home.durable = try home.open().0.mark
        try home.overwrite(home.file(), at: start + 40, [0xFF, 0xFF])
        let (log, recovered) = try home.open()
        #expect(log.last == 12 && recovered.cut == nil)
        #expect(recovered.damage.contains { $0.first == 8 && $0.last == 8 })
        #expect(throws: DamagedRange.self) { try log.read(from: 8, bytes: 1) }
        #expect(try TestLog.readAll(log, from: 9) == [9, 10, 11, 12])
    }

    @Test("a log that ends before the remembered flush never gives a number twice") func truncated() throws {
        var home = TestLog()
        defer { home.remove() }
        let (start, _) = try prepared(home)
        home.durable = try home.open().0.mark
        truncate(home.file(), off_t(start))
        let (log, recovered) = try home.open()
        #expect(log.last == 12)
        #expect(recovered.damage.contains { $0.first == 8 && $0.last == 12 })
        try TestLog.append(log, 1)
        #expect(try TestLog.readAll(log, from: 13) == [13])
        #expect(throws: DamagedRange.self) { try log.read(from: 9, bytes: 1) }
    }

    @Test("a missing segment is named, and the others are served") func missing() throws {
        var home = TestLog()
        home.segmentBytes = 64 << 10
        home.firstSegmentBytes = 64 << 10
        defer { home.remove() }
        do {
            let (log, _) = try home.open()
            for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: home.directory).filter { $0.hasSuffix(".log") }.sorted()
        let first = UInt64(files[1].dropLast(4)) ?? 0
        let after = UInt64(files[2].dropLast(4)) ?? 0
        try FileManager.default.removeItem(atPath: "\(home.directory)/\(files[1])")
        let (log, recovered) = try home.open()
        #expect(log.last == 600)
        #expect(recovered.damage.map { [$0.first, $0.last] } == [[first, after - 1]])
        #expect(throws: DamagedRange.self) { try log.read(from: first, bytes: 1) }
        #expect(try TestLog.readAll(log, from: after) == Array(after...600))
    }

    @Test("a missing first segment is named, and every number in it answers alike") func missingFirst() throws {
        var home = TestLog()
        home.segmentBytes = 64 << 10
        home.firstSegmentBytes = 64 << 10
        defer { home.remove() }
        do {
            let (log, _) = try home.open()
            for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: home.directory).filter { $0.hasSuffix(".log") }.sorted()
        let after = UInt64(files[1].dropLast(4)) ?? 0
        try FileManager.default.removeItem(atPath: "\(home.directory)/\(files[0])")
        let (log, recovered) = try home.open()
        #expect(log.first == 1 && log.last == 600)
        #expect(recovered.damage.map { [$0.first, $0.last] } == [[1, after - 1]])
        for number in [1, 2, after - 1] {
            let damage = #expect(throws: DamagedRange.self) { try log.read(from: number, bytes: 1) }
            #expect(damage?.first == number && damage?.last == after - 1)
        }
        #expect(try TestLog.readAll(log, from: after) == Array(after...600))
        // What retention removed is not missing.
        var settings = EventLog.Settings(directory: home.directory)
        settings.segmentBytes = home.segmentBytes
        let (kept, fine) = try EventLog.open(settings, durable: nil) { _ in KnownLog(first: after, epoch: 70) }
        #expect(kept.first == after && fine.damage.isEmpty && kept.epoch == 71)
    }

    @Test("a damaged mark does not make the bus forget what it took from an outbox") func damagedMark() throws {
        let home = TestLog()
        defer { home.remove() }
        let box = OutboxKey(producer: "tester", outbox: "box")
        let stream: String
        do {
            let (log, _) = try home.open()
            try TestLog.append(log, 3, outbox: 5)
            let mark = log.mark
            try TestLog.append(log, 3, outbox: 12)
            stream = log.stream
            let store = CursorStore(
                store: try .init(path: home.directory + "/state.sqlite", durability: .normal, migrations: CursorStore.migrations))
            try store.save(Changes(outboxes: [box: 12]), mark: log.mark, stream: log.stream)
            // An attempt that was overtaken by a newer one changes nothing.
            try store.save(Changes(outboxes: [box: 9]), mark: log.mark, stream: log.stream)
            try store.note(first: 1, epoch: log.epoch, stream: log.stream)
            // The second batch's mark is its last record.
            try home.overwrite(home.file(), at: log.mark.offset - 40, [0xFF, 0xFF, 0xFF])
            #expect(mark.offset < log.mark.offset - 40)
            #expect(try store.outboxes(stream: log.stream) == [box: 12] && store.outboxes(stream: "other").isEmpty)
            #expect(try store.known(stream: log.stream) == KnownLog(first: 1, epoch: 1))
        }
        let store = CursorStore(
            store: try .init(path: home.directory + "/state.sqlite", durability: .normal, migrations: CursorStore.migrations))
        var again = home
        again.durable = try store.mark()
        let (log, recovered) = try again.open()
        #expect(log.stream == stream && log.last == 6 && !recovered.damage.isEmpty && recovered.outboxes == [box: 5])
        #expect(recovered.outboxes.merging(try store.outboxes(stream: stream)) { max($0, $1) } == [box: 12])
    }

    @Test("random bytes over any part of the log never trap it") func garbage() throws {
        let template = TestLog()
        defer { template.remove() }
        let (_, end) = try prepared(template)
        let original = try Data(contentsOf: URL(fileURLWithPath: template.file())).prefix(end + 512)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            let home = TestLog()
            defer { home.remove() }
            try FileManager.default.createDirectory(atPath: home.directory, withIntermediateDirectories: true)
            var bytes = original
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let at = Int.random(in: 0..<bytes.count, using: &generator)
                for offset in at..<min(bytes.count, at + Int.random(in: 1...40, using: &generator)) {
                    bytes[offset] = UInt8.random(in: .min ... .max, using: &generator)
                }
            }
            try bytes.write(to: URL(fileURLWithPath: home.file()))
            let (log, _) = try home.open()
            let before = log.last
            try TestLog.append(log, 1)
            #expect(log.last == before + 1)
            #expect(try log.read(from: log.last, bytes: 1).count == 1)
        }
    }
}
