/// A value of XML-RPC (http://xmlrpc.com/spec.md).
indirect enum Value {
    case int(Int)
    case boolean(Bool)
    case double(Double)
    case string(String)
    /// base64 on the wire.
    case bytes([UInt8])
    /// A string of bytes that may be no text: what XML cannot carry becomes U+FFFD.
    case text([UInt8])
    case array([Value])
    case structure([(String, Value)])
    case none
    /// A value that is encoded already.
    case encoded([UInt8])
}

/// What a call asks for.
struct MethodCall {
    var method: String
    var parameters: [Value]
}

/// A strict reader of calls: no document type, so no entities but XML's own; a bounded depth; nothing is looked up anywhere.
struct CallReader {
    struct Malformed: Error { var why: String }
    static let mostDepth = 64

    private let bytes: [UInt8]
    private var at = 0
    /// `<name/>` is an opening whose end follows at once.
    private var isClosing: String?

    private enum Token {
        case open(String)
        case close(String)
        case text([UInt8])
        case end
    }

    static func read(_ body: [UInt8]) throws(Malformed) -> MethodCall {
        var reader = CallReader(bytes: body)
        return try reader.call()
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private mutating func call() throws(Malformed) -> MethodCall {
        try open("methodCall")
        try open("methodName")
        let name = try text(until: "methodName")
        guard let method = String(validating: name, as: UTF8.self)?.trimmed, !method.isEmpty else { throw Malformed(why: "no method name") }
        var parameters: [Value] = []
        var token = try significant()
        if case .open("params") = token {
            while true {
                token = try significant()
                if case .close("params") = token { break }
                guard case .open("param") = token else { throw Malformed(why: "expected <param>") }
                try open("value")
                parameters.append(try value(0))
                try close("param")
            }
            token = try significant()
        }
        guard case .close("methodCall") = token else { throw Malformed(why: "expected </methodCall>") }
        guard case .end = try significant() else { throw Malformed(why: "something follows </methodCall>") }
        return MethodCall(method: method, parameters: parameters)
    }

    // MARK: values

    /// After `<value>`, up to and with `</value>`.
    private mutating func value(_ depth: Int) throws(Malformed) -> Value {
        guard depth < Self.mostDepth else { throw Malformed(why: "values are nested deeper than \(Self.mostDepth)") }
        var plain: [UInt8] = []
        while true {
            switch try next() {
            case .text(let more): plain += more
            case .close("value"): return .string(try Self.string(plain))
            case .open(let type):
                guard plain.allSatisfy(Self.isSpace) else { throw Malformed(why: "text stands before <\(type)>") }
                let result = try typed(type, depth)
                try close("value")
                return result
            case .close, .end: throw Malformed(why: "a value is not closed")
            }
        }
    }

    private mutating func typed(_ type: String, _ depth: Int) throws(Malformed) -> Value {
        switch type {
        case "array":
            try open("data")
            var items: [Value] = []
            while true {
                switch try significant() {
                case .open("value"): items.append(try value(depth + 1))
                case .close("data"):
                    try close("array")
                    return .array(items)
                default: throw Malformed(why: "expected a value in <data>")
                }
            }
        case "struct":
            var members: [(String, Value)] = []
            while true {
                switch try significant() {
                case .open("member"):
                    try open("name")
                    let name = try Self.string(try text(until: "name"))
                    try open("value")
                    members.append((name, try value(depth + 1)))
                    try close("member")
                case .close("struct"): return .structure(members)
                default: throw Malformed(why: "expected a member in <struct>")
                }
            }
        default:
            let raw = try text(until: type)
            let text = try Self.string(raw)
            switch type {
            case "string", "dateTime.iso8601": return .string(text)
            case "int", "i4", "i8", "i2", "i1", "biginteger":
                guard let number = Int(text.trimmed) else { throw Malformed(why: "'\(text.prefix(40))' is no integer") }
                return .int(number)
            case "boolean":
                switch text.trimmed {
                case "1", "true": return .boolean(true)
                case "0", "false": return .boolean(false)
                default: throw Malformed(why: "'\(text.prefix(40))' is no boolean")
                }
            case "double", "float":
                guard let number = Double(text.trimmed), number.isFinite else { throw Malformed(why: "'\(text.prefix(40))' is no number") }
                return .double(number)
            case "base64":
                guard let data = Base64.decode(raw) else { throw Malformed(why: "a value is no base64") }
                return .bytes(data)
            case "nil", "ex:nil":
                guard text.isEmpty else { throw Malformed(why: "<nil/> holds something") }
                return .none
            default: throw Malformed(why: "<\(type.prefix(40))> is no type of XML-RPC")
            }
        }
    }

    private static func string(_ bytes: [UInt8]) throws(Malformed) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Malformed(why: "a text is not UTF-8") }
        return text
    }

    // MARK: tokens

    private mutating func open(_ name: String) throws(Malformed) {
        guard case .open(name) = try significant() else { throw Malformed(why: "expected <\(name)>") }
    }

    private mutating func close(_ name: String) throws(Malformed) {
        guard case .close(name) = try significant() else { throw Malformed(why: "expected </\(name)>") }
    }

    private mutating func text(until name: String) throws(Malformed) -> [UInt8] {
        var result: [UInt8] = []
        while true {
            switch try next() {
            case .text(let more): result += more
            case .close(name): return result
            default: throw Malformed(why: "expected </\(name)>")
            }
        }
    }

    private mutating func significant() throws(Malformed) -> Token {
        while true {
            let token = try next()
            if case .text(let bytes) = token {
                guard bytes.allSatisfy(Self.isSpace) else { throw Malformed(why: "text where a tag belongs") }
                continue
            }
            return token
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 32 || byte == 10 || byte == 13 || byte == 9 }

    private mutating func next() throws(Malformed) -> Token {
        if let name = isClosing {
            isClosing = nil
            return .close(name)
        }
        guard at < bytes.count else { return .end }
        guard bytes[at] == UInt8(ascii: "<") else { return .text(try characters()) }
        if starts("<?") {
            guard let end = find("?>") else { throw Malformed(why: "a processing instruction is not closed") }
            let text = String(decoding: bytes[at..<end], as: UTF8.self).lowercased()
            if text.contains("encoding"), !text.contains("utf-8"), !text.contains("utf8"), !text.contains("us-ascii") {
                throw Malformed(why: "the encoding is not UTF-8")
            }
            at = end + 2
            return .text([])
        }
        if starts("<!--") {
            guard let end = find("-->") else { throw Malformed(why: "a comment is not closed") }
            at = end + 3
            return .text([])
        }
        if starts("<![CDATA[") {
            guard let end = find("]]>") else { throw Malformed(why: "CDATA is not closed") }
            defer { at = end + 3 }
            return .text(Array(bytes[(at + 9)..<end]))
        }
        if starts("<!") { throw Malformed(why: "document types are not accepted") }
        return try tag()
    }

    private mutating func tag() throws(Malformed) -> Token {
        at += 1
        let isEnd = at < bytes.count && bytes[at] == UInt8(ascii: "/")
        if isEnd { at += 1 }
        let start = at
        while at < bytes.count, !Self.isSpace(bytes[at]), bytes[at] != UInt8(ascii: ">"), bytes[at] != UInt8(ascii: "/") { at += 1 }
        let name = String(decoding: bytes[start..<at], as: UTF8.self)
        guard !name.isEmpty, name.utf8.count <= 64 else { throw Malformed(why: "a tag has no name") }
        while at < bytes.count, Self.isSpace(bytes[at]) { at += 1 }
        var isEmpty = false
        if !isEnd, at < bytes.count, bytes[at] == UInt8(ascii: "/") {
            isEmpty = true
            at += 1
        }
        guard at < bytes.count, bytes[at] == UInt8(ascii: ">") else {
            throw Malformed(why: "the tag '\(name)' is not closed, or has attributes")
        }
        at += 1
        if isEmpty { isClosing = name }
        return isEnd ? .close(name) : .open(name)
    }

    private mutating func characters() throws(Malformed) -> [UInt8] {
        var result: [UInt8] = []
        while at < bytes.count, bytes[at] != UInt8(ascii: "<") {
            guard bytes[at] == UInt8(ascii: "&") else {
                result.append(bytes[at])
                at += 1
                continue
            }
            guard let end = bytes[at...].prefix(12).firstIndex(of: UInt8(ascii: ";")) else { throw Malformed(why: "a bare & in a text") }
            let name = String(decoding: bytes[(at + 1)..<end], as: UTF8.self)
            at = end + 1
            switch name {
            case "lt": result.append(UInt8(ascii: "<"))
            case "gt": result.append(UInt8(ascii: ">"))
            case "amp": result.append(UInt8(ascii: "&"))
            case "quot": result.append(UInt8(ascii: "\""))
            case "apos": result.append(UInt8(ascii: "'"))
            default:
                let number =
                    name.hasPrefix("#x") ? UInt32(name.dropFirst(2), radix: 16) : name.hasPrefix("#") ? UInt32(name.dropFirst()) : nil
                guard let number, let scalar = UnicodeScalar(number), number > 0 else { throw Malformed(why: "&\(name); is not known") }
                result += Array(String(Character(scalar)).utf8)
            }
        }
        return result
    }

    private func starts(_ text: StaticString) -> Bool {
        text.withUTF8Buffer { bytes[at...].starts(with: $0) }
    }

    private func find(_ text: StaticString) -> Int? {
        text.withUTF8Buffer { needle in
            var index = at
            while index + needle.count <= bytes.count {
                if bytes[index...].starts(with: needle) { return index }
                index += 1
            }
            return nil
        }
    }
}

