import Contracts

/// What a path under `/v2` leads to.
///
/// Read from the right: a repository may itself be called `a/blobs` or `x/manifests/tags`, so only the last components tell
/// which resource is meant, and all before them are the name.
enum RegistryPath: Equatable, Sendable {
    case base
    case catalog
    case blob(RepositoryName, Digest)
    case uploads(RepositoryName)
    case upload(RepositoryName, UploadID)
    case manifest(RepositoryName, Reference)
    case tags(RepositoryName)
    case referrers(RepositoryName, Digest)

    /// Takes the path as it came, still percent-encoded; each component is decoded once, after the split, so that an encoded
    /// slash stays inside its component and is refused there.
    init(_ path: String) throws(OCIError) {
        let unknown = OCIError(
            404, .nameUnknown, "nothing is served at this path", detail: .object(["path": .string(String(path.prefix(200)))]))
        var parts: [String] = []
        for raw in path.split(separator: "/", omittingEmptySubsequences: false) {
            guard let part = Percent.decode(raw) else { throw OCIError(400, .nameInvalid, "the path is not valid percent-encoded UTF-8") }
            parts.append(part)
        }
        guard parts.count >= 2, parts[0].isEmpty, parts[1] == "v2" else { throw unknown }
        parts.removeFirst(2)
        if parts.isEmpty || parts == [""] {
            self = .base
            return
        }
        if parts == ["_catalog"] {
            self = .catalog
            return
        }
        func name(_ dropped: Int) throws(OCIError) -> RepositoryName {
            try RepositoryName(parts.dropLast(dropped).joined(separator: "\u{2F}"), parts: parts.dropLast(dropped))
        }
        let count = parts.count
        let last = parts[count - 1]
        func at(_ fromRight: Int) -> String? { count >= fromRight ? parts[count - fromRight] : nil }

        if at(2) == "tags", last == "list" {
            self = .tags(try name(2))
        } else if at(2) == "manifests" {
            let name = try name(2)
            self = .manifest(name, try Reference(last))
        } else if at(2) == "referrers" {
            let name = try name(2)
            self = .referrers(name, try Reference.digest(last))
        } else if at(3) == "blobs", at(2) == "uploads" {
            if last.isEmpty {
                self = .uploads(try name(3))
            } else {
                let name = try name(3)
                guard let id = UploadID(last) else { throw .uploadUnknown }
                self = .upload(name, id)
            }
        } else if at(2) == "blobs", last == "uploads" {
            self = .uploads(try name(2))
        } else if at(2) == "blobs" {
            let name = try name(2)
            self = .blob(name, try Reference.digest(last))
        } else {
            throw unknown
        }
    }
}

extension RepositoryName {
    /// A name from components that were decoded one by one: none may bring a slash of its own.
    init(_ text: String, parts: ArraySlice<String>) throws(OCIError) {
        guard parts.allSatisfy({ !$0.contains("/") }) else { throw .nameInvalid(text, "has an encoded '/'") }
        try self.init(text)
    }
}

/// The id of an upload: 32 hexadecimal digits of randomness, so that nobody finds another's.
struct UploadID: Hashable, Sendable, CustomStringConvertible {
    let text: String

    init?(_ text: String) {
        guard text.utf8.count == 32, text.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }) else { return nil }
        self.text = text
    }
    init(random generator: inout some RandomNumberGenerator) {
        text = String((0..<32).map { _ in "0123456789abcdef".randomElement(using: &generator) ?? "0" })
    }
    /// From the system's generator, which is fit for secrets.
    static func fresh() -> UploadID {
        var generator = SystemRandomNumberGenerator()
        return UploadID(random: &generator)
    }
    var description: String { text }
}
