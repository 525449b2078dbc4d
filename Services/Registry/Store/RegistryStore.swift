import Contracts
import GRDB
import Kit
import Storage

/// What the registry knows, as verbs over one SQLite file. The content itself lies in files (`BlobFiles`); a row appears here
/// only after its file is safe on disk.
struct RegistryStore: Sendable {
    let db: DatabaseQueue
    /// Part of every event's id, so that a registry that begins anew never repeats one.
    let identity: String
    /// What its events carry as `source`.
    let source: String

    init(_ store: Store, source: String) {
        db = store.db
        identity = store.outboxID.uuidString.lowercased()
        self.source = source
    }

    /// The repository's row, made when it is not there.
    func require(_ name: RepositoryName, now: Timestamp, in db: Database) throws -> Int64 {
        if let id = try find(name, in: db) { return id }
        try db.execute(sql: "INSERT INTO repository (name, created) VALUES (?, ?)", arguments: [name.text, now.milliseconds])
        return db.lastInsertedRowID
    }

    /// Nil: nothing was ever stored under this name.
    func find(_ name: RepositoryName, in db: Database) throws -> Int64? {
        try Int64.fetchOne(db, sql: "SELECT id FROM repository WHERE name = ?", arguments: [name.text])
    }

    /// Puts the event in the outbox of this same transaction. Its id comes from what happened and a number that is counted
    /// here, so that it is made once and is the same however often it is sent.
    func announce(_ event: some Event, about digest: Digest, tag: TagName?, _ change: Change, in db: Database) throws {
        try db.execute(sql: "INSERT INTO announcement DEFAULT VALUES")
        let number = db.lastInsertedRowID
        // One row is enough to go on counting.
        try db.execute(sql: "DELETE FROM announcement WHERE number < ?", arguments: [number])
        try Outbox.append(
            Envelope(
                id: .derived(from: "\(identity)/\(number)/\(event.subject)/\(tag?.text ?? "")/\(digest)"), source: source,
                type: type(of: event).type, subject: event.subject, time: change.now, data: try event.json(), actor: change.actor),
            in: db)
    }

    /// By whom and when something is changed.
    struct Change: Sendable {
        var actor: String
        var now: Timestamp
    }
}
