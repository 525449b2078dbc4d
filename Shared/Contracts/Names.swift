/// A name with a grammar: a value of a conforming type cannot hold text that breaks its rule.
///
/// One grammar per kind of name keeps outside text out of paths, arguments and queries. Build one with `init(_:)`, which
/// throws a `Problem` that names the rule and the offending character.
public protocol Name: Codable, Hashable, Sendable, Comparable, CustomStringConvertible, CodingKeyRepresentable {
    /// The text, as it was checked.
    var text: String { get }
    /// Throws `Problem` (`invalid_name`, status 422) when `text` breaks the rule.
    init(_ text: String) throws
}

extension Name {
    public var description: String { text }
    public static func < (left: Self, right: Self) -> Bool { left.text < right.text }
    public init(from decoder: any Decoder) throws { try self.init(decoder.singleValueContainer().decode(String.self)) }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
    public var codingKey: any CodingKey { NameKey(stringValue: text) }
    public init?<T: CodingKey>(codingKey: T) { try? self.init(codingKey.stringValue) }
}

private struct NameKey: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

/// The rule that apps, environments, services and hosts share: a DNS label (RFC 1035, section 2.3.1), lower case.
enum Label {
    /// Names that would collide with a path or a host name of the suite itself.
    static let reserved: Set<String> = [
        "api", "v1", "v2", "slipway", "localhost", "www", "health", "ready", "version", "metrics", "bundles",
    ]

    static func check(_ text: String, kind: String, limit: Int, reserved: Set<String> = []) throws -> String {
        func refuse(_ why: String) -> Problem {
            Problem(.invalidName, "\(kind) name \(Problem.quote(text)): \(why)", hint: "use 1 to \(limit) characters: a-z, 0-9 and '-'")
        }
        guard !text.isEmpty else { throw refuse("is empty") }
        guard text.utf8.count <= limit else { throw refuse("is longer than \(limit) characters") }
        for (offset, scalar) in text.unicodeScalars.enumerated() {
            guard scalar.isASCII else {
                throw refuse("not ASCII: U+\(Problem.hex(scalar.value)) at \(offset + 1)")
            }
            switch scalar {
            case "a"..."z", "0"..."9", "-": continue
            default: throw refuse("only a-z, 0-9 and '-' (found \(Problem.quote(String(scalar))) at \(offset + 1))")
            }
        }
        guard text.first != "-" else { throw refuse("must not start with '-'") }
        guard text.last != "-" else { throw refuse("must not end with '-'") }
        guard !reserved.contains(text) else { throw refuse("'\(text)' is reserved") }
        return text
    }
}

/// The name of an app and of its repository: a DNS label of at most 40 characters that starts with a letter.
public struct AppName: Name {
    public let text: String
    public init(_ text: String) throws {
        self.text = try Label.check(text, kind: "app", limit: 40, reserved: Label.reserved)
        guard let first = text.first, first.isLetter else {
            throw Problem(.invalidName, "app name '\(text)': must start with a letter", hint: "for example 'app-\(text)'")
        }
    }
}

/// The name of an environment, such as `production`: a DNS label of at most 30 characters.
public struct EnvName: Name {
    public let text: String
    public init(_ text: String) throws { self.text = try Label.check(text, kind: "environment", limit: 30, reserved: ["localhost"]) }
}

/// The name of a service of an app, such as `web`: a DNS label of at most 30 characters.
public struct ServiceName: Name {
    public let text: String
    public init(_ text: String) throws { self.text = try Label.check(text, kind: "service", limit: 30) }
}

/// The name of a host: a DNS label of at most 63 characters.
public struct HostName: Name {
    public let text: String
    public init(_ text: String) throws { self.text = try Label.check(text, kind: "host", limit: 63) }
}

/// The name of a token or of the user or robot that holds it.
public struct TokenName: Name {
    public let text: String
    public init(_ text: String) throws { self.text = try Label.check(text, kind: "token", limit: 63) }
}

