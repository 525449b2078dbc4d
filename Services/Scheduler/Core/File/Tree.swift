import Contracts

/// A place in a file; both count from 1.
struct Mark: Hashable, Sendable, CustomStringConvertible {
    var line: Int
    var column: Int
    var description: String { "line \(line), column \(column)" }
}

/// A YAML document after it has been measured: aliases resolved, no tags, no merge keys, no duplicate keys, at most
/// `Tree.nodes` nodes and `Tree.depth` levels. All reading of `slipway.yml` happens on this and not on the library's nodes.
struct Tree: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        /// `plain` when it was written without quotes, so that `"3"` is not a number.
        case scalar(String, plain: Bool)
        case list([Tree])
        /// In the file's order.
        case map([Entry])
    }
    struct Entry: Hashable, Sendable {
        var key: String
        var mark: Mark
        var value: Tree
    }

    var kind: Kind
    var mark: Mark

    /// The most nodes that a file may have once its aliases are followed, and the most levels.
    static let nodes = 10_000
    static let depth = 32
    /// The most bytes that a file may have.
    static let bytes = 256 * 1024

    /// An empty value: nothing, `~` or `null`.
    var isNull: Bool {
        if case .scalar(let text, plain: true) = kind { ["", "~", "null", "Null", "NULL"].contains(text) } else { false }
    }

    /// The kind in words, for an error.
    var words: String {
        switch kind {
        case .scalar(let text, _): isNull ? "nothing" : Problem.quote(text)
        case .list: "a list"
        case .map: "a map"
        }
    }
}
