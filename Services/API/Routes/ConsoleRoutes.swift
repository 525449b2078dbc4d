import Contracts
import Foundation
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit

/// The console: one page, its style and its script; and the session that lets it read.
struct ConsoleRoutes: Sendable {
    let desk: Desk

    func add(to routes: Routes) {
        routes.get("/", .open) { _, _ in page(ConsolePage.html, "text/html; charset=utf-8") }
        routes.get("/console.css", .open) { _, _ in page(ConsolePage.css, "text/css; charset=utf-8") }
        routes.get("/console.js", .open) { _, _ in page(ConsolePage.script, "text/javascript; charset=utf-8") }
        routes.post("/login", .open) { request, context in
            struct Body: Codable, Sendable { var token: String }
            try sameOrigin(request)
            let body = try await request.json(Body.self, context, limit: 4096)
            let (cookie, principal) = try await desk.identity.login(token: body.token)
            var response = try Response.json(["name": principal.name, "role": principal.role.rawValue])
            response.headers[.setCookie] = Self.cookie(cookie, seconds: Int(Identity.sessionSeconds))
            return response
        }
        routes.post("/logout", .open) { request, _ in
            try sameOrigin(request)
            try await desk.identity.logout(request)
            var response = try Response.json(["status": "logged out"])
            response.headers[.setCookie] = Self.cookie("", seconds: 0)
            return response
        }
    }

    /// A page of another site must not log anybody in or out.
    private func sameOrigin(_ request: Request) throws {
        guard let origin = request.headers[.origin] else { return }
        guard let authority = request.head.authority, origin == "http://\(authority)" || origin == "https://\(authority)" else {
            throw Problem(.forbidden, "this may be asked from the console's own page only")
        }
    }

    private static func cookie(_ value: String, seconds: Int) -> String {
        "\(Identity.cookie)=\(value); Path=/; Max-Age=\(seconds); HttpOnly; SameSite=Strict"
    }

    private func page(_ text: String, _ type: String) -> Response {
        var headers: HTTPFields = [.cacheControl: "no-cache"]
        headers[.contentSecurityPolicy] = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        if let name = HTTPField.Name("Referrer-Policy") { headers[name] = "no-referrer" }
        if let name = HTTPField.Name("X-Frame-Options") { headers[name] = "DENY" }
        return .data(Data(text.utf8), type: type, headers: headers)
    }
}
