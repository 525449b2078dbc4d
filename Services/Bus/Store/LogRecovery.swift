import Foundation
import Wire

/// A flush that the bookkeeping database remembers; at most about a second old when the bus died.
struct DurableMark: Hashable, Sendable {
    /// First number of the segment.
    var segment: UInt64
    var offset: Int
    var seq: UInt64
}

/// What a look through the whole log found.
struct RecoveredLog: Sendable {
    var stream: Data?
    var segments: [Segment] = []
    /// Number of the last event.
    var last: UInt64 = 0
    var hash = Data(count: 32)
    var epoch: UInt64 = 0
    var time: UInt64 = 0
    var outboxes: [OutboxKey: UInt64] = [:]
    var recent = RecentIDs()
    var damage: [DamagedRange] = []
    /// The number with which the log begins, whether or not it can be read.
    var first: UInt64 = 1
    /// False when nobody remembers whether something stood before `first`.
    var isBeginningKnown = true
    /// A torn batch at the tail, to be overwritten with zeros; nothing in it was ever acknowledged.
    var cut: (from: Int, to: Int)?
}

/// Reads the log from its first byte to its last and tells three things apart: what is intact, what was damaged after it had
/// been acknowledged (named, kept, never cut), and a batch that was being written when the bus died (cut).
///
/// Batch k+1 is written only after batch k was flushed. So what follows an unreadable record decides: when another batch
/// begins after it, or the bookkeeping database remembers a later flush, it had been flushed; else it is the torn tail.
///
/// What the index beside a segment covers is not read again (`SegmentIndex`): damage there is found by whoever reads it, and by
/// `fsck`.
struct LogRecovery {
    private(set) var result = RecoveredLog()
    private let durable: DurableMark?
    private let indices: Indices
    private let disk: Disk
    /// Number that the next event must have.
    private var next: UInt64
    /// Nil after damage: the next batch's hash is then taken on trust.
    private var chain: Data? = Data(count: 32)
    private var open: OpenBatch?

    private struct OpenBatch {
        var start: Int
        var firstNext: UInt64
        var epoch: UInt64?
        var recent: [(key: RecentIDs.Key, seq: UInt64, time: UInt64)] = []
        var index: [Segment.IndexEntry] = []
        /// False when a part of it was damaged.
        var whole = true
    }

    /// Whether what stands beside the segments is believed.
    enum Indices { case used, ignored }

    /// `first` is the number with which the log should begin.
    init(durable: DurableMark?, first: UInt64, indices: Indices = .used, ids: IDHash = IDHash(), disk: Disk = Disk()) {
        result.recent = RecentIDs(hash: ids)
        self.durable = durable
        self.indices = indices
        self.disk = disk
        next = first
        result.first = first
        if first > 1 { chain = nil }
    }

    /// Reads the files in the order of their numbers.
    static func run(
        _ paths: [String], durable: DurableMark?, first: UInt64, indices: Indices = .used, ids hash: IDHash = IDHash(), disk: Disk = Disk()
    ) throws -> RecoveredLog {
        var recovery = LogRecovery(durable: durable, first: first, indices: indices, ids: hash, disk: disk)
        let files = try paths.map { try Candidate($0, indices, disk, mark: hash.mark) }
        var ids = files.reduce(0) { $0 + ($1.index?.chunks.reduce(0) { $0 + $1.ids } ?? 0) }
        for (number, file) in files.enumerated() {
            try recovery.read(file, following: number + 1 < files.count ? files[number + 1] : nil, ids: &ids)
        }
        recovery.finish()
        return recovery.result
    }

    /// Looks once more at a segment in which something could not be read: its damage, as it is named, and its index anew.
    static func examine(_ segment: Segment, disk: Disk) throws -> (segment: Segment, damage: [DamagedRange]) {
        let mark = DurableMark(segment: segment.first, offset: segment.end, seq: segment.last)
        var recovery = LogRecovery(durable: mark, first: segment.first, indices: .ignored, disk: disk)
        recovery.chain = nil
        var ids = 0
        try recovery.read(try Candidate(segment.file.path, .ignored, disk, limit: segment.end), following: nil, ids: &ids, isTail: false)
        recovery.finish()
        var examined = segment
        examined.index = recovery.result.segments.first?.index ?? []
        examined.damage = recovery.result.segments.first?.damage ?? []
        examined.isSuspect = true
        return (examined, recovery.result.damage)
    }

