import Contracts
import Kit

/// What the supervisor decides about instances and jobs.
///
///     order start ─▶ starting ─started─▶ running ─ready─▶ ready ⇄ unready
///                        ▲  └──refused──┐     └────exited────┬──┘
///                        └── timer ── backoff ◀──────────────┘
///     order stop, from anywhere ─▶ stopping ─stopped─▶ (forgotten)
enum SupervisorCore: Core {
    static let filters = [InstanceRequested.type.text, JobRequested.type.text, RepositoryCreated.type.text, RepositoryDeleted.type.text]
    /// Seconds after an app was deleted until what is left of it here is removed; its instances need some of them to stop.
    static let afterlife = 60.0

    /// What concerns one instance happens in the order in which it was decided; jobs do not wait for each other here.
    static func lane(_ effect: SupervisorEffect) -> String? {
        switch effect {
        case .start(let instance, _, _), .stop(let instance, _): "instance/\(instance)"
        case .run: nil
        case .forget(let app): "app/\(app)"
        }
    }

    static func handle(_ input: Input<SupervisorNotice>, _ state: inout SupervisorState, _ step: inout Step<SupervisorEffect>) {
        switch input {
        case .event(let envelope):
            if let order = envelope.as(InstanceRequested.self) {
                InstanceRules.order(order, &state, &step)
            } else if let order = envelope.as(JobRequested.self) {
                JobRules.order(order, &state, &step)
            } else if let event = envelope.as(RepositoryDeleted.self) {
                step.wake("forget/\(event.app)", after: afterlife)
            } else if let event = envelope.as(RepositoryCreated.self) {
                step.cancel("forget/\(event.app)")
            } else {
                step.log("event \(envelope.id) of type \(envelope.type) does not have the shape of its type and is ignored")
            }
        case .notice(let notice):
            switch notice {
            case .joined(let event): step.publish(event)
            case .jobBegan(let job): JobRules.began(job, &state, &step)
            case .jobDone(let result): JobRules.done(result, &state, &step)
            default: InstanceRules.news(notice, &state, &step)
            }
        case .timer(let key) where key.hasPrefix("forget/"):
            guard let app = try? AppName(String(key.dropFirst(7))) else { return }
            // One that will not stop keeps its files for as long.
            guard !state.instances.values.contains(where: { $0.instance.app == app }) else { return step.wake(key, after: afterlife) }
            step.perform(.forget(app))
        case .timer(let key):
            InstanceRules.timer(key, &state, &step)
        }
    }
}
