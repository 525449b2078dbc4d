import ArgumentParser
import Contracts
import Foundation
import Kit

/// `slipway key …`: keys for programs of your own that join the bus over ZeroMQ.
struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Create and list keys of the bus's clients.", subcommands: [Create.self, List.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Make a CURVE key for a program that joins the bus.",
            discussion: "What is not granted is refused. Patterns: '*' is one token, '**' at the end one or more, such as 'deploy.**'.")
        @Argument(help: "The program's name.")
        var name: String
        @Option(help: ArgumentHelp("Types that it may publish.", valueName: "pattern"))
        var publish: [String] = []
        @Option(help: ArgumentHelp("Types that it may read.", valueName: "pattern"))
        var subscribe: [String] = []
        @Option(help: ArgumentHelp("Queries that it may ask, such as 'git.*'.", valueName: "pattern"))
        var call: [String] = []
        @Option(help: ArgumentHelp("Services that it may serve.", valueName: "name"))
        var serve: [String] = []
        @Option(help: ArgumentHelp("Where the key is written, mode 0600.", valueName: "file"))
        var out: String
        @OptionGroup var suite: SuiteOptions

        mutating func run() async throws {
            let name = try TokenName(name).text
            for pattern in publish + subscribe + call { try Self.check(pattern) }
            for service in serve { _ = try ServiceName(service) }
            let config = try suite.config()
            guard access(config.home.keys, R_OK) == 0 else {
                throw Problem(
                    .unavailable, "there is no suite in \(config.home.path) whose keys you may read",
                    hint: "slipway up; keys are made on the suite's own machine")
            }
            guard out != "-" else {
                throw Problem(.usage, "--out -: a secret key is not written to a terminal", hint: "name a file, such as \(name).json")
            }
            let path = out.hasPrefix("/") ? out : FileManager.default.currentDirectoryPath + "/" + out
            guard access(path, F_OK) != 0 else { throw Problem(.conflict, "\(out) exists and was left alone", hint: "give another --out") }
            guard access((path as NSString).deletingLastPathComponent, W_OK) == 0 else {
                throw Problem(.usage, "cannot write \(out)", hint: "give --out in a directory that exists and that you may write to")
            }
            let key = try Keyring.create(name, publish: publish, subscribe: subscribe, call: call, serve: serve, config)
            try Files.write(try Coding.encode(key) + Data("\n".utf8), to: path, mode: 0o600)
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
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List the bus's clients and what each may do.")
        @OptionGroup var suite: SuiteOptions
        @OptionGroup var listing: ListingOptions

        mutating func run() async throws {
            let config = try suite.config()
            let clients = try Keyring.clients(config)
            if listing.json { return Terminal.out(try Coding.text(clients)) }
            guard !clients.isEmpty else {
                throw Problem(.unavailable, "there is no suite in \(config.home.path) whose keys you may read", hint: "slipway up")
            }
            func joined(_ patterns: [String]) -> String { patterns.isEmpty ? "-" : patterns.joined(separator: ",") }
            Terminal.table(
                ["NAME", "PUBLISH", "SUBSCRIBE", "CALL", "SERVE"],
                clients.map { [$0.name, joined($0.publish), joined($0.subscribe), joined($0.call), joined($0.serve)] })
        }
    }
}
