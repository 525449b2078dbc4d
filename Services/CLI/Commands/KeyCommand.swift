import ArgumentParser
import Contracts
import Foundation
import Kit

/// `slipway key …`: keys for programs of your own that join the bus over ZeroMQ. Keys are files of the suite's own machine.
struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Create, list, show, revoke and rotate keys of the bus's clients.",
        subcommands: [Create.self, List.self, Show.self, Revoke.self, Rotate.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Make a CURVE key for a program that joins the bus.",
            discussion:
                "What is not granted is refused. Patterns: '*' is one token, '**' at the end one or more, such as 'deploy.**', or 'shop/**' for a subject. Options may be repeated."
        )
        @Argument(help: "The program's name, or with the host it is on, such as 'backup@host2'.")
        var name: String
        @Option(help: ArgumentHelp("Types that it may publish.", valueName: "pattern"))
        var publish: [String] = []
        @Option(help: ArgumentHelp("Types that it may read.", valueName: "pattern"))
        var subscribe: [String] = []
        @Option(help: ArgumentHelp("Queries that it may ask, such as 'git.*'.", valueName: "pattern"))
        var call: [String] = []
        @Option(help: ArgumentHelp("Services that it may serve.", valueName: "name"))
        var serve: [String] = []
        @Option(help: ArgumentHelp("Subjects that its events may be about. (default: any)", valueName: "pattern"))
        var subject: [String] = []
        @Option(help: ArgumentHelp("Durable consumers' names that it may use. (default: any; others' do not collide)", valueName: "name"))
        var consumer: [String] = []
        @Flag(help: "It may have no durable consumer.")
        var ephemeralOnly = false
        @Flag(help: "It may copy the log, as a replica of the bus does.")
        var replicate = false
        @Option(help: ArgumentHelp("Where the key is written, mode 0600.", valueName: "file"))
        var out: String
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let name = try KeyName(name).text
            for pattern in publish + subscribe + call { try Self.check(pattern) }
            for service in serve { try Self.check(service: service) }
            for pattern in subject { _ = try SubjectPattern(pattern) }
            for name in consumer { try Self.check(consumer: name) }
            guard !ephemeralOnly || consumer.isEmpty else {
                throw Problem(.usage, "--ephemeral-only and --consumer contradict each other", hint: "leave one of them out")
            }
            let config = try suite.keys()
            let file = try KeyFile(out, like: name)
            let key = try Keyring.create(
                name, publish: publish, subscribe: subscribe, call: call, serve: serve, subject: subject.isEmpty ? nil : subject,
                consumers: consumer.isEmpty ? nil : consumer, ephemeralOnly: ephemeralOnly, replicate: replicate, config)
            try file.write(key)
            Terminal.out("key \(name) is in \(out); it opens \(key.endpoint)")
        }

        private static func check(_ pattern: String) throws {
            let tokens = pattern.split(separator: ".", omittingEmptySubsequences: false)
            for (index, token) in tokens.enumerated() where token != "*" && !(token == "**" && index == tokens.count - 1) {
                guard (try? EventType(String(token))) != nil, !token.contains(".") else {
                    throw Problem(
                        .usage, "pattern \(Problem.quote(pattern)): expected tokens of a-z, 0-9, '_' and '-', '*', or '**' at the end",
                        hint: "such as 'deploy.**'")
                }
            }
        }

        /// `git`, or `supervisor@host2` for one of several.
        private static func check(service: String) throws {
            let parts = service.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            _ = try ServiceName(parts[0])
            if parts.count > 1 { _ = try HostName(parts[1]) }
        }

        private static func check(consumer name: String) throws {
            guard (1...200).contains(name.utf8.count), name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F }) else {
                throw Problem(.usage, "consumer \(Problem.quote(name)): expected 1 to 200 bytes without control characters")
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "List the bus's clients, what each may do, and when it was last heard.",
            discussion: "'slipway key show NAME' tells all of one. Without a running bus, SEEN is '-'.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let config = try suite.keys()
            let clients = try Keyring.clients(config)
            guard !clients.isEmpty else { throw Problem(.unavailable, "there are no keys in \(config.home.keys) yet", hint: "slipway up") }
            let presence = await Presence.ask(suite)
            if listing.json { return Terminal.out(try Coding.text(try clients.map { try presence.added(to: $0) })) }
            func joined(_ patterns: [String]) -> String {
                patterns.isEmpty ? "-" : Terminal.inert(patterns.joined(separator: ","), limit: 40)
            }
            Terminal.table(
                ["NAME", "PUBLISH", "SUBSCRIBE", "CALL", "SERVE", "LIMITS", "SEEN"],
                clients.map { client in
                    [
                        client.name, joined(client.publish), joined(client.subscribe), joined(client.call), joined(client.serve),
                        Self.limits(client), presence.shown(client.name),
                    ]
                })
        }

        private static func limits(_ client: ClientKey) -> String {
            var words: [String] = []
            if let subject = client.subject { words.append("about " + subject.joined(separator: ",")) }
            if let consumers = client.consumers { words.append("consumers " + consumers.joined(separator: ",")) }
            if client.ephemeral_only == true { words.append("ephemeral only") }
            if client.replicate == true { words.append("replica") }
            return words.isEmpty ? "-" : Terminal.inert(words.joined(separator: "; "), limit: 40)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Show what a key may do, and what its file needs to say of the bus.",
            discussion: "The secret half is never shown; only the key's file has it.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let config = try suite.keys()
            let client = try Keyring.client(name, config)
            let bus = try Keyring.load("bus", config)
            let presence = await Presence.ask(suite)
            if listing.json {
                guard case .object(var members) = try presence.added(to: client) else { return }
                members["endpoint"] = .string(config.busEndpoint)
                members["serverKey"] = .string(bus.publicKey)
                return Terminal.out(try Coding.text(JSON.object(members)))
            }
            func joined(_ patterns: [String]?) -> String {
                guard let patterns else { return "any" }
                return patterns.isEmpty ? "nothing" : patterns.joined(separator: " ")
            }
            Terminal.table(
                ["KEY", client.name],
                [
                    ["publish", joined(client.publish)], ["about", joined(client.subject)], ["subscribe", joined(client.subscribe)],
                    ["consumers", client.ephemeral_only == true ? "none (ephemeral only)" : joined(client.consumers)],
                    ["call", joined(client.call)], ["serve", joined(client.serve)], ["replicate", client.replicate == true ? "yes" : "no"],
                    ["seen", presence.shown(client.name)], ["publicKey", client.publicKey], ["serverKey", bus.publicKey],
                    ["endpoint", config.busEndpoint],
                ].map { [$0[0], Terminal.inert($0[1])] })
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "revoke", abstract: "End a key; its sessions end within two seconds.",
            discussion: "What its consumers have read is kept by the bus under the name: a new key of that name goes on there.")
        @Argument var name: String
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            try Keyring.revoke(name, try suite.keys())
            Terminal.out("key \(name) is revoked")
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "rotate", abstract: "Replace a key pair and keep its rights; the old pair ends within two seconds.",
            discussion:
                "A component's key is written where the component finds it. 'bus' gives the bus itself a new key, which every client must know: only while the suite is stopped."
        )
        @Argument var name: String
        @Option(help: ArgumentHelp("Where the key is written, mode 0600; not for components.", valueName: "file"))
        var out: String?
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let config = try suite.keys()
            guard let component = Component(rawValue: name) else {
                guard let out else {
                    throw Problem(.usage, "--out FILE is missing: where shall the new key go?", hint: "--out \(name).json")
                }
                _ = try Keyring.client(name, config)
                let file = try KeyFile(out, like: name)
                try file.write(try Keyring.rotate(name, config))
                return Terminal.out("the new key of \(name) is in \(out); the old one ends now")
            }
            guard out == nil else {
                throw Problem(.usage, "\(name) is a component: its key stays in \(config.home.keys)", hint: "leave --out out")
            }
            guard component == .bus else {
                _ = try Keyring.rotate(name, config)
                let isRunning = KeeperRecord.load(config.home)?.isAlive == true
                return Terminal.out(
                    "\(name) has a new key" + (isRunning ? "; it is refused until it is started again: slipway down && slipway up" : ""))
            }
            guard KeeperRecord.load(config.home)?.isAlive != true else {
                throw Problem(
                    .conflict, "the suite is running: its clients know the bus by the key it has",
                    hint: "slipway down, slipway key rotate bus, slipway up")
            }
            let key = try Keyring.rotateBus(config)
            Terminal.out("the bus has a new key. In the key file of every other client 'serverKey' must be: \(key)")
        }
    }
}

