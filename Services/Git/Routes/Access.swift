import Contracts
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit

/// Who may reach which repository, in git's own terms: 401 first, so that git asks for a password; one answer for what is missing and
/// for what may not be seen.
struct Access: Sendable {
    let find: @Sendable (AppName) async throws -> Repository?

    enum Need { case read, push }

    /// Throws `Problem`, whose text git shows to its user as `remote: …`.
    func admit(_ context: SlipwayContext, _ need: Need) async throws -> (repository: Repository, principal: Principal) {
        guard let principal = context.principal else {
            throw Problem(
                .unauthenticated, "a token is needed", hint: "give it as the password; 'slipway app create' in this directory sets that up")
        }
        let text = try context.parameter("repository")
        let name = text.hasSuffix(".git") ? String(text.dropLast(4)) : text
        let app: AppName
        do {
            app = try AppName(name)
        } catch let problem as Problem {
            // In a URL a name that is none is something that does not exist; the sentence still says why.
            throw Problem(.notFound, problem.message, hint: problem.hint)
        }
        guard principal.app == nil || principal.app == app else { throw Problem.noApp(app.text) }
        guard let repository = try await find(app) else {
            guard principal.may(.developer, app: app) else { throw Problem.noApp(app.text) }
            throw Problem(.notFound, "app '\(app)' does not exist: slipway app create \(app)")
        }
        let role: Role = need == .push ? .developer : .viewer
        guard principal.role >= role else {
            throw Problem(
                .forbidden, "'\(principal.name)' may read app '\(app)' but not push to it: that needs the role \(role.rawValue)",
                hint: "ask for a token: slipway token create NAME --role developer --app \(app)")
        }
        guard need == .read || principal.environment == nil else {
            throw Problem(
                .forbidden, "'\(principal.name)' reaches one environment only, and a push reaches all",
                hint: "use a token that was made without --env")
        }
        guard repository.ready else { throw Problem(.unavailable, "app '\(app)' is just being made", hint: "try again in a moment") }
        return (repository, principal)
    }
}

extension ErrorStyle {
    /// Plain text where git asks, because git shows nothing else to its user; RFC 9457 everywhere else.
    static let git = ErrorStyle { problem, request in
        let path = request.uri.path
        guard path.hasSuffix("/info/refs") || path.hasSuffix("/git-upload-pack") || path.hasSuffix("/git-receive-pack") else {
            return .problem(problem)
        }
        var fields: HTTPFields = [:]
        if problem.code == .unauthenticated { fields[.wwwAuthenticate] = "Basic realm=\"slipway\", charset=\"UTF-8\"" }
        if problem.code == .unavailable { fields[.retryAfter] = "1" }
        fields[.cacheControl] = "no-cache"
        return .text("\(problem.message)\n" + (problem.hint.map { "\($0)\n" } ?? ""), status: .init(code: problem.status), headers: fields)
    }
}
