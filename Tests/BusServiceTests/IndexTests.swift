import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

/// A log that is opened again and again, with its index, and how much of it was read.
struct IndexedLog {
    var home = TestLog()
    let written = Locked<Int>(0)
    let read = Locked<[String: Int]>([:])

    init(segmentBytes: Int = 64 << 10) {
        home.segmentBytes = segmentBytes
        home.firstSegmentBytes = segmentBytes
    }

    func open(durable: DurableMark? = nil, ids: IDHash = IDHash(), found: @escaping @Sendable (DamagedRange) -> Void = { _ in }) throws -> (
        EventLog, RecoveredLog
    ) {
        var settings = EventLog.Settings(directory: home.directory)
        settings.segmentBytes = home.segmentBytes
        settings.firstSegmentBytes = home.firstSegmentBytes
        settings.found = found
        settings.ids = ids
        settings.disk.tap = { [read] operation in
            if case .read(let path, let offset, let count) = operation, path.hasSuffix(".log"), offset > 0 {
                read.withLock { $0[path, default: 0] += count }
            }
            return nil
        }
        read.withLock { $0 = [:] }
        return try EventLog.open(settings, durable: durable)
    }

    /// As the broker does it.
    static func cover(_ log: EventLog, _ recent: RecentIDs) throws {
        guard let covers = log.covers(at: log.last, all: true, always: true), let first = covers.first else { return }
        try log.write(covers, ids: recent.since(first.before.last + 1))
    }

    /// Appends batches, remembers their ids as the router does, and covers now and then.
    static func fill(_ log: EventLog, _ recent: inout RecentIDs, batches: Int, cover every: Int = 7) throws {
        for number in 1...batches {
            let records = try TestLog.append(log, 10, size: 500, outbox: log.last + 10)
            for record in records {
                recent.insert(IDHash().key("tester", "id-\(record.seq)"), seq: record.seq, time: Clock.wall())
            }
            if number % every == 0 { try cover(log, recent) }
        }
    }
}

@Suite("The index beside the log") struct IndexTests {
    @Test("a start with an index knows what one without knows, and reads next to nothing") func same() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        do {
            var (log, recovered) = try home.open()
            try IndexedLog.fill(log, &recovered.recent, batches: 60)
            try IndexedLog.cover(log, recovered.recent)
        }
        let (plain, full) = try EventLog.open(
            { () -> EventLog.Settings in
                // A copy without the index.
                let bare = TestLog()
                try? FileManager.default.copyItem(atPath: home.home.directory, toPath: bare.directory)
                for name in (try? FileManager.default.contentsOfDirectory(atPath: bare.directory)) ?? [] where !name.hasSuffix(".log") {
                    try? FileManager.default.removeItem(atPath: "\(bare.directory)/\(name)")
                }
                return EventLog.Settings(directory: bare.directory)
            }(), durable: nil)
        defer { try? FileManager.default.removeItem(atPath: plain.settings.directory) }
        let (log, quick) = try home.open()
        #expect(home.read.withLock { $0.values.reduce(0, +) } < 100 << 10)
        #expect(log.last == 600 && plain.last == 600 && log.hash == plain.hash && quick.damage.isEmpty)
        #expect(quick.outboxes == full.outboxes && quick.time == full.time && quick.first == full.first)
        #expect(quick.segments.map(\.index) == full.segments.map(\.index))
        #expect(quick.segments.map(\.end) == full.segments.map(\.end) && quick.segments.map(\.last) == full.segments.map(\.last))
        #expect(quick.recent.count == 600 && full.recent.count == 600)
        for seq in [1, 77, 600] as [UInt64] { #expect(quick.recent.seq(IDHash().key("tester", "id-\(seq)")) == seq) }
        #expect(try TestLog.readAll(log) == Array(1...600))
        try TestLog.append(log, 5)
        #expect(try home.open().0.last == 605)
    }

