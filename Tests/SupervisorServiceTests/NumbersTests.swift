import Contracts
import Foundation
import Kit
import Testing

@testable import SupervisorService

/// Orders may be written by hand, so their numbers are checked before they are kept: one that traps would trap at every start.
@Suite("Numbers in orders") struct NumbersTests {
    @Test("a job's timeout that no clock takes ends the job, and nothing is begun", arguments: [1e300, .infinity, .nan, -1, 86_401])
    func job(_ timeout: Double) throws {
        var world = World()
        // JSON has no infinity, so this goes past the event to the rule itself.
        var step = Step<SupervisorEffect>(
            now: world.now, host: Samples.host, cause: EventID(UUID()), actor: nil, component: "supervisor")
        JobRules.order(Samples.jobOrder(timeout: timeout), &world.state, &step)
        #expect(step.effects.isEmpty && world.state.jobs.isEmpty)
        #expect(step.events.compactMap { $0.as(JobFinished.self)?.outcome } == [.failed])
    }

    @Test(
        "an instance with an impossible interval or share is not started",
        arguments: [
            Samples.spec(health: HealthSpec(interval: 1e300)), Samples.spec(health: HealthSpec(timeout: -1)),
            Samples.spec(health: HealthSpec(healthy: 0)), Samples.spec(stop: StopSpec(timeout: 1e18)),
            Samples.spec(limits: LimitSpec(cpu: 1e300)),
        ])
    func instance(_ spec: InstanceSpec) throws {
        var world = World()
        let step = try world.take(Samples.start(spec))
        #expect(step.effects.isEmpty && world.state.instances.isEmpty)
        #expect(step.events.compactMap { $0.as(InstanceExited.self)?.restartIn } == [])
        #expect(step.events.contains { $0.type == InstanceExited.type })
    }
}
