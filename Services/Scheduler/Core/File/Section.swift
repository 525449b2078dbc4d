import Contracts
import Kit

/// A map of the file while it is read: knows which keys may be there, takes values out of it, and names the place of what is wrong.
struct Section {
    let file: String
    /// Such as `services.web`; empty at the top.
    let path: String
    let mark: Mark
    private let entries: [Tree.Entry]

    /// A map with these keys and no others. `unsupported` are keys of the format that this version does not honour, each with
    /// what to do instead.
    init(_ tree: Tree, path: String, file: String, keys: [String], unsupported: [String: String] = [:]) throws {
        try self.init(open: tree, path: path, file: file)
        for entry in entries {
            if let instead = unsupported[entry.key] {
                throw Problem(
                    .unsupported, "\(file) \(entry.mark): '\(name(entry.key))' is not supported by this version of Slipway", hint: instead)
            }
            guard keys.contains(entry.key) else {
                throw problem(
                    "unknown key \(Problem.quote(entry.key))\(within)", entry.mark,
                    hint: Nearest.hint(entry.key, among: keys + unsupported.keys.sorted()))
            }
        }
    }

    /// A map whose keys are names that the author chooses.
    init(open tree: Tree, path: String, file: String) throws {
        self.file = file
        self.path = path
        mark = tree.mark
        switch tree.kind {
        case .map(let entries): self.entries = entries
        default:
            throw Problem(
                .invalid, "\(file) \(tree.mark): \(path.isEmpty ? "the file" : "'\(path)'"): expected a map, found \(tree.words)",
                hint: "write 'key: value' lines")
        }
    }

    private var within: String { path.isEmpty ? "" : " in '\(path)'" }
    func name(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }
    var all: [Tree.Entry] { entries }
    func has(_ key: String) -> Bool { entries.contains { $0.key == key } }
    func tree(_ key: String) -> Tree? { entries.first { $0.key == key }?.value }
    /// Where the key is written, or where the map begins.
    func place(_ key: String) -> Mark { entries.first { $0.key == key }?.mark ?? mark }

    func problem(_ message: String, _ mark: Mark, hint: String? = nil) -> Problem {
        Problem(.invalid, "\(file) \(mark): \(message)", hint: hint)
    }
    /// Runs a check that knows nothing of files and says where what it refuses is written.
    func locating<T>(_ mark: Mark, _ key: String? = nil, _ body: () throws -> T) throws -> T {
        do {
            return try body()
        } catch let problem as Problem {
            let named = key.map { "\(name($0)): \(problem.message)" } ?? problem.message
            throw Problem(problem.code == .unsupported ? .unsupported : .invalid, "\(file) \(mark): \(named)", hint: problem.hint)
        }
    }

    /// Text as written, whatever YAML would make of it; nil when the key is not there.
    func text(_ key: String, atMost bytes: Int = 1024) throws -> String? {
        try tree(key).map { try text($0, name(key), atMost: bytes) }
    }
    func text(_ tree: Tree, _ label: String, atMost bytes: Int) throws -> String {
        guard case .scalar(let text, _) = tree.kind, !tree.isNull else {
            throw problem("\(label): expected text, found \(tree.words)", tree.mark)
        }
        guard !text.allSatisfy(\.isWhitespace) else { throw problem("\(label): is empty", tree.mark) }
        guard text.utf8.count <= bytes else { throw problem("\(label): is longer than \(bytes) bytes", tree.mark) }
        return text
    }
    /// One text or a list of them; empty when the key is not there.
    func texts(_ key: String, atMost count: Int, bytes: Int) throws -> [String] {
        guard let tree = tree(key) else { return [] }
        guard case .list(let items) = tree.kind else { return [try text(tree, name(key), atMost: bytes)] }
        guard !items.isEmpty else { throw problem("\(name(key)): the list is empty", tree.mark, hint: "remove the key") }
        guard items.count <= count else { throw problem("\(name(key)): more than \(count) entries", tree.mark) }
        return try items.enumerated().map { try text($0.element, "\(name(key))[\($0.offset)]", atMost: bytes) }
    }
    func whole(_ key: String, _ range: ClosedRange<Int>) throws -> Int? {
        guard let tree = tree(key) else { return nil }
        guard case .scalar(let text, plain: true) = tree.kind, let number = Values.whole(text), range.contains(number) else {
            throw problem("\(name(key)): whole number \(range.lowerBound)–\(range.upperBound), found \(tree.words)", tree.mark)
        }
        return number
    }
    func duration(_ key: String) throws -> Double? {
        guard let text = try text(key) else { return nil }
        return try locating(tree(key)?.mark ?? mark) { try Values.duration(text, name(key)) }
    }
    /// The items of a list; empty when the key is not there.
    func list(_ key: String, atMost count: Int) throws -> [Tree] {
        guard let tree = tree(key) else { return [] }
        guard case .list(let items) = tree.kind else {
            throw problem(
                "\(name(key)): expected a list, found \(tree.words)", tree.mark, hint: "write [a, b], or lines that begin with '- '")
        }
        guard items.count <= count else { throw problem("\(name(key)): more than \(count) entries", tree.mark) }
        return items
    }
}