    /// A file, its header, and what stands beside it.
    private struct Candidate {
        var file: DiskFile
        var size: Int
        var name: String
        var first: UInt64
        var header: Result<SegmentHeader, any Error>
        var index: SegmentIndex?

        init(_ path: String, _ indices: Indices, _ disk: Disk, limit: Int = .max, mark: UInt64? = nil) throws {
            file = try DiskFile(path, readOnly: indices == .ignored, disk: disk)
            size = min(limit, try file.size())
            name = path.split(separator: "/").last.map(String.init) ?? path
            first = UInt64(name.dropLast(4)) ?? 0
            header = Result { [file] in try SegmentHeader(file.read(at: 0, count: SegmentHeader.length)) }
            if indices == .used, case .success(let header) = header {
                index = SegmentIndex(of: path, stream: header.stream, first: first, mark: mark, disk: disk)
            }
        }
    }

    private mutating func finish() {
        result.last = next - 1
        if let durable, durable.seq > result.last {
            result.damage.append(DamagedRange(first: next, last: durable.seq, place: "missing at the end of the log"))
            result.last = durable.seq
        }
        result.hash = chain ?? result.hash
    }

    private mutating func read(_ candidate: Candidate, following: Candidate?, ids: inout Int, isTail: Bool? = nil) throws {
        let isLast = isTail ?? (following == nil)
        let first = candidate.first
        var segment = Segment(file: candidate.file, first: first, capacity: candidate.size)
        if first != next {
            if first > next {
                result.damage.append(DamagedRange(first: next, last: first - 1, place: "missing before \(candidate.name)"))
                chain = nil
            } else if result.segments.isEmpty {
                // The bookkeeping database is behind: less was removed than it thinks.
                result.first = first
                next = first
                chain = nil
            }
            next = max(next, first)
        }
        do {
            let header = try candidate.header.get()
            if let stream = result.stream, stream != header.stream { throw WireError("belongs to another log") }
            result.stream = header.stream
            result.epoch = max(result.epoch, header.epoch)
            if chain == nil { chain = header.previousHash }
        } catch {
            segment.isSuspect = true
            // The records may still be good: the name says where they begin.
            result.damage.append(DamagedRange(first: first, last: first - 1, place: "\(candidate.name): header: \(error)"))
        }
        let named = result.damage.count
        if !(takeIndex(candidate, following, &segment, &ids)) {
            let (data, unreadable) = try segment.file.readAround(from: segment.end, size: candidate.size)
            if data.count > segment.end { scan(data, &segment, candidate.name, isLast: isLast) }
            if isLast, let cut = result.cut, let block = unreadable.first(where: { $0 >= cut.from }) {
                // Nobody can tell whether what stands there was acknowledged.
                throw DiskError("read \(segment.file.path), byte \(block)", EIO)
            }
        }
        if result.damage.count > named { segment.isSuspect = true }
        segment.hash = chain ?? segment.hash
        result.segments.append(segment)
    }

    /// Takes over what the index says, when it fits the segment; true when it covers all of it, so that nothing is left to read.
    private mutating func takeIndex(
        _ candidate: Candidate, _ following: Candidate?, _ segment: inout Segment, _ ids: inout Int
    ) -> Bool {
        guard let index = candidate.index, let end = index.chunks.last else { return false }
        // Counted from the end of the log: older ones have been forgotten.
        let from = ids
        ids -= index.chunks.reduce(0) { $0 + $1.ids }
        guard case .success(let header) = candidate.header, chain == header.previousHash, next == candidate.first,
            end.to <= candidate.size
        else { return false }
        var isWhole = false
        if let following, case .success(let next) = following.header, following.first == end.last + 1, next.previousHash == end.hash {
            isWhole = true
        } else if !Self.confirms(candidate.file, end) {
            return false
        }
        guard let remembered = Self.ids(of: index, candidate.file.path, after: from, disk) else { return false }
        for id in remembered { result.recent.insert(id) }
        for chunk in index.chunks {
            segment.index += chunk.entries
            result.outboxes.merge(chunk.outboxes) { max($0, $1) }
        }
        segment.end = end.to
        segment.last = end.last
        segment.time = end.time
        segment.covered = Segment.Covered(
            end: end.to, last: end.last, entries: segment.index.count, indexLength: index.length,
            idsLength: end.idsAt + end.ids * SegmentIndex.idLength)
        next = end.last + 1
        chain = end.hash
        result.time = max(result.time, end.time)
        result.epoch = max(result.epoch, end.epoch)
        return isWhole
    }

