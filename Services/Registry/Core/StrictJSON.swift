import Contracts

/// JSON (RFC 8259) read without mercy: no duplicate members, no byte order mark, no lone surrogates, and no deeper than 64.
///
/// A manifest is content that many programs read. Where two readers could see two different documents in the same bytes (the
/// second `layers`, the text after the end), it is refused before it is stored.
struct StrictJSON {
    static let depthLimit = 64
    private let bytes: [UInt8]
    private var at = 0

    /// Throws `OCIError` that says what is wrong at which byte.
    static func parse(_ bytes: [UInt8]) throws(OCIError) -> JSON {
        guard !bytes.starts(with: [0xEF, 0xBB, 0xBF]) else { throw .manifestInvalid("starts with a byte order mark") }
        guard String(validating: bytes, as: UTF8.self) != nil else { throw .manifestInvalid("is not UTF-8") }
        var reader = StrictJSON(bytes: bytes)
        reader.skipSpace()
        let value = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.at == bytes.count else { throw reader.wrong("text after the end of the document") }
        return value
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private func wrong(_ what: String) -> OCIError { .manifestInvalid("not valid JSON: \(what) at byte \(at)") }
    private var current: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }
    private mutating func expect(_ byte: UInt8) throws(OCIError) {
        guard current == byte else { throw wrong("expected '\(Unicode.Scalar(byte))'") }
        at += 1
    }

    private mutating func value(depth: Int) throws(OCIError) -> JSON {
        guard depth < Self.depthLimit else { throw wrong("nested deeper than \(Self.depthLimit)") }
        switch current {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ text: StaticString, _ value: JSON) throws(OCIError) -> JSON {
        let count = text.utf8CodeUnitCount
        guard at + count <= bytes.count, String(decoding: bytes[at..<at + count], as: UTF8.self) == text.description else {
            throw wrong("unknown word")
        }
        at += count
        return value
    }

    private mutating func object(depth: Int) throws(OCIError) -> JSON {
        var members: [String: JSON] = [:]
        at += 1
        skipSpace()
        if current == UInt8(ascii: "}") {
            at += 1
            return .object(members)
        }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw wrong("expected a member's name") }
            let key = try string()
            guard members[key] == nil else { throw wrong("\(Problem.quote(key)) stands there twice") }
            skipSpace()
            try expect(UInt8(ascii: ":"))
            skipSpace()
            members[key] = try value(depth: depth + 1)
            skipSpace()
            if current == UInt8(ascii: ",") {
                at += 1
            } else {
                try expect(UInt8(ascii: "}"))
                return .object(members)
            }
        }
    }

    private mutating func array(depth: Int) throws(OCIError) -> JSON {
        var elements: [JSON] = []
        at += 1
        skipSpace()
        if current == UInt8(ascii: "]") {
            at += 1
            return .array(elements)
        }
        while true {
            skipSpace()
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if current == UInt8(ascii: ",") {
                at += 1
            } else {
                try expect(UInt8(ascii: "]"))
                return .array(elements)
            }
        }
    }

    private mutating func string() throws(OCIError) -> String {
        at += 1
        var text = ""
        var start = at
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                text += String(decoding: bytes[start..<at], as: UTF8.self)
                at += 1
                return text
            case UInt8(ascii: "\\"):
                text += String(decoding: bytes[start..<at], as: UTF8.self)
                at += 1
                text.unicodeScalars.append(try escape())
                start = at
            case 0..<0x20: throw wrong("a control character in a string")
            default: at += 1
            }
        }
        throw wrong("a string without an end")
    }

    private mutating func escape() throws(OCIError) -> Unicode.Scalar {
        guard let byte = current else { throw wrong("an escape without an end") }
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let first = try fourDigits()
            if let scalar = Unicode.Scalar(first) { return scalar }
            guard first < 0xDC00 else { throw wrong("half a surrogate pair") }
            try expect(UInt8(ascii: "\\"))
            try expect(UInt8(ascii: "u"))
            let second = try fourDigits()
            guard (0xDC00...0xDFFF).contains(second), let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            else {
                throw wrong("half a surrogate pair")
            }
            return scalar
        default: throw wrong("an unknown escape")
        }
    }

    private mutating func fourDigits() throws(OCIError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw wrong("four hexadecimal digits wanted")
            }
            value = value << 4 | UInt32(digit)
            at += 1
        }
        return value
    }

    private mutating func number() throws(OCIError) -> JSON {
        let start = at
        func isDigit(_ byte: UInt8?) -> Bool { byte.map { $0 >= 0x30 && $0 <= 0x39 } ?? false }
        if current == UInt8(ascii: "-") { at += 1 }
        guard isDigit(current) else { throw wrong("expected a value") }
        if current == UInt8(ascii: "0") { at += 1 } else { while isDigit(current) { at += 1 } }
        var whole = true
        if current == UInt8(ascii: ".") {
            whole = false
            at += 1
            guard isDigit(current) else { throw wrong("a digit wanted") }
            while isDigit(current) { at += 1 }
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            whole = false
            at += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { at += 1 }
            guard isDigit(current) else { throw wrong("a digit wanted") }
            while isDigit(current) { at += 1 }
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if whole, let value = Int64(text) { return .int(value) }
        guard let value = Double(text), value.isFinite else { throw wrong("a number too large") }
        return .double(value)
    }
}
