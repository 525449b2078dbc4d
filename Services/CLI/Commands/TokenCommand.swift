import ArgumentParser
import Contracts
import Kit

/// `slipway token …`
struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Create, list and revoke tokens.", subcommands: [Create.self, List.self, Revoke.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Make a token; it is printed this once.",
            discussion:
                "It opens the api, git (as the password), the registry, and every other HTTP of the suite, as far as its role reaches.")
        @Argument(help: "Whose or what for: a-z, 0-9 and '-'.")
        var name: String
        @Option(help: ArgumentHelp("viewer, developer, operator or admin.", valueName: "role"))
        var role: String
        @Option(help: "Only for this app.")
        var app: String?
        @Option(name: [.customLong("env"), .customLong("environment")], help: "Only for this environment of the app.")
        var environment: String?
        @Option(help: ArgumentHelp("When it ends: a time, or from now such as 12h or 90d.", valueName: "time"))
        var expires: String?
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let name = try TokenName(name)
            guard let role = Role(rawValue: role) else {
                throw Problem(
                    .usage, "role \(Problem.quote(role))", hint: "one of \(Role.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            var body: [String: JSON] = ["name": .string(name.text), "role": .string(role.rawValue)]
            if let app { body["app"] = .string(try AppName(app).text) }
            if let environment { body["environment"] = .string(try EnvName(environment).text) }
            if let expires { body["expires"] = .string(try Span.moment(expires, ahead: true).description) }
            let made = try await suite.client().json(.post, "/v1/tokens", body: .object(body))
            guard let token = made["token"]?.string else { throw Problem(.failed, "the api made the token but did not give it") }
            if listing.json { return Terminal.out(try Coding.text(made)) }
            // On standard output the token alone, so that it can be piped into a file.
            Terminal.out(token)
            Terminal.err("token \(name), \(role.rawValue)\(made["expires"]?.string.map { ", until \($0)" } ?? ""): it is not shown again")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List tokens; never the tokens themselves.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let tokens = try await suite.client().json(.get, "/v1/tokens")
            if listing.json { return Terminal.out(try Coding.text(tokens)) }
            Terminal.table(
                ["NAME", "ROLE", "APP", "ENVIRONMENT", "AGE", "BY", "EXPIRES"],
                tokens.items.map { token in
                    let expires = token["expired"]?.bool == true ? "expired" : token["expires"]?.string ?? "never"
                    return [
                        token.shown("name"), token.shown("role"), token.shown("app"), token.shown("environment"), token.age("createdAt"),
                        token.shown("createdBy"), expires,
                    ]
                })
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "revoke", abstract: "End a token, and those that were made with it, everywhere within two seconds.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let name = try TokenName(name)
            _ = try await suite.client().json(.delete, "/v1/tokens/\(name)")
            Terminal.out("token \(name) is revoked")
        }
    }
}
