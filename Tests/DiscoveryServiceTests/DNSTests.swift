import Contracts
import Foundation
import Testing

@testable import DiscoveryService

/// A query made byte by byte, so that wrong ones can be made too.
struct RawQuery {
    var id: UInt16 = 0x1234
    var flags: UInt16 = 0x0100
    var counts: [UInt16] = [1, 0, 0, 0]
    var body: [UInt8] = []

    init(_ name: String, type: UInt16 = 1, klass: UInt16 = 1) {
        body = DNSName(name.split(separator: ".").map(String.init)).wire + Self.u16(type) + Self.u16(klass)
    }
    static func u16(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }

    func edns(size: UInt16 = 1232, version: UInt8 = 0, options: [UInt8] = []) -> RawQuery {
        var query = self
        query.counts[3] += 1
        query.body += [0] + Self.u16(41) + Self.u16(size) + [0, version, 0, 0] + Self.u16(UInt16(options.count)) + options
        return query
    }
    func with(_ change: (inout RawQuery) -> Void) -> RawQuery {
        var query = self
        change(&query)
        return query
    }
    var bytes: [UInt8] { ([id, flags] + counts).flatMap(Self.u16) + body }
}

struct RawAnswer {
    let bytes: [UInt8]
    func u16(_ at: Int) -> Int { Int(bytes[at]) << 8 | Int(bytes[at + 1]) }
    var code: Int { Int(bytes[3] & 0xF) }
    var isTruncated: Bool { bytes[2] & 2 != 0 }
    var isAuthoritative: Bool { bytes[2] & 4 != 0 }
    var answers: Int { u16(6) }
    var authorities: Int { u16(8) }
    var additionals: Int { u16(10) }
}

@Suite("DNS") struct DNSTests {
    private func zone(instances: Int = 3) throws -> Zone {
        var desk = Desk()
        for number in 1...max(1, instances) {
            try desk.take(
                Sample.ready(
                    try Sample.id(number), port: 5000 + number % 50_000, address: "10.0.\(number / 250).\(number % 250 + 1)",
                    ports: ["http": 5000 + number % 50_000, "admin": 9000]))
        }
        try desk.take(Sample.ready(try Sample.id(1, service: "six"), port: 7, address: "fd00::1"))
        try desk.take(Sample.ready(try Sample.id(1, service: "sick"), port: 7))
        try desk.take(Sample.unready(try Sample.id(1, service: "sick")))
        return Zone(desk.state, nameServer: Address("127.0.0.1"))
    }
    private func ask(_ query: RawQuery, _ zone: Zone, over transport: DNSResponder.Transport = .udp, turn: Int = 0) -> RawAnswer? {
        ask(query.bytes, zone, over: transport, turn: turn)
    }
    private func ask(_ bytes: [UInt8], _ zone: Zone, over transport: DNSResponder.Transport = .udp, turn: Int = 0) -> RawAnswer? {
        bytes.withUnsafeBytes { DNSResponder(zone: zone).answer($0, over: transport, turn: turn) }.map(RawAnswer.init)
    }

    @Test(
        "codes by name, type and class",
        arguments: [
            ("web.shop.production.slipway", 1, 1, 0, 3), ("web.shop.production.slipway", 33, 1, 0, 3),
            ("WEB.Shop.production.SLIPWAY", 1, 1, 0, 3),
            ("_admin._tcp.web.shop.production.slipway", 33, 1, 0, 3), ("_ADMIN._tcp.web.shop.production.slipway", 33, 1, 0, 3),
            ("2.web.shop.production.slipway", 1, 1, 0, 1), ("web.shop.production.slipway", 28, 1, 0, 0),
            ("six.shop.production.slipway", 28, 1, 0, 1),
            ("six.shop.production.slipway", 1, 1, 0, 0), ("web.shop.production.slipway", 16, 1, 0, 0),
            ("shop.production.slipway", 1, 1, 0, 0),
            ("production.slipway", 33, 1, 0, 0), ("_tcp.web.shop.production.slipway", 33, 1, 0, 0), ("slipway", 6, 1, 0, 1),
            ("slipway", 2, 1, 0, 1),
            ("slipway", 1, 1, 0, 0), ("ns.slipway", 1, 1, 0, 1), ("sick.shop.production.slipway", 1, 1, 3, 0),
            ("nope.shop.production.slipway", 1, 1, 3, 0),
            ("9.web.shop.production.slipway", 1, 1, 3, 0), ("_nope._tcp.web.shop.production.slipway", 33, 1, 3, 0),
            ("example.org", 1, 1, 5, 0),
            ("notslipway", 1, 1, 5, 0), ("", 2, 1, 5, 0), ("web.shop.production.slipway", 1, 3, 5, 0),
            ("web.shop.production.slipway", 1, 255, 5, 0),
            ("web.shop.production.slipway", 255, 1, 5, 0), ("slipway", 252, 1, 5, 0), ("slipway", 251, 1, 5, 0), ("slipway", 41, 1, 5, 0),
        ])
    func codes(_ name: String, _ type: UInt16, _ klass: UInt16, _ code: Int, _ answers: Int) throws {
        let answer = try #require(ask(RawQuery(name, type: type, klass: klass), try zone()))
        #expect(answer.code == code && answer.answers == answers)
        // Nothing found within the zone is always told with the SOA; refusals tell nothing.
        #expect(answer.authorities == (code == 5 || answers > 0 ? 0 : 1))
        #expect(answer.isAuthoritative == (code != 5))
        // The question comes back in its own case.
        let query = RawQuery(name, type: type, klass: klass)
        #expect(Array(answer.bytes[12..<12 + query.body.count]) == query.body)
    }