/// Writes answers, in the layout of Python's xmlrpc, which scripts have come to know.
struct AnswerWriter {
    private(set) var bytes: [UInt8] = []

    static func answer(_ value: Value) -> [UInt8] {
        var writer = AnswerWriter()
        writer.put("<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n")
        writer.put(value)
        writer.put("</param>\n</params>\n</methodResponse>\n")
        return writer.bytes
    }

    static func fault(_ fault: Fault) -> [UInt8] {
        var writer = AnswerWriter()
        writer.put("<?xml version='1.0'?>\n<methodResponse>\n<fault>\n")
        writer.put(fault.value)
        writer.put("</fault>\n</methodResponse>\n")
        return writer.bytes
    }

    mutating func put(_ text: StaticString) { text.withUTF8Buffer { bytes.append(contentsOf: $0) } }

    mutating func put(_ value: Value) {
        switch value {
        case .int(let number):
            put("<value><int>")
            put(number)
            put("</int></value>\n")
        case .boolean(let flag): put(flag ? "<value><boolean>1</boolean></value>\n" : "<value><boolean>0</boolean></value>\n")
        case .double(let number):
            put("<value><double>")
            bytes += Array("\(number)".utf8)
            put("</double></value>\n")
        case .string(let text):
            put("<value><string>")
            escape(text)
            put("</string></value>\n")
        case .text(let raw):
            put("<value><string>")
            escape(raw)
            put("</string></value>\n")
        case .bytes(let data):
            put("<value><base64>\n")
            bytes += Base64.encode(data)
            put("\n</base64></value>\n")
        case .array(let items):
            put("<value><array><data>\n")
            for item in items { put(item) }
            put("</data></array></value>\n")
        case .structure(let members):
            put("<value><struct>\n")
            for (name, value) in members { put(name, value) }
            put("</struct></value>\n")
        case .none: put("<value><nil/></value>\n")
        case .encoded(let encoded): bytes += encoded
        }
    }

