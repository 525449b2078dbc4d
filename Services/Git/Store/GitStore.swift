import Contracts
import Foundation
import GRDB
import Storage

/// Which refs were announced, and the push that is under way in each repository. One file, owned by `git` alone.
struct GitStore: Sendable {
    let store: Store

    static func migrate(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("git 1: announced refs, pending pushes") { db in
            try db.execute(
                sql: """
                    CREATE TABLE git_announced_ref (
                        repository INTEGER NOT NULL, ref TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (repository, ref)) WITHOUT ROWID;
                    CREATE TABLE git_announcement (repository INTEGER PRIMARY KEY NOT NULL, counter INTEGER NOT NULL);
                    CREATE TABLE git_pending_push (repository INTEGER PRIMARY KEY NOT NULL, push TEXT NOT NULL);
                    """)
        }
        migrator.registerMigration("git 2: tags of releases") { db in
            try db.execute(
                sql:
                    "CREATE TABLE git_release_tag (repository INTEGER NOT NULL, ref TEXT NOT NULL, PRIMARY KEY (repository, ref)) WITHOUT ROWID"
            )
        }
    }

    /// Remembers a tag that names a release: nobody may move or delete it.
    func keep(_ ref: String, in repository: Int) async throws {
        try await store.db.write { db in
            try db.execute(sql: "INSERT OR IGNORE INTO git_release_tag (repository, ref) VALUES (?, ?)", arguments: [repository, ref])
        }
    }

    /// Which of these refs are tags of releases.
    func releaseTags(among refs: [String], in repository: Int) async throws -> Set<String> {
        try await store.db.read { db in
            Set(
                try refs.filter { ref in
                    try Bool.fetchOne(
                        db, sql: "SELECT EXISTS (SELECT 1 FROM git_release_tag WHERE repository = ? AND ref = ?)",
                        arguments: [repository, ref]) ?? false
                })
        }
    }

    struct Announced: Sendable {
        var refs: [String: String]
        /// How many events the repository has had.
        var counter: Int64
        var pending: PendingPush?
    }

    func announced(_ repository: Int) async throws -> Announced {
        try await store.db.read { db in
            let rows = try Row.fetchAll(db, sql: "SELECT ref, object FROM git_announced_ref WHERE repository = ?", arguments: [repository])
            let counter = try Int64.fetchOne(db, sql: "SELECT counter FROM git_announcement WHERE repository = ?", arguments: [repository])
            let push = try String.fetchOne(db, sql: "SELECT push FROM git_pending_push WHERE repository = ?", arguments: [repository])
            return Announced(
                refs: Dictionary(rows.map { ($0["ref"], $0["object"]) }, uniquingKeysWith: { first, _ in first }), counter: counter ?? 0,
                pending: try push.map { try Coding.decode(PendingPush.self, from: Data($0.utf8)) })
        }
    }

    /// Writes down who is about to move which refs. Durable when it returns.
    func begin(_ push: PendingPush, in repository: Int) async throws {
        let text = try Coding.text(push)
        try await store.db.write { db in
            try db.execute(
                sql: "INSERT OR REPLACE INTO git_pending_push (repository, push) VALUES (?, ?)", arguments: [repository, text])
        }
    }

    /// Saves where the refs are now together with the events that tell of it, or neither: no silent change, ever.
    func announce(_ repository: Int, _ changes: [RefChange], counter: Int64, events: [Envelope], pushIsDone: Bool) async throws {
        try await store.db.write { db in
            for change in changes {
                if let new = change.new {
                    try db.execute(
                        sql: "INSERT OR REPLACE INTO git_announced_ref (repository, ref, object) VALUES (?, ?, ?)",
                        arguments: [repository, change.ref.text, new])
                } else {
                    try db.execute(
                        sql: "DELETE FROM git_announced_ref WHERE repository = ? AND ref = ?", arguments: [repository, change.ref.text])
                }
            }
            try db.execute(
                sql: "INSERT OR REPLACE INTO git_announcement (repository, counter) VALUES (?, ?)", arguments: [repository, counter])
            if pushIsDone { try db.execute(sql: "DELETE FROM git_pending_push WHERE repository = ?", arguments: [repository]) }
            for event in events { try Outbox.append(event, in: db) }
        }
    }

    func forgetPush(in repository: Int) async throws {
        try await store.db.write { db in
            try db.execute(sql: "DELETE FROM git_pending_push WHERE repository = ?", arguments: [repository])
        }
    }

    func forget(_ repository: Int) async throws {
        try await store.db.write { db in
            for table in ["git_announced_ref", "git_announcement", "git_pending_push", "git_release_tag"] {
                try db.execute(sql: "DELETE FROM \(table) WHERE repository = ?", arguments: [repository])
            }
        }
    }
}
