import Contracts
import Foundation
import Logging
import NIOCore
import NIOPosix
import TestKit
import Testing

@testable import DiscoveryService

@Suite("DNS server with a real dig", .timeLimit(.minutes(2))) struct DNSServerTests {
    private func withServer(_ address: String = "127.0.0.1", _ body: (Int, CurrentZone) async throws -> Void) async throws {
        var desk = Desk()
        for number in 1...40 {
            try desk.take(Sample.ready(try Sample.id(number), port: 5000 + number, address: "10.0.0.\(number)"))
        }
        let zone = CurrentZone(Zone(desk.state, nameServer: Address("127.0.0.1")))
        let (ports, found) = AsyncStream.makeStream(of: Int.self)
        let server = DNSServer(
            address: address, port: 0, zone: zone, counters: DNSCounters(), logger: Logger(label: "dns"), bound: { found.yield($0) })
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            for await port in ports {
                try await body(port, zone)
                break
            }
            group.cancelAll()
        }
    }
    private func dig(_ port: Int, _ arguments: String...) async throws -> String {
        try await run(["dig", "@127.0.0.1", "-p", "\(port)", "+tries=1", "+time=2"] + arguments).output
    }

    @Test("dig finds instances, over UDP with a cut answer, over TCP in full, and sees every refusal", arguments: ["127.0.0.1", "0.0.0.0"])
    func queries(_ address: String) async throws {
        try await withServer(address) { port, zone in
            let name = "web.shop.production.slipway"
            #expect(try await dig(port, name, "A", "+short", "+tcp").split(separator: "\n").count == 40)
            #expect(try await dig(port, name, "SRV", "+short").contains("0 1 5001 1.\(name)."))
            #expect(try await dig(port, name, "SRV", "+noedns", "+ignore").contains(" tc "))
            #expect(try await dig(port, "_http._tcp.\(name)", "SRV", "+tcp").contains("ADDITIONAL: 41"))
            for (arguments, code) in [
                (["example.org"], "REFUSED"), (["nope.\(name)"], "NXDOMAIN"), ([name, "ANY"], "REFUSED"), ([name, "CH"], "REFUSED"),
                ([name, "+edns=1", "+noednsneg"], "BADVERS"), ([name, "+opcode=update"], "NOTIMP"), ([name, "TXT"], "NOERROR"),
                (["slipway", "SOA"], "NOERROR"),
            ] {
                let output = try await run(["dig", "@127.0.0.1", "-p", "\(port)", "+tries=1", "+time=2"] + arguments).output
                #expect(output.contains("status: \(code)"), "\(arguments): \(output)")
            }
            #expect(try await dig(port, "slipway", "AXFR").contains("Transfer failed"))
            var desk = Desk()
            try desk.take(Sample.ready(try Sample.id(77), port: 1, address: "10.9.9.9"))
            desk.state.counters["serial"] = 1000
            zone.replace(Zone(desk.state, nameServer: nil))
            #expect(try await dig(port, name, "A", "+short") == "10.9.9.9\n")
        }
    }

    @Test("TCP: many questions at once, a byte at a time, and an end to those who say nothing") func streams() async throws {
        try await withServer { port, _ in
            let query = RawQuery("1.web.shop.production.slipway").bytes
            let frame = RawQuery.u16(UInt16(query.count)) + query
            let script = """
                import socket, struct, sys, time
                port, frame = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
                def read(s):
                    n = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
                    return s.recv(n, socket.MSG_WAITALL)
                s = socket.create_connection(("127.0.0.1", port)); s.sendall(frame * 200)
                print(sum(read(s)[-4:] == bytes([10, 0, 0, 1]) for _ in range(200)))
                for b in frame: s.sendall(bytes([b])); time.sleep(.002)
                print(read(s)[-4:].hex())
                for bad in (b"\\0\\0", b"\\0\\1x", b"\\0\\5hello"):
                    s = socket.create_connection(("127.0.0.1", port)); s.sendall(bad); s.settimeout(3); print(s.recv(10))
                s = socket.create_connection(("127.0.0.1", port)); s.sendall(b"\\xff\\xff1"); start = time.time(); s.settimeout(60)
                print(s.recv(10), 9 < time.time() - start)
                """
            let hex = frame.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
            let result = try await run(["python3", "-c", script, "\(port)", hex])
            #expect(result.output == "200\n0a000001\nb''\nb''\nb''\nb'' True\n", "\(result)")
        }
    }
}
