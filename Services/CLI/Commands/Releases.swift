import ArgumentParser
import Contracts

/// The releases of an app, newest first.
struct Releases: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "releases", abstract: "List the releases of an app and where each is live.")
    @Argument(help: "The app.")
    var app: String
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let app = try AppName(app)
        let releases = try await suite.client().json(.get, "/v1/apps/\(app)/releases")
        if listing.json { return Terminal.out(try Coding.text(releases)) }
        guard !releases.items.isEmpty else { return Terminal.out("\(app) has no release yet: git push slipway main") }
        Terminal.table(
            ["RELEASE", "LIVE IN", "COMMIT", "BRANCH", "AGE", "BY", "DEPLOYED", "TITLE"],
            releases.items.map { release in
                let live = (release["live"]?.items ?? []).compactMap(\.string)
                // What once went live and does no more is "was live": where it is live stands in a column of its own.
                let last = (release["deployments"]?.items ?? []).map { one in
                    let isPast = one["state"]?.string == "live" && !live.contains(one["environment"]?.string ?? "")
                    return "\(one.shown("environment")): \(isPast ? "was live" : one.shown("state"))"
                }
                return [
                    release.shown("version"), live.isEmpty ? "-" : Terminal.paint(live.joined(separator: ","), .good),
                    release.commit("commit"),
                    release.shown("branch", limit: 30), release.age("createdAt"), release.shown("pushedBy", limit: 20),
                    last.isEmpty ? "-" : last.joined(separator: ", "), release.shown("title", limit: 60),
                ]
            })
    }
}

/// Instances.
struct Ps: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ps", abstract: "List the instances of one app, or of all.")
    @Argument(help: "The app.")
    var app: String?
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment.")
    var environment: String?
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let path = try app.map { "/v1/apps/\(try AppName($0))/instances" } ?? "/v1/instances"
        let instances = try await suite.client().json(.get, path, [("environment", try environment.map { try EnvName($0).text })])
        if listing.json { return Terminal.out(try Coding.text(instances)) }
        guard !instances.items.isEmpty else { return Terminal.out("nothing runs") }
        AppCommands.instances(instances.items)
    }
}
