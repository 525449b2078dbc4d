import Foundation
import GRDB
import Storage

/// Consumers' cursors and the last flush, in the bus's SQLite file. Losing the last moments costs redelivery, never an event.
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

    /// Writes what changed, in one transaction.
    func save(_ cursors: [ConsumerKey: Cursor], mark: DurableMark, stream: String) throws {
        try store.db.write { db in try Self.save(cursors, mark, stream, db) }
    }

    /// The same without waiting for it; the log of the process tells of a failure.
    func saveLater(_ cursors: [ConsumerKey: Cursor], mark: DurableMark, stream: String, done: @escaping @Sendable ((any Error)?) -> Void) {
        store.db.asyncWrite({ db in try Self.save(cursors, mark, stream, db) }) { _, result in
            if case .failure(let error) = result { done(error) } else { done(nil) }
        }
    }

    private static func save(_ cursors: [ConsumerKey: Cursor], _ mark: DurableMark, _ stream: String, _ db: Database) throws {
        let statement = try db.cachedStatement(
            sql: """
                INSERT INTO cursors (owner, consumer, seq, generation, stream) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (owner, consumer) DO UPDATE
                SET seq = excluded.seq, generation = excluded.generation, stream = excluded.stream
                """)
        for (key, cursor) in cursors {
            try statement.execute(arguments: [
                key.owner, key.name, Int64(bitPattern: cursor.seq), Int64(bitPattern: cursor.generation), stream,
            ])
        }
        try db.execute(
            sql: """
                INSERT INTO durable_mark (one, segment, "offset", seq) VALUES (1, ?, ?, ?)
                ON CONFLICT (one) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset", seq = excluded.seq
                """, arguments: [Int64(bitPattern: mark.segment), mark.offset, Int64(bitPattern: mark.seq)])
    }
}