    @Test("what is not a proper query gets its code, and what is not a query gets silence") func malformed() throws {
        let zone = try zone()
        let good = RawQuery("web.shop.production.slipway")
        func code(_ query: RawQuery) -> Int? { ask(query, zone)?.code }
        for opcode in UInt16(1)...15 { #expect(code(good.with { $0.flags = opcode << 11 }) == 4) }
        for count in [UInt16(0), 2, 65_535] { #expect(code(good.with { $0.counts[0] = count }) == 1) }
        #expect(code(good.with { $0.counts[1] = 1 }) == 1)
        #expect(code(good.with { $0.body.removeLast() }) == 1)
        #expect(code(good.with { $0.body.append(0) }) == 1)
        #expect(code(good.with { $0.body = [] }) == 1)
        // Pointers: to itself, forward, into the header; label types 0x40 and 0x80.
        for body in [[0xC0, 12], [0xC0, 40], [0xC0, 0], [0x40, 1], [0x80, 1]] as [[UInt8]] {
            #expect(code(good.with { $0.body = body + [0, 1, 0, 1] }) == 1)
        }
        #expect(code(good.with { $0.body = DNSName(Array(repeating: "a", count: 127)).wire + [0, 1, 0, 1] }) == 5)
        #expect(code(good.with { $0.body = DNSName(Array(repeating: "a", count: 128)).wire + [0, 1, 0, 1] }) == 1)
        #expect(code(good.with { $0.body = DNSName([String(repeating: "a", count: 63)] + ["slipway"]).wire + [0, 1, 0, 1] }) == 3)
        #expect(code(good.edns().edns()) == 1)
        #expect(code(good.edns(options: [0, 3, 0, 200])) == 1)
        #expect(code(good.edns(options: (0..<20).flatMap { _ in [0, 10, 0, 2, 1, 2] as [UInt8] })) == 0)
        let badVersion = try #require(ask(good.edns(version: 1), zone))
        // BADVERS is 16: its low bits are 0, its high bits in the OPT record at the end.
        #expect(badVersion.code == 0 && badVersion.bytes[badVersion.bytes.count - 6] == 1 && badVersion.answers == 0)
        for length in 0..<12 { #expect(ask(Array(good.bytes.prefix(length)), zone) == nil) }
        for length in 12..<good.bytes.count { #expect(ask(Array(good.bytes.prefix(length)), zone)?.code == 1) }
        #expect(ask(good.with { $0.flags |= 0x8000 }, zone) == nil)
    }

    @Test("an answer never passes its limit, and says when it is cut") func limits() throws {
        let zone = try zone(instances: 2500)
        for type in [UInt16(1), 33] {
            let query = RawQuery("web.shop.production.slipway", type: type)
            for (query, limit) in [
                (query, 512), (query.edns(size: 0), 512), (query.edns(size: 900), 900), (query.edns(size: 65_535), 1232),
            ] {
                let answer = try #require(ask(query, zone))
                #expect(answer.bytes.count <= limit && answer.isTruncated && answer.answers > 0 && answer.code == 0)
            }
        }
        let whole = try #require(ask(RawQuery("web.shop.production.slipway", type: 33), zone, over: .tcp))
        #expect(whole.bytes.count <= 65_535 && whole.isTruncated)
        let some = try #require(ask(RawQuery("web.shop.production.slipway", type: 33), try self.zone(instances: 200), over: .tcp))
        #expect(some.answers == 200 && some.additionals == 200 && !some.isTruncated)
        // Additional records go before answers do, and without a mark.
        let few = try #require(ask(RawQuery("web.shop.production.slipway", type: 33), try self.zone(instances: 8)))
        #expect(few.answers == 8 && few.additionals < 8 && !few.isTruncated)
    }

    @Test("each answer begins with another instance") func rotation() throws {
        let zone = try zone()
        let first = (0..<3).compactMap { turn in
            ask(RawQuery("web.shop.production.slipway"), zone, turn: turn).map { Array($0.bytes.suffix(4)) }
        }
        #expect(Set(first).count == 3)
    }

    @Test("mutated packets neither trap nor pass the limit") func mutations() throws {
        let zone = try zone(instances: 40)
        var generator = SystemRandomNumberGenerator()
        let seeds = [
            RawQuery("web.shop.production.slipway").bytes, RawQuery("_http._tcp.web.shop.production.slipway", type: 33).edns().bytes,
            RawQuery("slipway", type: 6).edns(size: 0, options: [0, 3, 0, 1, 9]).bytes,
        ]
        for round in 0..<60_000 {
            var bytes = seeds[round % seeds.count]
            for _ in 0..<Int.random(in: 1...6, using: &generator) where !bytes.isEmpty {
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: .min ... .max, using: &generator)
                case 1: bytes.removeLast(Int.random(in: 0...min(8, bytes.count), using: &generator))
                case 2: bytes.insert(0xC0, at: Int.random(in: 0...bytes.count, using: &generator))
                default: bytes += bytes.prefix(Int.random(in: 0...bytes.count, using: &generator))
                }
            }
            if bytes.count > 2000 { bytes = Array(bytes.prefix(2000)) }
            if let answer = ask(bytes, zone) { #expect(answer.bytes.count <= 1232 && answer.bytes[2] & 0x80 != 0) }
        }
    }
}
