import Contracts
import Foundation
import GRDB

/// Events that are decided but not yet on the bus. Numbered; a number is never given twice.
public enum Outbox {
    public struct Entry: Sendable, Hashable {
        public var number: UInt64
        public var topic: String
        public var id: String
        public var payload: Data
    }

    /// Appends an event in the transaction that makes it true: no silent change, ever.
    public static func append(_ envelope: Envelope, in db: Database) throws {
        try db.execute(
            sql: "INSERT INTO slipway_outbox (topic, id, payload) VALUES (?, ?, ?)",
            arguments: [envelope.type.text, envelope.id.text, try Coding.encode(envelope)])
    }

    /// The entries after `number`, in order.
    public static func pending(after number: UInt64, limit: Int, in db: Database) throws -> [Entry] {
        try Row.fetchAll(
            db, sql: "SELECT number, topic, id, payload FROM slipway_outbox WHERE number > ? ORDER BY number LIMIT ?",
            arguments: [Int64(clamping: number), limit]
        ).map { Entry(number: UInt64($0["number"] as Int64), topic: $0["topic"], id: $0["id"], payload: $0["payload"]) }
    }

    /// Removes what the bus has decided. Those it refused for good are set aside with the status, never deleted.
    public static func settle(upTo number: UInt64, refused: [UInt64: UInt16], in db: Database) throws {
        for (refusedNumber, status) in refused {
            try db.execute(
                sql: """
                    INSERT OR REPLACE INTO slipway_dead_letters (number, topic, id, payload, status)
                    SELECT number, topic, id, payload, ? FROM slipway_outbox WHERE number = ?
                    """, arguments: [Int(status), Int64(clamping: refusedNumber)])
        }
        try db.execute(sql: "DELETE FROM slipway_outbox WHERE number <= ?", arguments: [Int64(clamping: number)])
    }

    /// How many wait, and how many the bus has refused for good.
    public static func counts(in db: Database) throws -> (waiting: Int, refused: Int) {
        (
            try Int.fetchOne(db, sql: "SELECT count(*) FROM slipway_outbox") ?? 0,
            try Int.fetchOne(db, sql: "SELECT count(*) FROM slipway_dead_letters") ?? 0
        )
    }
}
