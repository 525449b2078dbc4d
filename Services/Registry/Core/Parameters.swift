/// Percent-encoding (RFC 3986, section 2.1), decoded strictly.
enum Percent {
    /// Nil when an escape is broken or the bytes are not UTF-8.
    static func decode(_ text: some StringProtocol) -> String? {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return String(text) }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(digit), let low = rest.popFirst().flatMap(digit) else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// Encodes everything but the unreserved characters.
    static func encode(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                result += "%" + (digits.count == 1 ? "0" : "") + digits
            }
        }
        return result
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }
}

/// The query of a request. A `+` stands for itself: media types have it, and nothing here has a space.
struct Parameters: Equatable, Sendable {
    private let pairs: [(key: String, value: String)]

    init(_ query: String?) throws(OCIError) {
        var pairs: [(String, String)] = []
        for pair in (query ?? "").split(separator: "&").prefix(1000) {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = Percent.decode(sides[0]), let value = sides.count == 2 ? Percent.decode(sides[1]) : "" else {
                throw OCIError(400, .unsupported, "the query is not valid percent-encoded UTF-8")
            }
            pairs.append((key, value))
        }
        self.pairs = pairs
    }

    /// The first of that name.
    subscript(_ key: String) -> String? { pairs.first { $0.key == key }?.value }
    func all(_ key: String) -> [String] { pairs.filter { $0.key == key }.map(\.value) }

    static func == (left: Self, right: Self) -> Bool { left.pairs.elementsEqual(right.pairs) { $0 == $1 } }
}
