import Contracts
import GRDB

/// An upload that has begun. How far it has come is the length of its file, nothing else.
struct Upload: Equatable, Sendable {
    var id: UploadID
    var repository: String
    /// Whose it is; nobody else can see that it exists.
    var principal: String
    /// What is computed while bytes arrive.
    var algorithm: DigestAlgorithm
    var created: Timestamp
}

extension RegistryStore {
    /// The most uploads that one principal may have open.
    static let openUploadLimit = 1000

    /// Throws `OCIError` (429) when the principal has too many open.
    func openUpload(_ upload: Upload) async throws {
        try await db.write { db in
            let open = try Int.fetchOne(db, sql: "SELECT count(*) FROM upload WHERE principal = ?", arguments: [upload.principal]) ?? 0
            guard open < Self.openUploadLimit else {
                throw OCIError(429, .tooManyRequests, "\(open) uploads are open; end or cancel some, or wait until they expire")
            }
            try db.execute(
                sql: "INSERT INTO upload (id, repository, principal, algorithm, created) VALUES (?, ?, ?, ?, ?)",
                arguments: [upload.id.text, upload.repository, upload.principal, upload.algorithm.rawValue, upload.created.milliseconds])
        }
    }

    /// The upload, when it is this principal's and of this repository.
    func upload(_ id: UploadID, of name: RepositoryName, by principal: String) async throws -> Upload? {
        try await db.read { db in
            try Row.fetchOne(
                db, sql: "SELECT * FROM upload WHERE id = ? AND repository = ? AND principal = ?",
                arguments: [id.text, name.text, principal]
            ).flatMap(Upload.init)
        }
    }

    func allUploads() async throws -> [Upload] {
        try await db.read { db in try Row.fetchAll(db, sql: "SELECT * FROM upload ORDER BY created, id").compactMap(Upload.init) }
    }

    func closeUpload(_ id: UploadID) async throws {
        try await db.write { db in try db.execute(sql: "DELETE FROM upload WHERE id = ?", arguments: [id.text]) }
    }
}

extension Upload {
    fileprivate init?(_ row: Row) {
        guard let id = UploadID(row["id"]), let algorithm = DigestAlgorithm(rawValue: row["algorithm"]) else { return nil }
        self.init(
            id: id, repository: row["repository"], principal: row["principal"], algorithm: algorithm,
            created: Timestamp(milliseconds: row["created"]))
    }
}
