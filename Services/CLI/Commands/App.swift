import ArgumentParser
import Contracts
import Foundation
import Kit

/// `slipway app …`
struct App: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "app", abstract: "Create, link, list, show and delete apps.",
        subcommands: [Create.self, Link.self, List.self, Show.self, Delete.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Make an app, and lead this git repository to it.",
            discussion: "In a git repository it also adds the remote 'slipway' and a credential helper for it: a push asks for nothing.")
        @Argument(help: "1 to 40 characters: a-z, 0-9 and '-', beginning with a letter.")
        var name: String
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions
        @Flag(help: "Leave the git repository here alone.")
        var noRemote = false

        mutating func run() async throws {
            let name = try AppName(name)
            let client = try suite.client()
            let made = try await client.json(.post, "/v1/apps", body: .object(["name": .string(name.text)]))
            let url = made["git"]?.string ?? "\(client.git)/\(name).git"
            if listing.json {
                Terminal.out(try Coding.text(made))
            } else {
                Terminal.out("app \(name) is there: \(Terminal.inert(url))")
            }
            guard !noRemote, let repository = GitRepository.here() else {
                if !listing.json, !noRemote {
                    Terminal.out("  next, in its git repository: slipway app link \(name), then git push slipway main")
                }
                return
            }
            let said = try repository.lead(to: url, home: client.home)
            if !listing.json { for line in said { Terminal.out("  \(line)") } }
        }
    }

    struct Link: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "link", abstract: "Lead this git repository to an app that exists.",
            discussion: "Adds the remote 'slipway' and a credential helper for it: a push asks for nothing.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let name = try AppName(name)
            let client = try suite.client()
            let app = try await client.json(.get, "/v1/apps/\(name)")
            guard let repository = GitRepository.here() else {
                throw Problem(.usage, "this directory is not in a git repository", hint: "git init, or change to the repository of \(name)")
            }
            let url = app["git"]?.string ?? "\(client.git)/\(name).git"
            for line in try repository.lead(to: url, home: client.home) { Terminal.out(line) }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List apps and what is live of each.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let apps = try await suite.client().json(.get, "/v1/apps")
            if listing.json { return Terminal.out(try Coding.text(apps)) }
            guard !apps.items.isEmpty else { return Terminal.out("No apps yet. In a git repository:  slipway app create NAME") }
            Terminal.table(["APP", "ENVIRONMENT", "STATE", "RELEASE", "READY", "SINCE", "URL"], AppCommands.rows(apps.items))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "show", abstract: "Show one app: environments, releases, instances.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let name = try AppName(name)
            let app = try await suite.client().json(.get, "/v1/apps/\(name)")
            if listing.json { return Terminal.out(try Coding.text(app)) }
            Terminal.out("\(Terminal.paint(name.text, .strong))  \(app.shown("git", limit: 200))")
            Terminal.out(
                "created \(app.shown("createdAt")) by \(app.shown("createdBy")), newest release \(app["latestRelease"]?.int.map { "v\($0)" } ?? "-")"
            )
            for environment in app["environments"]?.items ?? [] {
                Terminal.out("")
                Terminal.out(
                    "\(Terminal.paint(environment.shown("name"), .strong)): \(environment.shown("state")) \(environment.shown("version"))  \(environment.shown("url", limit: 200))"
                )
                if environment["title"]?.string != nil {
                    Terminal.out("  \(environment.commit("commit")) \(environment.shown("title"))")
                }
                AppCommands.instances(environment["instances"]?.items ?? [], indent: "  ")
                if let last = environment["last"], last["state"]?.string == "rolled back" {
                    Terminal.out(
                        "  \(Terminal.paint("\(last.shown("version")) was rolled back", .bad)): \(last.shown("reason", limit: 300))")
                }
            }
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "delete", abstract: "Remove an app: its repository and releases go, its instances are stopped.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions
        @Flag(name: .shortAndLong, help: "Do not ask.")
        var yes = false

        mutating func run() async throws {
            let name = try AppName(name)
            if !yes {
                guard isatty(0) == 1 else {
                    throw Problem(
                        .usage, "this removes \(name), its repository and its releases, and nobody is here to ask", hint: "add --yes")
                }
                Terminal.err("This removes \(name), its repository and its releases. Type its name to go on:")
                guard readLine() == name.text else { throw Problem(.failed, "nothing was removed") }
            }
            _ = try await suite.client().json(.delete, "/v1/apps/\(name)")
            Terminal.out("app \(name) is removed")
        }
    }
}

/// What several listings show alike.
enum AppCommands {
    static func rows(_ apps: [JSON]) -> [[String]] {
        apps.flatMap { app -> [[String]] in
            let environments = app["environments"]?.items ?? []
            guard !environments.isEmpty else { return [[app.shown("name"), "-", "empty", "-", "-", app.age("createdAt"), "-"]] }
            return environments.map { environment in
                let instances = environment["instances"]?.items ?? []
                let ready = instances.filter { $0["state"]?.string == "ready" }.count
                let isDead = environment["release"]?.int != nil && ready == 0
                let state = environment.shown("state")
                let tone: Terminal.Tone = isDead ? .bad : state == "live" ? .good : .busy
                return [
                    app.shown("name"), environment.shown("name"), Terminal.paint(state, tone), environment.shown("version"),
                    isDead ? Terminal.paint("\(ready)/\(max(1, instances.count))", .bad) : "\(ready)/\(instances.count)",
                    environment.age("since"), environment.shown("url", limit: 200),
                ]
            }
        }
    }

    static func instances(_ instances: [JSON], indent: String = "") {
        guard !instances.isEmpty else { return }
        let head = ["INSTANCE", "STATE", "RELEASE", "HOST", "PORTS", "SINCE", "RESTARTS", ""]
        let rows = instances.map { one -> [String] in
            let state = one.shown("state")
            var ports: [String] = []
            if case .object(let members)? = one["ports"] {
                ports = members.keys.sorted().compactMap { key in members[key]?.int.map { "\(key):\($0)" } }
            }
            return [
                one.shown("id"), Terminal.paint(state, state == "ready" ? .good : state == "failed" ? .bad : .busy), one.shown("version"),
                one.shown("host"), ports.isEmpty ? "-" : ports.joined(separator: ","), one.age("since"), one.shown("restarts"),
                one["reason"]?.string == nil ? "" : one.shown("reason", limit: 120),
            ]
        }
        Terminal.table([indent + head[0]] + head.dropFirst(), rows.map { [indent + $0[0]] + $0.dropFirst() })
    }
}
