import ArgumentParser
import Contracts

/// Orders a deployment and follows it.
struct Deploy: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deploy", abstract: "Deploy a release, or a branch, tag or commit; follow it to its end.",
        discussion: "Without --ref and --release the newest release is deployed. Exit code 0 when it is live, 1 with the reason otherwise.")
    @Argument(help: "The app.")
    var app: String
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment. (default: the last in the app's chain)")
    var environment: String?
    @Option(help: "A branch, tag or commit to test, build and release first.")
    var ref: String?
    @Option(help: "A release, such as v3.")
    var release: String?
    @Flag(help: "Return when the order is accepted.")
    var detach = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let app = try AppName(app)
        let environment = try environment.map { try EnvName($0) }
        guard ref == nil || release == nil else { throw Problem(.usage, "--ref and --release exclude each other") }
        let number = try release.map(Versions.number)
        var body: [String: JSON] = [:]
        if let environment { body["environment"] = .string(environment.text) }
        if let number { body["release"] = .int(Int64(number)) }
        if let ref { body["ref"] = .string(ref) }
        try await Orders.give("/v1/apps/\(app)/deployments", body, app, try suite.client(), detach: detach, json: listing.json)
    }
}

/// Goes back to an earlier release.
struct Rollback: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Go back to an earlier release, without building it again; follow it to its end.")
    @Argument(help: "The app.")
    var app: String
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment. (default: the last in the app's chain)")
    var environment: String?
    @Option(help: "The release, such as v1. (default: the one that was live before)")
    var to: String?
    @Flag(help: "Return when the order is accepted.")
    var detach = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let app = try AppName(app)
        let environment = try environment.map { try EnvName($0) }
        let to = try to.map(Versions.number)
        var body: [String: JSON] = [:]
        if let environment { body["environment"] = .string(environment.text) }
        if let to { body["to"] = .int(Int64(to)) }
        try await Orders.give("/v1/apps/\(app)/rollbacks", body, app, try suite.client(), detach: detach, json: listing.json)
    }
}

/// An order that is given and followed.
enum Orders {
    static func give(_ path: String, _ body: [String: JSON], _ app: AppName, _ client: Client, detach: Bool, json: Bool) async throws {
        let accepted = try await client.json(.post, path, body: .object(body))
        guard let order = accepted["order"]?.string else { throw Problem(.failed, "the api accepted the order but did not name it") }
        if detach {
            Terminal.out(
                json ? try Coding.text(accepted) : "order \(order) is accepted; follow it with: slipway wait \(app) --order \(order)")
            return
        }
        try await StoryFollower(client: client, app: app.text, query: [("order", order)], json: json).follow()
    }
}

enum Versions {
    /// `v3` or `3`. Throws `Problem` (`usage`).
    static func number(_ text: String) throws -> Int {
        guard let number = Int(text.hasPrefix("v") ? String(text.dropFirst()) : text), number > 0 else {
            throw Problem(.usage, "release \(Problem.quote(text)): expected v and a number", hint: "for example v3")
        }
        return number
    }
}
