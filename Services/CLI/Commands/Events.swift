import ArgumentParser
import Contracts
import Foundation
import Kit

/// The log.
struct Events: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Show the log of events, or follow it.",
        discussion: "Without --since the newest hundred; with -f what comes from now on. With --json one event a line, as CloudEvents.")
    @Flag(name: [.customShort("f"), .long], help: "Follow.")
    var follow = false
    @Option(help: ArgumentHelp("From this number on, or from this time, or so long ago (such as 15m).", valueName: "seq|time"))
    var since: String?
    @Option(help: ArgumentHelp("Only this type and those below it, such as 'deploy'.", valueName: "prefix"))
    var type: String?
    @Option(help: ArgumentHelp("Only this subject and those below it, such as 'shop/production'.", valueName: "path"))
    var subject: String?
    @Flag(help: "Print text as it was published, control sequences and all.")
    var raw = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    /// How many are asked for at once.
    private static let page = 5000

    mutating func run() async throws {
        let client = try suite.client()
        let from: String? = try since.map { UInt64($0) == nil ? try Span.moment($0, ahead: false).description : $0 }
        let query: [(String, String?)] = [("type", type), ("subject", subject)]
        if follow { return try await follow(client, query, from) }
        guard var from else {
            for event in try await client.json(.get, "/v1/events", query).items { try show(event) }
            return
        }
        while true {
            let events = try await client.json(
                .get, "/v1/events", query + [("since", from), ("limit", String(Self.page))], timeout: 60
            ).items
            for event in events { try show(event) }
            guard events.count == Self.page, let last = events.last?["sequence"]?.string.flatMap({ UInt64($0) }) else { return }
            from = String(last + 1)
        }
    }

    private func follow(_ client: Client, _ query: [(String, String?)], _ since: String?) async throws {
        var last: String?
        var outage = Outage(client)
        while true {
            do {
                let position: [(String, String?)] = last == nil ? [("since", since)] : []
                let stream = try await client.events("/v1/events", query + position + [("follow", "true")], lastEventID: last)
                outage.opened()
                _ = try await stream.each { message in
                    outage.heard()
                    if let id = message.id { last = id }
                    try show(try Coding.decode(JSON.self, from: Data(message.data.utf8)))
                    return true
                }
            } catch let problem as Problem {
                try outage.endure(problem)
            }
            try await Task.sleep(for: .milliseconds(300))
        }
    }

    private func show(_ event: JSON) throws {
        if listing.json { return Terminal.out(try Coding.text(event)) }
        let number = event["sequence"]?.string.flatMap { UInt64($0) }.map(String.init) ?? "live"
        let time = event.shown("time", limit: 30)
        let data = event["data"].flatMap { try? Coding.text($0) } ?? ""
        let shown = raw ? data : Terminal.inert(data, limit: 240)
        Terminal.out(
            "\(Terminal.paint(number, .quiet)) \(time) \(Terminal.paint(event.shown("type"), .strong)) \(event.shown("subject", limit: 120)) by \(event.shown("actor")) \(Terminal.paint(shown, .quiet))"
        )
    }
}

/// Puts an event on the log.
struct Publish: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "publish", abstract: "Publish an order, or an event of your own type.",
        discussion: "For example: slipway publish deploy.requested --data '{\"app\":\"shop\",\"release\":3}'")
    @Argument(help: "Such as deploy.requested.")
    var type: String
    @Option(help: ArgumentHelp("The path of what it is about, such as shop/production.", valueName: "path"))
    var subject: String?
    @Option(help: ArgumentHelp("JSON; '-' reads standard input.", valueName: "json"))
    var data = "{}"
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let type = try EventType(type)
        let text = data == "-" ? FileHandle.standardInput.readDataToEndOfFile() : Data(data.utf8)
        let value: JSON
        do {
            value = try Coding.decode(JSON.self, from: text)
        } catch let problem as Problem {
            throw Problem(.usage, "--data: \(problem.message)", hint: "for example --data '{\"app\":\"shop\"}'")
        }
        var body: [String: JSON] = ["type": .string(type.text), "data": value]
        if let subject { body["subject"] = .string(subject) }
        let answer = try await suite.client().json(.post, "/v1/events", body: .object(body))
        Terminal.out(listing.json ? try Coding.text(answer) : answer.shown("id"))
    }
}
