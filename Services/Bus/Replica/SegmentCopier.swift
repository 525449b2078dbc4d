import Contracts
import Foundation
import GRDB
import Kit
import Logging
import ServiceLifecycle
import Wire

/// `copy_to`: every finished segment of the log, once and for good, in another directory, with a copy of the bookkeeping; enough
/// to begin again from, up to the last finished segment (docs/replica.md).
///
/// A file is written under another name, read back and checked to its last batch, and only then given its name. What has its
/// name already is never written again.
struct SegmentCopier: Service {
    let log: EventLog
    let store: CursorStore
    /// `copy_to`/id of the log: the histories of two logs do not mix.
    let directory: String
    let health: Health
    let logger: Logger
    private let queue = DispatchQueue(label: "bus-copy", qos: .utility)
    private let state = Locked(State())

    private struct State: Sendable {
        /// Segments that have been copied, or found to be there.
        var done: Set<UInt64> = []
        var bookkeepingAt = Int64.min / 2
        var complaint: String?
    }

    init(log: EventLog, store: CursorStore, copyTo: String, health: Health, logger: Logger) {
        self.log = log
        self.store = store
        directory = "\(copyTo)/\(log.stream)"
        self.health = health
        self.logger = logger
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                await withCheckedContinuation { continuation in
                    queue.async {
                        turn(now: Clock.monotonic())
                        continuation.resume()
                    }
                }
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }

    /// Copies what is finished and not there yet.
    func turn(now: Int64) {
        do {
            if access(directory, F_OK) != 0 { try Files.makeDirectory(directory, mode: 0o700) }
            var isNew = false
            let segments = log.segments
            for (segment, next) in zip(segments, segments.dropFirst()) where !state.withLock({ $0.done.contains(segment.first) }) {
                try copy(segment, next: next)
                state.withLock { _ = $0.done.insert(segment.first) }
                isNew = true
            }
            if isNew || now - state.withLock(\.bookkeepingAt) >= 60_000 {
                try copyBookkeeping()
                state.withLock { $0.bookkeepingAt = now }
            }
            complain(nil)
        } catch {
            complain("the log cannot be copied to \(directory): \(error)")
        }
    }

    private func complain(_ text: String?) {
        let isNews = state.withLock { state in
            defer { state.complaint = text }
            return state.complaint != text
        }
        guard isNews else { return }
        health.set("copy_to", problem: text)
        if let text { logger.error("\(text)") }
    }

    private func copy(_ segment: Segment, next: Segment) throws {
        let path = "\(directory)/\(SegmentHeader.fileName(segment.first))"
        if access(path, F_OK) == 0 {
            // Of an earlier run. Another content under this name would be another history's: a person must look.
            return try check(path, segment, next)
        }
        let part = "\(path).part"
        let file = try DiskFile(part, create: access(part, F_OK) != 0)
        // What an earlier attempt left is gone on with; should it be wrong, the check below finds it.
        var at = min(try file.size(), segment.end)
        while at < segment.end {
            let piece = try segment.file.read(at: at, count: min(1 << 20, segment.end - at))
            guard !piece.isEmpty else { throw DiskError("read all of \(segment.name)", EIO) }
            try file.write(piece, at: at)
            at += piece.count
        }
        try file.sync()
        do {
            try check(part, segment, next)
        } catch {
            unlink(part)
            throw error
        }
        // Unlike a rename, this never replaces what is there.
        guard link(part, path) == 0 else { throw DiskError("name \(path)") }
        unlink(part)
        try DiskDirectory(directory).sync()
    }

    /// Whether the file holds the segment to its last batch, and ends where the next one begins. Throws `WireError`, `DiskError`.
    private func check(_ path: String, _ segment: Segment, _ next: Segment) throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
        let header = try SegmentHeader(data.prefix(SegmentHeader.length))
        let following = try SegmentHeader(try next.file.read(at: 0, count: SegmentHeader.length))
        guard header.stream == following.stream, header.first == segment.first else { throw WireError("\(path) is of another log") }
        var last = segment.first &- 1
        var hash = header.previousHash
        var at = SegmentHeader.length
        while at < data.count {
            var looked = 0
            guard let length = try RawBatches.length(data[at...], from: &looked) else { break }
            let checked = try RawBatches.check(Data(data[at..<at + length]), after: last, hash: hash)
            (last, hash) = (checked.last, checked.hash)
            at += length
        }
        guard at == data.count, last &+ 1 == next.first, hash == following.previousHash else {
            throw WireError("\(path) does not end where the next segment begins")
        }
    }

    /// SQLite's own copy of the bookkeeping, made fit for a fresh start: it begins a new term, so that nobody takes what comes
    /// after the restore for what was there before.
    private func copyBookkeeping() throws {
        let path = "\(directory)/state.sqlite"
        let part = "\(path).part"
        for old in [part, "\(part)-journal", "\(part)-wal", "\(part)-shm"] { unlink(old) }
        let copy = try DatabaseQueue(path: part)
        try store.store.db.backup(to: copy)
        let first = log.first
        try copy.writeWithoutTransaction { db in
            try db.execute(sql: "PRAGMA journal_mode=DELETE")
            // Where the last flush ended is beyond what will be there.
            try db.execute(sql: "DELETE FROM durable_mark")
            let last = Epoch.nextTerm(after: log.epoch) &- 1
            try CursorStore.note(first: first, epoch: last, stream: log.stream, db)
        }
        try copy.close()
        chmod(part, 0o600)
        guard rename(part, path) == 0 else { throw DiskError("name \(path)") }
        try DiskDirectory(directory).sync()
    }
}
