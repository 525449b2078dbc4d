import Contracts

/// Who may make which token, and what falls with one.
enum Tokens {
    /// What a new token shall be able to do.
    struct Wish: Codable, Sendable {
        var name: TokenName
        var role: Role
        var app: AppName?
        var environment: EnvName?
        var expires: Timestamp?
    }

    /// A token is never wider than the one that makes it. Throws `Problem` that says what the maker has.
    static func check(_ wish: Wish, by maker: Principal, makerExpires: Timestamp?, now: Timestamp) throws {
        guard wish.role <= maker.role else {
            throw Problem(.forbidden, "you have \(maker.role.rawValue); cannot give \(wish.role.rawValue)")
        }
        if let app = maker.app, wish.app != app {
            throw Problem(.forbidden, "you have app \(app) only; cannot give more", hint: "add --app \(app)")
        }
        if let environment = maker.environment, wish.environment != environment {
            throw Problem(.forbidden, "you have environment \(environment) only; cannot give more", hint: "add --env \(environment)")
        }
        if let expires = wish.expires, expires <= now {
            throw Problem(.invalid, "expires: \(expires) is not in the future", hint: "for example --expires 90d")
        }
        if let limit = makerExpires, wish.expires.map({ $0 > limit }) ?? true {
            throw Problem(.forbidden, "your own token expires at \(limit); cannot give longer", hint: "add --expires \(limit)")
        }
        if wish.environment != nil, wish.app == nil {
            throw Problem(.invalid, "environment: names one of an app", hint: "add --app APP")
        }
    }

    /// The token of that name and all that were made with it, directly or not.
    static func family(of name: String, in rows: [TokenRow]) -> [TokenRow] {
        var found = rows.filter { $0.name == name }
        var names: Set<String> = [name]
        var grew = !found.isEmpty
        while grew {
            grew = false
            for row in rows where names.contains(row.createdBy) && !names.contains(row.name) {
                found.append(row)
                names.insert(row.name)
                grew = true
            }
        }
        return found
    }

    /// Whether `reader` may see or revoke this one: an unscoped admin all, others their own and those they made.
    static func mayManage(_ row: TokenRow, _ reader: Principal) -> Bool {
        if reader.role == .admin, reader.app == nil { return true }
        return row.name == reader.name || row.createdBy == reader.name
    }
}
