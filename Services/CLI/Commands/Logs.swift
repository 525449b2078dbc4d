import ArgumentParser
import Contracts
import Foundation

/// What instances and jobs write.
struct Logs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Show what the instances of an app, or the jobs of a run, wrote.")
    @Argument(help: "APP or APP/SERVICE.")
    var target: String
    @Flag(name: [.customShort("f"), .long], help: "Follow.")
    var follow = false
    @Option(name: [.customShort("n"), .long], help: "How many lines of each, 0 to 2000.")
    var lines = 100
    @Option(help: "The jobs of this run instead of instances.")
    var run: Int?
    @Option(name: [.customLong("env"), .customLong("environment")], help: "The environment.")
    var environment: String?
    @Flag(help: "Print lines as they were written, control sequences and all.")
    var raw = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let target = try ServiceTarget(target)
        let client = try suite.client()
        let query: [(String, String?)] = [
            ("app", target.app.text), ("service", target.service?.text), ("environment", try environment.map { try EnvName($0).text }),
            ("run", run.map(String.init)), ("lines", String(lines)),
        ]
        guard follow else {
            let reply = try await client.json(.get, "/v1/logs", query)
            if listing.json { return Terminal.out(try Coding.text(reply["logs"] ?? .array([]))) }
            for log in reply["logs"]?.items ?? [] {
                for line in log["lines"]?.items ?? [] { show(log["origin"]?.string ?? "", line.string ?? "") }
            }
            return
        }
        var isFirst = true
        var outage = Outage(client)
        while true {
            // After a restart of the api the tail would come twice; the lines of the gap are in the log file.
            let again: [(String, String?)] = isFirst ? query : query.map { $0.0 == "lines" ? ("lines", "0") : $0 }
            do {
                let stream = try await client.events("/v1/logs", again + [("follow", "true")], lastEventID: nil)
                outage.opened()
                _ = try await stream.each { message in
                    isFirst = false
                    outage.heard()
                    guard message.event == "line" else { return true }
                    if listing.json {
                        Terminal.out(message.data)
                    } else {
                        let line = try Coding.decode(JSON.self, from: Data(message.data.utf8))
                        show(line["origin"]?.string ?? "", line["line"]?.string ?? "")
                    }
                    return true
                }
            } catch let problem as Problem {
                try outage.endure(problem)
            }
            try await Task.sleep(for: .milliseconds(500))
        }
    }

    private func show(_ origin: String, _ line: String) {
        // `shop/production/web/3` is `web/3` to somebody who asked for shop.
        let name = origin.split(separator: "/").suffix(2).joined(separator: "/")
        Terminal.out("\(Terminal.paint(Terminal.inert(name), .quiet)) \(raw ? line : Terminal.inert(line))")
    }
}
