import Contracts
import Foundation

/// Read-only directories with the tree of a commit, one for each tree: `checkouts/<tree>`.
struct Checkouts: Sendable {
    let directory: String
    private let locks = Locks()

    init(directory: String) { self.directory = directory }

    /// Throws `Problem`: `not_found` for an unknown commit, `too_large` beyond the budget, `invalid` for a tree with a link out of it.
    func path(of commit: CommitID, in objects: Objects) async throws -> CheckOut.Reply {
        guard let tree = try await objects.look(["\(commit)^{tree}"]).first ?? nil else {
            throw Problem(.notFound, "there is no commit \(commit.short)")
        }
        let path = "\(directory)/checkouts/\(tree.id)"
        let reply = CheckOut.Reply(path: path, tree: tree.id.text)
        if FileManager.default.fileExists(atPath: path) { return reply }
        let place = try await locks.hold(tree.id.text, within: 300)
        defer { withExtendedLifetime(place) {} }
        if FileManager.default.fileExists(atPath: path) { return reply }
        try await objects.checkBudget(commit)
        let draft = "\(directory)/tmp/checkout-\(UUID().uuidString)"
        defer { Durable.removeTree(draft) }
        let files = "\(draft)/files"
        try FileManager.default.createDirectory(atPath: files, withIntermediateDirectories: true)
        try await objects.git.check(.readTree(objects.path, tree.id, index: "\(draft)/index"))
        try await objects.git.check(.files(objects.path, index: "\(draft)/index", into: files))
        try Self.seal(files)
        // Moving a directory writes into it, so it becomes read-only only in its place.
        try FileManager.default.moveItem(atPath: files, toPath: path)
        chmod(path, 0o555)
        try Durable.sync(path)
        try Durable.sync("\(directory)/checkouts")
        return reply
    }

    /// Takes all rights to write away, syncs, and refuses links that lead out of the tree.
    private static func seal(_ root: String) throws {
        guard let walk = FileManager.default.enumerator(atPath: root) else { throw Problem(.failed, "cannot read \(root)") }
        var directories: [String] = []
        for case let name as String in walk {
            let path = "\(root)/\(name)"
            var info = stat()
            guard lstat(path, &info) == 0 else { throw Problem(.failed, "cannot look at \(Problem.quote(name))") }
            switch info.st_mode & S_IFMT {
            case S_IFLNK:
                let target = try FileManager.default.destinationOfSymbolicLink(atPath: path)
                guard staysInside(name, target) else {
                    throw Problem(
                        .invalid, "\(Problem.quote(name)) is a link that leaves the tree", hint: "remove the link and commit again")
                }
            case S_IFDIR: directories.append(path)
            default:
                chmod(path, info.st_mode & 0o111 == 0 ? 0o444 : 0o555)
                try Durable.sync(path)
            }
        }
        for path in directories.reversed() {
            try Durable.sync(path)
            chmod(path, 0o555)
        }
    }

    /// Whether a link at `name` with that target stays in the tree, whatever other links there are: it may climb at its beginning only,
    /// through directories that are real, and not above the tree. Behind another link `..` would be another place.
    static func staysInside(_ name: String, _ target: String) -> Bool {
        guard !target.hasPrefix("/"), !target.isEmpty else { return false }
        let parts = target.split(separator: "/").filter { $0 != "." }
        let climbs = parts.prefix { $0 == ".." }.count
        return climbs <= name.split(separator: "/").count - 1 && !parts.dropFirst(climbs).contains("..")
    }
}
