import Contracts
import Foundation
import GRDB
import Storage
import Wire

/// What a check of the log and its bookkeeping found.
public struct LogReport: Codable, Hashable, Sendable {
    public struct Finding: Codable, Hashable, Sendable {
        /// False: nothing is lost, and the next start deals with it.
        public var isDamage: Bool
        /// The file, or `bookkeeping`.
        public var place: String
        public var message: String
        /// The events that cannot be read, if any.
        public var first: UInt64?
        public var last: UInt64?
    }
    /// 32 hexadecimal digits; empty when there is no log.
    public var stream = ""
    public var epoch: UInt64 = 0
    /// Numbers of the first event and of the last.
    public var first: UInt64 = 1
    public var last: UInt64 = 0
    public var files = 0
    public var bytes: UInt64 = 0
    /// Events that cannot be read.
    public var lost: UInt64 = 0
    /// The chain's hash at `last`, hexadecimal.
    public var hash = ""
    public var consumers = 0
    public var parked = 0
    public var findings: [Finding] = []
    public var isClean: Bool { !findings.contains(where: \.isDamage) }

    /// For people.
    public var text: String {
        guard !stream.isEmpty || !findings.isEmpty else { return "there is no log yet\n" }
        var lines = [
            "log        \(stream), started \(epoch) times", "events     \(first) to \(last), \(lost) cannot be read",
            "files      \(files), \(bytes) bytes", "hash       \(hash)", "consumers  \(consumers), \(parked) events parked",
        ]
        for finding in findings {
            let range = finding.first.flatMap { first in
                finding.last.map { first == $0 ? ", event \(first)" : ", events \(first) to \($0)" }
            }
            lines.append("\(finding.isDamage ? "DAMAGE" : "note  ")     \(finding.place)\(range ?? ""): \(finding.message)")
        }
        lines.append(isClean ? "clean" : "damaged: what is intact is served; docs/repair.md says what to do")
        return lines.joined(separator: "\n") + "\n"
    }

    mutating func add(_ place: String, _ message: String, isDamage: Bool = true, first: UInt64? = nil, last: UInt64? = nil) {
        findings.append(Finding(isDamage: isDamage, place: place, message: message, first: first, last: last))
    }
}

/// Reads every byte of the log and of its bookkeeping, and changes nothing. The bus must not be running.
enum LogCheck {
    /// `directory` is the bus's: the log is in `log`, the bookkeeping in `state.sqlite`. Throws `DiskError` when the directory cannot be read.
    static func run(_ directory: String) throws -> LogReport {
        var report = LogReport()
        let books = Books(directory + "/state.sqlite", &report)
        let log = directory + "/log"
        let names = FileManager.default.fileExists(atPath: log) ? try FileManager.default.contentsOfDirectory(atPath: log).sorted() : []
        let paths = names.filter { EventLog.isSegment($0) }.map { "\(log)/\($0)" }
        for name in names where name.hasSuffix(".damaged") {
            report.add(name, "was set aside by an earlier start; no event of it is in the log", isDamage: false)
        }
        let stream = paths.lazy.compactMap { path in
            try? SegmentHeader(DiskFile(path, readOnly: true).read(at: 0, count: SegmentHeader.length)).stream
        }.first
        let known = stream.flatMap { books.known(Router.hex($0)) }
        let first = known?.first ?? paths.first.flatMap { UInt64(($0 as NSString).lastPathComponent.dropLast(4)) } ?? 1
        // Files that an interrupted trimming left behind.
        let kept = paths.filter { $0 >= "\(log)/\(SegmentHeader.fileName(first))" }
        if kept.count < paths.count, kept.first?.hasSuffix(SegmentHeader.fileName(first)) == true {
            report.add("log", "\(paths.count - kept.count) files before event \(first) wait to be removed", isDamage: false)
        }
        let files = kept.first?.hasSuffix(SegmentHeader.fileName(first)) == true ? kept : paths
        let found = try LogRecovery.run(files, durable: books.mark, first: first, indices: .ignored, disk: Disk())
        describe(found, &report)
        if let known, found.epoch < known.epoch { report.epoch = known.epoch }
        if known == nil, first > 1 {
            report.add("bookkeeping", "nobody remembers whether events before \(first) were removed or are missing", isDamage: false)
        }
        try checkIndices(files, found, &report)
        books.check(found, &report)
        return report
    }

