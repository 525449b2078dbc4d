import Contracts
import Foundation
import NIOCore

/// The registry's files: finished content by digest, unfinished uploads by id, on one file system so that a rename suffices.
///
///     blobs/sha256/ab/abcdef…    uploads/0123…
///
/// A name below `blobs` appears only after its bytes were synced: fsync the file, rename it, fsync the directory. The row in
/// SQLite comes after that. So a crash at any point leaves at worst a file that no row names, never a row without its bytes.
struct BlobFiles: Sendable {
    let root: String

    /// Throws `Problem` when the directories cannot be made.
    init(root: String) throws {
        self.root = root
        for algorithm in DigestAlgorithm.allCases { try Self.makeDirectory("\(root)/blobs/\(algorithm.rawValue)") }
        try Self.makeDirectory("\(root)/uploads")
    }

    func path(_ digest: Digest) -> String { "\(root)/blobs/\(digest.algorithm)/\(digest.hex.prefix(2))/\(digest.hex)" }
    func path(_ upload: UploadID) -> String { "\(root)/uploads/\(upload)" }

    /// Nil: no such file.
    func open(_ digest: Digest) throws -> OpenFile? { try OpenFile(path(digest), flags: O_RDONLY) }
    /// Nil: no such file, and `create` is false.
    func open(_ upload: UploadID, create: Bool = false) throws -> OpenFile? {
        try OpenFile(path(upload), flags: O_RDWR | (create ? O_CREAT : 0))
    }

    /// The size of finished content; nil: no such file.
    func size(_ digest: Digest) -> Int64? { Self.status(path(digest)).map { Int64($0.st_size) } }
    /// When an upload last grew; nil: it has no file.
    func touched(_ upload: UploadID) -> Timestamp? {
        Self.status(path(upload)).map { Timestamp(milliseconds: Int64($0.st_mtim.tv_sec) * 1000) }
    }

    func remove(_ upload: UploadID) throws {
        guard unlink(path(upload)) == 0 || errno == ENOENT else { throw Disk.problem("cannot remove the upload \(upload)") }
    }

    /// What lies in the directory of uploads.
    func uploads() -> [UploadID] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "\(root)/uploads")) ?? []).compactMap(UploadID.init).sorted {
            $0.text < $1.text
        }
    }

    /// Makes an upload the content of that digest, durably. The caller has checked the digest. A file that lies there
    /// already is replaced, which also mends a damaged one.
    func commit(_ upload: UploadID, as digest: Digest) throws {
        guard let file = try open(upload) else { throw Problem(.failed, "the upload \(upload) has lost its file") }
        try file.sync()
        let directory = "\(root)/blobs/\(digest.algorithm)/\(digest.hex.prefix(2))"
        if try Self.makeDirectory(directory) { try Self.sync("\(root)/blobs/\(digest.algorithm)") }
        guard rename(path(upload), path(digest)) == 0 else { throw Disk.problem("cannot store \(digest)") }
        try Self.sync(directory)
    }

    /// Stores small content, durably. Content that is there with the same size and digest is left alone.
    func store(_ bytes: [UInt8], as digest: Digest) throws {
        if let file = try open(digest), try file.size() == Int64(bytes.count),
            try file.read(upTo: bytes.count, at: 0).readableBytesView.elementsEqual(bytes)
        {
            return
        }
        let upload = UploadID.fresh()
        do {
            guard let file = try open(upload, create: true) else { throw Disk.problem("cannot make a file") }
            try bytes.withUnsafeBytes { try file.write($0, at: 0) }
            try commit(upload, as: digest)
        } catch {
            try? remove(upload)
            throw error
        }
    }

    /// True when it was made now.
    @discardableResult
    private static func makeDirectory(_ path: String) throws -> Bool {
        if mkdir(path, 0o700) == 0 { return true }
        switch errno {
        case EEXIST: return false
        case ENOENT:
            try makeDirectory((path as NSString).deletingLastPathComponent)
            return try makeDirectory(path)
        default: throw Disk.problem("cannot make the directory \(path)")
        }
    }

    private static func sync(_ directory: String) throws {
        guard let file = try OpenFile(directory, flags: O_RDONLY | O_DIRECTORY) else { throw Disk.problem("cannot open \(directory)") }
        try file.sync()
    }

    private static func status(_ path: String) -> stat? {
        var status = stat()
        return lstat(path, &status) == 0 ? status : nil
    }
}
