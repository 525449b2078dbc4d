import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `GET /v1/apps/:app/deployments`: the last deployments of an app, newest first.
struct DeploymentRoutes: Sendable {
    let loop: Loop<DeployerCore>

    func add(to routes: Routes) {
        routes.get("/v1/apps/:app/deployments", .app(.viewer)) { _, context in
            let app = try context.app()
            let holder = context.principal
            let views = try await loop.read { state in
                state.deployments.values.filter { $0.head.app == app && holder?.sees(app, $0.head.environment) ?? false }.sorted {
                    $0.isNewer(than: $1)
                }.map(DeploymentView.init)
            }
            return try Response.json(DeploymentList(deployments: views))
        }
    }
}

extension DeploymentRecord {
    fileprivate func isNewer(than other: Self) -> Bool {
        (began, head.environment.text, head.deployment.number) > (other.began, other.head.environment.text, other.head.deployment.number)
    }
}

struct DeploymentList: Codable, Sendable { var deployments: [DeploymentView] }

/// A deployment as people and programs see it.
struct DeploymentView: Codable, Sendable {
    var deployment: DeploymentID
    var kind: DeploymentHead.Kind
    var release: Int
    var commit: CommitID
    var previous: Int?
    var order: EventID
    var actor: String?
    var began: Timestamp
    var ended: Timestamp?
    /// `under way`, `live` or `rolled back`.
    var outcome: String
    var reason: String?
    var steps: [PlanStep]

    init(_ record: DeploymentRecord) {
        deployment = record.head.deployment
        kind = record.head.kind
        release = record.head.release
        commit = record.head.commit
        previous = record.head.previous
        order = record.head.order
        actor = record.actor
        began = record.began
        ended = record.ended
        outcome = record.outcome ?? "under way"
        reason = record.reason
        steps = record.steps
    }
}
