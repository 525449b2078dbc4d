import Contracts

/// The small grammars inside `slipway.yml`. Each takes the text as written and the name of the key, for the error.
enum Values {
    /// `500ms`, `2s`, `1m`, `1h`; decimals allowed (`1.5s`). Seconds.
    static func duration(_ text: String, _ key: String, atMost most: Double = 3600) throws -> Double {
        let units: [(suffix: String, seconds: Double)] = [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)]
        for unit in units where text.hasSuffix(unit.suffix) {
            guard let number = decimal(text.dropLast(unit.suffix.count)) else { break }
            let seconds = number * unit.seconds
            guard seconds >= 0.001, seconds <= most else { break }
            return seconds
        }
        throw Problem(
            .invalid, "\(key): \(Problem.quote(text)) is not a duration from 1ms to \(Int(most))s",
            hint: "write a number and ms, s, m or h, such as 500ms, 2s or 1m")
    }

    /// `64K`, `256M`, `1G`: powers of 1024. Bytes.
    static func size(_ text: String, _ key: String, atLeast least: Int64) throws -> Int64 {
        let units: [Character: Int64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
        if let suffix = text.last, let unit = units[suffix], let number = whole(text.dropLast()), number <= 1 << 20 {
            let bytes = Int64(number) * unit
            if bytes >= least, bytes <= 1 << 44 { return bytes }
        }
        throw Problem(
            .invalid, "\(key): \(Problem.quote(text)) is not a size from \(least >> 20)M to 16384G",
            hint: "write a whole number and K, M or G, such as 256M or 1G")
    }

    /// Digits only: no sign, no exponent, no leading zero but `0` itself.
    static func whole(_ text: some StringProtocol) -> Int? {
        guard (1...9).contains(text.utf8.count), text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), text == "0" || text.first != "0"
        else { return nil }
        return Int(text)
    }

    /// Digits, with at most one point between them.
    static func decimal(_ text: some StringProtocol) -> Double? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), text.utf8.count <= 12,
            parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } })
        else { return nil }
        return Double(text)
    }

    /// A host name for a route: lower case, labels of letters, digits and hyphens, no port.
    static func host(_ text: String, _ key: String) throws -> String {
        func refuse(_ why: String, _ hint: String = "for example shop.example.org") -> Problem {
            Problem(.invalid, "\(key): host \(Problem.quote(text)) \(why)", hint: hint)
        }
        guard text.utf8.count <= 253 else { throw refuse("is longer than 253 characters") }
        guard text == text.lowercased() else { throw refuse("has upper-case letters", "write it in lower case") }
        let labels = text.split(separator: ".", omittingEmptySubsequences: false)
        for label in labels {
            let bytes = Array(label.utf8)
            guard (1...63).contains(bytes.count), bytes.first != 0x2D, bytes.last != 0x2D,
                bytes.allSatisfy({ ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2D })
            else { throw refuse("is not a host name (only a-z, 0-9, '-' and dots; no port, no '*')") }
        }
        guard labels.count > 1, labels.last != "localhost" else {
            throw refuse(
                "is not yours to give: names under 'localhost' are given by Slipway", "APP.localhost is there by itself; remove the route")
        }
        guard labels.last?.contains(where: { !$0.isNumber }) == true else { throw refuse("is an address, not a name") }
        return text
    }

    /// The name of an environment variable of an app.
    static func variable(_ name: String, _ key: String) throws {
        let bytes = Array(name.utf8)
        func letter(_ byte: UInt8) -> Bool { (byte >= 0x41 && byte <= 0x5A) || (byte >= 0x61 && byte <= 0x7A) || byte == 0x5F }
        guard let first = bytes.first, letter(first), bytes.count <= 128, bytes.allSatisfy({ letter($0) || ($0 >= 0x30 && $0 <= 0x39) })
        else {
            throw Problem(
                .invalid, "\(key): \(Problem.quote(name)) is not the name of a variable",
                hint: "1 to 128 letters, digits and '_', not beginning with a digit")
        }
        guard name != "PORT", !name.hasPrefix("PORT_"), !name.hasPrefix("SLIPWAY_") else {
            throw Problem(.invalid, "\(key): '\(name)' is set by Slipway itself", hint: "choose another name")
        }
    }

    /// The value of an environment variable.
    static func setting(_ value: String, of name: String, _ key: String) throws {
        guard value.utf8.count <= 32 * 1024 else { throw Problem(.invalid, "\(key): '\(name)' is longer than 32768 bytes") }
        let lines = name == "PATH" ? "" : "\n\t"
        guard !value.unicodeScalars.contains(where: { $0.value < 0x20 && !lines.unicodeScalars.contains($0) }) else {
            throw Problem(.invalid, "\(key): '\(name)' has a control character")
        }
    }

    /// A path inside the checkout, without a slash at its end; `.` for all of it.
    static func path(_ text: String, _ key: String) throws -> String {
        func refuse(_ why: String) -> Problem {
            Problem(.invalid, "\(key): \(Problem.quote(text)) \(why)", hint: "a path inside the repository, such as dist")
        }
        guard !text.isEmpty, text.utf8.count <= 1024 else { throw refuse("is empty or longer than 1024 bytes") }
        guard !text.hasPrefix("/") else { throw refuse("begins with '/'") }
        guard !text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) else { throw refuse("has a control character") }
        let parts = text.split(separator: "/").filter { $0 != "." }
        guard !parts.contains("..") else { throw refuse("leaves the checkout") }
        guard !parts.contains(where: { $0.lowercased() == ".git" }) else { throw refuse("is git's own") }
        return parts.isEmpty ? "." : parts.joined(separator: "/")
    }
}
