import ArgumentParser
import Contracts
import Foundation
import Kit

/// `slipway bus …`: looks after the bus of this machine. Asks the bus itself, so that it also works while the api is away.
struct BusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bus", abstract: "Look after the bus: its log, its consumers, what they gave up, who may do what.",
        discussion: "For the night when something is wrong: docs/repair.md.",
        subcommands: [State.self, Consumers.self, Forget.self, Parked.self, Permissions.self, Fsck.self, Drain.self, BusPromote.self])

    /// `1.5 GiB`.
    static func size(_ bytes: Int64) -> String {
        for (unit, power) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] where bytes >= 1 << power {
            let value = Double(bytes) / Double(1 << power)
            return "\(value >= 10 ? String(Int(value.rounded())) : String((value * 10).rounded() / 10)) \(unit)"
        }
        return "\(bytes) bytes"
    }

    /// `1 session`, `2 sessions`.
    static func count(_ number: Int64, _ what: String) -> String { "\(number) \(what)\(number == 1 ? "" : "s")" }

    struct State: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "status", abstract: "Show how the bus and its log are.",
            discussion: "Exit code 0 when nothing is wrong; 1 when a part of the log cannot be read, or the disk is full.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let status = try await suite.bus().json(.get, "/v1/status")
            let damage = status["log"]?["damage"]?.items ?? []
            let isFull = status["log"]?["full"]?.bool ?? false
            if listing.json { Terminal.out(try Coding.text(status)) } else { Self.show(status, damage, isFull) }
            if isFull || !damage.isEmpty { throw ExitCode(1) }
        }

        private static func show(_ status: JSON, _ damage: [JSON], _ isFull: Bool) {
            func number(_ path: String...) -> Int64 { path.reduce(status as JSON?) { $0?[$1] }?.int ?? 0 }
            let (first, last) = (number("first"), number("last"))
            let log = status["log"] ?? .null
            var disk = "\(BusCommand.size(number("log", "diskFree"))) free of \(BusCommand.size(number("log", "diskBytes")))"
            if isFull { disk = Terminal.paint("full: events are refused; \(disk)", .bad) }
            let consumers = "\(number("consumers", "durable")) durable, the slowest \(number("consumers", "largestLag")) events behind"
            let parked = number("consumers", "parked")
            let oldest = log["oldest"] == nil ? "" : ", the oldest \(log.age("oldest")) old"
            var rows = [
                ["stream", status.shown("stream")], ["epoch", "\(number("epoch")) (starts of the bus on this log)"],
                ["events", first > last ? "none" : "\(first) to \(last)"],
                [
                    "log",
                    "\(BusCommand.size(number("log", "bytes"))) in \(BusCommand.count(number("log", "segments"), "segment"))\(oldest)",
                ], ["disk", disk],
                ["kept", retention(status["retention"] ?? .null)],
                [
                    "clients",
                    "\(number("clients")), \(BusCommand.count(number("sessions"), "session")), \(BusCommand.count(number("subscriptions"), "subscription"))",
                ],
                ["services", (status["services"]?.items ?? []).map { Terminal.inert($0.string ?? "") }.joined(separator: " ")],
                ["consumers", consumers],
                ["parked", parked == 0 ? "none" : Terminal.paint("\(parked): slipway bus parked", .busy)],
            ]
            if damage.isEmpty { rows.append(["damage", Terminal.paint("none", .good)]) }
            for one in damage {
                rows.append(
                    [
                        "damage",
                        Terminal.paint("events \(one.shown("first")) to \(one.shown("last")): \(one.shown("place", limit: 200))", .bad),
                    ])
            }
            Terminal.table(["BUS", ""], rows)
        }

        private static func retention(_ retention: JSON) -> String {
            let bytes = retention["maxBytes"]?.int.map { "at most \(BusCommand.size($0))" } ?? "any size"
            let age = retention["maxAgeSeconds"]?.int.map { "\($0 / 86_400 > 0 ? "\($0 / 86_400)d" : "\($0)s") and until all have read it" }
            return "\(bytes), \(age ?? "any age")"
        }
    }

    struct Consumers: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "consumers", abstract: "Show who reads the log, how far they are, and how far behind.")
        @Flag(help: "Only those that are behind, or that nobody reads.")
        var behind = false
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            var consumers = try await suite.bus().json(.get, "/v1/consumers").items
            if behind { consumers = consumers.filter { $0["lag"]?.int ?? 0 > 0 || $0["connected"]?.bool == false } }
            if listing.json { return Terminal.out(try Coding.text(consumers)) }
            guard !consumers.isEmpty else { return Terminal.out(behind ? "Nobody is behind." : "Nobody reads.") }
            Terminal.table(
                ["OWNER", "CONSUMER", "MODE", "DONE", "LAG", "SESSIONS", "UNSETTLED", "PARKED", "READS"],
                consumers.map { one in
                    let lag = one["lag"]?.int ?? 0
                    let sessions = one["sessions"]?.int ?? 0
                    let filters = (one["filters"]?.items ?? []).compactMap(\.string).joined(separator: ",")
                    let parked = one["parked"]?.int ?? 0
                    return [
                        one.shown("owner"), one["consumer"]?.string == "" ? "(live)" : one.shown("consumer"), one.shown("mode"),
                        one.shown("cursor"), lag >= 10_000 ? Terminal.paint("\(lag)", .bad) : "\(lag)",
                        sessions == 0 ? Terminal.paint("none", .busy) : "\(sessions)", one.shown("unsettled"),
                        parked == 0 ? "0" : Terminal.paint("\(parked)", .busy), Terminal.inert(filters, limit: 40),
                    ]
                })
        }
    }

    struct Forget: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "forget", abstract: "Forget a consumer that will not come back: its position, and what is parked for it.",
            discussion: "Until then the log is kept for it, as far as max_bytes allows. Refused while somebody reads under its name.")
        @Argument(help: "The consumer's name, as 'slipway bus consumers' shows it.")
        var consumer: String
        @Option(help: ArgumentHelp("The key that it belongs to; needed when several have one of that name.", valueName: "name"))
        var owner: String?
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let bus = try suite.bus()
            let meant = try await bus.json(.get, "/v1/consumers").items.filter {
                $0["consumer"]?.string == consumer && !consumer.isEmpty && (owner == nil || $0["owner"]?.string == owner)
            }
            guard let one = meant.first else {
                throw Problem(.notFound, "there is no consumer \(Problem.quote(consumer))", hint: "slipway bus consumers lists them")
            }
            guard meant.count == 1 else {
                let owners = meant.map { $0.shown("owner") }.joined(separator: ", ")
                throw Problem(.usage, "several keys have a consumer \(Problem.quote(consumer)): \(owners)", hint: "say which, with --owner")
            }
            _ = try await bus.json(
                .post, "/v1/consumers/forget", body: .object(["owner": one["owner"] ?? .null, "consumer": .string(consumer)]))
            Terminal.out("consumer \(one.shown("consumer")) of \(one.shown("owner")) is forgotten")
        }
    }

    /// What of the parked events is meant.
    struct Chosen: ParsableArguments {
        @Option(help: ArgumentHelp("Only of consumers of this key.", valueName: "name"))
        var owner: String?
        @Option(help: ArgumentHelp("Only of this consumer.", valueName: "name"))
        var consumer: String?

        func list(_ bus: Client) async throws -> [JSON] {
            try await bus.json(.get, "/v1/consumers/parked", [("owner", owner), ("consumer", consumer)]).items
        }
    }

    struct Parked: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "parked", abstract: "List what consumers gave up; deliver it again, or forget it.",
            subcommands: [List.self, Retry.self, Drop.self], defaultSubcommand: List.self)

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(commandName: "list", abstract: "List parked events.")
            @OptionGroup var chosen: Chosen
            @OptionGroup var suite: SuiteOptions
            @OptionGroup var listing: ListingOptions

            mutating func run() async throws {
                let parked = try await chosen.list(suite.bus())
                if listing.json { return Terminal.out(try Coding.text(parked)) }
                guard !parked.isEmpty else { return Terminal.out("Nothing is parked.") }
                Terminal.table(
                    ["OWNER", "CONSUMER", "EVENT", "DELIVERIES", "AGE", "REASON"],
                    parked.map {
                        [
                            $0.shown("owner"), $0.shown("consumer"), $0.shown("seq"), $0.shown("deliveries"), $0.age("at"),
                            $0.shown("reason", limit: 100),
                        ]
                    })
            }
        }

        struct Retry: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                commandName: "retry", abstract: "Deliver parked events again, as if they were new.",
                discussion: "For work queues; of a consumer that reads in order, an event that was passed over cannot come back.")
            @Argument(help: "Numbers of events; none with --all.")
            var events: [UInt64] = []
            @Flag(help: "All that are parked, or all of --owner and --consumer.")
            var all = false
            @OptionGroup var chosen: Chosen
            @OptionGroup var suite: SuiteOptions

            mutating func run() async throws {
                try await Parked.each(events, all, chosen, suite, "retry") {
                    "event \($0.shown("seq")) goes to \($0.shown("consumer")) again"
                }
            }
        }

        struct Drop: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                commandName: "drop", abstract: "Forget that events are parked; they stay in the log.")
            @Argument(help: "Numbers of events; none with --all.")
            var events: [UInt64] = []
            @Flag(help: "All that are parked, or all of --owner and --consumer.")
            var all = false
            @OptionGroup var chosen: Chosen
            @OptionGroup var suite: SuiteOptions

            mutating func run() async throws {
                try await Parked.each(events, all, chosen, suite, "drop") {
                    "event \($0.shown("seq")) is no longer parked for \($0.shown("consumer"))"
                }
            }
        }

        /// Does it to each that is meant. What is not there, or is parked for several, changes nothing.
        private static func each(
            _ events: [UInt64], _ all: Bool, _ chosen: Chosen, _ suite: SuiteOptions, _ verb: String, _ said: (JSON) -> String
        ) async throws {
            guard all != !events.isEmpty else {
                throw Problem(
                    .usage, "which events?", hint: "slipway bus parked \(verb) NUMBER…, or --all; 'slipway bus parked' lists them")
            }
            let bus = try suite.bus()
            let parked = try await chosen.list(bus)
            let meant = try all ? parked : events.map { try Self.one($0, parked) }
            guard !meant.isEmpty else { return Terminal.out("Nothing is parked.") }
            for one in meant {
                let body = JSON.object(["owner": one["owner"] ?? .null, "consumer": one["consumer"] ?? .null, "seq": one["seq"] ?? .null])
                _ = try await bus.json(.post, "/v1/consumers/parked/\(verb)", body: body)
                Terminal.out(said(one))
            }
        }

        private static func one(_ event: UInt64, _ parked: [JSON]) throws -> JSON {
            let found = parked.filter { $0["seq"]?.int == Int64(exactly: event) }
            guard let first = found.first else {
                throw Problem(.notFound, "event \(event) is not parked", hint: "slipway bus parked")
            }
            guard found.count == 1 else {
                let names = found.map { "\($0.shown("owner"))/\($0.shown("consumer"))" }.joined(separator: ", ")
                throw Problem(.usage, "event \(event) is parked for \(names)", hint: "say for whom: --owner NAME --consumer NAME")
            }
            return first
        }
    }

    struct Permissions: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "permissions", abstract: "Show what each key may do, as the bus has it now.",
            discussion: "What a key's file says at this moment is 'slipway key list'; the bus reads it within a second.")
        @Argument(help: "Only this key.")
        var name: String?
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            var keys = try await suite.bus().json(.get, "/v1/permissions").items
            if let name {
                keys = keys.filter { $0["name"]?.string == name }
                guard !keys.isEmpty else {
                    throw Problem(.notFound, "the bus knows no key named \(Problem.quote(name))", hint: "slipway bus permissions")
                }
            }
            if listing.json { return Terminal.out(try Coding.text(keys)) }
            func words(_ key: JSON, _ member: String) -> [String] { (key[member]?.items ?? []).compactMap(\.string) }
            for (index, key) in keys.enumerated() {
                if index > 0 { Terminal.out("") }
                let sessions = key["sessions"]?.int ?? 0
                let seen =
                    sessions > 0 ? BusCommand.count(sessions, "session") : key["seen"] == nil ? "not seen" : "seen \(key.age("seen")) ago"
                Terminal.out("\(Terminal.paint(key.shown("name"), .strong))  \(Terminal.paint(seen, .quiet))")
                for (title, patterns) in [
                    ("publish", words(key, "publish")), ("about", words(key, "subject")), ("subscribe", words(key, "subscribe")),
                    ("consumers", key["ephemeral_only"]?.bool == true ? ["(none: ephemeral only)"] : words(key, "consumers")),
                    ("call", words(key, "call")), ("serve", words(key, "serve")),
                    ("replicate", key["replicate"]?.bool == true ? ["yes"] : []),
                ] where !patterns.isEmpty {
                    Terminal.out(
                        "  \(title)\(String(repeating: " ", count: 11 - title.utf8.count))\(Terminal.inert(patterns.joined(separator: " ")))"
                    )
                }
            }
        }
    }

    struct Fsck: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "fsck", abstract: "Check every byte of the log; the suite must be stopped.",
            discussion: "Runs 'slipway-bus fsck', whose exit codes it has: 0 clean, 1 damaged, 2 the bus is running.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() throws {
            let config = try suite.config()
            let program = try Spawn.sibling("slipway-bus")
            let arguments = [program, "fsck", "--home", config.home.path] + (listing.json ? ["--json"] : [])
            // This process becomes that program, with its output and its exit code.
            let pointers = arguments.map { strdup($0) } + [nil]
            execv(program, pointers)
            throw Problem(.failed, "cannot start \(program): \(String(cString: strerror(errno)))", hint: "slipway doctor")
        }
    }

    struct Drain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "drain", abstract: "End the bus in order: clients are told, everything taken in is stored, then it stops.",
            discussion: "In a running suite it is started again at once, as for an update; clients go on by themselves.")
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            _ = try await suite.bus().json(.post, "/v1/drain")
            Terminal.out("the bus drains; in a running suite it is back in a moment: slipway bus status")
        }
    }
}
