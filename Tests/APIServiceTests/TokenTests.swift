import Contracts
import Kit
import Testing

@testable import APIService

@Suite("Tokens") struct TokenTests {
    private func row(_ name: String, by: String = "admin", role: Role = .developer, expires: Timestamp? = nil) -> TokenRow {
        TokenRow(
            name: name, hash: Token.hash(name), role: role, app: nil, environment: nil, createdAt: Timestamp(milliseconds: 0),
            createdBy: by,
            expires: expires)
    }
    private func wish(_ role: Role, app: AppName? = nil, expires: Timestamp? = nil) throws -> Tokens.Wish {
        Tokens.Wish(name: try TokenName("robot"), role: role, app: app, environment: nil, expires: expires)
    }
    private let now = Timestamp(milliseconds: 1_000_000)

    @Test("the operator's token is in force once, and a new one voids the old") func operatorKey() throws {
        var world = World()
        world.notice(.operatorKey(hash: "h1"))
        world.notice(.operatorKey(hash: "h1"))
        #expect(world.state.tokens["h1"]?.role == .admin)
        #expect(world.published.filter { $0.type == AuditRecorded.type }.count == 1)
        world.notice(.operatorKey(hash: "h2"))
        #expect(world.state.tokens["h1"] == nil)
        #expect(world.state.tokens["h2"]?.name == "admin")
    }

    @Test("of two tokens with one name the first stays") func names() {
        var world = World()
        world.notice(.tokenCreated(row("ci")))
        var second = row("ci")
        second.hash = "other"
        world.notice(.tokenCreated(second))
        #expect(world.state.tokens["other"] == nil)
        #expect(world.state.tokens.count == 1)
    }

    @Test("revoking a token revokes what was made with it, and its console sessions") func family() {
        var world = World()
        world.notice(.tokenCreated(row("ann")))
        world.notice(.tokenCreated(row("ann-bot", by: "ann")))
        world.notice(.tokenCreated(row("bot-of-bot", by: "ann-bot")))
        world.notice(.tokenCreated(row("bob")))
        world.notice(.sessionOpened(SessionRow(hash: "s", token: Token.hash("ann-bot"), expires: world.now.adding(seconds: 60))))
        world.notice(.tokenRevoked(name: "ann"))
        #expect(world.state.tokens.values.map(\.name) == ["bob"])
        #expect(world.state.sessions.isEmpty)
        #expect(world.published.filter { $0.data["action"]?.string == "token.revoke" }.count == 3)
    }

    @Test("a token gives no more than its maker has") func wider() throws {
        let developer = Principal(name: "ann", role: .developer)
        let refusal = #expect(throws: Problem.self) {
            try Tokens.check(try wish(.operator), by: developer, makerExpires: nil, now: now)
        }
        #expect(refusal?.message == "you have developer; cannot give operator")
        let scoped = Principal(name: "bot", role: .admin, app: World.shop)
        #expect(throws: Problem.self) { try Tokens.check(try wish(.viewer), by: scoped, makerExpires: nil, now: now) }
        try Tokens.check(try wish(.viewer, app: World.shop), by: scoped, makerExpires: nil, now: now)
        #expect(throws: Problem.self) {
            try Tokens.check(try wish(.viewer), by: developer, makerExpires: now.adding(seconds: 60), now: now)
        }
        try Tokens.check(
            try wish(.viewer, expires: now.adding(seconds: 30)), by: developer, makerExpires: now.adding(seconds: 60), now: now)
        #expect(throws: Problem.self) { try Tokens.check(try wish(.viewer, expires: now), by: developer, makerExpires: nil, now: now) }
    }

    @Test("an expired token is nobody's, and is forgotten a week later") func expiry() {
        var world = World()
        let expires = world.now.adding(seconds: 10)
        world.notice(.tokenCreated(row("short", expires: expires)))
        #expect(row("short", expires: expires).isValid(at: world.now))
        #expect(!row("short", expires: expires).isValid(at: expires))
        world.handle(.timer("sweep"), cause: World.id("t"), actor: nil)
        #expect(world.state.tokens.count == 1)
        world.now = expires.adding(seconds: 7 * 86_400)
        world.handle(.timer("sweep"), cause: World.id("t2"), actor: nil)
        #expect(world.state.tokens.isEmpty)
    }

    @Test("the list shows a developer what is hers, and an admin all") func manage() {
        let developer = Principal(name: "ann", role: .developer)
        #expect(Tokens.mayManage(row("ann"), developer))
        #expect(Tokens.mayManage(row("bot", by: "ann"), developer))
        #expect(!Tokens.mayManage(row("bob"), developer))
        #expect(Tokens.mayManage(row("bob"), Principal(name: "admin", role: .admin)))
        #expect(!Tokens.mayManage(row("bob"), Principal(name: "shop-admin", role: .admin, app: World.shop)))
    }
}
