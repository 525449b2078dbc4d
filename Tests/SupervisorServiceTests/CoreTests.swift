import Contracts
import Kit
import Testing

@testable import SupervisorService

@Suite("supervisor core") struct CoreTests {
    let instance = Samples.instance

    private func running() throws -> World {
        var world = World()
        _ = try world.take(Samples.start())
        _ = world.take(.started(instance, generation: 1, pid: 42, ports: ["http": 20_001]))
        return world
    }

    @Test("an order starts an instance once, however often it comes") func start() throws {
        var world = World()
        let first = try world.take(Samples.start())
        #expect(first.effects.map(\.effect) == [.start(instance, generation: 1, spec: Samples.spec())])
        let second = try world.take(Samples.start())
        #expect(second.effects.isEmpty && second.events.isEmpty)
    }

    @Test("orders for other hosts are none of its business") func otherHost() throws {
        var world = World()
        let other = try HostName("elsewhere")
        #expect(try world.take(Samples.start(host: other)).effects.isEmpty)
        #expect(world.state.instances.isEmpty)
    }

    @Test("a started instance becomes ready, unready and ready again, and each is told once") func health() throws {
        var world = World()
        _ = try world.take(Samples.start())
        let started = world.take(.started(instance, generation: 1, pid: 42, ports: ["http": 20_001]))
        #expect(started.events.map(\.type) == [InstanceStarted.type])
        let ready = world.take(.ready(instance, generation: 1))
        let event = try #require(ready.events.first?.as(InstanceReady.self))
        #expect(event.ports == ["http": 20_001] && event.first == "http" && event.release == 7)
        #expect(world.take(.ready(instance, generation: 1)).events.isEmpty)
        #expect(world.take(.unready(instance, generation: 1, reason: "no")).events.map(\.type) == [InstanceUnready.type])
        #expect(world.take(.ready(instance, generation: 1)).events.map(\.type) == [InstanceReady.type])
    }

    @Test("what a deleted app left goes a while after it, and not while one of its instances lives or the app is made again") func deleted()
        throws
    {
        var world = try running()
        let app = instance.app
        #expect(try world.take(RepositoryDeleted(app: app)).wakes.first?.key == "forget/shop")
        #expect(world.timer("forget/shop").effects.isEmpty, "an instance lives")
        _ = world.take(.exited(instance, generation: 1, Ending(reason: "x")))
        world.state.instances[instance.text] = nil
        #expect(world.timer("forget/shop").effects.map(\.effect) == [.forget(app)])
        let again = try world.take(RepositoryCreated(app: app, defaultBranch: "main"))
        #expect(again.wakes.first?.key == "forget/shop" && again.wakes.first?.seconds == nil)
    }

    @Test("an answer that comes before the news of the start is not lost") func early() throws {
        var world = World()
        _ = try world.take(Samples.start())
        #expect(world.take(.ready(instance, generation: 1)).events.isEmpty)
        let started = world.take(.started(instance, generation: 1, pid: 42, ports: ["http": 20_001]))
        #expect(started.events.map(\.type) == [InstanceStarted.type, InstanceReady.type])
        #expect(started.events.last?.as(InstanceReady.self)?.ports == ["http": 20_001])
        #expect(world.state.instances[instance.text]?.phase == .ready)
        // Of another life it says nothing.
        var second = World()
        _ = try second.take(Samples.start())
        _ = second.take(.ready(instance, generation: 1))
        _ = second.take(.refused(instance, generation: 1, reason: "no", final: false))
        _ = second.timer("restart/shop/production/web/1")
        #expect(second.take(.started(instance, generation: 2, pid: 43, ports: [:])).events.map(\.type) == [InstanceStarted.type])
    }

