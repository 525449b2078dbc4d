import ArgumentParser
import Contracts
import Foundation
import Logging
import Yams

/// The flags every component takes.
public struct ComponentOptions: ParsableArguments, Sendable {
    @Option(help: "The suite's home directory. (default: $SLIPWAY_HOME, then /var/lib/slipway for root, ~/.slipway otherwise)")
    public var home: String?
    @Option(help: "The first port; each component adds its own offset. (default: 7700)")
    public var portBase: Int?
    @Option(help: "trace, debug, info, notice, warning, error or critical. (default: info)")
    public var logLevel: String?
    public init() {}
    public init(home: String?, portBase: Int? = nil, logLevel: String? = nil) {
        self.init()
        self.home = home
        self.portBase = portBase
        self.logLevel = logLevel
    }
}

/// The directory that holds everything the suite keeps.
public struct Home: Sendable, Hashable {
    public let path: String
    public init(_ path: String) { self.path = path }
    /// The data of one component, which nobody else opens.
    public func directory(_ component: Component) -> String { "\(path)/\(component.rawValue)" }
    public var keys: String { "\(path)/keys" }
    public var logs: String { "\(path)/logs" }
    public var run: String { "\(path)/run" }
    public var suiteFile: String { "\(path)/suite.yml" }
}

/// Who may run code that was pushed when the suite does not run as root.
public enum Trust: String, Sendable, CaseIterable {
    /// Nobody: pushed code is refused.
    case none
    /// Everybody who can push is the user who runs the suite.
    case singleUser = "single-user"
}

/// The suite's settings. Precedence: flag, environment, `HOME/suite.yml`, default. No other place reads a setting.
public struct SuiteConfig: Sendable {
    public var home: Home
    /// Default 7700.
    public var portBase: Int
    /// The address that listeners bind. Default 127.0.0.1; another one needs `insecure: true` as long as there is no TLS.
    public var listen: String
    /// This machine's name on the bus. Default: the first label of the system's host name.
    public var host: HostName
    public var trust: Trust
    public var logLevel: Logger.Level
    /// Ports set on their own, by component name or `bus-zmq`, `dns`, `ingress`.
    public var ports: [String: Int]
    public var bus: BusSettings

    public func port(_ component: Component) -> Int { ports[component.rawValue] ?? portBase + component.httpOffset }
    /// EB/1, the bus's ZeroMQ socket.
    public var busPort: Int { ports["bus-zmq"] ?? portBase + 10 }
    public var dnsPort: Int { ports["dns"] ?? portBase + 53 }
    public var ingressPort: Int { ports["ingress"] ?? portBase + 80 }
    /// Where a program on this machine reaches a listener.
    public var reach: String { listen == "0.0.0.0" || listen == "::" ? "127.0.0.1" : listen }
    public var busEndpoint: String { bus.endpoints.first ?? "tcp://\(reach):\(busPort)" }

