import Foundation
import Wire

/// What the bookkeeping database remembers of the log.
struct KnownLog: Hashable, Sendable {
    /// The number with which it begins.
    var first: UInt64 = 1
    /// Its last start.
    var epoch: UInt64 = 0
}

/// The log on disk. One thread appends (`Flusher`); any thread reads what is durable.
///
/// A write or a flush that fails is fatal to the process: the error is thrown, and whoever catches it must exit and recover
/// from what is on the device. The one exception is a full disk noticed before anything of the batch was written.
final class EventLog: LogView {
    struct Settings: Sendable {
        var directory: String
        var segmentBytes = 64 << 20
        /// Zero-filled while the bus starts, so it is small.
        var firstSegmentBytes = 4 << 20
        var disk = Disk()
        var ids = IDHash()
        /// Told of damage that is found after the start, on the thread that found it.
        var found: @Sendable (DamagedRange) -> Void = { _ in }
        /// The epoch that this start takes at the least.
        var leastEpoch: UInt64 = 1
        /// What was appended is seen only after `reveal`: when a replica has it, too.
        var holdsBack = false
        init(directory: String) { self.directory = directory }
    }

    struct Shared: Sendable {
        var segments: [Segment]
        var last: UInt64
        var hash: Data
        var mark: DurableMark
        var spare: DiskFile?
        var preparing = false
        /// When a spare may be tried again, in milliseconds.
        var spareAt = Int64.min
        /// The number with which the log begins; what of it is not in a segment is missing.
        var first: UInt64
        var damage: [DamagedRange]
    }
    /// Touched by the appending thread alone; behind a lock because the compiler cannot know that.
    private struct Appender: Sendable {
        var hash: Data
        var time: UInt64
        /// The highest number taken from each outbox.
        var outboxes: [OutboxKey: UInt64]
        /// What the last block that was written to holds so far, and of which segment it is.
        var begun: (segment: UInt64, bytes: [UInt8]) = (0, [])
    }

    let settings: Settings
    /// 32 hexadecimal digits.
    let stream: String
    /// Counts the starts of the bus on this log.
    let epoch: UInt64
    let streamBytes: Data
    /// Kept open, so that a new segment needs no descriptor for it.
    let directory: DiskDirectory
    let shared: Locked<Shared>
    private let appender: Locked<Appender>

