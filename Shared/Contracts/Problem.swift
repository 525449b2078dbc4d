/// What went wrong, in one shape for code, the bus, HTTP (RFC 9457) and the terminal.
///
/// Nobody matches on the text: programs read `code`, people read `message` and `hint`.
public struct Problem: Error, Codable, Hashable, Sendable, CustomStringConvertible {
    /// Stable, for scripts. Not an enum: a newer peer's code must decode here, not trap.
    public struct Code: RawRepresentable, Codable, Hashable, Sendable {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }

        public static let invalidName = Self(rawValue: "invalid_name")
        public static let invalid = Self(rawValue: "invalid")
        public static let malformed = Self(rawValue: "malformed")
        public static let unauthenticated = Self(rawValue: "unauthenticated")
        public static let forbidden = Self(rawValue: "forbidden")
        public static let notFound = Self(rawValue: "not_found")
        public static let methodNotAllowed = Self(rawValue: "method_not_allowed")
        public static let conflict = Self(rawValue: "conflict")
        public static let gone = Self(rawValue: "gone")
        public static let tooLarge = Self(rawValue: "too_large")
        public static let unsupportedMedia = Self(rawValue: "unsupported_media_type")
        public static let misdirected = Self(rawValue: "misdirected")
        public static let tooMany = Self(rawValue: "too_many")
        public static let failed = Self(rawValue: "failed")
        public static let unsupported = Self(rawValue: "unsupported")
        public static let unavailable = Self(rawValue: "unavailable")
        public static let timeout = Self(rawValue: "timeout")
        public static let storageFull = Self(rawValue: "storage_full")
        public static let configuration = Self(rawValue: "configuration")
        public static let usage = Self(rawValue: "usage")
    }

    public var code: Code
    /// What went wrong, on what, in the user's words.
    public var message: String
    /// What to do now, ideally a command to paste.
    public var hint: String?

    public init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    /// Message and hint in one line.
    public var description: String { hint.map { "\(message) (\($0))" } ?? message }

    /// The HTTP status that goes with the code (RFC 9110, section 15).
    public var status: Int {
        switch code {
        case .malformed: 400
        case .unauthenticated: 401
        case .forbidden: 403
        case .notFound: 404
        case .methodNotAllowed: 405
        case .conflict: 409
        case .gone: 410
        case .tooLarge: 413
        case .unsupportedMedia: 415
        case .misdirected: 421
        case .invalid, .invalidName, .configuration, .usage: 422
        case .tooMany: 429
        case .unsupported: 501
        case .unavailable: 503
        case .timeout: 504
        case .storageFull: 507
        default: 500
        }
    }

    /// Text that came from outside, made safe and short enough to be shown: quoted, cut at 60 characters, controls escaped.
    public static func quote(_ text: String) -> String {
        var shown = "'"
        for scalar in text.unicodeScalars.prefix(60) {
            if scalar.value < 0x20 || scalar.value == 0x7F || (0x80...0x9F).contains(scalar.value)
                || (0x200B...0x200F).contains(scalar.value) || (0x202A...0x202E).contains(scalar.value)
                || (0x2066...0x2069).contains(scalar.value) || scalar.value == 0xFEFF
            {
                shown += "\\u{\(hex(scalar.value))}"
            } else {
                shown.unicodeScalars.append(scalar)
            }
        }
        return shown + (text.unicodeScalars.count > 60 ? "…'" : "'")
    }

    /// At least four upper-case hexadecimal digits.
    static func hex(_ value: UInt32) -> String {
        let digits = String(value, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}
