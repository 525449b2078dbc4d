import Contracts
import Foundation
import Yams

/// Turns the bytes of a YAML file into a `Tree`, or says where and why not.
///
/// The file was written by whoever can push. libyaml and Yams are trusted to be memory-safe, not to be frugal, so
/// - what could make them recurse deeply or hash for ever is looked for in the text first (`precheck`);
/// - the composed nodes, in which an alias is shared and costs nothing yet, are walked with a budget before anything else
///   looks at them. Only the walk follows aliases.
struct TreeParser {
    let file: String
    private var budget = Tree.nodes
    /// The furthest line seen: an alias's own nodes carry the marks of its anchor, far above the place that used it.
    private var line = 1

    /// Nil: the file is empty, or has only comments.
    static func parse(_ data: Data, file: String) throws -> Tree? {
        var parser = TreeParser(file: file)
        return try parser.tree(TextFile.read(data, file: file))
    }

    private init(file: String) { self.file = file }

    private mutating func tree(_ text: String) throws -> Tree? {
        try precheck(text)
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch let error as YamlError {
            throw explain(error, text)
        }
        guard let root else { return nil }
        return try walk(root, depth: 1)
    }

    private mutating func walk(_ node: Node, depth: Int) throws -> Tree {
        let mark = Mark(line: node.mark?.line ?? line, column: node.mark?.column ?? 1)
        line = max(line, mark.line)
        budget -= 1
        guard budget >= 0 else {
            throw Problem(
                .invalid, "\(file): more than \(Tree.nodes) nodes after aliases (line \(line))", hint: "write less, or use fewer aliases")
        }
        guard depth <= Tree.depth else { throw tooDeep(line) }
        switch node {
        case .scalar(let scalar):
            try refuseTag(scalar.tag, quoted: scalar.style != .plain && scalar.style != .any, mark)
            let plain = scalar.style == .plain || scalar.style == .any
            return Tree(kind: .scalar(scalar.string, plain: plain), mark: mark)
        case .sequence(let sequence):
            try refuseTag(sequence.tag, quoted: false, mark)
            return Tree(kind: .list(try sequence.map { try walk($0, depth: depth + 1) }), mark: mark)
        case .mapping(let mapping):
            try refuseTag(mapping.tag, quoted: false, mark)
            return Tree(kind: .map(try entries(mapping, depth: depth)), mark: mark)
        case .alias:
            throw Problem(.invalid, "\(file) \(mark): alias that leads nowhere")
        }
    }

    private mutating func entries(_ mapping: Node.Mapping, depth: Int) throws -> [Tree.Entry] {
        var entries: [Tree.Entry] = []
        var seen: [String: Mark] = [:]
        for (key, value) in mapping {
            let mark = Mark(line: key.mark?.line ?? line, column: key.mark?.column ?? 1)
            line = max(line, mark.line)
            budget -= 1
            guard case .scalar(let scalar) = key else {
                throw Problem(.invalid, "\(file) \(mark): a key must be plain text", hint: "write 'key: value'")
            }
            guard Self.resolvable.contains(scalar.tag.description) else { throw tagged(mark) }
            let text = scalar.string
            guard text != "<<" else {
                throw Problem(.invalid, "\(file) \(mark): merge keys ('<<') are not supported", hint: "write the keys out")
            }
            if let first = seen[text] {
                throw Problem(
                    .invalid, "\(file) \(mark): key \(Problem.quote(text)) appears twice; the first is at \(first)", hint: "remove one")
            }
            seen[text] = mark
            entries.append(Tree.Entry(key: text, mark: mark, value: try walk(value, depth: depth + 1)))
        }
        return entries
    }

    /// What a key's tag can be without anybody having written one: Yams resolves the tags of keys while it looks for duplicates.
    private static let resolvable: Set<String> = Set(
        ["", "!"] + ["str", "int", "float", "bool", "null", "timestamp", "merge", "value"].map { "tag:yaml.org,2002:\($0)" })

    /// `quoted`: libyaml gives every quoted scalar the tag of text by itself.
    private func refuseTag(_ tag: Tag, quoted: Bool, _ mark: Mark) throws {
        let name = tag.description
        guard name.isEmpty || name == "!" || (quoted && name == "tag:yaml.org,2002:str") else { throw tagged(mark) }
    }
    private func tagged(_ mark: Mark) -> Problem {
        Problem(
            .invalid, "\(file) \(mark): tags are not supported (line \(mark.line))",
            hint: "remove what begins with '!', or put it in quotes")
    }
    private func tooDeep(_ line: Int) -> Problem {
        Problem(.invalid, "\(file): nested deeper than \(Tree.depth) (line \(line))", hint: "write it flatter, or close what is open")
    }
}

