import Contracts

/// The zone `slipway.`: everything DNS answers from. A value that is made anew when the catalogue changes.
///
///     SERVICE.APP.ENV.slipway               A, AAAA: the healthy instances; SRV: with their first ports
///     _PORT._tcp.SERVICE.APP.ENV.slipway    SRV: with the port of that name
///     N.SERVICE.APP.ENV.slipway             A, AAAA of instance N
struct Zone: Sendable {
    /// Records of one name, their data already encoded.
    struct Node: Sendable {
        var a: [[UInt8]] = []
        var aaaa: [[UInt8]] = []
        var srv: [Target] = []
        func addresses(_ type: UInt16) -> [[UInt8]] { type == DNS.Kind.a ? a : type == DNS.Kind.aaaa ? aaaa : [] }
    }
    /// An SRV record and the addresses of its target.
    struct Target: Sendable {
        var data: [UInt8]
        var name: DNSName
        var address: Address
    }

    static let apex = DNSName(["slipway"])
    /// Catalogues change within a second, so nothing may be kept: neither what is there (0) nor what is not (1).
    static let ttl: UInt32 = 0
    static let negativeTTL: UInt32 = 1

    let serial: UInt32
    /// The address this server is asked at, when it has one of its own.
    let nameServer: Address?
    let soa: [UInt8]
    let ns: [UInt8]
    /// By lower-case name; also the names that only stand above others.
    private(set) var nodes: [DNSName: Node] = [:]

    init(_ state: CatalogueState, nameServer: Address?) {
        serial = UInt32(truncatingIfNeeded: state.serial)
        self.nameServer = nameServer
        let server = DNSName(["ns", "slipway"])
        ns = server.wire
        soa =
            server.wire + DNSName(["hostmaster", "slipway"]).wire + Self.u32(serial) + Self.u32(3600) + Self.u32(600)
            + Self.u32(86_400) + Self.u32(Self.negativeTTL)
        nodes[Self.apex] = Node()
        nodes[server, default: Node()] = Node()
        if let nameServer { nodes[server, default: Node()].add(nameServer) }
        // Instances on one host share an address, which is one record of their service.
        var seen: [DNSName: Set<Address>] = [:]
        for instance in state.instances.values where instance.healthy { add(instance, &seen) }
    }

    private mutating func add(_ instance: Instance, _ seen: inout [DNSName: Set<Address>]) {
        guard let address = Address(instance.address) else { return }
        let id = instance.id
        let service = [id.service.text, id.app.text, id.environment.text, "slipway"]
        let own = DNSName([String(id.number)] + service)
        let shared = DNSName(service)
        update(own) { $0.add(address) }
        if seen[shared, default: []].insert(address).inserted { update(shared) { $0.add(address) } }
        func target(_ port: Int) -> Target {
            // Priority 0, weight 1: all are alike.
            Target(data: Self.u16(0) + Self.u16(1) + Self.u16(UInt16(truncatingIfNeeded: port)) + own.wire, name: own, address: address)
        }
        if let port = instance.mainPort { update(shared) { $0.srv.append(target(port)) } }
        for (name, port) in instance.ports where name.utf8.count <= 62 {
            update(DNSName(["_" + name.lowercased(), "_tcp"] + service)) { $0.srv.append(target(port)) }
        }
    }

    private mutating func update(_ name: DNSName, _ change: (inout Node) -> Void) {
        change(&nodes[name, default: Node()])
        // Names above exist too, without records (RFC 8020: what stands below a name that is not there is not there either).
        var above = name.parent
        while let name = above, name != Self.apex, nodes[name] == nil, !name.isRoot {
            nodes[name] = Node()
            above = name.parent
        }
    }

    private static func u16(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
    private static func u32(_ value: UInt32) -> [UInt8] { u16(UInt16(value >> 16)) + u16(UInt16(value & 0xFFFF)) }
}

extension Zone.Node {
    mutating func add(_ address: Address) {
        if address.isV6 { aaaa.append(address.bytes) } else { a.append(address.bytes) }
    }
}
