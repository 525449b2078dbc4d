import Contracts
import Kit

/// What the supervisor decides about instances and jobs.
///
///     order start ─▶ starting ─started─▶ running ─ready─▶ ready ⇄ unready
///                        ▲  └──refused──┐     └────exited────┬──┘
///                        └── timer ── backoff ◀──────────────┘
///     order stop, from anywhere ─▶ stopping ─stopped─▶ (forgotten)
enum SupervisorCore: Core {
    static let filters = [InstanceRequested.type.text, JobRequested.type.text]

    /// What concerns one instance happens in the order in which it was decided; jobs do not wait for each other here.
    static func lane(_ effect: SupervisorEffect) -> String? {
        switch effect {
        case .start(let instance, _, _), .stop(let instance, _): "instance/\(instance)"
        case .run: nil
        }
    }

    static func handle(_ input: Input<SupervisorNotice>, _ state: inout SupervisorState, _ step: inout Step<SupervisorEffect>) {
        switch input {
        case .event(let envelope):
            if let order = envelope.as(InstanceRequested.self) {
                InstanceRules.order(order, &state, &step)
            } else if let order = envelope.as(JobRequested.self) {
                JobRules.order(order, &state, &step)
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
        case .timer(let key):
            InstanceRules.timer(key, &state, &step)
        }
    }
}