extension TreeParser {
    /// Refuses by its looks what would cost the library much stack or time. It need not be exact: what is left is bounded.
    private func precheck(_ text: String) throws {
        // `[`, `{` and runs of `- ` deepen the recursion by one level each for one or two bytes; indentation costs a growing
        // number of bytes a level, so 256 KiB can only buy some hundreds. Brackets inside text count as well, hence the slack.
        let slack = 8 * Tree.depth
        var open = 0
        let aliases = Self.mayHaveAliases(text)
        for (number, line) in text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            var indicators = 0
            var leading = true
            var previous = UInt8(ascii: " ")
            for byte in line {
                switch byte {
                case UInt8(ascii: "["), UInt8(ascii: "{"): open += 1
                case UInt8(ascii: "]"), UInt8(ascii: "}"): open = max(0, open - 1)
                default: break
                }
                if leading {
                    switch byte {
                    case UInt8(ascii: "-"), UInt8(ascii: "?"), UInt8(ascii: ":"): indicators += previous == UInt8(ascii: " ") ? 1 : 0
                    case UInt8(ascii: " "): break
                    default: leading = false
                    }
                    previous = byte
                }
                guard open <= slack, indicators <= slack else { throw tooDeep(number + 1) }
            }
            // A key is hashed whole when duplicates are looked for; an alias in a key would make that follow every alias.
            if aliases, Self.hasAliasInKey(String(decoding: line, as: UTF8.self)) {
                throw Problem(
                    .invalid, "\(file): line \(number + 1) has an alias in a key, or a key that is not plain text",
                    hint: "write 'key: value'")
            }
        }
    }

    private static func mayHaveAliases(_ text: String) -> Bool {
        text.utf8.contains(UInt8(ascii: "&")) && text.utf8.contains(UInt8(ascii: "*"))
    }

    /// `*a : x`, `[*a]: x`, `{*a}: x`, `? *a`.
    private static func hasAliasInKey(_ line: String) -> Bool {
        let scalars = Array(line.unicodeScalars)
        var openings: [Int] = []
        var index = 0
        while index < scalars.count {
            let scalar = scalars[index]
            switch scalar {
            case "?":
                let before = index == 0 ? " " : scalars[index - 1]
                let after = index + 1 < scalars.count ? scalars[index + 1] : " "
                let leads = scalars[..<index].allSatisfy { " \t-?:[{,".unicodeScalars.contains($0) }
                if (leads || "[{,".unicodeScalars.contains(before)) && (after == " " || after == "\t") { return true }
            case "[", "{": openings.append(index)
            case "]", "}":
                let start = openings.popLast() ?? 0
                if follows(scalars, after: index), scalars[start..<index].contains("*") { return true }
            case "*":
                let before = index == 0 ? " " : scalars[index - 1]
                guard " \t[{,?-:".unicodeScalars.contains(before) else { break }
                var end = index + 1
                while end < scalars.count, !" \t,[]{}".unicodeScalars.contains(scalars[end]) { end += 1 }
                if end > index + 1, scalars[end - 1] == ":" || follows(scalars, after: end - 1) { return true }
            default: break
            }
            index += 1
        }
        return false
    }
    /// Whether the next character that is not a space is a colon.
    private static func follows(_ scalars: [Unicode.Scalar], after index: Int) -> Bool {
        scalars[(index + 1)...].first { $0 != " " && $0 != "\t" } == ":"
    }

    /// The library's error in one sentence, with its place.
    private func explain(_ error: YamlError, _ text: String) -> Problem {
        func at(_ mark: Yams.Mark) -> Mark { Mark(line: mark.line, column: mark.column) }
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _):
            if problem.contains("nesting level") { return tooDeep(mark.line) }
            if Self.line(mark.line, of: text).prefix(while: { $0 == " " || $0 == "\t" }).contains("\t") {
                return Problem(.invalid, "\(file) \(at(mark)): tabs cannot indent in YAML", hint: "use spaces")
            }
            let where_ = context.map { " \($0.text)" } ?? ""
            return Problem(
                .invalid, "\(file) \(at(mark)): not valid YAML: \(problem)\(where_)", hint: "check indentation, colons and quotes there")
        case .composer(_, let problem, let mark, _):
            return Problem(.invalid, "\(file) \(at(mark)): not valid YAML: \(problem)")
        case .duplicatedKeysInMapping(let keys, let context):
            let key = keys.first.map { Problem.quote($0) } ?? "a key"
            return Problem(.invalid, "\(file) \(at(context.mark)): key \(key) appears twice", hint: "remove one")
        case .reader(let problem, _, _, _):
            return Problem(.invalid, "\(file): not valid YAML: \(problem)")
        default:
            return Problem(.invalid, "\(file): not valid YAML")
        }
    }
    private static func line(_ number: Int, of text: String) -> Substring {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        return lines.indices.contains(number - 1) ? lines[number - 1] : ""
    }
}
