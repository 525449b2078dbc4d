import Contracts
import Testing

@testable import DiscoveryService

@Suite("ingress plan") struct IngressPlanTests {
    private let config = HAProxyConfig(listen: "127.0.0.1", port: 7780, socket: "/home/run/haproxy.sock", account: nil)

    private func server(_ port: Int, maint: Bool = false, drain: Bool = false) -> HAProxyReport.Server {
        .init(address: "127.0.0.1", port: port, inMaintenance: maint, isDraining: drain)
    }
    private func wanted(_ port: Int, _ mode: IngressTable.Server.Mode) -> IngressTable.Server {
        .init(address: "127.0.0.1", port: port, mode: mode, leaving: nil)
    }

    @Test("a switch fills the new place, then leads the name, then drains the old place") func order() {
        let table = IngressTable(
            version: 1, hosts: ["shop.localhost": 0],
            backends: [0: .init(route: "shop/production/web", servers: [0: wanted(5001, .drain), 1: wanted(5002, .ready)])])
        let plan = IngressPlan(
            table, backends: [0], servers: [0: [0: server(5001), 1: server(1, maint: true)]], map: ["old.localhost": "pool3"])
        #expect(
            plan.commands == [
                "set server pool0/s1 addr 127.0.0.1 port 5002", "set server pool0/s1 state ready", "add map hosts.map shop.localhost pool0",
                "del map hosts.map old.localhost", "set server pool0/s0 state drain",
            ])
    }

    @Test("a live place is never given another address without maintenance") func live() {
        let table = IngressTable(version: 1, hosts: [:], backends: [0: .init(route: "r", servers: [0: wanted(5002, .ready)])])
        let plan = IngressPlan(table, backends: [0], servers: [0: [0: server(5001)]], map: nil)
        #expect(
            plan.commands == [
                "set server pool0/s0 state maint", "set server pool0/s0 addr 127.0.0.1 port 5002", "set server pool0/s0 state ready",
            ])
    }

    @Test("what is right already is left alone") func same() {
        let table = IngressTable(
            version: 1, hosts: ["a.b": 0],
            backends: [0: .init(route: "r", servers: [0: wanted(5001, .ready), 1: wanted(5002, .drain), 2: wanted(5003, .out)])])
        let servers = [0: [0: server(5001), 1: server(5002, drain: true), 2: server(5003, maint: true), 3: server(1, maint: true)]]
        #expect(IngressPlan(table, backends: [0], servers: servers, map: ["a.b": "pool0"]).commands.isEmpty)
    }

    @Test("the pool doubles when it must, and only then is the structure another one") func pool() throws {
        let small = HAProxyConfig.Pool(for: IngressTable())
        #expect(small.backends == 32 && small.slots == 16)
        let table = IngressTable(version: 1, hosts: [:], backends: [40: .init(route: "r", servers: [17: wanted(5001, .ready)])])
        let large = HAProxyConfig.Pool(for: table)
        #expect(large.backends == 64 && large.slots == 32)
        #expect(config.fingerprint(small) != config.fingerprint(large))
        let text = try config.text(table, pool: large)
        #expect(text.contains("\n    server s17 127.0.0.1:5001\n") && text.contains(config.fingerprint(large)))
    }

    @Test("a home that HAProxy could not take is refused with what to do") func home() {
        for socket in ["/" + String(repeating: "x", count: 100), "/a'b/haproxy.sock"] {
            var config = config
            config.socket = socket
            #expect(throws: Problem.self) { try config.text(IngressTable(), pool: .init(for: IngressTable())) }
        }
    }

    @Test("HAProxy's reports are read by their column names") func reports() throws {
        let state = """
            1
            # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_fqdn srv_port
            4 pool0 1 s0 127.0.0.1 2 4 1 - 5001
            4 pool0 2 s1 127.0.0.1 0 5 1 - 1
            4 pool0 3 s2 ::1 2 12 1 - 5003
            9 other 1 s0 127.0.0.1 2 0 1 - 80
            """
        let servers = try HAProxyReport.servers(state)
        #expect(servers.keys.sorted() == [0])
        #expect(servers[0]?[0] == server(5001))
        #expect(servers[0]?[1] == server(1, maint: true))
        #expect(servers[0]?[2] == .init(address: "::1", port: 5003, inMaintenance: false, isDraining: true))
        #expect(
            HAProxyReport.map("0x55 a.localhost pool0\n0x56 b.localhost pool1\n\n") == ["a.localhost": "pool0", "b.localhost": "pool1"])
        #expect(throws: Problem.self) { try HAProxyReport.info("nonsense") }
    }
}
