import Contracts
import Kit

/// The deployer does nothing in the world by itself: all it does is to order, so it has no effects.
enum DeployerEffect: Codable, Hashable, Sendable {
    case none
}

enum DeployerNotice: Codable, Sendable {
    /// At every start: where the ingress listens.
    case configured(ingressPort: Int)
}

/// Carries out deployments: starts the new instances, moves the routes, lets the old ones finish and stops them; or goes back.
enum DeployerCore: Core {
    typealias State = DeployerState
    typealias Effect = DeployerEffect
    typealias Notice = DeployerNotice

    static let filters = [
        "release.created", "deploy.requested", "rollback.requested", "instance.started", "instance.ready", "instance.unready",
        "instance.exited", "route.changed", "route.drained", "repository.created", "repository.deleted",
    ]

    static func handle(_ input: Input<DeployerNotice>, _ state: inout DeployerState, _ step: inout Step<DeployerEffect>) {
        switch input {
        case .event(let envelope): handle(envelope, &state, &step)
        case .notice(.configured(let port)):
            state.ports["ingress"] = port
            state.resumed(&step)
        case .timer(let key): state.timeIsUp(key, &step)
        }
    }

    private static func handle(_ envelope: Envelope, _ state: inout DeployerState, _ step: inout Step<DeployerEffect>) {
        switch envelope.type {
        case RepositoryCreated.type:
            if let event = envelope.as(RepositoryCreated.self) { state.created(event.app) }
        case RepositoryDeleted.type:
            if let event = envelope.as(RepositoryDeleted.self) { state.deleted(event.app, &step) }
        case ReleaseCreated.type:
            if let event = envelope.as(ReleaseCreated.self) { state.released(event) }
        case DeployRequested.type:
            // One that names a ref is the scheduler's, until it has become a release.
            if let event = envelope.as(DeployRequested.self), event.ref == nil {
                state.ordered(
                    Order(
                        id: envelope.id, actor: envelope.actor, kind: .deploy, app: event.app, environment: event.environment,
                        release: event.release), &step)
            }
        case RollbackRequested.type:
            if let event = envelope.as(RollbackRequested.self) {
                state.ordered(
                    Order(
                        id: envelope.id, actor: envelope.actor, kind: .rollback, app: event.app, environment: event.environment,
                        release: event.to), &step)
            }
        case InstanceStarted.type:
            if let event = envelope.as(InstanceStarted.self) { state.instanceStarted(event, &step) }
        case InstanceReady.type:
            if let event = envelope.as(InstanceReady.self) { state.instanceReady(event, &step) }
        case InstanceUnready.type:
            if let event = envelope.as(InstanceUnready.self) { state.instanceUnready(event, &step) }
        case InstanceExited.type:
            if let event = envelope.as(InstanceExited.self) { state.instanceExited(event, &step) }
        case RouteChanged.type:
            if let event = envelope.as(RouteChanged.self) { state.routeChanged(event, &step) }
        case RouteDrained.type:
            if let event = envelope.as(RouteDrained.self) { state.routeDrained(event, &step) }
        default: break
        }
    }
}