    /// Whether the segment's bytes end, where the index does, with the mark of the batch that it names.
    private static func confirms(_ file: DiskFile, _ end: SegmentIndex.Chunk) -> Bool {
        let start = end.entries.last?.offset ?? end.from
        guard let data = try? file.read(at: start, count: end.to - start) else { return false }
        var at = 0
        while let head = data.withUnsafeBytes({ RecordHead($0, at: at) }), at + head.total < data.count { at += head.total }
        guard let mark = LogScan.record(data, at), at + mark.encodedLength == data.count, mark.kind == Record.Kind.batchMark.rawValue
        else { return false }
        return mark.seq == end.last && BatchCodec.readMark(mark.payload)?.hash == end.hash
    }

    /// Those of its ids that are young enough; nil when they cannot be read. `left`: how many there are from here to the end.
    private static func ids(of index: SegmentIndex, _ log: String, after left: Int, _ disk: Disk) -> [RecentIDs.Remembered]? {
        var left = left
        var result: [RecentIDs.Remembered] = []
        var file: DiskFile?
        for chunk in index.chunks where chunk.ids > 0 {
            defer { left -= chunk.ids }
            guard left - chunk.ids < RecentIDs.most else { continue }
            if file == nil { file = try? DiskFile(SegmentIndex.idsPath(log), readOnly: true, disk: disk) }
            guard let file, let ids = SegmentIndex.ids(chunk, in: file) else { return nil }
            result += ids
        }
        return result
    }

    private mutating func scan(_ data: Data, _ segment: inout Segment, _ name: String, isLast: Bool) {
        var at = segment.end
        while at < data.count {
            if data.count - at < 8 || LogScan.isZero(data, from: at) { break }
            if let record = LogScan.record(data, at), accepts(record) {
                take(record, at, data, &segment, name)
                at += record.encodedLength
                continue
            }
            // Unreadable. Had it been flushed?
            let reaches = durable.map { $0.segment == segment.first && at < $0.offset || $0.segment > segment.first } ?? false
            let later = LogScan.next(data, from: at + 8) { $0.flags & Record.batchStart != 0 && $0.seq >= next - 1 }
            guard !isLast || reaches || later != nil else {
                cutTail(data, &segment, from: open?.start ?? at)
                return
            }
            at = passDamage(data, &segment, name, from: at)
        }
        segment.end = max(segment.end, min(at, data.count))
        if let open {
            if let durable, durable.segment == segment.first, durable.offset > open.start {
                commitDamaged(&segment)
            } else if isLast {
                cutTail(data, &segment, from: open.start)
            } else {
                result.damage.append(DamagedRange(first: next, last: next - 1, place: "\(name): the last batch has no mark"))
                commitDamaged(&segment)
            }
        }
    }

    /// Whether a readable record is the one that may stand here.
    private func accepts(_ record: Record) -> Bool {
        let starts = record.flags & Record.batchStart != 0
        switch Record.Kind(rawValue: record.kind) {
        case .event: return record.seq == next && (starts || open != nil)
        case .epochMark: return record.seq == next - 1 && starts
        case .batchMark: return record.seq == next - 1 && open != nil && !starts
        case nil: return record.seq == next - 1 && open != nil
        }
    }

