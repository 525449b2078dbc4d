import ArgumentParser
import Contracts
import Foundation
import Kit

/// Which suite is meant.
struct SuiteOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The suite's home directory.", valueName: "dir"))
    var home: String?
    @Option(help: ArgumentHelp("The suite's first port.", valueName: "n"))
    var portBase: Int?

    /// The settings of the suite in this home. A running one says itself which ports it was started with.
    func config(logLevel: String? = nil) throws -> SuiteConfig {
        let environment = ProcessInfo.processInfo.environment
        let config = try SuiteConfig.load(ComponentOptions(home: home, portBase: portBase, logLevel: logLevel), environment: environment)
        guard portBase == nil, environment["SLIPWAY_PORT_BASE"] == nil, let record = KeeperRecord.load(config.home),
            record.isAlive, record.portBase != config.portBase
        else { return config }
        return try SuiteConfig.load(ComponentOptions(home: home, portBase: record.portBase, logLevel: logLevel), environment: environment)
    }

    /// The way to the api: where this home is logged in to, else the suite of this home. Throws `Problem` when neither is there.
    func client() throws -> Client {
        let config = try config()
        if let session = LoginFile.load(config.home) {
            return Client(base: session.url, token: session.token, git: session.git, isLocal: false, home: config.home)
        }
        let file = Keyring.operatorTokenFile(config)
        guard let data = FileManager.default.contents(atPath: file) else {
            if access(file, F_OK) == 0 {
                throw Problem(
                    .forbidden, "you may not read \(file)", hint: "run this as the user that runs the suite, or: slipway login URL")
            }
            throw Problem(
                .unavailable, "there is no suite in \(config.home.path)",
                hint: "slipway up, or name another with --home or slipway login URL")
        }
        let token = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        return Client(
            base: "http://\(config.reach):\(config.port(.api))", token: token, git: "http://\(config.reach):\(config.port(.git))",
            isLocal: true,
            home: config.home)
    }

    /// The way to the bus itself, which also answers while the api is away. Throws `Problem` when this home is logged in to another
    /// machine's suite.
    func bus() throws -> Client {
        let config = try config()
        if let session = LoginFile.load(config.home) {
            throw Problem(
                .unsupported, "this home is logged in to \(session.url); a bus is looked after on its own machine",
                hint: "run this there, or name a suite of this machine with --home")
        }
        var client = try client()
        client.base = "http://\(config.reach):\(config.port(.bus))"
        return client
    }

    /// The settings of a suite whose keys this user may read. Throws `Problem` otherwise.
    func keys() throws -> SuiteConfig {
        let config = try config()
        guard access(config.home.keys, R_OK) == 0 else {
            throw Problem(
                .unavailable, "there is no suite in \(config.home.path) whose keys you may read",
                hint: "slipway up; keys are made on the suite's own machine")
        }
        return config
    }
}

/// `HOME/login.json`: the suite elsewhere that this home talks to. Mode 0600.
struct LoginFile: Codable {
    var url: String
    var token: String
    /// Where its git component answers.
    var git: String

    static func path(_ home: Home) -> String { "\(home.path)/login.json" }
    static func load(_ home: Home) -> LoginFile? {
        FileManager.default.contents(atPath: path(home)).flatMap { try? Coding.decode(LoginFile.self, from: $0) }
    }
    func save(_ home: Home) throws {
        if access(home.path, F_OK) != 0 { try Files.makeDirectory(home.path, mode: 0o711) }
        try Files.write(try Coding.encode(self), to: Self.path(home), mode: 0o600)
    }
}

/// Options of every listing.
struct ListingOptions: ParsableArguments {
    @Flag(help: "Print JSON, which is stable, instead of a table.")
    var json = false
}
