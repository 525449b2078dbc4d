import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `GET /v1/environments`: what each environment runs.
struct EnvironmentRoutes: Sendable {
    let loop: Loop<DeployerCore>

    func add(to routes: Routes) {
        routes.get("/v1/environments", .role(.viewer)) { _, context in
            let holder = context.principal
            let views = try await loop.read { state in
                // What is left of a deleted app's environment are its counters.
                state.environments.values.filter { holder?.sees($0.app, $0.name) ?? false }.map { EnvironmentView($0, state) }
                    .filter { $0.release != nil || $0.deployment != nil || !$0.instances.isEmpty }
            }
            return try Response.json(EnvironmentList(environments: views))
        }
    }
}

struct EnvironmentList: Codable, Sendable { var environments: [EnvironmentView] }

/// An environment as people and programs see it.
struct EnvironmentView: Codable, Sendable {
    struct Instance: Codable, Sendable {
        var instance: InstanceID
        var release: Int
        var state: String
        var address: String?
        var ports: [String: Int]
    }
    var app: AppName
    var environment: EnvName
    /// Nil: nothing is live.
    var release: Int?
    var commit: CommitID?
    var since: Timestamp?
    var url: String?
    /// The deployment under way, and whether an order waits behind it.
    var deployment: DeploymentID?
    var waiting: Bool
    var instances: [Instance]

    init(_ record: EnvironmentRecord, _ state: DeployerState) {
        app = record.app
        environment = record.name
        release = record.live?.release
        commit = record.live.flatMap { state.release(record.app, $0.release)?.commit }
        since = record.live?.since
        url = state.url(record)
        deployment = record.rollout?.head.deployment
        waiting = record.waiting != nil
        instances = state.instances(of: record).map {
            Instance(instance: $0.id, release: $0.release, state: $0.state.rawValue, address: $0.address, ports: $0.ports)
        }
    }
}
