import ArgumentParser
import Contracts

/// What a deployment would do.
struct Plan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Show what a deployment or rollback would change, and change nothing.")
    @Argument(help: "The app.")
    var app: String
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment. (default: the last in the app's chain)")
    var environment: String?
    @Option(help: "A release, such as v3. (default: the newest)")
    var release: String?
    @Flag(help: "Plan a rollback.")
    var rollback = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let app = try AppName(app)
        let plan = try await suite.client().json(
            .get, "/v1/apps/\(app)/plan",
            [
                ("environment", try environment.map { try EnvName($0).text }),
                ("release", try release.map { "v\(try Versions.number($0))" }),
                ("rollback", rollback ? "true" : nil),
            ])
        if listing.json { return Terminal.out(try Coding.text(plan)) }
        let previous = plan["previous"]?.int.map { "v\($0)" } ?? "nothing"
        Terminal.out("\(app) in \(plan.shown("environment")): \(previous) → v\(plan.shown("release"))")
        let steps = plan["steps"]?.items ?? []
        if steps.isEmpty { Terminal.out("  nothing would change") }
        for (index, step) in steps.enumerated() { Terminal.out("  \(index + 1). \(step.shown("text", limit: 300))") }
    }
}
