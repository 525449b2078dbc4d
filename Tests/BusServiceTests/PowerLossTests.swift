import Foundation
import Testing
import Wire

@testable import BusService

/// A disk that remembers what was flushed and what was not, and can show every state in which a power cut might leave it.
///
/// Flushed bytes are there. Of what was written after the last flush of a file each sector may be there or not; names are
/// changed in order, and any number of the latest changes may be missing until the directory is flushed.
final class RecordedDisk: Sendable {
    final class Inode: @unchecked Sendable {
        // Touched with the lock of `state` held, and by one test alone.
        var flushed = Data()
        var pending: [(offset: Int, bytes: Data)] = []
        var now: Data {
            var data = flushed
            for write in pending { Self.put(write.bytes, at: write.offset, in: &data) }
            return data
        }
        static func put(_ bytes: Data, at offset: Int, in data: inout Data) {
            if data.count < offset + bytes.count { data.append(Data(count: offset + bytes.count - data.count)) }
            data.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
    }
    struct State: @unchecked Sendable {
        var durable: [String: Inode] = [:]
        /// Changes of names since the directory was flushed; nil: gone.
        var changes: [[(name: String, inode: Inode?)]] = []
        var names: [String: Inode] = [:]
        var steps = 0
        /// Called after each step.
        var watch: ((RecordedDisk.State) -> Void)?

        mutating func change(_ list: [(name: String, inode: Inode?)]) {
            changes.append(list)
            for (name, inode) in list { names[name] = inode }
        }

        /// One of the states that a power cut may leave, as files.
        func cut(_ random: inout Seeded, sector: Int, keep: Double) -> [String: Data] {
            var entries = durable
            for change in changes.prefix(keep >= 1 ? changes.count : Int.random(in: 0...changes.count, using: &random)) {
                for (name, inode) in change { entries[name] = inode }
            }
            return entries.mapValues { Self.cut($0, &random, sector, keep) }
        }

        private static func cut(_ inode: Inode, _ random: inout Seeded, _ sector: Int, _ keep: Double) -> Data {
            var data = inode.flushed
            let end = inode.pending.map { $0.offset + $0.bytes.count }.max() ?? 0
            // The size is part of what was not flushed.
            if end > data.count, keep > 0, keep >= 1 || Bool.random(using: &random) { data.append(Data(count: end - data.count)) }
            for write in inode.pending {
                let last = write.offset + write.bytes.count
                for start in stride(from: write.offset - write.offset % sector, to: last, by: sector) {
                    guard Double.random(in: 0..<1, using: &random) < keep else { continue }
                    let (from, to) = (max(start, write.offset), min(start + sector, last))
                    guard to <= data.count else { continue }
                    data.replaceSubrange(from..<to, with: write.bytes.dropFirst(from - write.offset).prefix(to - from))
                }
            }
            return data
        }
    }
    let state = Locked(State())

    /// To be told of each step by the log's disk.
    func note(_ operation: Disk.Operation) {
        func name(_ path: String) -> String { (path as NSString).lastPathComponent }
        state.withLock { state in
            switch operation {
            case .read: return
            case .create(let path): state.change([(name(path), Inode())])
            case .write(let path, let offset, let bytes): state.names[name(path)]?.pending.append((offset, bytes))
            case .flush(let path):
                guard let inode = state.names[name(path)] else { break }
                inode.flushed = inode.now
                inode.pending = []
            case .rename(let old, let new): state.change([(name(new), state.names[name(old)]), (name(old), nil)])
            case .remove(let path): state.change([(name(path), nil)])
            case .flushDirectory:
                state.durable = state.names
                state.changes = []
            }
            state.steps += 1
            state.watch?(state)
        }
    }
}

/// The life of a small log: batches, changes of segment, an index, trimming.
struct SmallLife {
    static let segment = 8 << 10
    let directory = NSTemporaryDirectory() + "slipway-life-\(UUID().uuidString)"
    /// Number of the last acknowledged event, and of the first that must be there.
    let acked = Locked<(last: UInt64, first: UInt64)>((0, 1))
    let full = Locked<Int>(0)

    func settings(_ tap: (@Sendable (Disk.Operation) throws -> Int?)?) -> EventLog.Settings {
        var settings = EventLog.Settings(directory: directory)
        settings.segmentBytes = Self.segment
        settings.firstSegmentBytes = Self.segment
        settings.disk.tap = tap
        return settings
    }

