import Contracts
import GRDB

/// Blobs, and which repository may serve them.
extension RegistryStore {
    /// The blob's size when this repository holds it.
    func blobSize(_ digest: Digest, in name: RepositoryName) async throws -> Int64? {
        try await db.read { db in
            try Int64.fetchOne(
                db,
                sql: """
                    SELECT blob.size FROM repository JOIN repository_blob ON repository_blob.repository = repository.id
                    JOIN blob ON blob.digest = repository_blob.digest
                    WHERE repository.name = ? AND repository_blob.digest = ?
                    """, arguments: [name.text, digest.text])
        }
    }

    /// Records a blob whose file is safe on disk, and ends the upload that brought it.
    func commitBlob(_ digest: Digest, size: Int64, to name: RepositoryName, upload: UploadID?, now: Timestamp) async throws {
        try await db.write { db in
            let repository = try require(name, now: now, in: db)
            try saveBlob(digest, size: size, now: now, in: db)
            try hold(digest, repository: repository, now: now, in: db)
            if let upload { try db.execute(sql: "DELETE FROM upload WHERE id = ?", arguments: [upload.text]) }
        }
    }

    /// Lets a repository serve a blob that one of the others holds. False when none of them does.
    func mount(_ digest: Digest, into name: RepositoryName, from sources: [RepositoryName], now: Timestamp) async throws -> Bool {
        try await db.write { db in
            for source in sources {
                guard let origin = try find(source, in: db),
                    try Bool.fetchOne(
                        db, sql: "SELECT EXISTS (SELECT 1 FROM repository_blob WHERE repository = ? AND digest = ?)",
                        arguments: [origin, digest.text]) == true
                else { continue }
                let repository = try require(name, now: now, in: db)
                try hold(digest, repository: repository, now: now, in: db)
                return true
            }
            return false
        }
    }

    /// The repositories that hold a blob, by name.
    func holders(of digest: Digest) async throws -> [RepositoryName] {
        try await db.read { db in
            try String.fetchAll(
                db,
                sql: """
                    SELECT repository.name FROM repository_blob JOIN repository ON repository.id = repository_blob.repository
                    WHERE repository_blob.digest = ? ORDER BY repository.name
                    """, arguments: [digest.text]
            ).compactMap { try? RepositoryName($0) }
        }
    }

    /// False when the repository did not hold it. The file stays for others, and for the collection of what nobody holds.
    func removeBlob(_ digest: Digest, from name: RepositoryName) async throws -> Bool {
        try await db.write { db in
            guard let repository = try find(name, in: db) else { return false }
            try db.execute(sql: "DELETE FROM repository_blob WHERE repository = ? AND digest = ?", arguments: [repository, digest.text])
            return db.changesCount > 0
        }
    }

    /// A page of all content that should lie in files, by digest.
    func content(after digest: String, limit: Int) async throws -> [(digest: Digest, size: Int64)] {
        try await db.read { db in
            try Row.fetchAll(db, sql: "SELECT digest, size FROM blob WHERE digest > ? ORDER BY digest LIMIT ?", arguments: [digest, limit])
                .map { (try Digest($0["digest"] as String), $0["size"]) }
        }
    }

    func saveBlob(_ digest: Digest, size: Int64, now: Timestamp, in db: Database) throws {
        try db.execute(
            sql:
                "INSERT INTO blob (digest, size, stored) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size, stored = excluded.stored",
            arguments: [digest.text, size, now.milliseconds])
    }

    private func hold(_ digest: Digest, repository: Int64, now: Timestamp, in db: Database) throws {
        try db.execute(
            sql:
                "INSERT INTO repository_blob (repository, digest, seen) VALUES (?, ?, ?) ON CONFLICT (repository, digest) DO UPDATE SET seen = excluded.seen",
            arguments: [repository, digest.text, now.milliseconds])
    }
}