    @Test("an instance that ends by itself comes back after growing pauses") func restart() throws {
        var world = try running()
        var delays: [Double] = []
        for generation in 1...9 {
            let exited = world.take(.exited(instance, generation: generation, Ending(status: 1, reason: "exited with status 1")))
            let event = try #require(exited.events.first?.as(InstanceExited.self))
            #expect(!event.expected)
            delays.append(try #require(event.restartIn))
            #expect(exited.wakes.first?.key == "restart/shop/production/web/1")
            let again = world.timer("restart/shop/production/web/1")
            #expect(again.effects.map(\.effect) == [.start(instance, generation: generation + 1, spec: Samples.spec())])
            _ = world.take(.started(instance, generation: generation + 1, pid: 43, ports: [:]))
        }
        #expect(delays == [0.1, 0.5, 1, 2, 4, 8, 16, 30, 30])
        #expect(world.state.instances[instance.text]?.restarts == 9)
    }

    @Test("a long life wipes out earlier failures") func calm() throws {
        var world = try running()
        _ = world.take(.exited(instance, generation: 1, Ending(reason: "x")))
        _ = world.timer("restart/shop/production/web/1")
        _ = world.take(.started(instance, generation: 2, pid: 43, ports: [:]))
        world.now = world.now.adding(seconds: 31)
        let exited = world.take(.exited(instance, generation: 2, Ending(reason: "x")))
        #expect(exited.events.first?.as(InstanceExited.self)?.restartIn == 0.1)
    }

    @Test("news of an earlier process changes nothing") func stale() throws {
        var world = try running()
        _ = world.take(.exited(instance, generation: 1, Ending(reason: "x")))
        _ = world.timer("restart/shop/production/web/1")
        _ = world.take(.started(instance, generation: 2, pid: 43, ports: [:]))
        #expect(world.take(.exited(instance, generation: 1, Ending(reason: "late"))).events.isEmpty)
        #expect(world.take(.ready(instance, generation: 1)).events.isEmpty)
        #expect(world.state.instances[instance.text]?.phase == .running)
    }

    @Test("an instance is stopped from any phase, and its end is then expected", arguments: ["starting", "running", "backoff"])
    func stop(phase: String) throws {
        var world = World()
        _ = try world.take(Samples.start())
        if phase != "starting" { _ = world.take(.started(instance, generation: 1, pid: 42, ports: [:])) }
        if phase == "backoff" { _ = world.take(.exited(instance, generation: 1, Ending(reason: "x"))) }
        let stop = try world.take(Samples.stop)
        #expect(stop.effects.map(\.effect) == [.stop(instance, StopSpec())])
        #expect(stop.wakes.contains { $0.key == "restart/shop/production/web/1" && $0.seconds == nil })
        // A timer that fired meanwhile, and the process's own end, are late.
        #expect(world.timer("restart/shop/production/web/1").effects.isEmpty)
        #expect(world.take(.exited(instance, generation: 1, Ending(reason: "x"))).events.isEmpty)
        #expect(try world.take(Samples.stop).effects.isEmpty)
        let stopped = world.take(.stopped(instance, Ending(status: 0, reason: "was told to stop")))
        #expect(stopped.events.first?.as(InstanceExited.self)?.expected == true)
        #expect(world.state.instances.isEmpty)
    }

    @Test("stopping what does not run is answered all the same") func stopUnknown() throws {
        var world = World()
        let step = try world.take(Samples.stop)
        #expect(step.effects.isEmpty)
        #expect(step.events.first?.as(InstanceExited.self)?.expected == true)
    }

    @Test("an instance that can never start is told and forgotten; one that may is tried again") func refused() throws {
        var world = World()
        _ = try world.take(Samples.start())
        let later = world.take(.refused(instance, generation: 1, reason: "the registry is away", final: false))
        #expect(later.events.first?.as(InstanceExited.self)?.restartIn == 0.1)
        _ = world.timer("restart/shop/production/web/1")
        let never = world.take(.refused(instance, generation: 2, reason: "pushed code is not run", final: true))
        let event = try #require(never.events.first?.as(InstanceExited.self))
        #expect(!event.expected && event.restartIn == nil && event.reason == "pushed code is not run")
        #expect(world.state.instances.isEmpty)
    }

    @Test("a job is begun once and done once, also when it ran twice after a crash") func job() throws {
        var world = World()
        let order = Samples.jobOrder()
        #expect(try world.take(order).effects.map(\.effect) == [.run(order)])
        #expect(try world.take(order).effects.isEmpty)
        #expect(world.take(.jobBegan(order.job)).events.map(\.type) == [JobStarted.type])
        #expect(world.take(.jobBegan(order.job)).events.isEmpty)
        let result = JobFinished(job: order.job, host: Samples.host, outcome: .succeeded, seconds: 1)
        #expect(world.take(.jobDone(result)).events.map(\.type) == [JobFinished.type])
        #expect(world.take(.jobDone(result)).events.isEmpty)
        #expect(try world.take(order).effects.isEmpty)
    }

    @Test("an order whose data has another shape is set aside") func malformed() throws {
        struct Wrong: Event {
            static let type: EventType = "instance.requested"
            var subject: String { "x" }
            var instance = 7
        }
        var world = World()
        let step = try world.take(Wrong())
        #expect(step.effects.isEmpty && step.events.isEmpty && step.notes.count == 1)
    }
}

@Suite("readiness") struct ProbeCountTests {
    @Test("ready after enough passes in a row, unready after three failures in a row") func counting() {
        var count = ProbeCount(healthy: 2, isReady: false)
        #expect(count.take(passed: true) == nil)
        #expect(count.take(passed: false) == nil)
        #expect(count.take(passed: true) == nil)
        #expect(count.take(passed: true) == true)
        #expect(count.take(passed: false) == nil)
        #expect(count.take(passed: false) == nil)
        #expect(count.take(passed: true) == nil)
        #expect(count.take(passed: false) == nil)
        #expect(count.take(passed: false) == nil)
        #expect(count.take(passed: false) == false)
    }

    @Test("looks follow each other quickly while it starts, at the interval afterwards") func pauses() {
        var count = ProbeCount(healthy: 1, isReady: false)
        #expect(count.pause(0, interval: 2) == 0.01)
        #expect(count.pause(9, interval: 2) == 0.1)
        #expect(count.pause(9, interval: 0.05) == 0.05)
        _ = count.take(passed: true)
        #expect(count.pause(0, interval: 2) == 2)
    }
}
