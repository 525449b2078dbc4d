import Contracts
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

/// The zone that answers are made from, swapped whole.
final class CurrentZone: Sendable {
    let nameServer: Address?
    private let zone: Mutex<Zone>

    init(_ zone: Zone) {
        nameServer = zone.nameServer
        self.zone = Mutex(zone)
    }

    var value: Zone { zone.withLock { $0 } }
    func replace(_ new: Zone) {
        zone.withLock { old in
            // Effects may finish out of turn after a crash; a serial that goes back (by less than half its range) is an old one.
            if Int32(truncatingIfNeeded: Int64(new.serial) - Int64(old.serial)) >= 0 { old = new }
        }
    }
}

/// DNS over UDP and TCP on one port.
struct DNSServer: Service {
    let address: String
    /// 0: any free one (tests).
    let port: Int
    let zone: CurrentZone
    let counters: DNSCounters
    let logger: Logger
    /// Told the port once both listen.
    var bound: (@Sendable (Int) -> Void)?

    static let datagramSize = 2048
    static let datagramsAtOnce = 32

    func run() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let (udp, tcp) = try await bind(group)
        logger.info("DNS listens", metadata: ["address": "\(address)", "port": "\(udp.localAddress?.port ?? port)"])
        bound?(udp.localAddress?.port ?? port)
        try await withGracefulShutdownHandler {
            try await withTaskCancellationHandler {
                try await udp.closeFuture.get()
                try await tcp.closeFuture.get()
            } onCancel: {
                udp.close(promise: nil)
                tcp.close(promise: nil)
            }
        } onGracefulShutdown: {
            udp.close(promise: nil)
            tcp.close(promise: nil)
        }
    }

    private func bind(_ group: MultiThreadedEventLoopGroup) async throws -> (udp: any Channel, tcp: any Channel) {
        do {
            let tcp = try await ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 256)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelInitializer { [zone, counters, guests = DNSGuests()] channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(DNSStream(zone: zone, counters: counters, guests: guests))
                    }
                }
                .bind(host: address, port: port).get()
            do {
                // Bound to the wildcard, the answer must leave from the address that was asked, which the packet tells.
                let isWildcard = address == "0.0.0.0" || address == "::"
                let udp = try await DatagramBootstrap(group: group)
                    .channelOption(.datagramVectorReadMessageCount, value: Self.datagramsAtOnce)
                    .channelOption(
                        .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.datagramsAtOnce * Self.datagramSize)
                    )
                    .channelOption(.receivePacketInfo, value: isWildcard)
                    .channelInitializer { [zone, counters] channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(DNSDatagrams(zone: zone, counters: counters))
                        }
                    }
                    .bind(host: address, port: tcp.localAddress?.port ?? port).get()
                return (udp, tcp)
            } catch {
                try? await tcp.close()
                throw error
            }
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw Problem(
                .configuration, "DNS port \(port) on \(address) is taken by another program",
                hint: "stop that program ('ss -lntup sport = :\(port)' shows it), or set ports: {dns: N} in suite.yml")
        } catch let error as IOError where error.errnoCode == EACCES {
            throw Problem(.configuration, "DNS port \(port) needs root", hint: "set ports: {dns: N} in suite.yml to one above 1024")
        }
    }
}
