import Contracts
import Foundation
import Kit
import Wire

/// The log of a replica: the bytes of another bus's files, checked batch by batch and written as they came. The files have the
/// same names and the same contents, so that the bus which this one becomes opens them as its own.
///
/// A batch is flushed before the next is written, as in the log that it comes from: recovery relies on that.
struct ReplicaLog {
    /// Larger batches than this are no batches.
    private static let longest = 256 << 20
    /// What a file grows by, zero-filled.
    private static let step = 4 << 20

    let directory: String
    private let disk: Disk
    /// 32 hexadecimal digits; nil while there is nothing.
    private(set) var stream: String?
    private(set) var segments: [Segment]
    private(set) var first: UInt64
    /// Number of the last event, and the hash chain there.
    private(set) var last: UInt64
    private(set) var hash: Data
    private(set) var epoch: UInt64
    /// Came and is no whole batch yet.
    private var pending = Data()
    private var looked = 0

    /// Opens what is there, and cuts a torn batch. Throws `Problem` when it is damaged: a replica fetches it again instead.
    static func open(_ settings: EventLog.Settings, _ store: CursorStore) throws -> ReplicaLog {
        let (log, recovered) = try EventLog.open(settings, durable: try store.mark(), knowing: { try store.known(stream: $0) })
        guard recovered.damage.isEmpty else {
            throw Problem(
                .failed, "this replica's log is damaged: \(recovered.damage.map(\.place).joined(separator: "; "))",
                hint: "move \(settings.directory) and state.sqlite beside it away and start again: everything is copied anew")
        }
        return ReplicaLog(log, recovered, settings)
    }

    private init(_ log: EventLog, _ recovered: RecoveredLog, _ settings: EventLog.Settings) {
        directory = settings.directory
        disk = settings.disk
        stream = recovered.segments.isEmpty ? nil : log.stream
        segments = recovered.segments
        first = recovered.first
        last = recovered.last
        hash = recovered.hash
        // The one that opening would begin has not begun.
        epoch = recovered.segments.isEmpty ? 0 : recovered.epoch - 1
    }

    var isEmpty: Bool { segments.isEmpty }
    var mark: DurableMark { DurableMark(segment: segments.last?.first ?? 0, offset: segments.last?.end ?? 0, seq: last) }
    var end: BatchEnd {
        BatchEnd(seq: last, hash: hash, position: RawPosition(segment: segments.last?.first ?? 0, offset: segments.last?.end ?? 0))
    }

    /// The beginning of a new connection: the rest of a batch that was cut off will not come.
    mutating func forget() {
        pending = Data()
        looked = 0
    }

    /// Takes the next bytes, and writes and flushes each batch that is whole. Throws `WireError` when they do not extend what is
    /// here, and nothing of that batch is written; `DiskError`.
    mutating func take(_ bytes: Data) throws {
        pending.append(bytes)
        var at = pending.startIndex
        while at < pending.endIndex {
            let rest = pending[at...]
            // The head of a record begins with a length below 2^24, that of a file with a letter.
            if rest.first == SegmentHeader.magic.first {
                guard rest.count >= SegmentHeader.length else { break }
                try begin(try SegmentHeader(rest.prefix(SegmentHeader.length)))
                at += SegmentHeader.length
                continue
            }
            guard let length = try RawBatches.length(rest, from: &looked) else { break }
            try append(rest.prefix(length))
            at += length
        }
        pending = Data(pending[at...])
        guard pending.count <= Self.longest else { throw WireError("a batch of more than \(Self.longest) bytes") }
    }

    private mutating func begin(_ header: SegmentHeader) throws {
        let name = Router.hex(header.stream)
        if let stream {
            guard stream == name else { throw WireError("a file of another log, \(name)") }
            guard header.first == last &+ 1, header.previousHash == hash else {
                throw WireError("the file that begins with \(header.first) does not follow event \(last)")
            }
            if let current = segments.last, current.first == header.first {
                // The connection broke before the file's first batch was whole: it is begun again.
                guard current.end == SegmentHeader.length else { throw WireError("two files begin with event \(header.first)") }
                segments.removeLast()
            }
        }
        let path = "\(directory)/\(SegmentHeader.fileName(header.first))"
        let file = try DiskFile("\(directory)/replica.tmp", create: true, disk: disk)
        try file.write(header.encoded(), at: 0)
        try file.zero(from: SegmentHeader.length, to: Self.step)
        try file.sync()
        try file.rename(to: path)
        try DiskDirectory(directory, disk: disk).sync()
        if stream == nil {
            stream = name
            first = header.first
            last = header.first &- 1
            hash = header.previousHash
        }
        epoch = max(epoch, header.epoch)
        segments.append(Segment(file: file, first: header.first, capacity: Self.step))
    }

    private mutating func append(_ batch: Data) throws {
        let checked = try RawBatches.check(batch, after: last, hash: hash)
        guard var segment = segments.last else { throw WireError("a batch before any file") }
        let end = segment.end + batch.count
        if end > segment.capacity {
            let capacity = max(end, segment.capacity + Self.step)
            try segment.file.zero(from: segment.capacity, to: capacity)
            segment.capacity = capacity
        }
        try segment.file.write(batch, at: segment.end)
        try segment.file.sync()
        if let event = checked.firstEvent { segment.note(event.seq, at: segment.end + event.offset, time: checked.time) }
        segment.end = end
        segments[segments.count - 1] = segment
        last = checked.last
        hash = checked.hash
        epoch = max(epoch, checked.epoch ?? 0)
    }