    static func event(_ seq: UInt64) -> BatchEvent {
        BatchEvent(
            topic: "test.event", producer: "tester", id: "id-\(seq)", payload: Data(repeating: UInt8(seq % 251), count: Int(seq % 7) * 90))
    }

    /// Runs until it is over or a step fails; what failed.
    func run(_ tap: @escaping @Sendable (Disk.Operation) throws -> Int?) -> (any Error)? {
        var current: EventLog?
        defer { if let current { try? Self.settle(current) } }
        do {
            for _ in 0..<2 {
                if let current { try Self.settle(current) }
                let (log, recovered) = try EventLog.open(settings(tap), durable: nil) { _ in acked.withLock { KnownLog(first: $0.first) } }
                current = log
                var recent = recovered.recent
                try append(log, Batch(first: log.last + 1, events: [], outboxes: [:], epoch: log.epoch), &recent)
                for round in 1...12 {
                    let events = (1...UInt64(round % 5 + 1)).map { Self.event(log.last + $0) }
                    try append(log, Batch(first: log.last + 1, events: events, outboxes: [:]), &recent)
                    if round % 4 == 0, let covers = log.covers(at: log.last, all: true, always: true), let first = covers.first {
                        // As in the bus: it may fail, and nothing comes of it.
                        try? log.write(covers, ids: recent.since(first.before.last + 1))
                    }
                    if round == 11, log.pieces.count > 2 {
                        let first = log.pieces[1].first
                        acked.withLock { $0.first = first }
                        try log.trim(before: first)
                    }
                }
            }
            return nil
        } catch {
            return error
        }
    }

    /// The thread that makes the spare segment would end with its process; here it must, before another opens the same files.
    static func settle(_ log: EventLog) throws {
        let deadline = Clock.monotonic() + 20_000
        while log.shared.withLock({ $0.preparing }) {
            guard Clock.monotonic() < deadline else { throw Failure("the spare segment is not made within 20 s") }
            usleep(200)
        }
    }

    private func append(_ log: EventLog, _ batch: Batch, _ recent: inout RecentIDs) throws {
        let last = batch.last
        for _ in 0..<3 {
            switch try log.append(batch, time: Clock.wall()) {
            case .durable(let run, let time, _):
                acked.withLock { $0.last = last }
                for record in run { recent.insert(IDHash().key("tester", "id-\(record.seq)"), seq: record.seq, time: time) }
                return
            case .full: full.withLock { $0 += 1 }
            }
        }
        throw Failure("no room three times")
    }

    /// Opens what is in that directory: everything acknowledged is there, once, and the log goes on after it.
    static func check(_ directory: String, acked: UInt64, first: UInt64, _ what: String) throws {
        var settings = EventLog.Settings(directory: directory)
        settings.segmentBytes = segment
        settings.firstSegmentBytes = segment
        var before: UInt64 = 0
        for round in 0..<2 {
            let (log, recovered) = try EventLog.open(settings, durable: nil) { _ in KnownLog(first: first) }
            #expect(recovered.damage.isEmpty, "\(what): \(recovered.damage)")
            #expect(log.last >= acked && log.first <= first, "\(what): \(log.first) to \(log.last), acknowledged up to \(acked)")
            #expect(round == 0 || log.last == before, "\(what)")
            var next = max(first, log.first)
            while next <= log.last {
                for record in try log.read(from: next, bytes: 64 << 10) {
                    var reader = Reader(record.bytes)
                    let read = try Record(from: &reader)
                    #expect(read.seq == next && read.id == "id-\(next)" && read.payload == event(next).payload, "\(what): event \(next)")
                    next += 1
                }
            }
            _ = try log.append(Batch(first: log.last + 1, events: [event(log.last + 1)], outboxes: [:]), time: Clock.wall())
            before = log.last
            try settle(log)
        }
    }

