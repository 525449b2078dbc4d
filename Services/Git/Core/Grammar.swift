import Contracts

/// What may be asked of a repository: checked before git sees it.
enum Grammar {
    /// A path inside a tree. Throws `Problem` (`invalid`) when it is not relative and plain.
    static func path(_ text: String) throws -> String {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard !text.isEmpty, text.utf8.count <= 1024, !text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }),
            parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
        else { throw Problem(.invalid, "path \(Problem.quote(text)): expected a relative path without '.', '..' and control characters") }
        return text
    }

    /// The names that a revision may stand for, the likeliest first, and the ref of each. Throws `Problem` (`invalid`).
    static func candidates(_ revision: String) throws -> [(name: String, ref: RefName?)] {
        let refusal = Problem(
            .invalid, "revision \(Problem.quote(revision)): expected a branch, a tag or a commit id",
            hint: "for example main, v3 or 1a2b3c4")
        guard !revision.hasPrefix("-"), (try? RefName("refs/heads/\(revision)")) != nil else { throw refusal }
        var found: [(String, RefName?)] = []
        if revision == "HEAD" { found.append(("HEAD", nil)) }
        if revision.hasPrefix("refs/"), let ref = try? RefName(revision) { found.append((revision, ref)) }
        for kind in ["heads", "tags"] {
            if let ref = try? RefName("refs/\(kind)/\(revision)") { found.append((ref.text, ref)) }
        }
        let isHex = revision.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }
        if isHex, (4...64).contains(revision.utf8.count) { found.append((revision, nil)) }
        return found
    }

    /// The value of a Git-Protocol header that is safe as an environment variable; nil: protocol version 0.
    static func protocolVersion(_ header: String?) -> String? {
        guard let header, !header.isEmpty, header.utf8.count <= 64,
            header.utf8.allSatisfy({
                ($0 >= 0x30 && $0 <= 0x3A) || ($0 >= 0x61 && $0 <= 0x7A) || $0 == 0x3D || $0 == 0x2E || $0 == 0x2D
            })
        else { return nil }
        return header
    }
}