    /// Reads the file and the environment. Throws `Problem` (`configuration`) that names the key, the line and the mend.
    public static func load(_ options: ComponentOptions, environment: [String: String]) throws -> SuiteConfig {
        let home = Home(try homePath(options.home ?? environment["SLIPWAY_HOME"], environment))
        let file = try SuiteFile.read(home.suiteFile)
        func integer(_ flag: Int?, _ variable: String, _ key: String, _ fallback: Int) throws -> Int {
            // Also when it does not count: what is wrong in the file is told now, not with the next command.
            let written = try file.integer(key)
            if let flag { return flag }
            if let text = environment[variable] {
                guard let value = Int(text) else {
                    throw Problem(
                        .configuration, "\(variable)=\(Problem.quote(text)): expected a whole number",
                        hint: "for example \(variable)=\(fallback)")
                }
                return value
            }
            return written ?? fallback
        }
        func text(_ flag: String?, _ variable: String, _ key: String, _ fallback: String) throws -> String {
            let written = try file.text(key)
            return flag ?? environment[variable] ?? written ?? fallback
        }
        let portBase = try integer(options.portBase, "SLIPWAY_PORT_BASE", "port_base", 7700)
        guard (1...65_092).contains(portBase) else {
            throw Problem(
                .configuration, "port base \(portBase): expected 1 to 65092, so that base+443 is still a port", hint: "the default is 7700")
        }
        let logLevel = try Self.level(try text(options.logLevel, "SLIPWAY_LOG_LEVEL", "log_level", "info"))
        let trustText = try text(nil, "SLIPWAY_TRUST", "trust", Trust.none.rawValue)
        guard let trust = Trust(rawValue: trustText) else {
            throw Problem(
                .configuration, "trust \(Problem.quote(trustText)): there is no such setting",
                hint: "'trust:' in \(home.suiteFile), or SLIPWAY_TRUST, is 'none' or 'single-user'")
        }
        let listen = try text(nil, "SLIPWAY_LISTEN", "listen", "127.0.0.1")
        let insecure = try environment["SLIPWAY_INSECURE"].map { $0 == "true" } ?? file.boolean("insecure") ?? false
        guard listen.hasPrefix("127.") || listen == "::1" || insecure else {
            throw Problem(
                .configuration, "listen: \(listen) would serve tokens without TLS",
                hint: "keep 127.0.0.1 behind a TLS proxy, or add 'insecure: true' to \(home.suiteFile)")
        }
        let host = try HostName(try text(nil, "SLIPWAY_HOST", "host", systemHostName()))
        return SuiteConfig(
            home: home, portBase: portBase, listen: listen, host: host, trust: trust, logLevel: logLevel, ports: try file.ports(),
            bus: try BusSettings(file))
    }

    private static func level(_ text: String) throws -> Logger.Level {
        guard let level = Logger.Level(rawValue: text) else {
            throw Problem(
                .configuration, "log level \(Problem.quote(text)): there is no such level",
                hint: "one of \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return level
    }

    /// What the file says of the log level now; nil: nothing. Throws `Problem` (`configuration`) when the file is wrong.
    static func writtenLogLevel(_ home: Home) throws -> Logger.Level? { try SuiteFile.read(home.suiteFile).text("log_level").map(level) }

    private static func homePath(_ given: String?, _ environment: [String: String]) throws -> String {
        if let given {
            guard !given.isEmpty else { throw Problem(.configuration, "the home directory is empty text", hint: "give --home DIR") }
            let absolute = given.hasPrefix("/") ? given : FileManager.default.currentDirectoryPath + "/" + given
            return URL(fileURLWithPath: absolute).standardizedFileURL.path
        }
        if geteuid() == 0 { return "/var/lib/slipway" }
        guard let user = environment["HOME"], !user.isEmpty else {
            throw Problem(.configuration, "neither --home, SLIPWAY_HOME nor HOME is set", hint: "give --home DIR")
        }
        return user + "/.slipway"
    }

    /// The first label of the system's host name, made a label; `host1` when nothing of it is left.
    static func systemHostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "host1" }
        let name = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let label = name.lowercased().prefix { $0 != "." }.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
        let trimmed = String(label.drop { $0 == "-" }.prefix(40))
        return (try? HostName(trimmed)) == nil ? "host1" : trimmed
    }
}

/// `HOME/suite.yml`, read with every key checked.
struct SuiteFile {
    static let keys = ["port_base", "listen", "host", "trust", "log_level", "insecure", "ports", "bus"]
    static let portKeys = Component.allCases.map(\.rawValue) + ["bus-zmq", "dns", "ingress"]
    let path: String
    private let values: [String: Node]

