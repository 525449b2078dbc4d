import ArgumentParser
import Contracts

/// What runs, and how it came there.
struct Why: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why", abstract: "What runs, from which commit, built how, ordered by whom, since when.")
    @Argument(help: "APP or APP/SERVICE.")
    var target: String
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment. (default: the last in the app's chain)")
    var environment: String?
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let target = try ServiceTarget(target)
        let why = try await suite.client().json(
            .get, "/v1/apps/\(target.app)/why",
            [("environment", try environment.map { try EnvName($0).text }), ("service", target.service?.text)])
        if listing.json { return Terminal.out(try Coding.text(why)) }
        Terminal.out(
            "\(Terminal.paint("\(target.app)", .strong)) in \(why.shown("environment")) runs \(Terminal.paint(why.shown("version"), .good))"
        )
        func line(_ name: String, _ text: String) {
            guard text != "-", !text.isEmpty else { return }
            Terminal.out("  \(name)\(String(repeating: " ", count: max(1, 12 - name.utf8.count)))\(text)")
        }
        line("commit", "\(why.shown("commit", limit: 40)) \(why["title"]?.string == nil ? "" : "\"\(why.shown("title"))\"")")
        line("author", why.shown("author"))
        line("ref", why.shown("ref"))
        line("pushed", Self.byAt(why, "pushedBy", "pushedAt"))
        line(
            "built",
            (why["run"]?.int.map { "run \($0)" } ?? "-")
                + ((why["builtHow"]?.items ?? []).map { ", \(Terminal.inert($0.string ?? ""))" }).joined())
        line("released", why.shown("releasedAt"))
        line(why["kind"]?.string == "rollback" ? "rolled back" : "deployed", Self.byAt(why, "orderedBy", "deployedAt"))
        line("deployment", why.shown("deployment"))
        line("order", why.shown("order"))
        line("before", why["previous"]?.int.map { "v\($0)" } ?? "-")
        line("url", why.shown("url", limit: 200))
        AppCommands.instances(why["instances"]?.items ?? [], indent: "  ")
    }

    private static func byAt(_ json: JSON, _ by: String, _ at: String) -> String {
        switch (json[by]?.string, json[at]?.string) {
        case (nil, nil): "-"
        case (nil, _): json.shown(at)
        default: "by \(json.shown(by)) at \(json.shown(at))"
        }
    }
}

/// `shop` or `shop/web`.
struct ServiceTarget {
    var app: AppName
    var service: ServiceName?
    init(_ text: String) throws {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        app = try AppName(parts.first ?? "")
        service = try parts.count > 1 ? ServiceName(parts[1]) : nil
    }
}
