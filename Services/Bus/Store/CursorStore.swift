import Contracts
import Foundation
import GRDB
import Storage
import Wire

/// Consumers' cursors, the last flush, and what the log should hold, in the bus's SQLite file. Losing the last moments costs
/// redelivery, never an event.
struct CursorStore: Sendable {
    let store: Store

    static func migrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("bus 1: cursors, durable mark") { db in
            try db.execute(
                sql: """
                    CREATE TABLE cursors (
                        owner TEXT NOT NULL, consumer TEXT NOT NULL, seq INTEGER NOT NULL, generation INTEGER NOT NULL,
                        stream TEXT NOT NULL, PRIMARY KEY (owner, consumer)) WITHOUT ROWID;
                    CREATE TABLE durable_mark (
                        one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER NOT NULL, "offset" INTEGER NOT NULL,
                        seq INTEGER NOT NULL);
                    """)
        }
        migrator.registerMigration("bus 2: what the log should hold") { db in
            try db.execute(
                sql: """
                    CREATE TABLE outboxes (
                        stream TEXT NOT NULL, producer TEXT NOT NULL, outbox TEXT NOT NULL, number INTEGER NOT NULL,
                        PRIMARY KEY (stream, producer, outbox)) WITHOUT ROWID;
                    CREATE TABLE logs (stream TEXT PRIMARY KEY, first INTEGER NOT NULL, epoch INTEGER NOT NULL) WITHOUT ROWID;
                    """)
        }
        groups(&migrator)
        migrator.registerMigration("bus 4: a CRC in each row") { db in
            for table in ["cursors", "durable_mark", "outboxes", "logs", "queues", "parked"] {
                try db.execute(sql: "ALTER TABLE \(table) ADD COLUMN crc INTEGER")
            }
        }
    }

    private static func groups(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("bus 3: work queues, parked events") { db in
            try db.execute(
                sql: """
                    ALTER TABLE cursors ADD COLUMN strike INTEGER;
                    ALTER TABLE cursors ADD COLUMN strike_deliveries INTEGER;
                    CREATE TABLE queues (
                        owner TEXT NOT NULL, consumer TEXT NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL,
                        unsettled BLOB NOT NULL, PRIMARY KEY (owner, consumer)) WITHOUT ROWID;
                    CREATE TABLE parked (
                        owner TEXT NOT NULL, consumer TEXT NOT NULL, seq INTEGER NOT NULL, stream TEXT NOT NULL,
                        deliveries INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
                        PRIMARY KEY (owner, consumer, seq)) WITHOUT ROWID;
                    """)
        }
    }

    /// A file that is no database, or a damaged one, gets another name, and a new one is begun; which, and why. What it held is lost to
    /// the bus, so everything is delivered again: that is what consumers must bear anyway.
    static func setAside(_ path: String, now: Int64) -> [(name: String, why: String)] {
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        var why: String
        do {
            var configuration = Configuration()
            configuration.busyMode = .timeout(5)
            let queue = try DatabaseQueue(path: path, configuration: configuration)
            let problems = try queue.writeWithoutTransaction { try String.fetchAll($0, sql: "PRAGMA integrity_check(1)") }
            try queue.close()
            guard let problem = problems.first, problem != "ok" else { return [] }
            why = problem
        } catch let error as DatabaseError where error.resultCode == .SQLITE_CORRUPT || error.resultCode == .SQLITE_NOTADB {
            why = error.message ?? "\(error.resultCode)"
        } catch {
            // Whoever opens it next says what is wrong.
            return []
        }
        let aside = "\(path).damaged-\(now)"
        for suffix in ["", "-wal", "-shm"] where access(path + suffix, F_OK) == 0 {
            if rename(path + suffix, aside + suffix) != 0 { why += "; \(DiskError("name \(aside)\(suffix)"))" }
        }
        return [(aside, why)]
    }

    func mark() throws -> DurableMark? { try Self.mark(store.db) }
    static func mark(_ db: some DatabaseReader) throws -> DurableMark? {
        try db.read { db in
            try Row.fetchOne(db, sql: "SELECT segment, \"offset\", seq, crc FROM durable_mark").flatMap { row in
                guard Seal.holds(row) else { return nil }
                return DurableMark(segment: UInt64(bitPattern: row[0]), offset: row[1], seq: UInt64(bitPattern: row[2]))
            }
        }
    }

    /// The consumers of this log. Those of another one (before a restore of nothing) are left where they are.
    func consumers(stream: String) throws -> ConsumerRecords { try Self.consumers(stream: stream, store.db) }
    static func consumers(stream: String, _ db: some DatabaseReader) throws -> ConsumerRecords {
        try db.read { db in
            var result = ConsumerRecords()
            let cursors = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, seq, generation, strike, strike_deliveries, stream, crc FROM cursors")
            while let row = try cursors.next() {
                guard result.accepts(row, "the cursor", stream) else { continue }
                let strike: Int64? = row[4]
                result.cursors[ConsumerKey(owner: row[0], name: row[1])] = Cursor(
                    seq: UInt64(bitPattern: row[2]), generation: UInt64(bitPattern: row[3]),
                    strike: strike.map { Strike(seq: UInt64(bitPattern: $0), deliveries: row[5] ?? 1) })
            }
            let queues = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, next, unsettled, stream, crc FROM queues")
            while let row = try queues.next() {
                guard result.accepts(row, "the work queue", stream) else { continue }
                result.queues[ConsumerKey(owner: row[0], name: row[1])] = WorkQueue(
                    next: UInt64(bitPattern: row[2]), unsettled: Self.unpack(row[3]))
            }
            let parked = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, seq, deliveries, reason, at, stream, crc FROM parked")
            while let row = try parked.next() {
                guard result.accepts(row, "a parked event", stream) else { continue }
                let seq = UInt64(bitPattern: row[2])
                result.parked[ConsumerKey(owner: row[0], name: row[1]), default: [:]][seq] = Parked(
                    seq: seq, deliveries: row[3], reason: row[4], at: row[5])
            }
            return result
        }
    }

    /// 12 bytes an event: `u64` number, `u32` deliveries.
    static func pack(_ unsettled: [UInt64: Int]) -> Data {
        var writer = Writer(capacity: unsettled.count * 12)
        for (seq, deliveries) in unsettled.sorted(by: { $0.key < $1.key }) {
            writer.u64(seq)
            writer.u32(UInt32(clamping: deliveries))
        }
        return writer.data
    }

    static func unpack(_ data: Data) -> [UInt64: Int] {
        var reader = Reader(data)
        var result: [UInt64: Int] = [:]
        while let seq = reader.u64(), let deliveries = reader.u32() { result[seq] = Int(deliveries) }
        return result
    }

    /// What is remembered of a log; nil: nothing.
    func known(stream: String) throws -> KnownLog? { try Self.known(stream: stream, store.db) }
    static func known(stream: String, _ db: some DatabaseReader) throws -> KnownLog? {
        try db.read { db in
            guard let row = try Row.fetchOne(db, sql: "SELECT first, epoch, stream, crc FROM logs WHERE stream = ?", arguments: [stream]),
                Seal.holds(row)
            else { return nil }
            return KnownLog(first: UInt64(bitPattern: row[0]), epoch: UInt64(bitPattern: row[1]))
        }
    }

    /// The highest number taken from each outbox into that log.
    func outboxes(stream: String) throws -> [OutboxKey: UInt64] { try Self.outboxes(stream: stream, store.db) }
    static func outboxes(stream: String, _ db: some DatabaseReader) throws -> [OutboxKey: UInt64] {
        try db.read { db in
            var result: [OutboxKey: UInt64] = [:]
            let rows = try Row.fetchCursor(
                db, sql: "SELECT producer, outbox, number, stream, crc FROM outboxes WHERE stream = ?", arguments: [stream])
            // The log has them as well.
            while let row = try rows.next() {
                guard Seal.holds(row) else { continue }
                result[OutboxKey(producer: row[0], outbox: row[1])] = UInt64(bitPattern: row[2])
            }
            return result
        }
    }

    /// Rows of the log and of the outboxes that are not what was written, for people.
    static func spoiled(_ db: some DatabaseReader) throws -> [String] {
        try db.read { db in
            var result: [String] = []
            for (name, columns) in [
                ("the durable mark", "segment, \"offset\", seq, crc FROM durable_mark"),
                ("the row of a log", "first, epoch, stream, crc FROM logs"),
                ("the row of an outbox", "producer, outbox, number, stream, crc FROM outboxes"),
            ] {
                for row in try Row.fetchAll(db, sql: "SELECT \(columns)") where !Seal.holds(row) { result.append("\(name) fails its CRC") }
            }
            return result
        }
    }

    /// Notes with which number the log begins and how often it was started.
    func note(first: UInt64, epoch: UInt64, stream: String) throws {
        try store.db.write { db in try Self.note(first: first, epoch: epoch, stream: stream, db) }
    }

    static func note(first: UInt64, epoch: UInt64, stream: String, _ db: Database) throws {
        try db.execute(
            sql: """
                INSERT INTO logs (first, epoch, stream, crc) VALUES (?, ?, ?, ?)
                ON CONFLICT (stream) DO UPDATE SET first = excluded.first, epoch = excluded.epoch, crc = excluded.crc
                """, arguments: Seal.sealed([Int64(bitPattern: first), Int64(bitPattern: epoch), stream]))
    }

    /// Notes with which number the log begins from now on. It is on the device when this returns, because what comes before is
    /// then removed.
    func begin(at first: UInt64, epoch: UInt64, stream: String) throws {
        try store.db.writeWithoutTransaction { db in
            // In WAL mode this flushes the WAL at the commit, and with it all commits before.
            try db.execute(sql: "PRAGMA synchronous=FULL")
            defer { try? db.execute(sql: "PRAGMA synchronous=NORMAL") }
            try db.execute(
                sql: "UPDATE logs SET first = ?, epoch = ?, stream = ?, crc = ? WHERE stream = ?",
                arguments: Seal.sealed([Int64(bitPattern: first), Int64(bitPattern: epoch), stream]) + [stream])
        }
    }

    /// Writes what changed, in one transaction.
    func save(_ changes: Changes, mark: DurableMark, stream: String) throws {
        try store.db.write { db in try Self.save(changes, mark, stream, db) }
    }

    /// The same without waiting for it; the log of the process tells of a failure.
    func saveLater(_ changes: Changes, mark: DurableMark, stream: String, done: @escaping @Sendable ((any Error)?) -> Void) {
        store.db.asyncWrite({ db in try Self.save(changes, mark, stream, db) }) { _, result in
            if case .failure(let error) = result { done(error) } else { done(nil) }
        }
    }

    static func save(_ changes: Changes, _ mark: DurableMark, _ stream: String, _ db: Database) throws {
        for key in changes.forgotten {
            for table in ["cursors", "queues", "parked"] {
                try db.cachedStatement(sql: "DELETE FROM \(table) WHERE owner = ? AND consumer = ?").execute(arguments: [
                    key.owner, key.name,
                ])
            }
        }
        let statement = try db.cachedStatement(
            sql: """
                INSERT INTO cursors (owner, consumer, seq, generation, strike, strike_deliveries, stream, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (owner, consumer) DO UPDATE
                SET seq = excluded.seq, generation = excluded.generation, stream = excluded.stream, strike = excluded.strike,
                    strike_deliveries = excluded.strike_deliveries, crc = excluded.crc
                """)
        for (key, cursor) in changes.cursors {
            try statement.execute(
                arguments: Seal.sealed([
                    key.owner, key.name, Int64(bitPattern: cursor.seq), Int64(bitPattern: cursor.generation),
                    cursor.strike.map { Int64(bitPattern: $0.seq) }, cursor.strike?.deliveries, stream,
                ]))
        }
        try saveGroups(changes, stream, db)
        for (key, number) in changes.outboxes {
            try db.cachedStatement(
                sql: """
                    INSERT INTO outboxes (producer, outbox, number, stream, crc) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (stream, producer, outbox) DO UPDATE SET number = excluded.number, crc = excluded.crc
                    WHERE excluded.number > number OR outboxes.crc IS NULL
                    """
            ).execute(arguments: Seal.sealed([key.producer, key.outbox, Int64(bitPattern: number), stream]))
        }
        try db.execute(
            sql: """
                INSERT INTO durable_mark (one, segment, "offset", seq, crc) VALUES (1, ?, ?, ?, ?)
                ON CONFLICT (one) DO UPDATE
                SET segment = excluded.segment, "offset" = excluded."offset", seq = excluded.seq, crc = excluded.crc
                """, arguments: Seal.sealed([Int64(bitPattern: mark.segment), mark.offset, Int64(bitPattern: mark.seq)]))
    }

    private static func saveGroups(_ changes: Changes, _ stream: String, _ db: Database) throws {
        for (key, queue) in changes.queues {
            guard let queue else {
                try db.cachedStatement(sql: "DELETE FROM queues WHERE owner = ? AND consumer = ?").execute(arguments: [key.owner, key.name])
                continue
            }
            try db.cachedStatement(
                sql: """
                    INSERT INTO queues (owner, consumer, next, unsettled, stream, crc) VALUES (?, ?, ?, ?, ?, ?)
                    ON CONFLICT (owner, consumer) DO UPDATE
                    SET stream = excluded.stream, next = excluded.next, unsettled = excluded.unsettled, crc = excluded.crc
                    """
            ).execute(arguments: Seal.sealed([key.owner, key.name, Int64(bitPattern: queue.next), pack(queue.unsettled), stream]))
        }
        for (key, entries) in changes.parked {
            for (seq, parked) in entries {
                let number = Int64(bitPattern: seq)
                guard let parked else {
                    try db.cachedStatement(sql: "DELETE FROM parked WHERE owner = ? AND consumer = ? AND seq = ?").execute(
                        arguments: [key.owner, key.name, number])
                    continue
                }
                try db.cachedStatement(
                    sql: """
                        INSERT OR REPLACE INTO parked (owner, consumer, seq, deliveries, reason, at, stream, crc)
                        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                        """
                ).execute(
                    arguments: Seal.sealed([key.owner, key.name, number, parked.deliveries, parked.reason, parked.at, stream]))
            }
        }
    }
}