    /// Opens the log, making it when there is none; recovers, and cuts a torn batch. What was found is given back for the
    /// dedupe tables and for the operator's eyes. Throws `DiskError`, `WireError`.
    ///
    /// `knowing` says what is remembered of the log with that id; nil when nothing is.
    static func open(
        _ settings: Settings, durable: DurableMark?, knowing: (_ stream: String) throws -> KnownLog? = { _ in KnownLog() }
    ) throws -> (EventLog, RecoveredLog) {
        try FileManager.default.createDirectory(
            atPath: settings.directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        try DiskDirectory(URL(fileURLWithPath: settings.directory).deletingLastPathComponent().path, disk: settings.disk).sync()
        let names = try FileManager.default.contentsOfDirectory(atPath: settings.directory).sorted()
        var segments = names.filter { isSegment($0) }
        let stored = segments.lazy.compactMap {
            try? SegmentHeader(
                DiskFile("\(settings.directory)/\($0)", readOnly: true, disk: settings.disk).read(at: 0, count: SegmentHeader.length))
        }
        var known = KnownLog()
        var isKnown = true
        if let header = stored.first {
            let remembered = try knowing(Self.name(header.stream))
            isKnown = remembered != nil
            known = remembered ?? KnownLog(first: segments.first.flatMap { UInt64($0.dropLast(4)) } ?? 1)
        }
        segments = try finishTrimming(segments, settings, first: known.first)
        var recovered = try LogRecovery.run(
            segments.map { "\(settings.directory)/\($0)" }, durable: durable, first: known.first, ids: settings.ids, disk: settings.disk)
        if let cut = recovered.cut, let last = recovered.segments.last {
            // A zero hole left in a longer file would be taken for the end; a file that was cut short grows back.
            if cut.to > cut.from { try last.file.zero(from: cut.from, to: cut.to) }
        }
        // Whole records of a batch that was not acknowledged may have survived; from here on they are real.
        try recovered.segments.last?.file.sync()
        // It is written on past the page cache, so nothing of it shall be in there.
        recovered.segments.last?.file.forgetCached()
        let stream = recovered.stream ?? Data((0..<16).map { _ in UInt8.random(in: .min ... .max) })
        recovered.stream = stream
        recovered.isBeginningKnown = isKnown || known.first == 1
        recovered.epoch = max(recovered.epoch + 1, known.epoch + 1, settings.leastEpoch)
        let log = EventLog(settings, recovered, stream, try DiskDirectory(settings.directory, disk: settings.disk))
        try log.prepareSpare(in: settings.directory, names)
        return (log, recovered)
    }

    private init(_ settings: Settings, _ recovered: RecoveredLog, _ stream: Data, _ directory: DiskDirectory) {
        self.settings = settings
        self.directory = directory
        streamBytes = stream
        self.stream = Self.name(stream)
        epoch = recovered.epoch
        let mark = DurableMark(segment: recovered.segments.last?.first ?? 0, offset: recovered.segments.last?.end ?? 0, seq: recovered.last)
        shared = Locked(
            Shared(
                segments: recovered.segments, last: recovered.last, hash: recovered.hash, mark: mark, first: recovered.first,
                damage: recovered.damage))
        appender = Locked(Appender(hash: recovered.hash, time: recovered.time, outboxes: recovered.outboxes))
    }

    static func isSegment(_ name: String) -> Bool { name.hasSuffix(".log") && name.utf8.count == 24 && UInt64(name.dropLast(4)) != nil }

    private static func name(_ stream: Data) -> String { stream.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }

    // MARK: Reading

    var first: UInt64 { shared.withLock(\.first) }
    var last: UInt64 { shared.withLock(\.last) }
    var hash: Data { shared.withLock(\.hash) }
    /// The last flush, for the bookkeeping database.
    var mark: DurableMark { shared.withLock(\.mark) }

    func read(from seq: UInt64, bytes: Int) throws -> EventRun {
        let (segments, first, last) = shared.withLock { ($0.segments, $0.first, $0.last) }
        guard seq <= last else { return EventRun(firstSeq: seq, bytes: [], places: []) }
        guard seq >= first else { throw Trimmed(wanted: seq, first: first) }
        guard let at = segments.lastIndex(where: { $0.first <= seq }) else { throw missing(seq, "missing at the start of the log") }
        var run = EventRun(firstSeq: seq, bytes: [], places: [])
        for segment in segments[at...] {
            let done: Bool
            do {
                done = try LogReading.collect(segment, into: &run, last: last, bytes: bytes)
            } catch let suspicion as LogReading.Suspicion {
                // What is good so far is served first; the next read comes here again.
                guard run.isEmpty else { return run }
                return try read(from: seq, bytes: bytes, after: suspicion)
            } catch let error as DiskError where error.code == EIO {
                guard run.isEmpty else { return run }
                return try read(from: seq, bytes: bytes, after: LogReading.Suspicion(segment: segment))
            }
            if done || run.lastSeq >= last { break }
        }
        if run.isEmpty { throw missing(seq, "missing in \(segments[at].name)") }
        return run
    }

    /// Looks at the segment, which tells what of it is damaged, and reads on.
    private func read(from seq: UInt64, bytes: Int, after suspicion: LogReading.Suspicion) throws -> EventRun {
        // Looked at already, and still not what it was: its device changes its mind.
        guard !suspicion.segment.isSuspect else { throw missing(seq, suspicion.segment.name) }
        try examine(suspicion.segment)
        shared.withLock { shared in
            guard let at = shared.segments.lastIndex(where: { $0.first == suspicion.segment.first }) else { return }
            shared.segments[at].isSuspect = true
        }
        return try read(from: seq, bytes: bytes)
    }

    /// The range that was found missing at the start and holds `seq`, from there on.
    private func missing(_ seq: UInt64, _ place: String) -> DamagedRange {
        let known = shared.withLock { $0.damage.first { $0.first <= seq && seq <= $0.last } }
        return DamagedRange(first: seq, last: known?.last ?? seq, place: known?.place ?? place)
    }

    func bytes(after seq: UInt64) -> UInt64 {
        shared.withLock { shared in
            var total = 0
            // From the end, because most are near it.
            for segment in shared.segments.reversed() {
                guard segment.first > seq + 1 else { return UInt64(total + max(0, segment.end - segment.offset(near: seq + 1))) }
                total += segment.end - SegmentHeader.length
            }
            return UInt64(total)
        }
    }

    func firstSeq(since time: UInt64) throws -> UInt64 {
        let (segments, last) = shared.withLock { ($0.segments, $0.last) }
        // Times never decrease, so the index narrows it to one entry, and a walk of at most 64 KiB finds the event.
        var seq = segments.first?.first ?? last + 1
        for entry in segments.lazy.flatMap(\.index) {
            if entry.time >= time { break }
            seq = entry.seq
        }
        while seq <= last {
            let records: EventRun
            do {
                records = try read(from: seq, bytes: Segment.indexEvery)
            } catch let trimmed as Trimmed {
                seq = trimmed.first
                continue
            }
            for record in records {
                let recorded = record.bytes.withUnsafeBytes { RecordHead($0, at: 0)?.time ?? 0 }
                if recorded >= time { return record.seq }
                seq = record.seq + 1
            }
        }
        return last + 1
    }

    /// The files, each as far as it is durable.
    var segments: [Segment] { shared.withLock(\.segments) }

    // MARK: Appending

    /// Writes the batch and flushes it: when this returns it is on the device. `time` in nanoseconds since 1970.
    func append(_ batch: consuming Batch, time wall: UInt64) throws -> FlushResult {
        let (previous, time) = appender.withLock { ($0.hash, max($0.time, wall)) }
        if let all = numbersForNewSegment(size: batch.records.bytes.count, batch.outboxes) { batch.outboxes = all }
        let (first, last, outboxes) = (batch.first, batch.last, batch.outboxes)
        let sealed = BatchCodec.seal(batch, time: time, previousHash: previous)
        let size = sealed.run.bytes.count
        let segment: Segment
        do {
            segment = try room(for: size, first: first, hash: previous)
        } catch let error as DiskError where error.isFull || error.isOutOfDescriptors {
            // Nothing of the batch was written, so this may be tried again.
            return .full(error.description)
        }
        try write(sealed.run.bytes, to: segment)
        try segment.file.sync()
        appender.withLock { appender in
            appender.hash = sealed.hash
            appender.time = time
            for (key, number) in outboxes { appender.outboxes[key] = number }
        }
        shared.withLock { shared in
            // In place: what another thread has noted of it meanwhile stays.
            if shared.segments.last?.first != segment.first { shared.segments.append(segment) }
            let at = shared.segments.count - 1
            shared.segments[at].end = segment.end + size
            shared.segments[at].last = last
            shared.segments[at].time = time
            shared.segments[at].hash = sealed.hash
            shared.segments[at].note(sealed.run, at: segment.end, time: time)
            for (key, number) in outboxes { shared.segments[at].covered.outboxes[key] = number }
            if !settings.holdsBack {
                shared.last = last
                shared.hash = sealed.hash
            }
            shared.mark = DurableMark(segment: segment.first, offset: segment.end + size, seq: last)
        }
        if segment.end * 4 > segment.capacity { wantSpare() }
        return .durable(sealed.run, time: time, hash: sealed.hash)
    }

    /// Writes whole blocks: from the beginning of the one that is begun, which is written again as it is, to the end of the last one,
    /// which is zero there anyway.
    private func write(_ bytes: [UInt8], to segment: Segment) throws {
        let start = segment.end / DiskFile.block * DiskFile.block
        let end = (segment.end + bytes.count + DiskFile.block - 1) / DiskFile.block * DiskFile.block
        guard end <= segment.capacity else {
            // An odd size, at its very end.
            segment.file.endDirect()
            return try bytes.withUnsafeBytes { try segment.file.write($0, at: segment.end) }
        }
        var begun = appender.withLock { $0.begun.segment == segment.first ? $0.begun.bytes : [] }
        if begun.count != segment.end - start { begun = Array(try segment.file.read(at: start, count: segment.end - start)) }
        guard begun.count == segment.end - start else { throw DiskError("read \(segment.file.path)", EIO) }
        try segment.file.write(blocks: [begun, bytes], from: start, to: end)
        let after = segment.end + bytes.count
        let last = after / DiskFile.block * DiskFile.block
        begun = last > segment.end ? Array(bytes.suffix(after - last)) : begun + bytes
        appender.withLock { $0.begun = (segment.first, begun) }
    }

    /// All outboxes' numbers, when the batch will begin a segment or nearly fills one: the first mark of each segment repeats them, so
    /// that none is lost with the segments that retention removes. Nil otherwise, and when they are too many for a mark; then only
    /// the database has them.
    private func numbersForNewSegment(size: Int, _ outboxes: [OutboxKey: UInt64]) -> [OutboxKey: UInt64]? {
        let room = shared.withLock { $0.segments.last.map { $0.capacity - $0.end } ?? 0 }
        return appender.withLock { appender in
            guard !appender.outboxes.isEmpty, appender.outboxes.count <= 10_000 else { return nil }
            guard room < size + 4096 + appender.outboxes.count * 320 else { return nil }
            return appender.outboxes.merging(outboxes) { max($0, $1) }
        }
    }

    /// Numbers that the bookkeeping database remembers and the log does not.
    func remember(_ outboxes: [OutboxKey: UInt64]) { appender.withLock { $0.outboxes.merge(outboxes) { max($0, $1) } } }

    /// Lets readers see what was held back.
    func reveal() {
        let hash = appender.withLock(\.hash)
        shared.withLock { shared in
            shared.last = shared.mark.seq
            shared.hash = hash
        }
    }

    /// The segment that the batch goes into, with its bytes allocated. Throws before anything of the batch is written.
    private func room(for count: Int, first: UInt64, hash: Data) throws -> Segment {
        if var current = shared.withLock(\.segments.last) {
            if current.end + count <= current.capacity { return current }
            if current.first == first, current.damage.isEmpty, current.end > SegmentHeader.length {
                // It holds no event yet, so a second file would have its name: it grows instead.
                try current.file.zero(from: current.capacity, to: current.end + count)
                current.capacity = current.end + count
                let capacity = current.capacity
                shared.withLock { $0.segments[$0.segments.count - 1].capacity = capacity }
                return current
            }
        }
        let header = SegmentHeader(stream: streamBytes, first: first, epoch: epoch, previousHash: hash)
        let needed = SegmentHeader.length + count
        let file: DiskFile
        let isFirst = shared.withLock(\.segments.isEmpty)
        if let spare = shared.withLock({ shared -> DiskFile? in
            defer { shared.spare = nil }
            return shared.spare
        }) {
            file = spare
        } else {
            file = try makeZeroed(
                isFirst ? settings.firstSegmentBytes : min(settings.segmentBytes, max(settings.firstSegmentBytes, needed)), "next.tmp")
        }
        var capacity = try file.size()
        if needed > capacity {
            try file.zero(from: capacity, to: needed)
            capacity = needed
        }
        if capacity >= DiskFile.block {
            try file.write(blocks: [Array(header.encoded())], from: 0, to: DiskFile.block)
        } else {
            try file.write(header.encoded(), at: 0)
        }
        try file.sync()
        let path = "\(settings.directory)/\(SegmentHeader.fileName(first))"
        // Only a file without a readable event can have this name; it is set aside, never overwritten.
        forgetIndex(path)
        if FileManager.default.fileExists(atPath: path) { try settings.disk.rename(path, to: "\(path).damaged") }
        try file.rename(to: path)
        try directory.sync()
        // What is full is read like any other file.
        shared.withLock(\.segments.last)?.file.endDirect()
        return Segment(file: file, first: first, capacity: capacity)
    }

    private func makeZeroed(_ bytes: Int, _ name: String) throws -> DiskFile {
        let path = "\(settings.directory)/\(name)"
        let file = try DiskFile(path, create: true, disk: settings.disk)
        do {
            try file.zero(from: 0, to: bytes)
            try file.sync()
        } catch {
            try? settings.disk.remove(path)
            throw error
        }
        return file
    }

    /// Fills the next segment with zeros on a thread of its own, long before it is needed.
    private func wantSpare() {
        let now = Clock.monotonic()
        let start = shared.withLock { shared -> Bool in
            guard shared.spare == nil, !shared.preparing, now >= shared.spareAt else { return false }
            shared.preparing = true
            // On a disk that is nearly full the attempt itself would take the last room from everybody, again and again.
            shared.spareAt = now + 60_000
            return true
        }
        guard start else { return }
        guard Disk.space(in: settings.directory)?.free ?? 0 > 2 * settings.segmentBytes else {
            return shared.withLock { $0.preparing = false }
        }
        let thread = Thread { [self] in
            // Without a spare the next change of segment makes its file itself, and finds out whether there is room.
            let made = try? makeZeroed(settings.segmentBytes, "spare.tmp")
            var spare: DiskFile?
            if let made, (try? made.rename(to: "\(settings.directory)/spare.ready")) != nil { spare = made }
            shared.withLock { shared in
                shared.spare = spare
                shared.preparing = false
                if spare != nil { shared.spareAt = .min }
            }
        }
        thread.name = "bus-spare"
        thread.start()
    }

    /// Takes a spare that an earlier run left, when it is whole and still blank.
    private func prepareSpare(in directory: String, _ names: [String]) throws {
        for name in ["spare.tmp", "next.tmp"] where names.contains(name) { try? settings.disk.remove("\(directory)/\(name)") }
        guard names.contains("spare.ready") else { return }
        let file = try DiskFile("\(directory)/spare.ready", disk: settings.disk)
        guard try file.size() == settings.segmentBytes, LogScan.isZero(try file.read(at: 0, count: 4096), from: 0) else {
            return try settings.disk.remove(file.path)
        }
        shared.withLock { $0.spare = file }
    }
}
