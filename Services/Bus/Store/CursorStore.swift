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

    func mark() throws -> DurableMark? {
        try store.db.read { db in
            try Row.fetchOne(db, sql: "SELECT segment, \"offset\", seq FROM durable_mark").map { row in
                DurableMark(segment: UInt64(bitPattern: row[0]), offset: row[1], seq: UInt64(bitPattern: row[2]))
            }
        }
    }

    /// The consumers of this log. Those of another one (before a restore of nothing) are left where they are.
    func consumers(stream: String) throws -> ConsumerRecords {
        try store.db.read { db in
            var result = ConsumerRecords()
            let cursors = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, seq, generation, strike, strike_deliveries FROM cursors WHERE stream = ?",
                arguments: [stream])
            while let row = try cursors.next() {
                let strike: Int64? = row[4]
                result.cursors[ConsumerKey(owner: row[0], name: row[1])] = Cursor(
                    seq: UInt64(bitPattern: row[2]), generation: UInt64(bitPattern: row[3]),
                    strike: strike.map { Strike(seq: UInt64(bitPattern: $0), deliveries: row[5] ?? 1) })
            }
            let queues = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, next, unsettled FROM queues WHERE stream = ?", arguments: [stream])
            while let row = try queues.next() {
                result.queues[ConsumerKey(owner: row[0], name: row[1])] = WorkQueue(
                    next: UInt64(bitPattern: row[2]), unsettled: Self.unpack(row[3]))
            }
            let parked = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, seq, deliveries, reason, at FROM parked WHERE stream = ?", arguments: [stream])
            while let row = try parked.next() {
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
    func known(stream: String) throws -> KnownLog? {
        try store.db.read { db in
            guard let row = try Row.fetchOne(db, sql: "SELECT first, epoch FROM logs WHERE stream = ?", arguments: [stream]) else {
                return nil
            }
            return KnownLog(first: UInt64(bitPattern: row[0]), epoch: UInt64(bitPattern: row[1]))
        }
    }

    /// The highest number taken from each outbox into that log.
    func outboxes(stream: String) throws -> [OutboxKey: UInt64] {
        try store.db.read { db in
            var result: [OutboxKey: UInt64] = [:]
            let rows = try Row.fetchCursor(db, sql: "SELECT producer, outbox, number FROM outboxes WHERE stream = ?", arguments: [stream])
            while let row = try rows.next() { result[OutboxKey(producer: row[0], outbox: row[1])] = UInt64(bitPattern: row[2]) }
            return result
        }
    }

    /// Notes with which number the log begins and how often it was started.
    func note(first: UInt64, epoch: UInt64, stream: String) throws {
        try store.db.write { db in
            try db.execute(
                sql: """
                    INSERT INTO logs (stream, first, epoch) VALUES (?, ?, ?)
                    ON CONFLICT (stream) DO UPDATE SET first = excluded.first, epoch = excluded.epoch
                    """, arguments: [stream, Int64(bitPattern: first), Int64(bitPattern: epoch)])
        }
    }

    /// Notes with which number the log begins from now on. It is on the device when this returns, because what comes before is
    /// then removed.
    func begin(at first: UInt64, stream: String) throws {
        try store.db.writeWithoutTransaction { db in
            // In WAL mode this flushes the WAL at the commit, and with it all commits before.
            try db.execute(sql: "PRAGMA synchronous=FULL")
            defer { try? db.execute(sql: "PRAGMA synchronous=NORMAL") }
            try db.execute(sql: "UPDATE logs SET first = ? WHERE stream = ?", arguments: [Int64(bitPattern: first), stream])
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

    private static func save(_ changes: Changes, _ mark: DurableMark, _ stream: String, _ db: Database) throws {
        let statement = try db.cachedStatement(
            sql: """
                INSERT INTO cursors (owner, consumer, seq, generation, stream, strike, strike_deliveries) VALUES (?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (owner, consumer) DO UPDATE
                SET seq = excluded.seq, generation = excluded.generation, stream = excluded.stream, strike = excluded.strike,
                    strike_deliveries = excluded.strike_deliveries
                """)
        for (key, cursor) in changes.cursors {
            try statement.execute(arguments: [
                key.owner, key.name, Int64(bitPattern: cursor.seq), Int64(bitPattern: cursor.generation), stream,
                cursor.strike.map { Int64(bitPattern: $0.seq) }, cursor.strike?.deliveries,
            ])
        }
        try saveGroups(changes, stream, db)
        for (key, number) in changes.outboxes {
            try db.cachedStatement(
                sql: """
                    INSERT INTO outboxes (stream, producer, outbox, number) VALUES (?, ?, ?, ?)
                    ON CONFLICT (stream, producer, outbox) DO UPDATE SET number = max(number, excluded.number)
                    """
            ).execute(arguments: [stream, key.producer, key.outbox, Int64(bitPattern: number)])
        }
        try db.execute(
            sql: """
                INSERT INTO durable_mark (one, segment, "offset", seq) VALUES (1, ?, ?, ?)
                ON CONFLICT (one) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset", seq = excluded.seq
                """, arguments: [Int64(bitPattern: mark.segment), mark.offset, Int64(bitPattern: mark.seq)])
    }

    private static func saveGroups(_ changes: Changes, _ stream: String, _ db: Database) throws {
        for (key, queue) in changes.queues {
            guard let queue else {
                try db.cachedStatement(sql: "DELETE FROM queues WHERE owner = ? AND consumer = ?").execute(arguments: [key.owner, key.name])
                continue
            }
            try db.cachedStatement(
                sql: """
                    INSERT INTO queues (owner, consumer, stream, next, unsettled) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (owner, consumer) DO UPDATE
                    SET stream = excluded.stream, next = excluded.next, unsettled = excluded.unsettled
                    """
            ).execute(arguments: [key.owner, key.name, stream, Int64(bitPattern: queue.next), pack(queue.unsettled)])
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
                        INSERT OR REPLACE INTO parked (owner, consumer, seq, stream, deliveries, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?)
                        """
                ).execute(arguments: [key.owner, key.name, number, stream, parked.deliveries, parked.reason, parked.at])
            }
        }
    }
}