    func remove() { TestLog.remove(directory) }
}

/// Set to something, the same tests run longer: `SLIPWAY_LONG=20` means twenty times as many states.
let long = ProcessInfo.processInfo.environment["SLIPWAY_LONG"].flatMap { Int($0) } ?? 1

@Suite("Power loss", .serialized) struct PowerLossTests {
    @Test("after a power cut at any moment every acknowledged event is there, and no number is given twice") func power() throws {
        let life = SmallLife()
        defer { life.remove() }
        let disk = RecordedDisk()
        let random = Locked(Seeded(UInt64(long) * 3))
        let states = Locked<[(what: String, files: [String: Data], last: UInt64, first: UInt64)]>([])
        disk.state.withLock { state in
            state.watch = { state in
                let (last, first) = life.acked.withLock { $0 }
                for variant in 0..<2 * long {
                    // Nothing of what was not flushed, all of it, or some.
                    let (sector, keep): (Int, Double) =
                        switch (state.steps + variant) % 6 {
                        case 0: (4096, 0)
                        case 1: (512, 1)
                        case 2, 4: (512, 0.5)
                        default: (4096, 0.5)
                        }
                    let files = random.withLock { state.cut(&$0, sector: sector, keep: keep) }
                    states.withLock { $0.append(("step \(state.steps), variant \(variant)", files, last, first)) }
                }
            }
        }
        #expect(
            life.run { operation in
                disk.note(operation)
                return nil
            } == nil)
        let all = states.withLock { $0 }
        #expect(all.count > 200)
        for (what, files, last, first) in all {
            let directory = NSTemporaryDirectory() + "slipway-power-\(UUID().uuidString)"
            defer { TestLog.remove(directory) }
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            for (name, data) in files where !name.hasPrefix("spare") && name != "next.tmp" || data.count <= SmallLife.segment {
                try data.write(to: URL(fileURLWithPath: "\(directory)/\(name)"))
            }
            try SmallLife.check(directory, acked: last, first: first, what)
        }
    }
}

@Suite("A disk that fails", .serialized) struct DiskFaultTests {
    enum Fault: String, CaseIterable { case io, full, short }

    @Test(
        "an error at any single step is no acknowledgement, is never tried again and believed, and the next start has everything",
        arguments: Fault.allCases)
    func faults(_ fault: Fault) throws {
        // How many steps there are, when nothing fails.
        let steps = Locked(0)
        do {
            let life = SmallLife()
            defer { life.remove() }
            #expect(
                life.run { operation in
                    if case .read = operation { return nil }
                    steps.withLock { $0 += 1 }
                    return nil
                } == nil)
        }
        let count = steps.withLock { $0 }
        #expect(count > 80)
        for target in stride(from: 0, to: count, by: long > 1 ? 1 : 5) {
            let life = SmallLife()
            defer { life.remove() }
            let disk = RecordedDisk()
            let at = Locked(0)
            let dropped = Locked<[String: Data]?>(nil)
            let failed = life.run { operation in
                if case .read = operation { return nil }
                let number = at.withLock { number in
                    defer { number += 1 }
                    return number
                }
                guard number == target || (fault == .short && number == target + 1) else {
                    disk.note(operation)
                    return nil
                }
                switch (fault, operation) {
                case (.short, .write(let path, let offset, let bytes)) where number == target && bytes.count > 8:
                    disk.note(.write(path, offset: offset, bytes.prefix(bytes.count / 2)))
                    return bytes.count / 2
                case (.io, .flush):
                    // The kernel may drop what it could not write, and call it clean.
                    dropped.withLock { dropped in
                        var random = Seeded(1)
                        dropped = disk.state.withLock { $0.cut(&random, sector: 512, keep: 0) }
                    }
                    throw DiskError("fail", EIO)
                default: throw DiskError("fail", fault == .io ? EIO : ENOSPC)
                }
            }
            let (last, first) = life.acked.withLock { $0 }
            let what = "\(fault.rawValue) at step \(target), \(failed.map { "\($0)" } ?? "went on")"
            try SmallLife.check(life.directory, acked: last, first: first, what)
            if let files = dropped.withLock({ $0 }), failed != nil {
                let directory = NSTemporaryDirectory() + "slipway-dropped-\(UUID().uuidString)"
                defer { TestLog.remove(directory) }
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
                for (name, data) in files { try data.write(to: URL(fileURLWithPath: "\(directory)/\(name)")) }
                try SmallLife.check(directory, acked: last, first: first, what + ", dropped")
            }
        }
    }

    @Test("blocks that cannot be read cost what was in them, and a log whose end cannot be read is not guessed at") func unreadable() throws
    {
        let home = IndexedLog()
        defer { home.home.remove() }
        let pieces: [LogPiece]
        do {
            var (log, recovered) = try home.open()
            try IndexedLog.fill(log, &recovered.recent, batches: 40)
            pieces = log.pieces
        }
        func open(_ piece: LogPiece, _ bad: Range<Int>) throws -> (EventLog, RecoveredLog) {
            var settings = EventLog.Settings(directory: home.home.directory)
            settings.segmentBytes = home.home.segmentBytes
            settings.disk.tap = { operation in
                guard case .read(let path, let offset, let count) = operation, path.hasSuffix(SegmentHeader.fileName(piece.first)),
                    bad.overlaps(offset..<offset + count)
                else { return nil }
                throw DiskError("read", EIO)
            }
            return try EventLog.open(settings, durable: nil)
        }
        for name in try FileManager.default.contentsOfDirectory(atPath: home.home.directory) where !name.hasSuffix(".log") {
            try FileManager.default.removeItem(atPath: "\(home.home.directory)/\(name)")
        }
        let (log, recovered) = try open(pieces[1], 20_480..<24_576)
        #expect(log.last == 400 && !recovered.damage.isEmpty)
        let lost = Set(recovered.damage.filter { $0.first <= $0.last }.flatMap { Array($0.first...$0.last) })
        #expect(!lost.isEmpty && lost.count < 12 && lost.allSatisfy { $0 >= pieces[1].first && $0 <= pieces[1].last })
        let end = log.mark.offset
        #expect(throws: DiskError.self) { try open(pieces[pieces.count - 1], end - 64..<end) }
    }
}