    @Test("what was appended after the index was written is read, also when the segment has changed since") func behind() throws {
        for after in [1, 30] {
            let home = IndexedLog()
            defer { home.home.remove() }
            do {
                var (log, recovered) = try home.open()
                try IndexedLog.fill(log, &recovered.recent, batches: 20)
                try IndexedLog.cover(log, recovered.recent)
                try IndexedLog.fill(log, &recovered.recent, batches: after, cover: 1000)
            }
            var (log, recovered) = try home.open()
            let last = UInt64(200 + after * 10)
            #expect(log.last == last && recovered.damage.isEmpty && recovered.recent.count == Int(last))
            #expect(try TestLog.readAll(log) == Array(1...last))
            // It goes on with the index where it was.
            try IndexedLog.fill(log, &recovered.recent, batches: 5, cover: 2)
            try IndexedLog.cover(log, recovered.recent)
            let (again, quick) = try home.open()
            #expect(again.last == last + 50 && quick.recent.count == Int(last) + 50 && quick.damage.isEmpty)
            #expect(home.read.withLock { $0.values.reduce(0, +) } < 100 << 10)
        }
    }

    @Test("a bit that flips anywhere in the index or the ids, and a file that is cut or gone, change nothing but the time it takes")
    func spoiled() throws {
        let template = IndexedLog()
        defer { template.home.remove() }
        do {
            var (log, recovered) = try template.open()
            try IndexedLog.fill(log, &recovered.recent, batches: 40)
            try IndexedLog.cover(log, recovered.recent)
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: template.home.directory).filter {
            $0.hasSuffix(".index") || $0.hasSuffix(".ids")
        }.sorted()
        #expect(names.count > 4)
        var random = Seeded(7)
        for name in names {
            for kind in 0..<6 {
                let home = IndexedLog()
                defer { home.home.remove() }
                try FileManager.default.copyItem(atPath: template.home.directory, toPath: home.home.directory)
                let path = "\(home.home.directory)/\(name)"
                var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch kind {
                case 0: bytes.removeAll()
                case 1: bytes = bytes.prefix(at)
                case 2: bytes.replaceSubrange(at..<bytes.count, with: Data(count: bytes.count - at))
                default: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                }
                try bytes.write(to: URL(fileURLWithPath: path))
                let (log, recovered) = try home.open()
                #expect(log.last == 400 && recovered.damage.isEmpty, "\(name), \(kind), \(at): \(recovered.damage)")
                #expect(recovered.recent.count == 400 && recovered.outboxes.values.first == 400, "\(name), \(kind), \(at)")
                #expect(try TestLog.readAll(log) == Array(1...400))
            }
        }
    }

    @Test("ids are hashed under the secret of the bus: with another one they are read from the log again") func secret() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        let (mine, others) = (IDHash(secret: "mine"), IDHash(secret: "another's"))
        #expect(mine.key("ada", "x") == IDHash(secret: "mine").key("ada", "x"))
        #expect(mine.key("ada", "x") != others.key("ada", "x") && mine.mark != others.mark)
        // Neither the end of a name nor its beginning can be moved into the id.
        #expect(mine.key("ada", "x") != mine.key("ad", "ax") && mine.key("ada", "") != mine.key("", "ada"))
        do {
            var (log, recovered) = try home.open(ids: mine)
            for _ in 0..<40 {
                for record in try TestLog.append(log, 10, size: 500) {
                    recovered.recent.insert(mine.key("tester", "id-\(record.seq)"), seq: record.seq, time: Clock.wall())
                }
            }
            try IndexedLog.cover(log, recovered.recent)
        }
        func reopened(_ ids: IDHash) throws -> Int {
            let (log, recovered) = try home.open(ids: ids)
            #expect(log.last == 400 && recovered.damage.isEmpty && recovered.recent.count == 400)
            for seq in 1...400 as ClosedRange<UInt64> { #expect(recovered.recent.seq(ids.key("tester", "id-\(seq)")) == seq) }
            try IndexedLog.cover(log, recovered.recent)
            return home.read.withLock { $0.values.reduce(0, +) }
        }
        #expect(try reopened(mine) < 100 << 10)
        #expect(try reopened(others) > 200 << 10)
        #expect(try reopened(others) < 100 << 10)
    }