    mutating func put(_ name: String, _ value: Value) {
        put("<member>\n<name>")
        escape(name)
        put("</name>\n")
        put(value)
        put("</member>\n")
    }

    mutating func put(_ number: Int) {
        guard number >= 0 else {
            bytes += Array(String(number).utf8)
            return
        }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var at = 20
            var rest = number
            repeat {
                at -= 1
                digits[at] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            bytes.append(contentsOf: digits[at..<20])
        }
    }

    mutating func escape(_ text: String) {
        var text = text
        text.withUTF8 { escape($0, isText: true) }
    }

    /// Bytes that are no text, and characters that XML 1.0 forbids, become U+FFFD.
    mutating func escape(_ raw: [UInt8]) {
        if String(validating: raw, as: UTF8.self) != nil {
            raw.withUnsafeBufferPointer { escape($0, isText: true) }
        } else {
            escape(String(decoding: raw, as: UTF8.self))
        }
    }

    private mutating func escape(_ raw: UnsafeBufferPointer<UInt8>, isText: Bool) {
        bytes.reserveCapacity(bytes.count + raw.count)
        var at = 0
        while at < raw.count {
            let byte = raw[at]
            switch byte {
            case UInt8(ascii: "&"): put("&amp;")
            case UInt8(ascii: "<"): put("&lt;")
            case UInt8(ascii: ">"): put("&gt;")
            // A reader would take it for a line feed.
            case 13: put("&#13;")
            case 9, 10, 32...0x7E: bytes.append(byte)
            case 0xEF where at + 2 < raw.count && raw[at + 1] == 0xBF && raw[at + 2] >= 0xBE:
                put("\u{FFFD}")
                at += 2
            case 0x7F...: bytes.append(byte)
            default: put("\u{FFFD}")
            }
            at += 1
        }
    }
}

/// RFC 4648.
enum Base64 {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encode(_ data: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        for start in stride(from: 0, to: data.count, by: 3) {
            let group = data[start..<min(start + 3, data.count)]
            let bits = group.enumerated().reduce(0) { $0 | Int($1.element) << (16 - 8 * $1.offset) }
            for index in 0..<4 {
                result.append(index <= group.count ? digits[bits >> (18 - 6 * index) & 63] : UInt8(ascii: "="))
            }
        }
        return result
    }

    /// Nil when it is none. White space is passed over.
    static func decode(_ text: some Sequence<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var bits = 0
        var count = 0
        var padding = 0
        for byte in text where byte != 10 && byte != 13 && byte != 32 && byte != 9 {
            if byte == UInt8(ascii: "=") {
                padding += 1
                continue
            }
            guard padding == 0, let digit = digits.firstIndex(of: byte) else { return nil }
            bits = bits << 6 | digit
            count += 1
            if count % 4 == 0 {
                result += [UInt8(bits >> 16 & 255), UInt8(bits >> 8 & 255), UInt8(bits & 255)]
                bits = 0
            }
        }
        guard padding <= 2, (count + padding) % 4 == 0 else { return nil }
        switch count % 4 {
        case 0: return padding == 0 ? result : nil
        case 2: return result + [UInt8(bits >> 4 & 255)]
        case 3: return result + [UInt8(bits >> 10 & 255), UInt8(bits >> 2 & 255)]
        default: return nil
        }
    }
}