    static func read(_ path: String) throws -> SuiteFile {
        guard FileManager.default.fileExists(atPath: path) else { return SuiteFile(path: path, values: [:]) }
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Problem(.configuration, "cannot read \(path)", hint: "see who may read it: ls -l \(path)")
        }
        guard data.count <= 1 << 16, let text = String(data: data, encoding: .utf8) else {
            throw Problem(.configuration, "\(path) is larger than 64 KiB or not UTF-8")
        }
        let node: Node?
        do {
            node = try Yams.compose(yaml: text)
        } catch {
            throw Problem(.configuration, "\(path) is not YAML: \(error)".replacing("\n", with: " "), hint: "mend the line it names")
        }
        guard let node else { return SuiteFile(path: path, values: [:]) }
        return SuiteFile(path: path, values: try members(of: node, allowed: keys, path: path, within: ""))
    }

    private static func members(of node: Node, allowed: [String], path: String, within: String) throws -> [String: Node] {
        guard let mapping = node.mapping else {
            throw Problem(.configuration, "\(path):\(line(node)): expected 'key: value' lines\(within)")
        }
        var result: [String: Node] = [:]
        for (key, value) in mapping {
            guard let name = key.string, allowed.contains(name) else {
                let shown = key.string ?? "?"
                let near =
                    Nearest.to(shown, among: allowed).map { "did you mean '\($0)'?" } ?? "the keys are \(allowed.joined(separator: ", "))"
                throw Problem(.configuration, "\(path):\(line(key)): unknown key \(Problem.quote(shown))\(within)", hint: near)
            }
            guard result[name] == nil else { throw Problem(.configuration, "\(path):\(line(key)): '\(name)' stands there twice") }
            result[name] = value
        }
        return result
    }

    private static func line(_ node: Node) -> Int { node.mark?.line ?? 1 }

    func text(_ key: String) throws -> String? {
        guard let node = values[key] else { return nil }
        guard let text = node.string else { throw Problem(.configuration, "\(path):\(Self.line(node)): '\(key)' must be text") }
        return text
    }
    func integer(_ key: String) throws -> Int? { try values[key].map { try integer($0, key) } }
    private func integer(_ node: Node, _ key: String) throws -> Int {
        guard let value = node.int else { throw Problem(.configuration, "\(path):\(Self.line(node)): '\(key)' must be a whole number") }
        return value
    }
    func boolean(_ key: String) throws -> Bool? {
        guard let node = values[key] else { return nil }
        guard let value = node.bool else { throw Problem(.configuration, "\(path):\(Self.line(node)): '\(key)' must be true or false") }
        return value
    }
    /// What stands under a key, with those keys; nothing when the key is not there.
    func section(_ key: String, keys: [String]) throws -> SuiteFile {
        guard let node = values[key] else { return SuiteFile(path: path, values: [:]) }
        return SuiteFile(path: path, values: try Self.members(of: node, allowed: keys, path: path, within: " under '\(key)'"))
    }
    /// Where a key's value stands, for messages.
    func place(_ key: String) -> String { "\(path):\(values[key].map(Self.line) ?? 1)" }
    /// The value as it is written: a number counts as text.
    func written(_ key: String) throws -> String? {
        guard let node = values[key] else { return nil }
        guard let text = node.scalar?.string else { throw Problem(.configuration, "\(place(key)): '\(key)' must be one value") }
        return text
    }
    /// One text, or a list of them.
    func texts(_ key: String) throws -> [String]? {
        guard let node = values[key] else { return nil }
        if let text = node.string { return [text] }
        guard let list = node.sequence else { throw Problem(.configuration, "\(place(key)): '\(key)' must be text or a list of texts") }
        return try list.map { item in
            guard let text = item.string else { throw Problem(.configuration, "\(place(key)): '\(key)' must be a list of texts") }
            return text
        }
    }
    func ports() throws -> [String: Int] {
        guard let node = values["ports"] else { return [:] }
        var result: [String: Int] = [:]
        for (name, value) in try Self.members(of: node, allowed: Self.portKeys, path: path, within: " under 'ports'") {
            let port = try integer(value, name)
            guard (1...65_535).contains(port) else {
                throw Problem(.configuration, "\(path):\(Self.line(value)): port \(port): expected 1 to 65535")
            }
            result[name] = port
        }
        return result
    }
}

/// The known word nearest to one that is not known.
public enum Nearest {
    /// Nil when none is near enough to be what was meant.
    public static func to(_ word: String, among known: [String]) -> String? {
        let best = known.map { ($0, distance(Array(word.utf8.prefix(64)), Array($0.utf8))) }.min { ($0.1, $0.0) < ($1.1, $1.0) }
        guard let best, best.1 <= max(1, min(3, word.utf8.count / 2)) else { return nil }
        return best.0
    }

    /// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
    static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        guard !a.isEmpty, !b.isEmpty else { return max(a.count, b.count) }
        var rows = [Array(0...b.count)]
        for i in 1...a.count {
            var row = [i]
            for j in 1...b.count {
                var best = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { best = min(best, rows[i - 2][j - 2] + 1) }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[a.count][b.count]
    }
}
