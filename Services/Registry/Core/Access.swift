import Contracts

/// Who may do what to which repository.
///
/// | | pull | push | delete |
/// | --- | --- | --- | --- |
/// | a token | viewer | developer | operator |
/// | … of app A | `A`, `A/…`, `bundles/A`, `bundles/A/…` only | the same | the same |
/// | a component | `bundles/…` | `bundles/…` | never |
enum Access {
    enum Action: String, Sendable { case pull, push, delete }

    static func allows(_ principal: Principal, _ action: Action, _ name: RepositoryName) -> Bool {
        // A token's name has no colon (TokenName), so nobody can give themself this one.
        if principal.name.hasPrefix("component:") { return action != .delete && isWithin("bundles", name) }
        // What is stored is not of one environment.
        if principal.environment != nil, action != .pull { return false }
        // An app of this name may be older than the rule that reserves it.
        if principal.app?.text == "bundles" { return false }
        if let app = principal.app?.text, !isWithin(app, name), !isWithin("bundles/\(app)", name) { return false }
        let role: Role =
            switch action {
            case .pull: .viewer
            case .push: .developer
            case .delete: .operator
            }
        return principal.may(role, app: principal.app)
    }

    /// Whether `name` is that path or below it.
    private static func isWithin(_ path: String, _ name: RepositoryName) -> Bool {
        name.text == path || name.text.hasPrefix(path + "/")
    }
}
