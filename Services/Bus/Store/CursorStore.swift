import Foundation
import GRDB
import Storage

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
    }

    func mark() throws -> DurableMark? {
        try store.db.read { db in
            try Row.fetchOne(db, sql: "SELECT segment, \"offset\", seq FROM durable_mark").map { row in
                DurableMark(segment: UInt64(bitPattern: row[0]), offset: row[1], seq: UInt64(bitPattern: row[2]))
            }
        }
    }

    /// The cursors into this log. Those into another one (before a restore of nothing) are left where they are.
    func cursors(stream: String) throws -> [ConsumerKey: Cursor] {
        try store.db.read { db in
            var result: [ConsumerKey: Cursor] = [:]
            let rows = try Row.fetchCursor(
                db, sql: "SELECT owner, consumer, seq, generation FROM cursors WHERE stream = ?", arguments: [stream])
            while let row = try rows.next() {
                result[ConsumerKey(owner: row[0], name: row[1])] = Cursor(
                    seq: UInt64(bitPattern: row[2]), generation: UInt64(bitPattern: row[3]))
            }
            return result
        }
    }

    /// What is remembered of a log.
    func known(stream: String) throws -> KnownLog {
        try store.db.read { db in
            guard let row = try Row.fetchOne(db, sql: "SELECT first, epoch FROM logs WHERE stream = ?", arguments: [stream]) else {
                return KnownLog()
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
                INSERT INTO cursors (owner, consumer, seq, generation, stream) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (owner, consumer) DO UPDATE
                SET seq = excluded.seq, generation = excluded.generation, stream = excluded.stream
                """)
        for (key, cursor) in changes.cursors {
            try statement.execute(arguments: [
                key.owner, key.name, Int64(bitPattern: cursor.seq), Int64(bitPattern: cursor.generation), stream,
            ])
        }
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
}
