import Contracts

/// A ref that is not where it was when it was last announced.
struct RefChange: Hashable, Sendable {
    var ref: RefName
    /// Object ids; nil: the ref was not there, or is gone.
    var old: String?
    var new: String?
}

enum RefChanges {
    /// What differs, in the order of the names. Refs that no event can carry are left out.
    static func between(announced: [String: String], now: [String: String]) -> [RefChange] {
        Set(announced.keys).union(now.keys).sorted().compactMap { name in
            guard announced[name] != now[name], let ref = try? RefName(name) else { return nil }
            return RefChange(ref: ref, old: announced[name], new: now[name])
        }
    }

    /// The branch that HEAD should name, given the branches that exist: unchanged as long as it exists or nothing does.
    static func head(now: String, branches: Set<String>) -> String {
        guard !branches.contains(now), let first = branches.min() else { return now }
        return ["main", "master", "trunk"].first { branches.contains($0) } ?? first
    }
}

/// Who is about to move which refs, written down before git begins: the events of refs found moved after a crash still carry it.
struct PendingPush: Codable, Hashable, Sendable {
    var id: EventID
    var actor: String?
    var cause: EventID?
    var options: [String]
    /// New object id by ref; all zeros for a deletion, `anything` where it is not known before.
    var refs: [String: String]
    static let anything = "*"

    /// Whether this push explains the change.
    func explains(_ change: RefChange) -> Bool {
        guard let wanted = refs[change.ref.text] else { return false }
        return wanted == change.new || wanted == Self.anything || (change.new == nil && wanted.utf8.allSatisfy { $0 == 0x30 })
    }

    /// Whether all refs are where this push wanted them.
    func isReached(_ now: [String: String]) -> Bool {
        refs.allSatisfy { ref, wanted in
            wanted == now[ref] || (now[ref] == nil && wanted.utf8.allSatisfy { $0 == 0x30 }) || (wanted == Self.anything && now[ref] != nil)
        }
    }
}