/// A CRC over the values of a row, because SQLite does not notice when a bit of a value flips.
enum Seal {
    /// The values, and their CRC after them: the order in which the row is written.
    static func sealed(_ values: [(any DatabaseValueConvertible)?]) -> StatementArguments {
        StatementArguments(values + [crc(values.map { $0?.databaseValue ?? .null })])
    }

    /// Whether the values, of which the CRC is the last, are what was written. Rows from before there were CRCs are believed.
    static func holds(_ row: Row) -> Bool {
        let values = Array(row.databaseValues)
        guard let last = values.last, !last.isNull else { return true }
        return Int64.fromDatabaseValue(last) == crc(Array(values.dropLast()))
    }

    private static func crc(_ values: [DatabaseValue]) -> Int64 {
        var writer = Writer()
        for value in values {
            switch value.storage {
            case .null: writer.u8(0)
            case .int64(let number):
                writer.u8(1)
                writer.u64(UInt64(bitPattern: number))
            case .double(let number):
                writer.u8(2)
                writer.u64(number.bitPattern)
            case .string(let text):
                writer.u8(3)
                writer.u32(UInt32(clamping: text.utf8.count))
                writer.text(text)
            case .blob(let data):
                writer.u8(4)
                writer.u32(UInt32(clamping: data.count))
                writer.bytes(data)
            }
        }
        return Int64(CRC32C.checksum(writer.data))
    }
}

extension ConsumerRecords {
    /// Whether the row is whole, and of this log. A spoiled one is noted.
    fileprivate mutating func accepts(_ row: Row, _ what: String, _ stream: String) -> Bool {
        guard Seal.holds(row) else {
            let owner = String.fromDatabaseValue(row[0]) ?? "?"
            let name = String.fromDatabaseValue(row[1]) ?? "?"
            spoiled.append("\(what) of consumer \(Problem.quote(name)) of \(Problem.quote(owner)) fails its CRC")
            return false
        }
        return row["stream"] == stream
    }
}
