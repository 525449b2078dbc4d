import BusClient
import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `/v1/apps`: the nouns that belong to an app.
struct AppRoutes: Sendable {
    let desk: Desk
    /// Seconds that `git` has to make or remove a repository.
    static let patience = 10.0

    func add(to routes: Routes) {
        routes.post("/v1/apps", .role(.developer)) { request, context in try await create(request, context) }
        routes.get("/v1/apps", .role(.viewer)) { request, context in
            let holder = try context.holder()
            let git = desk.gitURL(request)
            return try .json(
                try await desk.read { state in
                    state.apps.values.filter { holder.may(.viewer, app: $0.name) }.map { state.appView($0, git: git, holder: holder) }
                })
        }
        routes.get("/v1/apps/:app", .app(.viewer)) { request, context in
            let app = try await desk.app(context)
            let holder = try context.holder()
            let git = desk.gitURL(request)
            return try .json(try await desk.read { $0.appView(app, git: git, holder: holder) })
        }
        routes.delete("/v1/apps/:app", .app(.operator)) { _, context in try await delete(context) }
        routes.get("/v1/apps/:app/releases", .app(.viewer)) { _, context in
            let app = try await desk.app(context).name
            let holder = try context.holder()
            return try .json(try await desk.read { $0.releaseViews(app, for: holder) })
        }
        routes.get("/v1/apps/:app/deployments", .app(.viewer)) { request, context in
            let app = try await desk.app(context).name
            let environment = try request.environment(for: context)
            return try .json(
                try await desk.read { state in
                    if let environment { try OrderRules.known(state, app, environment) }
                    return state.deployments.under(app.text).filter { environment == nil || $0.head.environment == environment }
                        .sorted { $0.plannedAt > $1.plannedAt }.map(DeploymentView.init)
                })
        }
        routes.get("/v1/apps/:app/instances", .app(.viewer)) { request, context in
            let app = try await desk.app(context).name
            let environment = try request.environment(for: context)
            let service = try request.name("service", as: ServiceName.self)
            return try .json(
                try await desk.read { state in
                    if let environment { try OrderRules.known(state, app, environment) }
                    if let service { try OrderRules.known(state, app, service) }
                    return state.instanceViews(app, environment, service)
                })
        }
        routes.get("/v1/instances", .role(.viewer)) { request, context in
            let holder = try context.holder()
            let environment = try request.environment(for: context)
            return try .json(try await desk.read { $0.instanceViews(holder.app, environment) })
        }
        routes.get("/v1/apps/:app/why", .app(.viewer)) { request, context in
            let app = try await desk.app(context).name
            let environment = try request.environment(for: context)
            let service = try request.name("service", as: ServiceName.self)
            return try .json(
                try await desk.read { state in
                    if let environment { try OrderRules.known(state, app, environment) }
                    if let service { try OrderRules.known(state, app, service) }
                    return try state.why(app, environment, service: service)
                })
        }
    }

    private func create(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        struct Body: Codable, Sendable { var name: String }
        let holder = try context.holder()
        let name = try AppName(try await request.json(Body.self, context, limit: 1 << 16).name)
        // A token for one app makes that app and no other.
        guard holder.may(.developer, app: name) else { throw Problem.noApp(name.text) }
        guard holder.environment == nil else { throw Problem.outOfReach(holder) }
        guard try await desk.read({ $0.apps[name.text] == nil }) else {
            throw Problem(.conflict, "app '\(name)' exists", hint: "push to it, or choose another name: slipway app list")
        }
        try await ordered(RepositoryRequested(app: name, action: .create), by: holder)
        // The read model hears of it a moment later than this request did; the answer needs only what the event said.
        let git = desk.gitURL(request)
        let row =
            try await desk.read { $0.apps[name.text] }
            ?? AppRow(name: name, defaultBranch: "main", createdAt: desk.boot.now(), createdBy: holder.name)
        return try .json(
            try await desk.read { $0.appView(row, git: git, holder: holder) }, status: .created,
            headers: [.location: "/v1/apps/\(name)"])
    }

    private func delete(_ context: SlipwayContext) async throws -> Response {
        let app = try await desk.app(context).name
        let holder = try context.holder()
        guard holder.environment == nil else { throw Problem.outOfReach(holder) }
        try await ordered(RepositoryRequested(app: app, action: .delete), by: holder)
        return try .json(["deleted": app.text])
    }

    /// Gives the order and waits until `git` has answered it in the log.
    private func ordered(_ order: RepositoryRequested, by holder: Principal) async throws {
        let late = Problem(
            .timeout, "git has not answered in \(Int(Self.patience)) s; the order is in the log and will be carried out",
            hint: "slipway status shows whether git is there; then: slipway app show \(order.app)")
        let filters = [RepositoryCreated.type.text, RepositoryDeleted.type.text, RepositoryRejected.type.text]
        let desk = desk
        try await withDeadline(Self.patience, late) {
            // Listening begins before the order leaves, so that the answer cannot be missed.
            let answers = try await desk.boot.bus.subscribe(SubscriptionRequest(filters: filters, from: .new))
            defer { answers.cancel() }
            _ = try await desk.order(.repository(order), by: holder)
            for try await delivery in answers {
                for event in delivery.events {
                    if let rejected = event.as(RepositoryRejected.self), rejected.app == order.app {
                        throw Problem(.conflict, rejected.reason)
                    }
                    if order.action == .create, event.as(RepositoryCreated.self)?.app == order.app { return }
                    if order.action == .delete, event.as(RepositoryDeleted.self)?.app == order.app { return }
                }
            }
            throw late
        }
    }
}
