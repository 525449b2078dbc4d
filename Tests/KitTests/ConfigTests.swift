import Contracts
import Foundation
import Testing

@testable import Kit

@Suite("Settings") struct ConfigTests {
    static func load(_ yaml: String?, options: ComponentOptions? = nil, environment: [String: String] = [:]) throws -> SuiteConfig {
        let home = NSTemporaryDirectory() + "slipway-config-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        if let yaml { try yaml.write(toFile: home + "/suite.yml", atomically: true, encoding: .utf8) }
        return try SuiteConfig.load(
            ComponentOptions(home: home, portBase: options?.portBase, logLevel: options?.logLevel), environment: environment)
    }

    @Test("flag beats environment beats file beats default") func precedence() throws {
        #expect(try Self.load(nil).portBase == 7700)
        #expect(try Self.load("port_base: 8000\n").portBase == 8000)
        #expect(try Self.load("port_base: 8000\n", environment: ["SLIPWAY_PORT_BASE": "8100"]).portBase == 8100)
        let flags = ComponentOptions(home: nil, portBase: 8200)
        #expect(try Self.load("port_base: 8000\n", options: flags, environment: ["SLIPWAY_PORT_BASE": "8100"]).portBase == 8200)
        let config = try Self.load("ports:\n  dns: 5353\n")
        #expect(config.dnsPort == 5353 && config.port(.git) == 7704 && config.busPort == 7710 && config.ingressPort == 7780)
    }

    @Test("where the bus is, and who keeps its log, is read from 'bus:'") func hosts() throws {
        let none = try Self.load("port_base: 8000\n")
        #expect(none.bus == BusSettings() && none.busEndpoint == "tcp://127.0.0.1:8010")
        let given = try Self.load(
            """
            bus:
              endpoints: ['tcp://10.0.0.1:7710', 'tcp://[::1]:7710']
              sync_replica: required
              replica_of: /k.json
              copy_to: /c
            """)
        #expect(given.busEndpoint == "tcp://10.0.0.1:7710" && given.bus.endpoints.count == 2 && given.bus.syncReplica)
        #expect(given.bus.replicaOf == "/k.json" && given.bus.copyTo == "/c")
        #expect(try Self.load("bus: {endpoints: 'tcp://10.0.0.9:7710'}\n").bus.endpoints == ["tcp://10.0.0.9:7710"])
    }