/// A file for a key, that was not there before.
private struct KeyFile {
    let path: String

    /// Throws `Problem` (`usage`, `conflict`) when it could not be written, before anything is changed.
    init(_ out: String, like name: String) throws {
        guard out != "-" else {
            throw Problem(.usage, "--out -: a secret key is not written to a terminal", hint: "name a file, such as \(name).json")
        }
        path = out.hasPrefix("/") ? out : FileManager.default.currentDirectoryPath + "/" + out
        guard access(path, F_OK) != 0 else { throw Problem(.conflict, "\(out) exists and was left alone", hint: "give another --out") }
        guard access((path as NSString).deletingLastPathComponent, W_OK) == 0 else {
            throw Problem(.usage, "cannot write \(out)", hint: "give --out in a directory that exists and that you may write to")
        }
    }

    func write(_ key: ComponentKey) throws { try Files.write(try Coding.encode(key) + Data("\n".utf8), to: path, mode: 0o600) }
}

/// Who is on the bus, as the bus says; nothing when it cannot be asked.
private struct Presence {
    private let rows: [String: JSON]

    static func ask(_ suite: SuiteOptions) async -> Presence {
        let rows = try? await suite.bus().json(.get, "/v1/permissions", timeout: 3).items
        return Presence(
            rows: Dictionary(
                (rows ?? []).compactMap { row in row["name"]?.string.map { ($0, row) } }, uniquingKeysWith: { first, _ in first }))
    }

    /// `now`, how long ago, or a dash.
    func shown(_ name: String) -> String {
        guard let row = rows[name] else { return "-" }
        return row["sessions"]?.int ?? 0 > 0 ? "now" : row.age("seen")
    }

    func added(to client: ClientKey) throws -> JSON {
        guard case .object(var members) = try Coding.decode(JSON.self, from: try Coding.encode(client)) else { return .null }
        members["sessions"] = rows[client.name]?["sessions"]
        members["seen"] = rows[client.name]?["seen"]
        return .object(members)
    }
}
