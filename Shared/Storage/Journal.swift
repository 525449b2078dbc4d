import Contracts
import Foundation
import GRDB

/// Effects that are decided but not yet done.
public enum Journal {
    public struct Entry: Sendable, Hashable {
        public var id: EventID
        public var cause: EventID
        public var actor: String?
        public var effect: Data
        public init(id: EventID, cause: EventID, actor: String?, effect: Data) {
            self.id = id
            self.cause = cause
            self.actor = actor
            self.effect = effect
        }
    }

    public static func append(_ entry: Entry, in db: Database) throws {
        try db.execute(
            sql: "INSERT OR IGNORE INTO slipway_journal (id, cause, actor, effect) VALUES (?, ?, ?, ?)",
            arguments: [entry.id.text, entry.cause.text, entry.actor, entry.effect])
    }
    public static func remove(_ id: EventID, in db: Database) throws {
        try db.execute(sql: "DELETE FROM slipway_journal WHERE id = ?", arguments: [id.text])
    }
    /// All, in the order in which they were decided.
    public static func all(in db: Database) throws -> [Entry] {
        try Row.fetchAll(db, sql: "SELECT id, cause, actor, effect FROM slipway_journal ORDER BY number").map {
            Entry(id: try EventID($0["id"] as String), cause: try EventID($0["cause"] as String), actor: $0["actor"], effect: $0["effect"])
        }
    }
}

/// Moments at which a core wants to be called again.
public enum Timers {
    public struct Entry: Sendable, Hashable {
        public var key: String
        public var due: Timestamp
        /// What was asked for, so that a wall clock that jumped cannot make it longer.
        public var seconds: Double
        public var cause: EventID
        public var actor: String?
        public init(key: String, due: Timestamp, seconds: Double, cause: EventID, actor: String?) {
            self.key = key
            self.due = due
            self.seconds = seconds
            self.cause = cause
            self.actor = actor
        }
    }

    public static func set(_ entry: Entry, in db: Database) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO slipway_timers (key, due, seconds, cause, actor) VALUES (?, ?, ?, ?, ?)",
            arguments: [entry.key, entry.due.milliseconds, entry.seconds, entry.cause.text, entry.actor])
    }
    public static func remove(_ key: String, in db: Database) throws {
        try db.execute(sql: "DELETE FROM slipway_timers WHERE key = ?", arguments: [key])
    }
    public static func all(in db: Database) throws -> [Entry] {
        try Row.fetchAll(db, sql: "SELECT key, due, seconds, cause, actor FROM slipway_timers ORDER BY key").map {
            Entry(
                key: $0["key"], due: Timestamp(milliseconds: $0["due"]), seconds: $0["seconds"],
                cause: try EventID($0["cause"] as String), actor: $0["actor"])
        }
    }
}

/// How far this component has come in which log.
public struct Cursor: Codable, Hashable, Sendable {
    /// The log's id.
    public var stream: String
    public var seq: UInt64
    public init(stream: String, seq: UInt64) {
        self.stream = stream
        self.seq = seq
    }

    public static func load(in db: Database) throws -> Cursor? {
        try Meta.get("cursor", in: db).map { try Coding.decode(Cursor.self, from: Data($0.utf8)) }
    }
    public func save(in db: Database) throws { try Meta.set("cursor", to: Coding.text(self), in: db) }
}

/// The rows of a core's state.
public enum StateRows {
    public static func load(_ name: String, in db: Database) throws -> [(key: String, body: Data)] {
        try Row.fetchAll(db, sql: "SELECT key, body FROM slipway_state WHERE name = ? ORDER BY key", arguments: [name])
            .map { ($0["key"], $0["body"]) }
    }
    /// Writes the row, or removes it when `body` is nil.
    public static func save(_ name: String, _ key: String, _ body: Data?, in db: Database) throws {
        if let body {
            try db.execute(
                sql:
                    "INSERT INTO slipway_state (name, key, body) VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET body = excluded.body",
                arguments: [name, key, body])
        } else {
            try db.execute(sql: "DELETE FROM slipway_state WHERE name = ? AND key = ?", arguments: [name, key])
        }
    }
}