    @Test("rot in what the index covers is found by the reader, named once, and named again at the next start") func rot() throws {
        let template = IndexedLog()
        defer { template.home.remove() }
        do {
            var (log, recovered) = try template.open()
            try IndexedLog.fill(log, &recovered.recent, batches: 40)
            try IndexedLog.cover(log, recovered.recent)
        }
        let second = try #require(try template.open().0.pieces.dropFirst().first)
        var random = Seeded(11)
        for _ in 0..<40 {
            let home = IndexedLog()
            defer { home.home.remove() }
            try FileManager.default.copyItem(atPath: template.home.directory, toPath: home.home.directory)
            let path = home.home.file(second.first)
            let size = try template.open().0.shared.withLock { $0.segments[1].end }
            let at = Int.random(in: SegmentHeader.length..<size, using: &random)
            let byte = try Data(contentsOf: URL(fileURLWithPath: path))[at]
            try home.home.overwrite(path, at: at, [byte ^ (1 << UInt8.random(in: 0..<8, using: &random))])
            let named = Locked<[DamagedRange]>([])
            let (log, recovered) = try home.open { damage in named.withLock { $0.append(damage) } }
            #expect(recovered.damage.isEmpty && log.last == 400)
            var seen: Set<UInt64> = []
            var lost: Set<UInt64> = []
            var next: UInt64 = 1
            while next <= log.last {
                do {
                    for record in try log.read(from: next, bytes: 16 << 10) {
                        var reader = Reader(record.bytes)
                        #expect(try Record(from: &reader).seq == next)
                        seen.insert(record.seq)
                        next = record.seq + 1
                    }
                } catch let damage as DamagedRange {
                    #expect(damage.first <= next && damage.last >= next)
                    lost.formUnion(damage.first...damage.last)
                    next = damage.last + 1
                }
            }
            // Neither silently skipped nor served: each number is one or the other, and at most the record that was hit is lost.
            #expect(seen.union(lost) == Set(1...400) && seen.isDisjoint(with: lost) && lost.count <= 1, "byte \(at): \(lost)")
            let told = named.withLock { $0 }
            let names = Set(told.filter { $0.first <= $0.last }.flatMap { Array($0.first...$0.last) })
            #expect(names == lost, "byte \(at)")
            #expect(try !home.check().isClean, "byte \(at)")
            guard !told.isEmpty else { continue }
            let (_, again) = try home.open()
            #expect(!again.damage.isEmpty, "byte \(at)")
        }
    }