    private static func describe(_ found: RecoveredLog, _ report: inout LogReport) {
        report.stream = found.stream.map(Router.hex) ?? ""
        report.epoch = found.epoch
        report.first = found.first
        report.last = found.last
        report.hash = Router.hex(found.hash)
        report.files = found.segments.count
        report.bytes = found.segments.reduce(0) { $0 + UInt64($1.capacity) }
        for damage in found.damage {
            let isLoss = damage.first <= damage.last
            if isLoss { report.lost += damage.last - damage.first + 1 }
            report.add(
                "log", damage.place, first: isLoss ? damage.first : nil, last: isLoss ? damage.last : nil)
        }
        if let cut = found.cut, cut.to > cut.from {
            report.add(
                found.segments.last?.name ?? "log",
                "\(cut.to - cut.from) bytes at the end are of a batch that was never acknowledged; the next start cuts them",
                isDamage: false)
        }
    }

    /// An index that is wrong costs time at the next start, and nothing else.
    private static func checkIndices(_ paths: [String], _ found: RecoveredLog, _ report: inout LogReport) throws {
        for (path, segment) in zip(paths, found.segments) {
            let name = (SegmentIndex.path(path) as NSString).lastPathComponent
            guard let size = try? DiskFile(SegmentIndex.path(path), readOnly: true).size() else { continue }
            let index = SegmentIndex(of: path, stream: found.stream ?? Data(), first: segment.first, mark: nil, disk: Disk())
            guard let index, index.length == size else {
                report.add(
                    name, "the index cannot be read from byte \(index?.length ?? 0) on; the next start makes it anew", isDamage: false)
                continue
            }
            if let end = index.chunks.last, end.to > segment.end || !segment.index.starts(with: index.chunks.flatMap(\.entries)) {
                report.add(name, "the index does not fit its segment; the next start makes it anew", isDamage: false)
            }
        }
    }

    /// The bus's SQLite file, opened for reading alone.
    private struct Books {
        var queue: DatabaseQueue?
        var mark: DurableMark?

        init(_ path: String, _ report: inout LogReport) {
            guard FileManager.default.fileExists(atPath: path) else { return }
            do {
                var configuration = Configuration()
                configuration.readonly = true
                let queue = try DatabaseQueue(path: path, configuration: configuration)
                for problem in try queue.read({ try String.fetchAll($0, sql: "PRAGMA integrity_check(20)") }) where problem != "ok" {
                    report.add("bookkeeping", problem)
                }
                mark = try CursorStore.mark(queue)
                self.queue = queue
            } catch {
                report.add("bookkeeping", "\(error)")
            }
        }

        func known(_ stream: String) -> KnownLog? { queue.flatMap { try? CursorStore.known(stream: stream, $0) } }

        func check(_ found: RecoveredLog, _ report: inout LogReport) {
            guard let queue, let stream = found.stream.map(Router.hex) else { return }
            do {
                let records = try CursorStore.consumers(stream: stream, queue)
                for row in records.spoiled { report.add("bookkeeping", row) }
                report.consumers = records.cursors.count
                report.parked = records.parked.values.reduce(0) { $0 + $1.count }
                func name(_ key: ConsumerKey) -> String { "\(Problem.quote(key.name)) of \(Problem.quote(key.owner))" }
                for (key, cursor) in records.cursors where cursor.seq > found.last {
                    report.add("bookkeeping", "the cursor of \(name(key)) is at \(cursor.seq), beyond the end of the log, \(found.last)")
                }
                for (key, queue) in records.queues
                where queue.next > found.last + 1 || queue.unsettled.keys.contains(where: { $0 > found.last }) {
                    report.add("bookkeeping", "the work queue of \(name(key)) goes beyond the end of the log, \(found.last)")
                }
                for (key, parked) in records.parked {
                    for seq in parked.keys.sorted() where seq > found.last {
                        report.add("bookkeeping", "event \(seq) is parked for \(name(key)), and the log ends with \(found.last)")
                    }
                    for seq in parked.keys.sorted() where seq < found.first {
                        report.add("bookkeeping", "event \(seq) is parked for \(name(key)) and no longer kept", isDamage: false)
                    }
                }
                for row in try CursorStore.spoiled(queue) { report.add("bookkeeping", row) }
                for (key, number) in try CursorStore.outboxes(stream: stream, queue) where number < found.outboxes[key] ?? 0 {
                    report.add("bookkeeping", "the number of an outbox of \(key.producer) is behind the log's", isDamage: false)
                }
            } catch {
                report.add("bookkeeping", "\(error)")
            }
        }
    }
}