    private mutating func take(_ record: Record, _ at: Int, _ data: Data, _ segment: inout Segment, _ name: String) {
        if record.flags & Record.batchStart != 0 {
            if open != nil {
                result.damage.append(DamagedRange(first: next, last: next - 1, place: "\(name): a batch before byte \(at) has no mark"))
                commitDamaged(&segment)
            }
            open = OpenBatch(start: at, firstNext: next)
        }
        result.time = max(result.time, record.time)
        switch Record.Kind(rawValue: record.kind) {
        case .event:
            open?.recent.append((result.recent.hash.key(record.producer, record.id), record.seq, record.time))
            open?.index.append(Segment.IndexEntry(seq: record.seq, offset: at, time: record.time))
            next += 1
        case .epochMark:
            var reader = Reader(record.payload)
            open?.epoch = reader.u64()
        case .batchMark: close(record, at, data, &segment, name)
        case nil: break
        }
    }

    private mutating func close(_ mark: Record, _ at: Int, _ data: Data, _ segment: inout Segment, _ name: String) {
        guard let batch = open else { return }
        guard let (hash, outboxes) = BatchCodec.readMark(mark.payload) else {
            result.damage.append(DamagedRange(first: next, last: next - 1, place: "\(name): the batch mark at byte \(at) cannot be read"))
            commitDamaged(&segment)
            return
        }
        if batch.whole, let chain, BatchCodec.chain(chain, data[data.startIndex + batch.start..<data.startIndex + at]) != hash {
            result.damage.append(
                DamagedRange(
                    first: batch.firstNext, last: next - 1,
                    place: "\(name): the batch at byte \(batch.start) does not extend the hash chain"))
        }
        chain = hash
        for (key, number) in outboxes {
            result.outboxes[key] = max(number, result.outboxes[key] ?? 0)
            segment.covered.outboxes[key] = max(number, segment.covered.outboxes[key] ?? 0)
        }
        if !LogScan.isZero(data, from: at + mark.encodedLength - mark.padding, to: at + mark.encodedLength) {
            result.damage.append(
                DamagedRange(first: next, last: next - 1, place: "\(name): the padding of the batch mark at byte \(at) is not zero"))
        }
        commit(batch, &segment)
        segment.end = at + mark.encodedLength
        open = nil
    }

    private mutating func commit(_ batch: OpenBatch, _ segment: inout Segment) {
        for entry in batch.index { segment.note(entry.seq, at: entry.offset, time: entry.time) }
        for event in batch.recent { result.recent.insert(event.key, seq: event.seq, time: event.time) }
        segment.last = next - 1
        segment.time = result.time
        if let epoch = batch.epoch { result.epoch = max(result.epoch, epoch) }
    }

    private mutating func commitDamaged(_ segment: inout Segment) {
        if let batch = open { commit(batch, &segment) }
        open = nil
        chain = nil
    }

    /// Goes on at the next readable record, and names what lies between.
    private mutating func passDamage(_ data: Data, _ segment: inout Segment, _ name: String, from at: Int) -> Int {
        let lost: UInt64
        let resume: Int
        // A record holds at least its fixed part, so no more numbers can be gone than that many bytes could have held.
        let most = next + UInt64(data.count / Record.fixedLength)
        let isEvent = { (record: Record) in record.kind == Record.Kind.event.rawValue }
        if let (offset, record) = LogScan.next(data, from: at + 8, where: { $0.seq >= (isEvent($0) ? next : next - 1) && $0.seq <= most }) {
            resume = offset
            lost = isEvent(record) ? record.seq : record.seq + 1
        } else if let durable, durable.segment == segment.first, durable.offset > at {
            resume = min(durable.offset, data.count)
            lost = durable.seq + 1
        } else {
            // The rest of this segment; the next one's name says what is missing.
            resume = data.count
            lost = next
        }
        segment.damage.append(Segment.Damage(from: at, to: resume, first: next, last: lost - 1))
        result.damage.append(DamagedRange(first: next, last: lost - 1, place: "\(name), bytes \(at) to \(resume)"))
        if open == nil { open = OpenBatch(start: at, firstNext: next) }
        open?.whole = false
        chain = nil
        next = max(next, lost)
        return resume
    }

    private mutating func cutTail(_ data: Data, _ segment: inout Segment, from start: Int) {
        if let batch = open { next = batch.firstNext }
        open = nil
        segment.end = start
        result.cut = (start, LogScan.endOfData(data))
    }
}