    @Test(
        "a mistake is named with file, line and mend",
        arguments: [
            ("port_bas: 1\n", "suite.yml:1: unknown key 'port_bas'", "did you mean 'port_base'?"),
            ("listen: 127.0.0.1\nport_base: soon\n", "suite.yml:2: 'port_base' must be a whole number", nil),
            ("ports:\n  dsn: 5\n", "suite.yml:2: unknown key 'dsn' under 'ports'", "did you mean 'dns'?"),
            ("ports: {dns: 70000}\n", "port 70000", nil), ("- a\n", "expected 'key: value' lines", nil),
            ("listen: 0.0.0.0\n", "without TLS", "insecure"),
            ("trust: everybody\n", "trust 'everybody'", "single-user"), ("a: [\n", "is not YAML", nil),
            ("port_base: 99999\n", "port base 99999", nil),
            ("bus: {endpoints: [10.0.0.1]}\n", "suite.yml:1: endpoints: '10.0.0.1'", "tcp://ADDRESS:PORT"),
            ("bus: {endpoints: {a: b}}\n", "'endpoints' must be text or a list of texts", nil),
            ("bus: {sync_replica: yes}\n", "sync_replica 'yes'", "'required' or 'off'"),
            ("bus: {copy_to: copies}\n", "copy_to: 'copies'", "from the root"),
            ("bus:\n  replica: x\n", "suite.yml:2: unknown key 'replica' under 'bus'", "did you mean 'replica_of'?"),
            ("log_level: loud\n", "log level 'loud'", "one of"),
            ("bus: {max_age: 90}\n", "suite.yml:1: max_age '90'", "90d"), ("bus: {max_age: 10s}\n", "max_age '10s'", "none"),
            ("bus: {max_bytes: 1KiB}\n", "max_bytes '1KiB'", "20GiB"), ("bus: {max_bytes: -1}\n", "max_bytes '-1'", nil),
            ("bus:\n  segment_bytes: 2GiB\n", "suite.yml:2: segment_bytes '2GiB'", "64MiB"),
            ("bus: {segment_bytes: none}\n", "segment_bytes 'none'", nil), ("bus: {max_size: 1}\n", "under 'bus'", nil),
        ] as [(String, String, String?)])
    func mistakes(_ yaml: String, _ message: String, _ hint: String?) {
        #expect { try Self.load(yaml) } throws: { error in
            guard let problem = error as? Problem else { return false }
            return problem.code == .configuration && problem.message.contains(message)
                && (hint == nil || problem.hint?.contains(hint ?? "") == true)
        }
    }

    @Test("how much of the log is kept") func bus() throws {
        let settings = try Self.load("bus: {max_age: 90d, max_bytes: 20GiB, segment_bytes: 16MiB}\n").bus
        #expect(settings.maxAge == .limit(90 * 86_400_000) && settings.maxBytes == .limit(20 << 30) && settings.segmentBytes == 16 << 20)
        let unlimited = try Self.load("bus: {max_age: none, max_bytes: none}\n").bus
        #expect(unlimited.maxAge == .unlimited && unlimited.maxBytes == .unlimited && unlimited.segmentBytes == nil)
        #expect(try Self.load("bus: {max_bytes: 16777216}\n").bus.maxBytes == .limit(16 << 20))
        #expect(try Self.load(nil).bus == BusSettings())
    }

    @Test("the nearest known word is one slip away") func nearest() {
        #expect(Nearest.to("servcies", among: ["services", "routes"]) == "services")
        #expect(Nearest.to("xyz", among: ["services", "routes"]) == nil)
    }

    @Test("tokens check themselves") func tokens() {
        let token = Token.make()
        #expect(Token.isWellFormed(token) && token != Token.make())
        #expect(!Token.isWellFormed(String(token.dropLast()) + (token.last == "a" ? "b" : "a")))
        #expect(!Token.isWellFormed("slp_x") && !Token.isWellFormed(""))
        #expect(Token.hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    @Test("keys that others can read are refused, and made ones are private") func keys() throws {
        let home = NSTemporaryDirectory() + "slipway-keys-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let config = try SuiteConfig.load(ComponentOptions(home: home), environment: [:])
        let token = try #require(try Keyring.prepare(config))
        #expect(try Keyring.prepare(config) == nil, "a second start makes no second token")
        #expect(try Keyring.robots(config)[Token.hash(token)] == "admin")
        let path = "\(home)/keys/git.json"
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
        let before = try Keyring.load("git", config)
        let bus = try Keyring.load("bus", config)
        #expect(before.publicKey.utf8.count == 40 && before.serverKey == bus.publicKey)
        chmod(path, 0o644)
        #expect { try Keyring.load("git", config) } throws: { ($0 as? Problem)?.hint == "chmod 600 \(path)" }
    }

    @Test("an operator's token that a dying start left behind works after the next one") func halfMade() throws {
        let home = NSTemporaryDirectory() + "slipway-half-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let config = try SuiteConfig.load(ComponentOptions(home: home), environment: [:])
        let token = Token.make()
        try FileManager.default.createDirectory(atPath: config.home.keys, withIntermediateDirectories: true)
        try Files.write(Data((token + "\n").utf8), to: Keyring.operatorTokenFile(config), mode: 0o600)
        #expect(try Keyring.prepare(config) == nil)
        #expect(try Keyring.robots(config)[Token.hash(token)] == "admin")
    }

    @Test("fresh ids are UUIDs of version 7 that sort by time, derived ones of version 8") func ids() {
        let early = EventID.fresh(Timestamp(milliseconds: 1000)).text
        let late = EventID.fresh(Timestamp(milliseconds: 2000)).text
        #expect(early < late && Array(early)[14] == "7")
        let derived = EventID.derived(from: EventID.fresh(), component: "git", ordinal: 1).text
        #expect(Array(derived)[14] == "8")
    }
}
