import Contracts
import HTTPKit
import Hummingbird
import Kit

/// Orders on behalf of people: deploy and roll back; and what they would do.
struct OrderRoutes: Sendable {
    let desk: Desk

    /// What an accepted order answers. The order is in the outbox and so as good as done.
    struct Accepted: Encodable {
        var order: EventID
        var app: AppName
        var story: String
    }

    func add(to routes: Routes) {
        routes.post("/v1/apps/:app/deployments", .app(.developer)) { request, context in
            struct Body: Codable, Sendable {
                var environment: EnvName?
                var release: VersionValue?
                var ref: String?
            }
            let app = try await desk.app(context).name
            let holder = try context.holder()
            let body = try await request.json(Body.self, context, limit: 1 << 16)
            let release = body.release?.number
            try await desk.read {
                try OrderRules.check($0, app, environment: body.environment, release: release, ref: body.ref, by: holder)
            }
            let order = DeployRequested(app: app, environment: body.environment, release: release, ref: body.ref)
            return try accepted(app, try await desk.order(.deploy(order), by: holder))
        }
        routes.post("/v1/apps/:app/rollbacks", .app(.developer)) { request, context in
            struct Body: Codable, Sendable {
                var environment: EnvName?
                var to: VersionValue?
            }
            let app = try await desk.app(context).name
            let holder = try context.holder()
            let body = try await request.json(Body.self, context, limit: 1 << 16)
            let to = body.to?.number
            try await desk.read { try OrderRules.check($0, app, environment: body.environment, release: to, ref: nil, by: holder) }
            let order = RollbackRequested(app: app, environment: body.environment, to: to)
            return try accepted(app, try await desk.order(.rollback(order), by: holder))
        }
        routes.get("/v1/apps/:app/plan", .app(.viewer)) { request, context in
            let app = try await desk.app(context).name
            let environment = try request.name("environment", as: EnvName.self)
            let release = try request.release("release")
            let rollback = request.flag("rollback")
            let holder = try context.holder()
            try await desk.read { try OrderRules.check($0, app, environment: environment, release: release, ref: nil, by: holder) }
            return try .json(
                try await desk.boot.bus.call(
                    PlanDeployment(app: app, environment: environment, release: release, rollback: rollback), timeout: 10))
        }
    }

    private func accepted(_ app: AppName, _ order: EventID) throws -> Response {
        let story = "/v1/apps/\(app)/story?order=\(order)"
        return try .json(Accepted(order: order, app: app, story: story), status: .accepted, headers: [.location: story])
    }
}

/// A release in a request: `3`, `"3"` or `"v3"`.
struct VersionValue: Codable, Sendable {
    var number: Int
    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
            number = try ReleaseNumber.parse(text)
        } else {
            number = try ReleaseNumber.parse(String(try container.decode(Int.self)))
        }
    }
    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(number)
    }
}
