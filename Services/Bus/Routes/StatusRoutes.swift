import Contracts
import Foundation
import HTTPKit
import Hummingbird

/// `/v1/status`: how the bus and its log are; and `/v1/drain`, which ends it in order.
struct StatusRoutes: Sendable {
    let broker: Broker
    let retention: Retention

    func add(to routes: Routes) {
        routes.get("/v1/status", .role(.viewer)) { _, context in
            try Self.check(context)
            return try .json(try await status())
        }
        routes.post("/v1/drain", .role(.operator)) { _, context in
            try Self.check(context)
            _ = try await broker.ask("bus.drain")
            return try .json(["status": "draining"], status: .accepted)
        }
    }

    private static func check(_ context: SlipwayContext) throws {
        guard context.principal?.app == nil else {
            throw Problem(.forbidden, "your token reaches one app only; the bus is of the suite")
        }
    }

    /// The answer of `GET /v1/status`. Bytes, and numbers of events.
    struct Status: Codable, Sendable {
        struct Damage: Codable, Sendable {
            var first: UInt64
            var last: UInt64
            var place: String
        }
        struct Log: Codable, Sendable {
            var segments: Int
            var bytes: UInt64
            /// Time of the newest event of the oldest segment, which is the next to go.
            var oldest: Timestamp?
            var diskFree: Int?
            var diskBytes: Int?
            /// True: events are refused with 507.
            var full: Bool
            var damage: [Damage]
        }
        struct Retention: Codable, Sendable {
            var maxBytes: UInt64?
            var maxAgeSeconds: UInt64?
            /// The lowest number that a durable consumer has not done with; what is older may go when it is old enough.
            var needed: UInt64
        }
        struct Consumers: Codable, Sendable {
            var durable: Int
            var largestLag: UInt64
            var parked: Int
        }
        var stream: String
        var epoch: UInt64
        var first: UInt64
        var last: UInt64
        var hash: String
        var sessions: Int
        var clients: Int
        var subscriptions: Int
        var services: [String]
        var consumers: Consumers
        var log: Log
        var retention: Retention
    }

    private func status() async throws -> Status {
        let numbers = try Coding.decode(Numbers.self, from: try await broker.ask("bus.metrics"))
        let durable = numbers.consumers.filter { !$0.consumer.isEmpty }
        let pieces = broker.log.pieces
        let space = Disk.space(in: broker.log.settings.directory)
        return Status(
            stream: numbers.stream, epoch: numbers.epoch, first: numbers.first, last: numbers.last, hash: Router.hex(broker.log.hash),
            sessions: numbers.sessions, clients: numbers.clients, subscriptions: numbers.subscriptions, services: numbers.services,
            consumers: Status.Consumers(
                durable: durable.count, largestLag: durable.map(\.lag).max() ?? 0, parked: durable.reduce(0) { $0 + $1.parked }),
            log: Status.Log(
                segments: pieces.count, bytes: pieces.reduce(0) { $0 + $1.bytes },
                oldest: pieces.first.flatMap { $0.newest == 0 ? nil : Timestamp(milliseconds: Int64(clamping: $0.newest / 1_000_000)) },
                diskFree: space?.free, diskBytes: space?.total, full: numbers.isFull,
                damage: broker.log.damage.map { Status.Damage(first: $0.first, last: $0.last, place: $0.place) }),
            retention: Status.Retention(
                maxBytes: retention.maxBytes, maxAgeSeconds: retention.maxAge.map { $0 / 1_000_000_000 },
                needed: durable.map { $0.cursor + 1 }.min() ?? numbers.last + 1))
    }
}
