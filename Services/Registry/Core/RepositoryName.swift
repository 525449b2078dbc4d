import Contracts

/// The name of a repository, by the grammar of the OCI Distribution specification ("Pulling manifests"): components of
/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`, components joined by `/`; at most 255 bytes.
struct RepositoryName: Hashable, Sendable, Comparable, CustomStringConvertible {
    static let limit = 255
    let text: String

    init(_ text: String) throws(OCIError) {
        guard !text.isEmpty else { throw .nameInvalid(text, "is empty") }
        guard text.utf8.count <= Self.limit else { throw .nameInvalid(text, "is longer than \(Self.limit) bytes") }
        for component in text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            guard Self.isComponent(component) else {
                throw .nameInvalid(text, "each part is a-z and 0-9, joined by '.', '_', '__' or '-'")
            }
        }
        self.text = text
    }

    /// Whether letters and digits stand at both ends and every run of separators is one that the grammar has.
    private static func isComponent(_ bytes: Substring.UTF8View) -> Bool {
        var separators: [UInt8] = []
        var sawLetter = false
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                guard separators.isEmpty || (sawLetter && isSeparator(separators)) else { return false }
                separators.removeAll(keepingCapacity: true)
                sawLetter = true
            case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): separators.append(byte)
            default: return false
            }
        }
        return sawLetter && separators.isEmpty
    }

    private static func isSeparator(_ run: [UInt8]) -> Bool {
        run == [UInt8(ascii: ".")] || run == [UInt8(ascii: "_")] || run == [UInt8(ascii: "_"), UInt8(ascii: "_")]
            || run.allSatisfy { $0 == UInt8(ascii: "-") }
    }

    var description: String { text }
    static func < (left: Self, right: Self) -> Bool { left.text.utf8.lexicographicallyPrecedes(right.text.utf8) }
}

/// A tag: a letter, digit or `_`, then up to 127 more of those, `.` and `-`.
struct TagName: Hashable, Sendable, CustomStringConvertible {
    static let limit = 128
    let text: String

    init?(_ text: String) {
        guard let first = text.utf8.first, Self.isWord(first), text.utf8.count <= Self.limit,
            text.utf8.allSatisfy({ Self.isWord($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-") })
        else { return nil }
        self.text = text
    }
    private static func isWord(_ byte: UInt8) -> Bool {
        (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5A) || (byte >= 0x61 && byte <= 0x7A) || byte == UInt8(ascii: "_")
    }
    var description: String { text }
}

/// What names a manifest within its repository.
enum Reference: Hashable, Sendable, CustomStringConvertible {
    case tag(TagName)
    case digest(Digest)

    /// Text with a `:` can only be meant as a digest, because no tag has one.
    init(_ text: String) throws(OCIError) {
        if text.contains(":") {
            self = .digest(try Self.digest(text))
        } else if let tag = TagName(text) {
            self = .tag(tag)
        } else {
            throw OCIError(
                400, .manifestInvalid,
                "tag \(Problem.quote(text)): expected 1 to \(TagName.limit) letters, digits, '_', '.' and '-', not starting with '.' or '-'"
            )
        }
    }
    static func digest(_ text: String) throws(OCIError) -> Digest {
        guard text.utf8.count <= 200, let digest = try? Digest(text) else { throw .digestInvalid(text) }
        return digest
    }
    var description: String {
        switch self {
        case .tag(let tag): tag.text
        case .digest(let digest): digest.text
        }
    }
}
