import Contracts
import Foundation
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit
import Synchronization

/// Whose a token is: the suite's own programs by HOME/keys/robots.json, everybody else by the token table.
final class Identity: Authenticator, Sendable {
    static let cookie = "slipway_session"
    /// The name of the token that `slipway up` makes.
    static let operatorName = "admin"
    /// Twelve hours.
    static let sessionSeconds = 43_200.0

    private struct Robots {
        var names: [String: String] = [:]
        var readAt: Timestamp?
    }
    private let boot: Boot
    private let loop: Loop<APICore>
    private let robots = Mutex(Robots())

    init(boot: Boot, loop: Loop<APICore>) {
        self.boot = boot
        self.loop = loop
    }

    /// Makes the token that `slipway up` prepared known, by its hash. Throws `Problem` when robots.json cannot be read.
    func importOperator() async throws {
        for (hash, name) in try known() where name == Self.operatorName { try await loop.submit(.operatorKey(hash: hash)) }
    }

    func authenticate(hash: String) async throws -> Principal? {
        guard hash.utf8.count == 64 else { return nil }
        let now = boot.now()
        if let row = try await loop.read({ $0.tokens[hash] }) { return row.isValid(at: now) ? row.principal : nil }
        guard let name = try known()[hash], name != Self.operatorName else { return nil }
        return Principal(name: "component:\(name)", role: .admin)
    }

    /// Reads the file again when it is older than a second: an update of the suite may have added a component.
    private func known() throws -> [String: String] {
        let now = boot.now()
        let cached: [String: String]? = robots.withLock { state in
            guard let readAt = state.readAt, abs(now.seconds(since: readAt)) < 1 else { return nil }
            return state.names
        }
        if let cached { return cached }
        let names = try Keyring.robots(boot.config)
        robots.withLock { $0 = Robots(names: names, readAt: now) }
        return names
    }

    // MARK: Console sessions

    /// Opens a session for the token; gives the cookie's value. Throws `Problem` (`unauthenticated`) when it is not valid.
    func login(token: String) async throws -> (cookie: String, principal: Principal) {
        guard Token.isWellFormed(token) else { throw Self.wrongToken }
        let hash = Token.hash(token)
        guard let principal = try await authenticate(hash: hash), !principal.name.hasPrefix("component:") else { throw Self.wrongToken }
        let cookie = Token.make()
        try await loop.submit(
            .sessionOpened(
                SessionRow(hash: Token.hash(cookie), token: hash, expires: boot.now().adding(seconds: Self.sessionSeconds))),
            actor: principal.name)
        return (cookie, principal)
    }

    func logout(_ request: Request) async throws {
        guard let value = request.cookies[Self.cookie]?.value else { return }
        try await loop.submit(.sessionClosed(hash: Token.hash(value)))
    }

    /// Finds the principal of a session cookie. A request with an Authorization header is judged by that alone; one that would
    /// change something must come from the console's own page, as JSON (another site can send a form, not this).
    var front: Front {
        { [self] request, context in
            guard request.headers[.authorization] == nil, let value = request.cookies[Self.cookie]?.value else { return }
            let now = boot.now()
            let hash = Token.hash(value)
            let token = try await loop.read { state in state.sessions[hash].flatMap { $0.expires > now ? $0.token : nil } }
            guard let token, let principal = try await authenticate(hash: token) else { return }
            if request.method != .get, request.method != .head {
                let site = HTTPField.Name("Sec-Fetch-Site").flatMap { request.headers[$0] }
                let sameOrigin = request.headers[.origin].map { origin in
                    request.head.authority.map { origin == "http://\($0)" || origin == "https://\($0)" } ?? false
                }
                let isJSON = request.headers[.contentType].map { $0.lowercased().hasPrefix("application/json") } ?? false
                guard sameOrigin ?? (site == "same-origin"), isJSON else {
                    throw Problem(
                        .forbidden, "a console session changes things only from the console's own page", hint: "send a bearer token")
                }
            }
            context.principal = principal
        }
    }

    private static let wrongToken = Problem(
        .unauthenticated, "the token is unknown, expired or revoked", hint: "the operator's token is in HOME/keys/operator.token")
}