@Suite("Damaged bookkeeping") struct BookkeepingTests {
    @Test("a bit that flips anywhere in the database gives no consumer a place it had not") func flips() throws {
        let directory = NSTemporaryDirectory() + "slipway-books-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let path = directory + "/state.sqlite"
        let stream = String(repeating: "5", count: 32)
        func open() throws -> CursorStore {
            CursorStore(store: try .init(path: path, durability: .normal, migrations: CursorStore.migrations))
        }
        let original: ConsumerRecords
        do {
            let store = try open()
            var changes = Changes()
            for number in 0..<40 {
                let key = ConsumerKey(owner: "owner\(number % 5)", name: "consumer\(number)")
                changes.cursors[key] = Cursor(
                    seq: UInt64(number) * 1000, generation: 3, strike: number % 3 == 0 ? Strike(seq: 7, deliveries: 2) : nil)
                changes.queues[key] = WorkQueue(next: UInt64(number) * 1000 + 5, unsettled: [UInt64(number): 3])
                changes.parked[key] = [9: Parked(seq: 9, deliveries: 8, reason: "refused by its consumer", at: 1)]
                changes.outboxes[OutboxKey(producer: "p\(number)", outbox: "b")] = UInt64(number)
            }
            try store.note(first: 1, epoch: 3, stream: stream)
            try store.save(changes, mark: DurableMark(segment: 1, offset: 4096, seq: 77), stream: stream)
            original = try store.consumers(stream: stream)
            try store.store.db.writeWithoutTransaction { try $0.execute(sql: "PRAGMA wal_checkpoint(TRUNCATE)") }
            try store.store.db.close()
        }
        let template = try Data(contentsOf: URL(fileURLWithPath: path))
        var random = Seeded(5)
        var named = 0
        for _ in 0..<150 * long {
            for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
            }
            var bytes = template
            let at = Int.random(in: 0..<bytes.count, using: &random)
            bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            try bytes.write(to: URL(fileURLWithPath: path))
            let aside = CursorStore.setAside(path, now: 1)
            if !aside.isEmpty {
                named += 1
                // Kept, under the other name.
                #expect(try Data(contentsOf: URL(fileURLWithPath: aside[0].name)).count == bytes.count)
            }
            guard let store = try? open() else {
                named += 1
                continue
            }
            guard let found = try? store.consumers(stream: stream) else { continue }
            if !found.spoiled.isEmpty { named += 1 }
            for (key, cursor) in found.cursors { #expect(original.cursors[key] == cursor, "byte \(at)") }
            for (key, queue) in found.queues {
                #expect(original.queues[key]?.next == queue.next && original.queues[key]?.unsettled == queue.unsettled, "byte \(at)")
            }
            #expect(found.parked.allSatisfy { original.parked[$0.key] == $0.value }, "byte \(at)")
            if aside.isEmpty, found.spoiled.isEmpty {
                #expect(found.cursors.count == 40 && found.queues.count == 40 && found.parked.count == 40, "byte \(at)")
            }
            try store.store.db.close()
        }
        #expect(named > 20)
    }
}