/// The name of a key of the bus: a name, or one with the host that it is on, such as `supervisor@host2`.
public struct KeyName: Name {
    public let text: String
    public init(_ text: String) throws {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let base = try Label.check(parts[0], kind: "key", limit: 63, reserved: ["http", "unknown"])
        if parts.count > 1 { _ = try HostName(parts[1]) }
        self.text = parts.count > 1 ? "\(base)@\(parts[1])" : base
    }
}

/// A commit's object id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
public struct CommitID: Name {
    public let text: String
    public init(_ text: String) throws {
        let count = text.utf8.count
        guard count == 40 || count == 64, text.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }) else {
            throw Problem(.invalidName, "commit \(Problem.quote(text)): expected 40 lower-case hexadecimal digits")
        }
        self.text = text
    }
    /// The first seven digits, for people.
    public var short: String { String(text.prefix(7)) }
}

/// The digest of a blob, as in the OCI image specification ("Digests"): `sha256:` and 64 lower-case hexadecimal digits.
public struct Digest: Name {
    public let text: String
    public init(_ text: String) throws {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let lengths: [Substring: Int] = ["sha256": 64, "sha512": 128]
        guard parts.count == 2, let length = lengths[parts[0]], parts[1].utf8.count == length,
            parts[1].utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) })
        else { throw Problem(.invalidName, "digest \(Problem.quote(text)): expected 'sha256:' and 64 lower-case hexadecimal digits") }
        self.text = text
    }
    /// The algorithm: `sha256` or `sha512`.
    public var algorithm: String { String(text.prefix(6)) }
    /// The hexadecimal digits alone.
    public var hex: String { String(text.dropFirst(7)) }
}

/// A full ref name, such as `refs/heads/main`, by the rules of `git check-ref-format`; at most 255 bytes, and in Unicode's
/// composed form (NFC), because two names that git tells apart and people and texts do not would be one here.
public struct RefName: Name {
    public let text: String
    public init(_ text: String) throws {
        func refuse(_ why: String) -> Problem { Problem(.invalidName, "ref \(Problem.quote(text)): \(why)") }
        guard text.hasPrefix("refs/"), text.utf8.count <= 255 else { throw refuse("expected refs/… of at most 255 bytes") }
        for component in text.split(separator: "/", omittingEmptySubsequences: false) {
            guard !component.isEmpty, !component.hasPrefix("."), !component.hasSuffix(".lock"), !component.hasSuffix(".") else {
                throw refuse("has an empty or dotted component")
            }
        }
        for scalar in text.unicodeScalars where scalar.value < 0x21 || scalar.value == 0x7F || "~^:?*[\\".unicodeScalars.contains(scalar) {
            throw refuse("has a character that git refuses")
        }
        guard !text.contains(".."), !text.contains("@{") else { throw refuse("has '..' or '@{'") }
        // As bytes: to Swift a mark behind a slash is one character with it, and both forms of a letter are equal.
        guard text.utf8.elementsEqual(text.precomposedStringWithCanonicalMapping.utf8) else { throw refuse("is not in Unicode form NFC") }
        guard !text.split(separator: "/").contains(where: { $0.unicodeScalars.first?.properties.isGraphemeExtend == true }),
            text.utf8.count(where: { $0 == UInt8(ascii: "/") }) == text.count(where: { $0 == "/" })
        else { throw refuse("has a component that begins with a combining mark") }
        self.text = text
    }
    /// The branch, when this is one (`main` for `refs/heads/main`).
    public var branch: String? { text.hasPrefix("refs/heads/") ? String(text.dropFirst(11)) : nil }
    /// The tag, when this is one.
    public var tag: String? { text.hasPrefix("refs/tags/") ? String(text.dropFirst(10)) : nil }
}

/// One of the eight programs of the suite.
public enum Component: String, Codable, Hashable, Sendable, CaseIterable {
    case api, bus, deployer, discovery, git, registry, scheduler, supervisor

    /// What is added to the port base for this component's HTTP (interfaces.md, *Ports*).
    public var httpOffset: Int {
        switch self {
        case .api: 0
        case .bus: 1
        case .deployer: 2
        case .discovery: 3
        case .git: 4
        case .registry: 5
        case .scheduler: 6
        case .supervisor: 7
        }
    }
}
