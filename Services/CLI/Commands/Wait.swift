import ArgumentParser
import Contracts

/// Follows a push, a release or an order to its end.
struct Wait: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait", abstract: "Follow a push or deployment to its end: exit code 0 when live, 1 with the reason.")
    @Argument(help: "The app.")
    var app: String
    @Argument(help: "A commit, or a release such as v3. (default: what happened last)")
    var what: String?
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment.")
    var environment: String?
    @Option(help: "The id of an order, as 'slipway deploy --detach' gives it.")
    var order: String?
    @Option(help: ArgumentHelp("Give up after this long, such as 10m.", valueName: "time"))
    var timeout: String?
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let app = try AppName(app)
        var query: [(String, String?)] = [("environment", try environment.map { try EnvName($0).text })]
        if let order {
            guard what == nil else { throw Problem(.usage, "name a commit, a release or an order, not two of them") }
            query.append(("order", try EventID(order).text))
        } else if let what {
            if what.hasPrefix("v"), let number = Int(what.dropFirst()), number > 0 {
                query.append(("release", what))
            } else {
                let commit = what.lowercased()
                guard (4...64).contains(commit.utf8.count), commit.allSatisfy(\.isHexDigit) else {
                    throw Problem(
                        .usage, "\(Problem.quote(what)) is neither a commit nor a release", hint: "such as $(git rev-parse HEAD), or v3")
                }
                query.append(("commit", commit))
            }
        }
        let seconds = try timeout.map { text in
            guard let seconds = Span.seconds(text) else {
                throw Problem(.usage, "timeout \(Problem.quote(text)): expected such as 90s or 10m")
            }
            return seconds
        }
        try await StoryFollower(client: try suite.client(), app: app.text, query: query, json: listing.json, timeout: seconds).follow()
    }
}