    @Test("what is read lies within the log when files are cut short under a running bus") func cut() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        var (log, recovered) = try home.open()
        try IndexedLog.fill(log, &recovered.recent, batches: 40)
        let piece = log.pieces[1]
        truncate(home.home.file(piece.first), 20_000)
        var lost: Set<UInt64> = []
        var seen: Set<UInt64> = []
        var next: UInt64 = 1
        while next <= log.last {
            do {
                for record in try log.read(from: next, bytes: 4096) {
                    seen.insert(record.seq)
                    next = record.seq + 1
                }
            } catch let damage as DamagedRange {
                lost.formUnion(damage.first...damage.last)
                next = damage.last + 1
            }
        }
        #expect(seen.union(lost) == Set(1...400) && seen.isDisjoint(with: lost) && !lost.isEmpty)
        #expect(lost.isSubset(of: Set(piece.first...piece.last)))
    }

    @Test("a look through the log names rot that nobody has come to, once") func scrub() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        let named = Locked<[DamagedRange]>([])
        var (log, recovered) = try home.open { damage in named.withLock { $0.append(damage) } }
        try IndexedLog.fill(log, &recovered.recent, batches: 40)
        var scrub = LogScrub()
        func pass() { for _ in 0..<1000 where scrub.look(log, bytes: 10_000) { return } }
        pass()
        #expect(named.withLock { $0.count } == 0)
        let second = log.pieces[1]
        let byte = try Data(contentsOf: URL(fileURLWithPath: home.home.file(second.first)))[30_000]
        try home.home.overwrite(home.home.file(second.first), at: 30_000, [byte ^ 4])
        pass()
        pass()
        let found = named.withLock { $0 }
        #expect(found.count == 1 && found.allSatisfy { $0.first >= second.first && $0.last <= second.last }, "\(found)")
        #expect(log.shared.withLock { $0.damage.count } == 1)
    }

    @Test("numbers of outboxes outlive the segments that held them, also without the database") func outboxes() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        let box = OutboxKey(producer: "tester", outbox: "box")
        do {
            let (log, _) = try home.open()
            try TestLog.append(log, 3, outbox: 77)
            for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
            try log.trim(before: try #require(log.pieces.last).first)
        }
        let (_, recovered) = try EventLog.open(home.home.settings, durable: nil) { _ in nil }
        #expect(recovered.outboxes == [box: 77] && recovered.damage.isEmpty)
    }

    @Test("a consumer that saw another history than this log's is told, also when the numbers fit") func compare() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        let (log, _) = try home.open()
        var hashes: [UInt64: String] = [:]
        for _ in 0..<50 {
            try TestLog.append(log, 10, size: 500)
            hashes[log.last] = Router.hex(log.hash)
        }
        let settings = Router.Settings(stream: log.stream, epoch: 3, host: "here")
        var router = Router(settings: settings, log: log, last: log.last, hash: log.hash) { EventID.fresh().text }
        router.setRights(["ada": Rights.parse(publish: [], subscribe: ["**"], call: [], serve: []).0], now: 0)
        func say(_ frame: Frame) -> Frame? {
            router.receive(frame.encoded(), from: Data("a".utf8), user: "ada", now: 0)
            return router.takeEffects().lazy.compactMap { effect -> Frame? in
                guard case .send(_, let data) = effect else { return nil }
                return try? Frame(data)
            }.first
        }
        _ = say(Frame(.hello, body: Data(#"{"client":"t"}"#.utf8)))
        func answer(_ seq: UInt64, _ hash: String) -> Frame? {
            say(
                Frame(
                    .subscribe, handle: 7,
                    body: Data(
                        #"{"filters":["**"],"credit_msgs":0,"from":{"stream":"\#(log.stream)","seq":\#(seq),"hash":"\#(hash)"}}"#.utf8)))
        }
        for seq in [10, 250, 500] as [UInt64] {
            #expect(answer(seq + 1, hashes[seq] ?? "")?.known == .subscribed)
            #expect(answer(seq + 1, hashes[seq]?.uppercased() ?? "")?.known == .subscribed)
            let other = answer(seq + 1, hashes[seq == 10 ? 20 : 10] ?? "")
            #expect(other?.known == .lost && other?.status == 409 && other?.a == seq + 1 && other?.handle == 7)
        }
        // In the middle of a batch it is the batch's.
        #expect(answer(246, hashes[250] ?? "")?.known == .subscribed)
        #expect(answer(1, hashes[250] ?? "")?.known == .subscribed)
        let second = log.pieces[1].first
        try log.trim(before: second)
        #expect(answer(second - 5, hashes[10] ?? "")?.status == 410)
    }

    @Test("the hash of a batch is found by the numbers in it, also where batches without events follow") func hashes() throws {
        let home = IndexedLog()
        defer { home.home.remove() }
        var hashes: [UInt64: Set<Data>] = [0: [Data(count: 32)]]
        var batch: [UInt64: (end: UInt64, hash: Data)] = [:]
        for _ in 0..<3 {
            let (log, _) = try home.open()
            let start = Batch(first: log.last + 1, events: [], outboxes: [:], epoch: log.epoch)
            _ = try log.append(start, time: Clock.wall())
            hashes[log.last, default: []].insert(log.hash)
            for _ in 0..<20 {
                let first = log.last + 1
                try TestLog.append(log, 7, size: 900)
                hashes[log.last, default: []].insert(log.hash)
                for seq in first...log.last { batch[seq] = (log.last, log.hash) }
            }
        }
        let (log, _) = try home.open()
        #expect(log.pieces.count > 3)
        for seq in 0...log.last {
            let found = Set(try log.hashes(at: seq))
            if let own = batch[seq], own.end > seq {
                #expect(found == [own.hash], "event \(seq)")
            } else {
                #expect(found == hashes[seq], "event \(seq)")
            }
        }
        let second = log.pieces[1].first
        try log.trim(before: second)
        #expect(try log.hashes(at: second - 1).isEmpty == false)
        #expect(throws: Trimmed.self) { try log.hashes(at: second - 2) }
    }
}

extension IndexedLog {
    /// What fsck says of it.
    func check() throws -> LogReport {
        let bus = home.directory + "-bus"
        try FileManager.default.createDirectory(atPath: bus, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: bus) }
        try FileManager.default.copyItem(atPath: home.directory, toPath: bus + "/log")
        return try LogCheck.run(bus)
    }
}

/// The same numbers each time: SplitMix64 (Steele, Lea, Flood 2014).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
