import ArgumentParser
import Contracts
import Foundation
import Kit

/// Leads this home's command line to a suite elsewhere.
struct Login: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login", abstract: "Talk to the suite at a URL from now on.",
        discussion: "The token is read from standard input, or asked for on a terminal; it is never an argument.")
    @Argument(help: "The api's address, such as https://deploy.example.org.")
    var url: String
    @OptionGroup var suite: SuiteOptions

    mutating func run() async throws {
        let address = url.hasSuffix("/") ? String(url.dropLast()) : url
        guard let parts = URLComponents(string: address), let scheme = parts.scheme, ["http", "https"].contains(scheme),
            parts.host?.isEmpty == false,
            parts.user == nil, parts.password == nil, parts.query == nil
        else { throw Problem(.usage, "address \(Problem.quote(url)): expected such as https://deploy.example.org") }
        let token = try Self.readToken()
        guard Token.isWellFormed(token) else {
            throw Problem(.usage, "this is not a token of Slipway", hint: "a token begins with slp_ and has 53 characters")
        }
        let home = try suite.config().home
        let client = Client(base: address, token: token, git: "", isLocal: false, home: home)
        let me = try await client.json(.get, "/v1/whoami")
        try LoginFile(url: address, token: token, git: me["git"]?.string ?? "").save(home)
        Terminal.out("logged in to \(address) as \(me.shown("name")), \(me.shown("role"))")
    }

    private static func readToken() throws -> String {
        let isTerminal = isatty(0) == 1
        var before = termios()
        if isTerminal {
            StandardError.write("Token: ")
            // What is typed is not shown.
            tcgetattr(0, &before)
            var silent = before
            silent.c_lflag &= ~tcflag_t(ECHO)
            tcsetattr(0, TCSANOW, &silent)
        }
        defer {
            if isTerminal {
                tcsetattr(0, TCSANOW, &before)
                StandardError.write("\n")
            }
        }
        guard let line = readLine() else {
            throw Problem(.usage, "no token came on standard input", hint: "slipway login URL < file-with-the-token")
        }
        return line.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

struct Logout: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "logout", abstract: "Forget where 'slipway login' led.")
    @OptionGroup var suite: SuiteOptions

    mutating func run() async throws {
        let home = try suite.config().home
        guard let session = LoginFile.load(home) else { return Terminal.out("not logged in anywhere") }
        unlink(LoginFile.path(home))
        Terminal.out("logged out of \(Terminal.inert(session.url)); the token itself is still valid until it is revoked")
    }
}

struct Whoami: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "whoami", abstract: "Show which suite and which token are used.")
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let client = try suite.client()
        let me = try await client.json(.get, "/v1/whoami")
        if listing.json { return Terminal.out(try Coding.text(me)) }
        var text = "\(me.shown("name")), \(me.shown("role")), at \(client.base)"
        if let app = me["app"]?.string { text += ", app \(app)" }
        if let environment = me["environment"]?.string { text += ", environment \(environment)" }
        if let expires = me["expires"]?.string { text += ", until \(expires)" }
        Terminal.out(text)
    }
}
