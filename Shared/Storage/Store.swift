import Contracts
import Foundation
import GRDB

/// When a commit counts as done (docs/architecture.md, *Writing to disk*).
public enum Durability: Sendable {
    /// Synced at every commit: for a component that tells a stranger *done*.
    case full
    /// Synced at checkpoints: for one that, woken a moment earlier, replays the same events to the same result.
    case normal
}

/// The SQLite file of one component: its own tables beside those of the loop. This is the only connection to the file, and
/// so the only one that checkpoints.
public final class Store: Sendable {
    public let db: DatabaseQueue
    /// Names this file's outbox to the bus, for ever.
    public let outboxID: UUID

    /// Opens or makes the file at `path`, and brings its schema up to date. `migrations` registers the component's own, which
    /// are history: append, never edit. Throws `Problem` when the file cannot be opened or is not a database.
    public init(path: String, durability: Durability, migrations: (inout DatabaseMigrator) -> Void = { _ in }) throws {
        var configuration = Configuration()
        configuration.journalMode = .wal
        configuration.busyMode = .timeout(5)
        configuration.label = path
        configuration.prepareDatabase { db in
            try db.execute(sql: durability == .full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL")
        }
        do {
            let queue = try DatabaseQueue(path: path, configuration: configuration)
            var migrator = DatabaseMigrator()
            Schema.register(in: &migrator)
            migrations(&migrator)
            try migrator.migrate(queue)
            outboxID = try queue.write { db in try Self.identity(db) }
            db = queue
        } catch let error as DatabaseError {
            throw Problem(
                .failed, "cannot open the database \(path): \(error.message ?? "SQLite error \(error.resultCode.rawValue)")",
                hint: "see that the directory is writable and the disk is not full; a damaged file is restored from a backup, never deleted"
            )
        }
    }

    private static func identity(_ db: Database) throws -> UUID {
        if let text = try Meta.get("outbox", in: db), let id = UUID(uuidString: text) { return id }
        let id = UUID()
        try Meta.set("outbox", to: id.uuidString.lowercased(), in: db)
        return id
    }
}

/// Single values, by name.
public enum Meta {
    public static func get(_ key: String, in db: Database) throws -> String? {
        try String.fetchOne(db, sql: "SELECT value FROM slipway_meta WHERE key = ?", arguments: [key])
    }
    public static func set(_ key: String, to value: String, in db: Database) throws {
        try db.execute(
            sql: "INSERT INTO slipway_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            arguments: [key, value])
    }
}

/// The loop's tables, the same in every component.
enum Schema {
    static func register(in migrator: inout DatabaseMigrator) {
        migrator.registerMigration("slipway 1: meta, cursor, outbox, journal, timers, state") { db in
            try db.execute(
                sql: """
                    CREATE TABLE slipway_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
                    CREATE TABLE slipway_outbox (
                        number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, id TEXT NOT NULL, payload BLOB NOT NULL);
                    CREATE TABLE slipway_dead_letters (
                        number INTEGER PRIMARY KEY NOT NULL, topic TEXT NOT NULL, id TEXT NOT NULL, payload BLOB NOT NULL,
                        status INTEGER NOT NULL);
                    CREATE TABLE slipway_journal (
                        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, cause TEXT NOT NULL, actor TEXT,
                        effect BLOB NOT NULL);
                    CREATE TABLE slipway_timers (
                        key TEXT PRIMARY KEY NOT NULL, due INTEGER NOT NULL, seconds REAL NOT NULL, cause TEXT NOT NULL, actor TEXT)
                        WITHOUT ROWID;
                    CREATE TABLE slipway_state (
                        name TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID;
                    """)
        }
    }
}
