/// A configuration file as ConfigParser of Python reads it, which is what supervisord's users write for: names in any case, `=` or `:`,
/// indented lines that continue, `;` and `#` comments at the start of a line and after white space, the last of two wins, `[DEFAULT]`.
struct IniFile: Sendable {
    struct Place: Hashable, Sendable, CustomStringConvertible {
        var file: String
        var line: Int
        var description: String { "\(file):\(line)" }
    }
    struct Option: Hashable, Sendable {
        var value: String
        var place: Place
    }
    struct Section: Sendable {
        var name: String
        var place: Place
        /// By lower-case name.
        var options: [String: Option] = [:]
    }

    /// In the order in which they first come.
    private(set) var sections: [Section] = []
    private var defaults: [String: Option] = [:]

    func section(_ name: String) -> Section? { sections.first { $0.name == name } }

    /// The option, or what `[DEFAULT]` says.
    func option(_ section: Section, _ name: String) -> Option? { section.options[name] ?? defaults[name] }

    /// Takes in what a file says, after what is there. `here` stands for `%(here)s` in it. Throws `Complaint` with file and line.
    mutating func add(_ bytes: [UInt8], file: String, here: String) throws {
        guard !bytes.starts(with: [0xEF, 0xBB, 0xBF]) else {
            throw Complaint("\(file):1: the file begins with a byte order mark; save it as plain UTF-8")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Complaint("\(file): is not UTF-8") }
        guard !text.utf8.contains(0) else { throw Complaint("\(file): holds a NUL character") }
        var current: Int?
        var inDefaults = false
        var name: String?
        var lines: [String] = []
        var begun = Place(file: file, line: 0)
        var indent = 0

        func put(_ ini: inout IniFile) {
            guard let key = name else { return }
            while lines.last?.isEmpty == true { lines.removeLast() }
            // Here, because a file that is included elsewhere means its own directory.
            let value = lines.joined(separator: "\n").replacing("%(here)s", with: here)
            if inDefaults {
                ini.defaults[key] = Option(value: value, place: begun)
            } else if let current {
                ini.sections[current].options[key] = Option(value: value, place: begun)
            }
            name = nil
            lines = []
        }

        var number = 0
        for raw in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
            number += 1
            let place = Place(file: file, line: number)
            let line = Self.withoutComment(raw)
            let value = line.trimmed
            if value.isEmpty {
                if name != nil, raw.allSatisfy(\.isWhitespace) { lines.append("") }
                if raw.allSatisfy(\.isWhitespace), name == nil { indent = .max }
                continue
            }
            let depth = line.prefix { $0.isWhitespace }.count
            if name != nil, depth > indent {
                lines.append(value)
                continue
            }
            put(&self)
            indent = depth
            if value.hasPrefix("[") {
                guard let close = value.lastIndex(of: "]"), close > value.index(after: value.startIndex) else {
                    throw Complaint("\(place): '\(value)' is no section header: expected [NAME]")
                }
                let header = String(value[value.index(after: value.startIndex)..<close])
                inDefaults = header == "DEFAULT"
                if inDefaults {
                    current = nil
                } else if let known = sections.firstIndex(where: { $0.name == header }) {
                    current = known
                } else {
                    sections.append(Section(name: header, place: place))
                    current = sections.count - 1
                }
                continue
            }
            guard current != nil || inDefaults else { throw Complaint("\(place): '\(value)' stands before the first [section]") }
            guard let mark = value.firstIndex(where: { $0 == "=" || $0 == ":" }), mark > value.startIndex else {
                throw Complaint("\(place): '\(value)' is neither NAME=VALUE nor a section header")
            }
            name = value[..<mark].trimmed.lowercased()
            lines = [value[value.index(after: mark)...].trimmed]
            begun = place
        }
        put(&self)
    }

    /// A comment begins with `;` or `#` at the start of a line or after white space.
    private static func withoutComment(_ line: Substring) -> Substring {
        var wasSpace = true
        for at in line.indices {
            let character = line[at]
            if wasSpace, character == ";" || character == "#" { return line[..<at] }
            wasSpace = character.isWhitespace
        }
        return line
    }
}

/// `%(name)s` in values, as Python's % operator does it.
struct Expansions: Sendable {
    enum Value: Sendable {
        case text(String)
        case number(Int)
    }
    var values: [String: Value] = [:]

    subscript(_ name: String) -> String? {
        get { nil }
        set { values[name] = newValue.map { .text($0) } }
    }

    /// Adds variables as `ENV_NAME`.
    mutating func add(environment: [String: String]) {
        for (name, value) in environment { values["ENV_\(name)"] = .text(value) }
    }

    /// Throws `Complaint`; `what` names the option.
    func expand(_ text: String, _ what: String) throws -> String {
        guard text.contains("%") else { return text }
        var result = ""
        var rest = text[...]
        while let mark = rest.firstIndex(of: "%") {
            result += rest[..<mark]
            rest = rest[rest.index(after: mark)...]
            if rest.first == "%" {
                result += "%"
                rest.removeFirst()
                continue
            }
            guard rest.first == "(", let close = rest.firstIndex(of: ")") else {
                throw Complaint("Format string '\(text)' for '\(what)' is badly formatted: a percent sign alone is written %%")
            }
            let name = String(rest[rest.index(after: rest.startIndex)..<close])
            rest = rest[rest.index(after: close)...]
            let flags = rest.prefix { $0.isNumber }
            rest = rest.dropFirst(flags.count)
            guard let kind = rest.popFirst(), kind == "s" || kind == "d", flags.count <= 3 else {
                throw Complaint("Format string '\(text)' for '\(what)' is badly formatted: expected %(\(name))s or %(\(name))02d")
            }
            let width = Int(flags) ?? 0
            switch values[name] {
            case nil:
                let known = values.keys.filter { !$0.hasPrefix("ENV_") }.sorted().joined(separator: ", ")
                throw Complaint(
                    "Format string '\(text)' for '\(what)' contains names ('\(name)') which cannot be expanded. "
                        + "Available names: \(known), and ENV_… for each variable of the environment")
            case .number(let number) where flags.hasPrefix("0"): result += number.padded(width)
            case .number(let number): result += Self.right(String(number), width)
            case .text(let value):
                guard kind == "s" else {
                    throw Complaint("Format string '\(text)' for '\(what)' is badly formatted: \(name) is not a number")
                }
                result += Self.right(value, width)
            }
            guard result.utf8.count <= 1 << 20 else { throw Complaint("'\(what)' is longer than 1 MiB") }
        }
        return result + rest
    }

    private static func right(_ text: String, _ width: Int) -> String {
        text.count < width ? String(repeating: " ", count: width - text.count) + text : text
    }
}
