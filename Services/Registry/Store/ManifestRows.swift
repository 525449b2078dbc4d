import Contracts
import Foundation
import GRDB

/// A manifest that is stored.
struct StoredManifest: Equatable, Sendable {
    var digest: Digest
    var mediaType: String
    var size: Int64
}

extension RegistryStore {
    func manifest(_ reference: Reference, in name: RepositoryName) async throws -> StoredManifest? {
        try await db.read { db in
            guard let repository = try find(name, in: db) else { return nil }
            return try manifest(reference, repository: repository, in: db)
        }
    }

    /// Stores a manifest whose file is safe on disk, points the tags at it and announces both, or does none of it.
    ///
    /// Throws `OCIError` (`MANIFEST_BLOB_UNKNOWN`) naming what the repository lacks, or (`MANIFEST_INVALID`) when a stated size
    /// is not the real one: the check and the change are one transaction, so nothing can go missing in between.
    func putManifest(
        _ manifest: Manifest, digest: Digest, size: Int64, in name: RepositoryName, tags: [TagName], _ change: Change
    ) async throws {
        try await db.write { db in
            // A manifest may be the first that a repository gets (an empty index): its row then begins here. When the manifest is
            // refused, the whole transaction is.
            let repository = try require(name, now: change.now, in: db)
            try check(manifest.parts, repository: repository, in: db)
            try saveBlob(digest, size: size, now: change.now, in: db)
            let annotations = manifest.annotations.isEmpty ? nil : try Coding.text(manifest.annotations)
            try db.execute(
                sql: """
                    INSERT INTO manifest (repository, digest, media_type, size, subject, artifact_type, annotations, pushed)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                    ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type, pushed = excluded.pushed
                    """,
                arguments: [
                    repository, digest.text, manifest.mediaType, size, manifest.subject?.text, manifest.artifactType, annotations,
                    change.now.milliseconds,
                ])
            for part in manifest.parts {
                try db.execute(
                    sql: "INSERT OR IGNORE INTO manifest_part (repository, manifest, digest, kind) VALUES (?, ?, ?, ?)",
                    arguments: [repository, digest.text, part.digest.text, part.kind.rawValue])
            }
            for tag in tags {
                try db.execute(
                    sql: """
                        INSERT INTO tag (repository, name, digest, updated) VALUES (?, ?, ?, ?)
                        ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, updated = excluded.updated
                        """, arguments: [repository, tag.text, digest.text, change.now.milliseconds])
            }
            for tag in tags.isEmpty ? [nil] : tags.map(Optional.some) {
                try announce(
                    ImagePushed(repository: name.text, tag: tag?.text, digest: digest, mediaType: manifest.mediaType, size: size),
                    about: digest, tag: tag, change, in: db)
            }
        }
    }

    /// Removes one tag; the manifest and its other tags stay. False when there was none.
    func removeTag(_ tag: TagName, from name: RepositoryName, _ change: Change) async throws -> Bool {
        try await db.write { db in
            guard let repository = try find(name, in: db), let found = try manifest(.tag(tag), repository: repository, in: db) else {
                return false
            }
            try db.execute(sql: "DELETE FROM tag WHERE repository = ? AND name = ?", arguments: [repository, tag.text])
            try announce(
                ImageDeleted(repository: name.text, tag: tag.text, digest: found.digest), about: found.digest, tag: tag, change, in: db)
            return true
        }
    }

    /// Removes a manifest with all its tags. False when there was none.
    func removeManifest(_ digest: Digest, from name: RepositoryName, _ change: Change) async throws -> Bool {
        try await db.write { db in
            guard let repository = try find(name, in: db) else { return false }
            let tags = try String.fetchAll(
                db, sql: "SELECT name FROM tag WHERE repository = ? AND digest = ? ORDER BY name", arguments: [repository, digest.text])
            // The tags and parts go with it.
            try db.execute(sql: "DELETE FROM manifest WHERE repository = ? AND digest = ?", arguments: [repository, digest.text])
            guard db.changesCount > 0 else { return false }
            for tag in tags.compactMap(TagName.init) {
                try announce(ImageDeleted(repository: name.text, tag: tag.text, digest: digest), about: digest, tag: tag, change, in: db)
            }
            try announce(ImageDeleted(repository: name.text, tag: nil, digest: digest), about: digest, tag: nil, change, in: db)
            return true
        }
    }

    private func manifest(_ reference: Reference, repository: Int64, in db: Database) throws -> StoredManifest? {
        let row =
            switch reference {
            case .digest(let digest):
                try Row.fetchOne(
                    db, sql: "SELECT digest, media_type, size FROM manifest WHERE repository = ? AND digest = ?",
                    arguments: [repository, digest.text])
            case .tag(let tag):
                try Row.fetchOne(
                    db,
                    sql: """
                        SELECT manifest.digest, media_type, size FROM tag JOIN manifest
                        ON manifest.repository = tag.repository AND manifest.digest = tag.digest
                        WHERE tag.repository = ? AND tag.name = ?
                        """, arguments: [repository, tag.text])
            }
        return try row.map { StoredManifest(digest: try Digest($0["digest"] as String), mediaType: $0["media_type"], size: $0["size"]) }
    }

    /// Whether the repository has every required part, each of the size that the manifest states.
    private func check(_ parts: [Manifest.Part], repository: Int64, in db: Database) throws {
        var missing: [String] = []
        for part in parts {
            let size =
                part.kind == .child && MediaType.manifests.contains(part.mediaType)
                ? try manifestSize(part.digest, repository: repository, in: db)
                : try blobSize(part.digest, repository: repository, in: db) ?? manifestSize(part.digest, repository: repository, in: db)
            if let size {
                // A subject's descriptor is a claim about something else; it is not what this manifest is made of.
                guard size == part.size || part.kind == .subject else {
                    throw OCIError.manifestInvalid("\(part.kind.rawValue) \(part.digest) has \(size) bytes, not \(part.size)")
                }
            } else if part.required, !missing.contains(part.digest.text) {
                missing.append(part.digest.text)
            }
        }
        guard missing.isEmpty else {
            throw OCIError(
                404, .manifestBlobUnknown, "the manifest names \(missing.count) blob(s) or manifest(s) that this repository does not have",
                detail: .object(["digests": .array(missing.prefix(100).map { .string($0) })]))
        }
    }

    private func blobSize(_ digest: Digest, repository: Int64, in db: Database) throws -> Int64? {
        try Int64.fetchOne(
            db, sql: "SELECT size FROM repository_blob JOIN blob USING (digest) WHERE repository = ? AND digest = ?",
            arguments: [repository, digest.text])
    }
    private func manifestSize(_ digest: Digest, repository: Int64, in db: Database) throws -> Int64? {
        try Int64.fetchOne(db, sql: "SELECT size FROM manifest WHERE repository = ? AND digest = ?", arguments: [repository, digest.text])
    }
}
