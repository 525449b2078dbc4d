import Contracts
import HTTPKit
import Hummingbird

/// `/v1/consumers`: who reads the log, how far they have come, how far behind they are, and what was parked for them.
struct ConsumerRoutes: Sendable {
    let broker: Broker

    func add(to routes: Routes) {
        routes.get("/v1/consumers", .role(.viewer)) { _, context in
            try Self.check(context)
            let consumers = try await broker.consumers()
            return try .json(consumers)
        }
        routes.post("/v1/consumers/forget", .role(.operator)) { request, context in
            try Self.check(context)
            let which = try await request.json(Name.self, context, limit: 4 << 10)
            try await broker.forget(owner: which.owner, consumer: which.consumer)
            return try .json(["status": "forgotten"])
        }
        routes.get("/v1/consumers/parked", .role(.operator)) { request, context in
            try Self.check(context)
            return try .json(try await broker.parked(owner: request.query("owner"), consumer: request.query("consumer")))
        }
        routes.post("/v1/consumers/parked/retry", .role(.operator)) { request, context in
            try await unpark(request, context, retry: true)
        }
        routes.post("/v1/consumers/parked/drop", .role(.operator)) { request, context in
            try await unpark(request, context, retry: false)
        }
    }

    private static func check(_ context: SlipwayContext) throws {
        guard context.principal?.app == nil else {
            throw Problem(.forbidden, "your token reaches one app only; consumers are of the suite")
        }
    }

    private struct Name: Decodable, Sendable {
        var owner: String
        var consumer: String
    }

    private struct Which: Decodable, Sendable {
        var owner: String
        var consumer: String
        var seq: UInt64
    }

    private func unpark(_ request: Request, _ context: SlipwayContext, retry: Bool) async throws -> Response {
        try Self.check(context)
        let which = try await request.json(Which.self, context, limit: 4 << 10)
        try await broker.unpark(owner: which.owner, consumer: which.consumer, seq: which.seq, retry: retry)
        return try .json(["status": retry ? "delivered again" : "dropped"])
    }
}
