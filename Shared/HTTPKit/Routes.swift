import Contracts
import HTTPTypes
import Hummingbird
import Kit

/// Where a component lists its routes; each one declares the right it asks for.
public struct Routes: Sendable {
    public typealias Handler = @Sendable (Request, SlipwayContext) async throws -> Response

    let router: RouterBox
    let gate: Gate
    public let metrics: Metrics
    /// Told of every request that was refused for want of rights (403).
    let refused: (@Sendable (Principal, Request, Problem) -> Void)?

    public func on(_ method: HTTPRequest.Method, _ path: String, _ right: Right, _ handler: @escaping Handler) {
        let (gate, refused) = (gate, refused)
        router.router.on(RouterPath(path), method: method) { request, context in
            var context = context
            do {
                context.principal = try await gate.principal(request, context, right)
                try gate.admit(context, right)
                return try await handler(request, context)
            } catch let problem as Problem where problem.code == .forbidden {
                if let principal = context.principal { refused?(principal, request, problem) }
                throw problem
            }
        }
    }
    public func get(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.get, path, right, handler) }
    public func post(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.post, path, right, handler) }
    public func put(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.put, path, right, handler) }
    public func patch(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.patch, path, right, handler) }
    public func delete(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.delete, path, right, handler) }
    public func head(_ path: String, _ right: Right, _ handler: @escaping Handler) { on(.head, path, right, handler) }
}

/// The router while it is being filled; only `HTTPServer.init` holds one, on one thread.
final class RouterBox: @unchecked Sendable {
    // Safe: filled inside HTTPServer.init before anything else can see it, and only read (buildResponder) afterwards.
    let router = Router(context: SlipwayContext.self)
}

/// Decides who gets in.
struct Gate: Sendable {
    let authenticator: any Authenticator

    /// Who asks; nil: nobody knows, or it does not matter. Throws `Problem` when the credential is wrong.
    func principal(_ request: Request, _ context: SlipwayContext, _ right: Right) async throws -> Principal? {
        right == .open ? nil : try await principal(request, context)
    }

    /// Throws `Problem` unless the one who asks has the right.
    func admit(_ context: SlipwayContext, _ right: Right) throws {
        if right == .open || right == .custom { return }
        guard let principal = context.principal else { throw Problem.tokenNeeded }
        switch right {
        case .open, .custom: break
        case .role(let role):
            guard principal.role >= role else { throw Problem.forbidden(principal, role) }
        case .app(let role):
            let app = try context.app()
            guard principal.app == nil || principal.app == app else { throw Problem.noApp(app.text) }
            guard principal.role >= role else { throw Problem.forbidden(principal, role) }
        case .component:
            guard principal.name.hasPrefix("component:") else { throw Problem(.forbidden, "only programs of the suite may ask this") }
        }
    }

    private func principal(_ request: Request, _ context: SlipwayContext) async throws -> Principal? {
        // One that a front end (a session cookie) has found already.
        if let known = context.principal { return known }
        switch Credential(request.headers) {
        case .none:
            if request.uri.queryParameters["token"] != nil || request.uri.queryParameters["access_token"] != nil {
                throw Problem(
                    .unauthenticated, "a token in the address ends up in logs", hint: "put it in the header Authorization: Bearer …")
            }
            return nil
        case .malformed: throw Problem(.unauthenticated, "the Authorization header is neither Basic nor Bearer")
        case .token(let token):
            guard Token.isWellFormed(token) else {
                throw Problem(.unauthenticated, "this is not a token of Slipway", hint: "a token begins with slp_ and has 53 characters")
            }
            guard let principal = try await authenticator.authenticate(hash: Token.hash(token)) else {
                throw Problem(
                    .unauthenticated, "the token is unknown, expired or revoked",
                    hint: "make a new one: slipway token create NAME --role developer")
            }
            return principal
        }
    }
}

extension Problem {
    public static let tokenNeeded = Problem(
        .unauthenticated, "a token is needed", hint: "send Authorization: Bearer slp_…, or the token as the password of Basic")
    static func forbidden(_ principal: Principal, _ needed: Role) -> Problem {
        Problem(.forbidden, "'\(principal.name)' has the role \(principal.role.rawValue); this needs \(needed.rawValue)")
    }
}