    /// Removes the files before the one that begins with that number, as the bus did that they come from.
    mutating func trim(before number: UInt64) throws {
        guard let keep = segments.firstIndex(where: { $0.first == number }), keep > 0 else { return }
        let gone = segments[..<keep]
        segments.removeFirst(keep)
        first = number
        for segment in gone {
            try removeIndex(of: segment)
            try disk.remove(segment.file.path)
        }
        try DiskDirectory(directory, disk: disk).sync()
    }

    // MARK: A tail that is not the other's

    /// The ends of the batches in one of the files.
    func ends(in segment: Segment) throws -> [BatchEnd] { try RawBatches.ends(in: segment, from: SegmentHeader.length) }

    /// Where a file begins: the end of the batch before it.
    func start(of segment: Segment) throws -> BatchEnd {
        let header = try SegmentHeader(try segment.file.read(at: 0, count: SegmentHeader.length))
        return BatchEnd(seq: segment.first &- 1, hash: header.previousHash, position: RawPosition(segment: segment.first, offset: 0))
    }

    /// What was set aside.
    struct Aside: Sendable {
        var directory: String
        var first: UInt64
        var last: UInt64
    }

    /// Moves everything after `end` out of the log into `HOME/bus/diverged/…`: the bytes as files of a log, and the events as a
    /// list that people can read. Nothing is removed from the log before its copy is on the device.
    mutating func setAside(after end: BatchEnd, to parent: String, wall: UInt64) throws -> Aside {
        let aside = Aside(directory: "\(parent)/\(end.seq &+ 1)-\(last)-\(wall / 1_000_000_000)", first: end.seq &+ 1, last: last)
        try Files.makeDirectory(parent, mode: 0o700)
        try Files.makeDirectory(aside.directory, mode: 0o700)
        var list = Data()
        for segment in segments where segment.first >= end.position.segment {
            let from = segment.first == end.position.segment ? max(end.position.offset, SegmentHeader.length) : SegmentHeader.length
            guard segment.end > from else { continue }
            let tail = try segment.file.read(at: from, count: segment.end - from)
            let header = try SegmentHeader(try segment.file.read(at: 0, count: SegmentHeader.length))
            let isWhole = from == SegmentHeader.length
            let cut = SegmentHeader(
                stream: header.stream, first: isWhole ? header.first : end.seq &+ 1, epoch: header.epoch,
                previousHash: isWhole ? header.previousHash : end.hash)
            try Files.write(cut.encoded() + tail, to: "\(aside.directory)/\(SegmentHeader.fileName(cut.first))", mode: 0o600)
            var reader = Reader(tail)
            while reader.remaining > 0, let record = try? Record(from: &reader) {
                guard record.kind == Record.Kind.event.rawValue else { continue }
                list.append(try Coding.encode(Listed(record)))
                list.append(UInt8(ascii: "\n"))
            }
        }
        try Files.write(list, to: "\(aside.directory)/events.jsonl", mode: 0o600)
        try cut(after: end)
        return aside
    }

    /// An event that was set aside, for people and for `POST /v1/events`.
    private struct Listed: Encodable {
        var seq: UInt64
        var topic: String
        var producer: String
        var id: String
        /// The payload when it is JSON, else in base64.
        var event: JSON?
        var payload: Data?
        init(_ record: Record) {
            seq = record.seq
            topic = record.topic
            producer = record.producer
            id = record.id
            event = try? Coding.decode(JSON.self, from: record.payload)
            payload = event == nil ? record.payload : nil
        }
    }

    private func removeIndex(of segment: Segment) throws {
        for path in [SegmentIndex.path(segment.file.path), SegmentIndex.idsPath(segment.file.path)] where access(path, F_OK) == 0 {
            try disk.remove(path)
        }
    }

    private mutating func cut(after end: BatchEnd) throws {
        // From the newest file on, so that a stop in between leaves a log without a hole.
        while let segment = segments.last,
            segment.first > end.position.segment || (segment.first == end.position.segment && end.position.offset == 0)
        {
            try removeIndex(of: segment)
            try disk.remove(segment.file.path)
            segments.removeLast()
        }
        try DiskDirectory(directory, disk: disk).sync()
        if var segment = segments.last {
            // Made when this was a bus of its own, it may speak of what goes now.
            try removeIndex(of: segment)
            let from = segment.first == end.position.segment ? end.position.offset : segment.end
            // The last batch first: what is before it stays a whole log.
            let size = segment.end
            for batch in try ends(in: segment).reversed() where batch.position.offset < size && batch.position.offset >= from {
                try segment.file.zero(from: batch.position.offset, to: segment.end)
                try segment.file.sync()
                segment.end = batch.position.offset
            }
            if segment.end > from {
                try segment.file.zero(from: from, to: segment.end)
                try segment.file.sync()
                segment.end = from
            }
            segment.index.removeAll { $0.offset >= from }
            segments[segments.count - 1] = segment
        }
        last = end.seq
        hash = end.hash
        if segments.isEmpty {
            stream = nil
            epoch = 0
        }
    }
}
