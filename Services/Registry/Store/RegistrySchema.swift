import GRDB

/// The registry's tables. Shipped migrations are history: append, never edit.
///
/// `blob` says what lies in the files; `repository_blob` which repository may serve it. A blob that only another repository
/// holds is unknown here, so that nobody reads by guessing digests.
enum RegistrySchema {
    static func register(in migrator: inout DatabaseMigrator) {
        migrator.registerMigration("registry 1: repositories, blobs, manifests, tags, uploads") { db in
            try db.execute(
                sql: """
                    CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL);
                    CREATE TABLE blob (digest TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
                    CREATE TABLE repository_blob (
                        repository INTEGER NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
                        digest TEXT NOT NULL REFERENCES blob (digest), seen INTEGER NOT NULL,
                        PRIMARY KEY (repository, digest)) WITHOUT ROWID;
                    CREATE INDEX repository_blob_digest ON repository_blob (digest);
                    CREATE TABLE manifest (
                        repository INTEGER NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
                        digest TEXT NOT NULL REFERENCES blob (digest), media_type TEXT NOT NULL, size INTEGER NOT NULL,
                        subject TEXT, artifact_type TEXT, annotations TEXT, pushed INTEGER NOT NULL,
                        PRIMARY KEY (repository, digest)) WITHOUT ROWID;
                    CREATE INDEX manifest_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;
                    CREATE INDEX manifest_digest ON manifest (digest);
                    CREATE TABLE manifest_part (
                        repository INTEGER NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL,
                        PRIMARY KEY (repository, manifest, digest, kind),
                        FOREIGN KEY (repository, manifest) REFERENCES manifest (repository, digest) ON DELETE CASCADE) WITHOUT ROWID;
                    CREATE INDEX manifest_part_digest ON manifest_part (digest);
                    CREATE TABLE tag (
                        repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, updated INTEGER NOT NULL,
                        PRIMARY KEY (repository, name),
                        FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE) WITHOUT ROWID;
                    CREATE INDEX tag_digest ON tag (repository, digest);
                    CREATE TABLE upload (
                        id TEXT PRIMARY KEY NOT NULL, repository TEXT NOT NULL, principal TEXT NOT NULL, algorithm TEXT NOT NULL,
                        created INTEGER NOT NULL) WITHOUT ROWID;
                    CREATE INDEX upload_principal ON upload (principal);
                    CREATE TABLE announcement (number INTEGER PRIMARY KEY AUTOINCREMENT);
                    """)
        }
    }
}
