import Contracts
import Foundation
import GRDB

/// Lists, in the order of their bytes.
extension RegistryStore {
    /// Nil: no such repository.
    func tags(of name: RepositoryName, after last: String?, limit: Int) async throws -> [String]? {
        try await db.read { db in
            guard let repository = try find(name, in: db) else { return nil }
            return try String.fetchAll(
                db, sql: "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?",
                arguments: [repository, last ?? "", limit])
        }
    }

    /// Repositories with something to pull that `mayRead` lets through.
    func catalog(after last: String?, limit: Int, mayRead: @escaping @Sendable (RepositoryName) -> Bool) async throws -> [String] {
        try await db.read { db in
            var result: [String] = []
            let names = try String.fetchCursor(
                db,
                sql: """
                    SELECT name FROM repository WHERE name > ?
                    AND EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = repository.id) ORDER BY name
                    """, arguments: [last ?? ""])
            while result.count < limit, let name = try names.next() {
                if let known = try? RepositoryName(name), mayRead(known) { result.append(name) }
            }
            return result
        }
    }

    /// What names `subject` as its subject, by digest.
    func referrers(
        to subject: Digest, in name: RepositoryName, artifactType: String?, after last: String?, limit: Int
    ) async throws -> [Referrer] {
        try await db.read { db in
            guard let repository = try find(name, in: db) else { return [] }
            return try Row.fetchAll(
                db,
                sql: """
                    SELECT digest, media_type, size, artifact_type, annotations FROM manifest
                    WHERE repository = ? AND subject = ? AND digest > ? AND (? IS NULL OR artifact_type = ?) ORDER BY digest LIMIT ?
                    """, arguments: [repository, subject.text, last ?? "", artifactType, artifactType, limit]
            ).map { row in
                let annotations = try (row["annotations"] as String?).map { try Coding.decode([String: String].self, from: Data($0.utf8)) }
                return Referrer(
                    mediaType: row["media_type"], digest: row["digest"], size: row["size"], artifactType: row["artifact_type"],
                    annotations: annotations ?? [:])
            }
        }
    }
}
