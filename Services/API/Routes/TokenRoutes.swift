import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `/v1/tokens`, `/v1/whoami`.
struct TokenRoutes: Sendable {
    let desk: Desk

    struct TokenView: Codable, Sendable {
        var name: String
        var role: Role
        var app: AppName?
        var environment: EnvName?
        var createdAt: Timestamp
        var createdBy: String
        var expires: Timestamp?
        var expired: Bool
        /// Only in the answer that made it, and never again.
        var token: String?

        init(_ row: TokenRow, now: Timestamp, token: String? = nil) {
            name = row.name
            role = row.role
            app = row.app
            environment = row.environment
            createdAt = row.createdAt
            createdBy = row.createdBy
            expires = row.expires
            expired = !row.isValid(at: now)
            self.token = token
        }
    }

    func add(to routes: Routes) {
        routes.post("/v1/tokens", .role(.viewer)) { request, context in try await create(request, context) }
        routes.get("/v1/tokens", .role(.viewer)) { _, context in
            let holder = try context.holder()
            let now = desk.boot.now()
            let rows = try await desk.read { $0.tokens.values.filter { Tokens.mayManage($0, holder) } }
            return try .json(rows.sorted { $0.name < $1.name }.map { TokenView($0, now: now) })
        }
        routes.delete("/v1/tokens/:name", .role(.viewer)) { _, context in
            let holder = try context.holder()
            let name = try context.parameter("name")
            guard name != Identity.operatorName else {
                throw Problem(
                    .conflict, "this is the operator's own token, which the command line on the suite's machine uses",
                    hint: "to replace it: slipway down, remove keys/operator.token from the home directory, slipway up")
            }
            // The same answer for one that does not exist and one that the holder may not see.
            guard try await desk.read({ $0.tokens.values.contains { $0.name == name && Tokens.mayManage($0, holder) } }) else {
                throw Problem(.notFound, "there is no token \(Problem.quote(name))", hint: "slipway token list")
            }
            try await desk.loop.submit(.tokenRevoked(name: name), actor: holder.name)
            return try .json(["revoked": name])
        }
        routes.get("/v1/whoami", .role(.viewer)) { request, context in
            struct Answer: Encodable {
                var name: String
                var role: Role
                var app: AppName?
                var environment: EnvName?
                var expires: Timestamp?
                var git: String
                var version: String
            }
            let holder = try context.holder()
            let expires = try await desk.read { state in state.tokens.values.first { $0.name == holder.name }?.expires }
            return try .json(
                Answer(
                    name: holder.name, role: holder.role, app: holder.app, environment: holder.environment, expires: expires,
                    git: desk.gitURL(request), version: Version.text))
        }
    }

    private func create(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        let holder = try context.holder()
        let wish = try await request.json(Tokens.Wish.self, context, limit: 1 << 16)
        let now = desk.boot.now()
        let limit = try await desk.read { state in state.tokens.values.first { $0.name == holder.name }?.expires }
        do {
            try Tokens.check(wish, by: holder, makerExpires: limit, now: now)
        } catch let problem as Problem {
            try await desk.loop.submit(
                .refused(action: "token.create", object: wish.name.text, why: problem.message), actor: holder.name)
            throw problem
        }
        let token = Token.make()
        let row = TokenRow(
            name: wish.name.text, hash: Token.hash(token), role: wish.role, app: wish.app, environment: wish.environment,
            createdAt: now, createdBy: holder.name, expires: wish.expires)
        try await desk.loop.submit(.tokenCreated(row), actor: holder.name)
        guard try await desk.read({ $0.tokens[row.hash] != nil }) else {
            throw Problem(.conflict, "a token named '\(row.name)' exists", hint: "slipway token revoke \(row.name), or choose another name")
        }
        return try .json(TokenView(row, now: now, token: token), status: .created)
    }
}
