import Contracts
import Foundation
import GRDB
import Storage

/// A process that the supervisor started and must find again after its own death.
struct ProcessRecord: Sendable, Hashable {
    /// A component's name, `ingress`, or the text of an instance or a job.
    var name: String
    var pid: Int32
    /// Field 22 of /proc/PID/stat: with the boot, it tells this process from a later one with the same number.
    var ticks: UInt64
    var boot: String
    var generation: Int
    var since: Timestamp
}

/// What the supervisor knows of its host beside the core's state: users, ports and processes. Tables of state.sqlite.
struct HostStore: Sendable {
    let db: DatabaseQueue

    static func migrations(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("supervisor 1: users, ports, processes") { db in
            try db.execute(
                sql: """
                    CREATE TABLE supervisor_users (app TEXT PRIMARY KEY NOT NULL, uid INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
                    CREATE TABLE supervisor_ports (
                        port INTEGER PRIMARY KEY NOT NULL, instance TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (instance, name));
                    CREATE TABLE supervisor_processes (
                        name TEXT PRIMARY KEY NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL, boot TEXT NOT NULL,
                        generation INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
                    """)
        }
    }

    /// The user id of an app: the one it has, or a free one, sought from a place that its name gives.
    func user(of app: AppName, taken: Set<UInt32>) async throws -> UInt32 {
        try await db.write { db in
            if let known = try Int64.fetchOne(db, sql: "SELECT uid FROM supervisor_users WHERE app = ?", arguments: [app.text]) {
                return UInt32(known)
            }
            let used = Set(try Int64.fetchAll(db, sql: "SELECT uid FROM supervisor_users").map { UInt32($0) })
            let range = SupervisorConfig.users
            let start = app.text.utf8.reduce(UInt32(0)) { ($0 &* 31) &+ UInt32($1) }
            for step in 0..<UInt32(range.count) {
                let uid = range.lowerBound + (start % UInt32(range.count) + step) % UInt32(range.count)
                guard !used.contains(uid), !taken.contains(uid) else { continue }
                try db.execute(sql: "INSERT INTO supervisor_users (app, uid) VALUES (?, ?)", arguments: [app.text, Int64(uid)])
                return uid
            }
            throw Problem(.failed, "all \(range.count) user ids for apps are taken on this host")
        }
    }

    /// The ports that an instance has already, by name.
    func ports(of instance: InstanceID) async throws -> [String: Int] {
        try await db.read { db in
            Dictionary(
                uniqueKeysWithValues: try Row.fetchAll(
                    db, sql: "SELECT name, port FROM supervisor_ports WHERE instance = ?", arguments: [instance.text]
                ).map { ($0["name"], $0["port"]) })
        }
    }
    /// Gives an instance a port; false when another has it.
    func claim(port: Int, name: String, for instance: InstanceID) async throws -> Bool {
        try await db.write { db in
            try db.execute(
                sql: "INSERT OR IGNORE INTO supervisor_ports (port, instance, name) VALUES (?, ?, ?)",
                arguments: [port, instance.text, name])
            return db.changesCount == 1
        }
    }
    func releasePorts(of instance: InstanceID) async throws {
        try await db.write { db in try db.execute(sql: "DELETE FROM supervisor_ports WHERE instance = ?", arguments: [instance.text]) }
    }

    func save(_ record: ProcessRecord) async throws {
        try await db.write { db in
            try db.execute(
                sql: "INSERT OR REPLACE INTO supervisor_processes (name, pid, ticks, boot, generation, since) VALUES (?, ?, ?, ?, ?, ?)",
                arguments: [
                    record.name, record.pid, Int64(bitPattern: record.ticks), record.boot, record.generation, record.since.milliseconds,
                ])
        }
    }
    func process(_ name: String) async throws -> ProcessRecord? {
        try await db.read { db in
            try Row.fetchOne(db, sql: "SELECT * FROM supervisor_processes WHERE name = ?", arguments: [name]).map(Self.record)
        }
    }
    func processes() async throws -> [ProcessRecord] {
        try await db.read { db in try Row.fetchAll(db, sql: "SELECT * FROM supervisor_processes ORDER BY name").map(Self.record) }
    }
    func forget(process name: String) async throws {
        try await db.write { db in try db.execute(sql: "DELETE FROM supervisor_processes WHERE name = ?", arguments: [name]) }
    }

    private static func record(_ row: Row) -> ProcessRecord {
        ProcessRecord(
            name: row["name"], pid: row["pid"], ticks: UInt64(bitPattern: row["ticks"] as Int64), boot: row["boot"],
            generation: row["generation"], since: Timestamp(milliseconds: row["since"]))
    }
}
