import BusClient
import Contracts
import Kit

/// `deployer.plan`: what a deployment or a rollback would do. Changes nothing.
struct PlanHandler: Sendable {
    let loop: Loop<DeployerCore>

    var routes: QueryRoutes {
        QueryRoutes().on(PlanDeployment.self) { query, _ in try await loop.read { state in try state.plan(query) } }
    }
}

extension DeployerState {
    /// Throws the `Problem` with which the order would be rejected.
    func plan(_ query: PlanDeployment) throws -> PlanDeployment.Reply {
        let name = try environmentName(query.app, query.environment)
        let release = try release(query.app, query.release, query.rollback ? .rollback : .deploy, in: name)
        let environment = environment(query.app, name) ?? EnvironmentRecord(app: query.app, name: name)
        let plan = Plan.make(release, in: environment, chain: chain(query.app), instances: instances(of: environment))
        return .init(environment: name, release: release.number, previous: environment.live?.release, steps: plan.steps)
    }
}
