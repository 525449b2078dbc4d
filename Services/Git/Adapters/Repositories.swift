import Contracts
import Foundation
import Logging

/// The bare repositories on disk: `repos/<2>/<id>.git`, by the number of the row, never by a name from outside.
struct Repositories: Sendable {
    let directory: String
    let git: Git
    let logger: Logger
    let locks = Locks()

    /// All that a repository's own file says; whatever else is found in it is thrown out before git reads it.
    static let configuration = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
    /// Attributes of the highest precedence: nothing in a pushed tree changes what is archived or checked out.
    static let attributes = "* -text -filter -ident -export-ignore -export-subst -working-tree-encoding\n"

    init(directory: String, git: Git, logger: Logger) throws {
        self.directory = directory
        self.git = git
        self.logger = logger
        for name in ["repos", "tmp", "checkouts"] {
            try FileManager.default.createDirectory(atPath: "\(directory)/\(name)", withIntermediateDirectories: true)
        }
    }

    func path(_ id: Int) -> String {
        let digits = String(id, radix: 16)
        let name = String(repeating: "0", count: max(0, 8 - digits.utf8.count)) + digits
        return "\(directory)/repos/\(name.suffix(2))/\(name).git"
    }

    /// Makes the repository; one that is there already is success.
    func create(_ id: Int) async throws {
        let path = path(id)
        if !FileManager.default.fileExists(atPath: path) {
            let draft = "\(directory)/tmp/\(id).git"
            try? FileManager.default.removeItem(atPath: draft)
            try await git.check(.initialize(draft, branch: GitCore.defaultBranch))
            try FileManager.default.createDirectory(atPath: "\(draft)/info", withIntermediateDirectories: true)
            try Self.write(Self.attributes, to: "\(draft)/info/attributes")
            try Self.write(Self.configuration, to: "\(draft)/config")
            let shelf = (path as NSString).deletingLastPathComponent
            try FileManager.default.createDirectory(atPath: shelf, withIntermediateDirectories: true)
            try Durable.sync("\(draft)/info")
            try Durable.sync(draft)
            try FileManager.default.moveItem(atPath: draft, toPath: path)
            try Durable.sync(shelf)
        }
        try guardFiles(id)
    }

    /// Removes it; one that is gone is success.
    func delete(_ id: Int) throws {
        let path = path(id)
        guard FileManager.default.fileExists(atPath: path) else { return }
        let grave = "\(directory)/tmp/deleted-\(id)-\(UUID().uuidString)"
        try FileManager.default.moveItem(atPath: path, toPath: grave)
        try FileManager.default.removeItem(atPath: grave)
    }

    /// Sees that the two files that change git's behaviour are ours, and gives the repository's path. Cheap: done before each call.
    ///
    /// Throws `Problem` (`unavailable`) when the repository is not on disk.
    @discardableResult
    func guardFiles(_ id: Int) throws -> String {
        let path = path(id)
        guard FileManager.default.fileExists(atPath: "\(path)/HEAD") else {
            throw Problem(.unavailable, "the repository is missing on disk", hint: "restore \(path) from a backup")
        }
        for (name, text) in [("config", Self.configuration), ("info/attributes", Self.attributes)] {
            guard FileManager.default.contents(atPath: "\(path)/\(name)") != Data(text.utf8) else { continue }
            logger.warning("a file of a repository was changed and is set right", metadata: ["path": "\(path)/\(name)"])
            try FileManager.default.createDirectory(atPath: "\(path)/info", withIntermediateDirectories: true)
            try Self.write(text, to: "\(path)/\(name)")
        }
        return path
    }

    /// The branch that HEAD names.
    func head(_ id: Int) -> String {
        let text = FileManager.default.contents(atPath: "\(path(id))/HEAD").map { String(decoding: $0, as: UTF8.self) } ?? ""
        let prefix = "ref: refs/heads/"
        guard text.hasPrefix(prefix) else { return GitCore.defaultBranch }
        return text.dropFirst(prefix.count).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Removes what pushes that broke off left among the objects, once nothing has touched it for an hour.
    func sweepIncoming(_ id: Int) {
        let objects = "\(path(id))/objects"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: objects)) ?? [] where name.hasPrefix("tmp_objdir-incoming-") {
            var info = stat()
            guard lstat("\(objects)/\(name)", &info) == 0, time(nil) - info.st_mtim.tv_sec > 3600 else { continue }
            Durable.removeTree("\(objects)/\(name)")
        }
    }

    /// Clears what a crash left half done.
    func sweep() {
        let tmp = "\(directory)/tmp"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: tmp)) ?? [] { Durable.removeTree("\(tmp)/\(name)") }
    }

    private static func write(_ text: String, to path: String) throws {
        try? FileManager.default.removeItem(atPath: path)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        try Durable.sync(path)
    }
}

/// What must be on disk before something is said about it.
enum Durable {
    /// fsync of a file or a directory.
    static func sync(_ path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { throw Problem(.failed, "cannot open \(path): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Problem(.failed, "cannot sync \(path): \(String(cString: strerror(errno)))") }
    }

    /// Removes a directory whatever its modes are; what cannot be removed stays.
    static func removeTree(_ path: String) {
        if let walk = FileManager.default.enumerator(atPath: path) {
            chmod(path, 0o700)
            for case let name as String in walk {
                var info = stat()
                if lstat("\(path)/\(name)", &info) == 0, info.st_mode & S_IFMT == S_IFDIR { chmod("\(path)/\(name)", 0o700) }
            }
        }
        try? FileManager.default.removeItem(atPath: path)
    }
}
