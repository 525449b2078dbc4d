import Glibc

/// How single values are written. All throw `Complaint`.
enum Values {
    static func integer(_ text: String) throws -> Int {
        guard let number = Int(text), (-1 << 31...1 << 31).contains(number) else { throw Complaint("'\(text)' is no whole number") }
        return number
    }

    static func boolean(_ text: String) throws -> Bool {
        switch text.lowercased() {
        case "y", "yes", "t", "true", "on", "1": return true
        case "n", "no", "f", "false", "off", "0": return false
        default: throw Complaint("not a valid boolean value: '\(text)' (true or false)")
        }
    }

    /// `50MB`: powers of 1024, in any case.
    static func bytes(_ text: String) throws -> Int {
        let lower = text.lowercased()
        for (suffix, factor) in [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)] where lower.hasSuffix(suffix) {
            let (product, overflow) = try integer(String(text.dropLast(2)).trimmed).multipliedReportingOverflow(by: factor)
            if overflow { throw Complaint("'\(text)' is too large") }
            return product
        }
        return try integer(text)
    }

    static func octal(_ text: String) throws -> mode_t {
        guard let number = mode_t(text.hasPrefix("0o") ? String(text.dropFirst(2)) : text, radix: 8), number <= 0o7777 else {
            throw Complaint("\(text) can not be converted to an octal type")
        }
        return number
    }

    static func signal(_ text: String) throws -> Int32 {
        guard let number = Signals.number(text) else { throw Complaint("value '\(text)' is not a valid signal name or number") }
        return number
    }

    static func exitCodes(_ text: String) throws -> [Int] {
        try list(text).map { item in
            guard let code = Int(item), (0...255).contains(code) else {
                throw Complaint("not a valid list of exit codes: '\(text)' (0 to 255, separated by commas)")
            }
            return code
        }
    }

    static func list(_ text: String) throws -> [String] {
        guard !text.trimmed.isEmpty else { return [] }
        return text.split(separator: ",", omittingEmptySubsequences: false).map(\.trimmed)
    }

    /// What a program, process or group may be called.
    static func name(_ text: String) throws -> String {
        let name = text.trimmed
        guard !name.isEmpty else { throw Complaint("Invalid name: it is empty") }
        if let bad = name.first(where: { " :/".contains($0) || $0.isNewline || ($0.asciiValue ?? 32) < 32 }) {
            throw Complaint("Invalid name: '\(name)' because of character: '\(bad)'")
        }
        guard name.utf8.count <= 255 else { throw Complaint("Invalid name: it is longer than 255 bytes") }
        return name
    }

    /// `KEY="value",KEY2='value'`; quotes around what holds a comma. In double quotes a backslash stands before `"` and `\`.
    static func pairs(_ text: String) throws -> [(String, String)] {
        var result: [(String, String)] = []
        var rest = text[...]
        func skip() { rest = rest.drop { $0.isWhitespace } }
        skip()
        while !rest.isEmpty {
            let key = rest.prefix { $0 != "=" && $0 != "," && !$0.isWhitespace }
            rest = rest.dropFirst(key.count)
            skip()
            guard !key.isEmpty, rest.popFirst() == "=" else { throw Complaint("Unexpected end of key/value pairs in value '\(text)'") }
            skip()
            var value = ""
            if let quote = rest.first, quote == "\"" || quote == "'" {
                rest.removeFirst()
                var isClosed = false
                while let next = rest.popFirst() {
                    if next == quote {
                        isClosed = true
                        break
                    }
                    if next == "\\", quote == "\"", let escaped = rest.first, escaped == "\"" || escaped == "\\" {
                        value.append(escaped)
                        rest.removeFirst()
                        continue
                    }
                    value.append(next)
                }
                guard isClosed else { throw Complaint("a quotation in '\(text)' is not closed") }
            } else {
                let plain = rest.prefix { $0 != "," }
                rest = rest.dropFirst(plain.count)
                value = plain.trimmed
            }
            skip()
            if !rest.isEmpty {
                guard rest.popFirst() == "," else { throw Complaint("Unexpected text after '\(key)' in value '\(text)': expected a comma") }
            }
            skip()
            result.append((String(key), value))
        }
        return result
    }

    /// The directory must be there; `~` is the home directory.
    static func filePath(_ text: String) throws -> String {
        let path = expandHome(text)
        let directory = Files.directory(of: path)
        guard Files.isDirectory(directory) else {
            throw Complaint("The directory named as part of the path \(text) does not exist")
        }
        return path
    }

    static func directory(_ text: String) throws -> String {
        let path = expandHome(text)
        guard Files.isDirectory(path) else { throw Complaint("\(text) is not an existing directory") }
        return path
    }

    static func expandHome(_ text: String) -> String {
        guard text == "~" || text.hasPrefix("~/"), let home = getenv("HOME") else { return text }
        return String(cString: home) + text.dropFirst()
    }

    /// `host:port`, `*:port`, `:port` or `port`; the host is empty for all addresses.
    static func address(_ text: String) throws -> (host: String, port: Int) {
        var host = ""
        var port = text
        if let colon = text.lastIndex(of: ":") {
            host = String(text[..<colon]).lowercased()
            port = String(text[text.index(after: colon)...])
            if port.isEmpty { throw Complaint("no port number specified in '\(text)'") }
        }
        guard let number = Int(port), (1...65535).contains(number) else {
            throw Complaint("not a valid port number: '\(port)' (1 to 65535)")
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        return (host == "*" ? "" : host, number)
    }
}

/// A command line in words, as POSIX shells quote; nothing in it is ever given to a shell.
enum Words {
    /// Throws `Complaint`.
    static func split(_ text: String) throws -> [String] {
        var words: [String] = []
        var word: String?
        var rest = text[...]
        while let next = rest.popFirst() {
            switch next {
            case "'":
                guard let close = rest.firstIndex(of: "'") else { throw Complaint("No closing quotation") }
                word = (word ?? "") + rest[..<close]
                rest = rest[rest.index(after: close)...]
            case "\"":
                var part = word ?? ""
                var isClosed = false
                while let inner = rest.popFirst() {
                    if inner == "\"" {
                        isClosed = true
                        break
                    }
                    if inner == "\\", let escaped = rest.first, escaped == "\"" || escaped == "\\" {
                        part.append(escaped)
                        rest.removeFirst()
                        continue
                    }
                    part.append(inner)
                }
                guard isClosed else { throw Complaint("No closing quotation") }
                word = part
            case "\\":
                guard let escaped = rest.popFirst() else { throw Complaint("No escaped character") }
                word = (word ?? "") + String(escaped)
            default:
                if next.isWhitespace {
                    if let done = word { words.append(done) }
                    word = nil
                } else {
                    word = (word ?? "") + String(next)
                }
            }
        }
        if let word { words.append(word) }
        return words
    }
}
