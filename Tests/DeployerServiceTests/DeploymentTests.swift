import Contracts
import Testing

@testable import DeployerService

@Suite("a deployment") struct DeploymentTests {
    @Test("starts, switches, says live, drains, stops, in this order") func happy() throws {
        var world = World()
        world.release(1, Fixture.web)
        let first = world.deploy(1)
        world.settle()
        #expect(world.ends(of: first) == ["live"])
        #expect(world.events(DeploySucceeded.self).last?.url == "http://shop.localhost:7780")

        world.release(2, Fixture.web)
        let second = world.deploy(nil)
        let new = try #require(world.starts.first?.instance)
        #expect(new.text == "shop/production/web/2")
        #expect(world.routes.isEmpty)
        world.ready(new, release: 2)
        #expect(world.routes.count == 1)
        #expect(world.routes[0].servers.map(\.instance) == [new])
        #expect(world.routes[0].hosts == ["shop.localhost", "production.shop.localhost"])
        #expect(world.ends(of: second).isEmpty)
        let route = try #require(world.orders.first { $0.type == RouteRequested.type })
        world.answerRoute(drain: false)
        #expect(world.ends(of: second) == ["live"])
        // Not before it is drained.
        #expect(world.stops.isEmpty)
        world.drain(route.id, try #require(route.as(RouteRequested.self)))
        #expect(world.stops.map(\.instance.text) == ["shop/production/web/1"])
        world.settle()
        #expect(world.state.instances.keys == ["shop/production/web/2"])
        #expect(world.state.leaving.isEmpty)
        #expect(world.environment()?.live?.release == 2)
        #expect(world.timers.compactMapValues { $0 }.isEmpty)
    }

    @Test("goes on when the suite was stopped in the middle of it, while instances start and while routes move") func interrupted() throws {
        for late in [false, true] {
            var world = World()
            world.release(1, Fixture.web)
            _ = world.deploy(1)
            world.settle()
            world.release(2, Fixture.web)
            let order = world.deploy(2)
            let new = try #require(world.starts.first?.instance)
            if late { world.ready(new, release: 2) }
            world.restart([try InstanceID("shop/production/web/1"), new])
            #expect(world.ends(of: order).isEmpty)
            if !late { #expect(world.timers.keys.contains { $0.hasPrefix("start|") }, "it is waited for, and not for ever") }
            world.ready(try InstanceID("shop/production/web/1"))
            world.ready(new, release: 2)
            world.settle()
            #expect(world.ends(of: order) == ["live"])
            #expect(world.state.instances.keys == ["shop/production/web/2"])
        }
        // What ends by itself afterwards is the release's fault again.
        var world = World()
        world.release(1, Fixture.web)
        let order = world.deploy(1)
        let new = try #require(world.starts.first?.instance)
        world.restart([new])
        world.exit(new, expected: false)
        world.settle()
        #expect(world.ends(of: order) == ["rolled back"])
    }

    @Test("tells its plan in words before it begins") func plan() throws {
        var world = World()
        let config = Fixture.config([Fixture.service("web", needs: ["db"], instances: 2), Fixture.service("db", port: false)])
        world.release(1, config)
        _ = world.deploy(1)
        world.settle()
        world.release(2, config)
        _ = world.deploy(2)
        let planned = try #require(world.events(DeployPlanned.self).last)
        #expect(
            planned.steps.map(\.text) == [
                "start db/2 of v2", "start web/3, web/4 of v2, once db is ready",
                "lead shop.localhost, production.shop.localhost to web/3, web/4", "let web/1, web/2 finish their requests",
                "stop db/1, web/1, web/2",
            ])
        let query = try world.state.plan(PlanDeployment(app: World.app, environment: nil, release: 1))
        #expect(query.previous == 1)
    }

    @Test("starts what is needed first, and tells where it is") func needs() throws {
        var world = World()
        world.release(
            1,
            Fixture.config([
                Fixture.service("web", needs: ["my-db"]), Fixture.service("my-db"), Fixture.service("worker", needs: ["web"], port: false),
            ]))
        _ = world.deploy(1)
        #expect(world.starts.map(\.instance.service.text) == ["my-db"])
        world.ready(world.starts[0].instance, port: 4242)
        #expect(world.starts.map(\.instance.service.text) == ["web"])
        #expect(world.starts[0].spec?.environment == ["LOG": "info", "MY_DB_HOST": "127.0.0.1", "MY_DB_PORT_HTTP": "4242"])
        world.ready(world.starts[0].instance)
        #expect(world.starts.map(\.instance.service.text) == ["worker"])
        world.settle()
        #expect(world.environment()?.live?.release == 1)
        // The old ones stop in the other order.
        world.release(
            2,
            Fixture.config([
                Fixture.service("web", needs: ["my-db"]), Fixture.service("my-db"), Fixture.service("worker", needs: ["web"], port: false),
            ]))
        _ = world.deploy(2)
        world.settle()
        let stopped = world.events(InstanceRequested.self).filter { $0.action == .stop }.map(\.instance.service.text)
        #expect(stopped == ["worker", "web", "my-db"])
    }

    @Test("moves no route before every instance is ready, and is not live before every route has moved") func all() {
        var world = World()
        let api = RouteSpec(host: "api.example.org", service: try! ServiceName("api"))
        world.release(1, Fixture.config([Fixture.service("web", instances: 2), Fixture.service("api", needs: ["web"])], routes: [api]))
        let order = world.deploy(1)
        world.ready(world.starts[0].instance)
        #expect(world.starts.map(\.instance.text) == ["shop/production/web/2"])
        world.ready(world.starts[0].instance)
        #expect(world.routes.isEmpty)
        world.ready(world.starts[0].instance)
        #expect(world.routes.map(\.service.text) == ["api", "web"])
        world.answerRoute(drain: true)
        #expect(world.ends(of: order).isEmpty)
        world.answerRoute(drain: true)
        #expect(world.ends(of: order) == ["live"])
    }

    @Test("that crashes at its start is rolled back with the last lines, and touches no route") func crash() throws {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        let before = world.environment()?.routes
        world.release(2, Fixture.config([Fixture.service("web", instances: 2)]))
        let order = world.deploy(2)
        let bad = world.starts[0].instance
        world.exit(bad, expected: false, tail: ["Traceback", "boom"])
        #expect(world.ends(of: order).isEmpty)
        #expect(Set(world.stops.map(\.instance.number)) == [2, 3])
        world.settle()
        #expect(world.ends(of: order) == ["rolled back"])
        let event = try #require(world.events(DeployRolledBack.self).last)
        #expect(event.reason == "web/2 ended before it was ready: exited with status 1")
        #expect(event.tail == ["Traceback", "boom"])
        #expect(event.complete)
        #expect(world.environment()?.routes == before)
        #expect(world.environment()?.live?.release == 1)
        #expect(world.state.instances.keys == ["shop/production/web/1"])
    }

    @Test("that never becomes ready is rolled back after its grace, with the last lines of the one that was late") func slow() throws {
        var world = World()
        world.release(1, Fixture.config([Fixture.service("web", grace: 3)]))
        let order = world.deploy(1)
        let id = world.starts[0].instance
        #expect(world.timers["start|shop/production|1"] == 63)
        world.deliver(InstanceStarted(instance: id, host: World.host, pid: 7))
        #expect(world.timers["start|shop/production|1"] == 3)
        world.fire("start|")
        world.exit(id, expected: true, tail: ["still loading"])
        #expect(world.ends(of: order) == ["rolled back"])
        let event = try #require(world.events(DeployRolledBack.self).last)
        #expect(event.reason == "web/1 was not ready within 3 s: GET /healthz did not answer 2xx or 3xx")
        #expect(event.tail == ["still loading"])
        #expect(world.environment()?.live == nil)
    }

    @Test("ends although a failed instance never ends") func stuck() {
        var world = World()
        world.release(1, Fixture.web)
        let order = world.deploy(1)
        world.exit(world.starts[0].instance, expected: false)
        #expect(world.ends(of: order).isEmpty)
        world.fire("stop|")
        #expect(world.ends(of: order) == ["rolled back"])
    }

    @Test("whose instance ends while the routes move leads them back first") func crashWhileSwitching() throws {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        world.release(2, Fixture.web)
        let order = world.deploy(2)
        let new = world.starts[0].instance
        world.ready(new, release: 2)
        world.exit(new, expected: false)
        #expect(world.routes.last?.servers.map(\.instance.number) == [1])
        world.settle()
        #expect(world.ends(of: order) == ["rolled back"])
        #expect(world.events(DeployRolledBack.self).last?.complete == true)
        #expect(world.state.instances.keys == ["shop/production/web/1"])
        #expect(world.environment()?.routes["web"]?.servers.map(\.instance.number) == [1])
    }

    @Test("that discovery never answers goes back, and says when that could not be completed") func noDiscovery() throws {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        world.release(2, Fixture.web)
        let order = world.deploy(2)
        world.ready(world.starts[0].instance, release: 2)
        world.fire("route|")
        #expect(world.ends(of: order).isEmpty)
        world.fire("route|")
        #expect(world.ends(of: order) == ["rolled back"])
        #expect(world.events(DeployRolledBack.self).last?.complete == false)
        // Nobody knows whether requests still come: they live until discovery has spoken.
        world.fire("drain|")
        #expect(world.stops.isEmpty)
        world.settle()
        #expect(world.state.instances.keys == ["shop/production/web/1"])
    }

    @Test("stops the old instances after a while even when nobody says that they are drained") func undrained() {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        world.release(2, Fixture.web)
        _ = world.deploy(2)
        world.ready(world.starts[0].instance, release: 2)
        world.answerRoute(drain: false)
        #expect(world.timers["drain|shop/production|2"] == 30)
        world.fire("drain|")
        #expect(world.stops.map(\.instance.number) == [1])
    }

    @Test("of what is live already changes nothing and says so") func again() throws {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        let order = world.deploy(1)
        #expect(world.ends(of: order) == ["live"])
        #expect(world.orders.isEmpty)
        #expect(world.events(DeployPlanned.self).last?.steps.first?.text == "v1 is already live: nothing to do")
        // One that has ended for good is missing: now there is something to do.
        world.deliver(
            InstanceExited(
                instance: try InstanceID("shop/production/web/1"), host: World.host, expected: false, status: 1, signal: nil,
                reason: "gave up", tail: [], restartIn: nil))
        let repair = world.deploy(1)
        world.settle()
        #expect(world.ends(of: repair) == ["live"])
        #expect(world.state.instances.keys == ["shop/production/web/2"])
    }

    @Test("of an app without ports has no address and no route") func noPorts() {
        var world = World()
        world.release(1, Fixture.config([Fixture.service("worker", port: false)]))
        let order = world.deploy(1)
        world.settle()
        #expect(world.ends(of: order) == ["live"])
        #expect(world.events(RouteRequested.self).isEmpty)
        #expect(world.events(DeploySucceeded.self).last?.url == nil)
    }

    @Test("without an ingress says the port of the instance") func noIngress() {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.ready(world.starts[0].instance)
        world.answerRoute(drain: true, ingress: false)
        #expect(world.events(DeploySucceeded.self).last?.url == "http://127.0.0.1:20001")
    }

    @Test("says which host name it did not get") func refused() {
        var world = World()
        let route = RouteSpec(host: "shop.example.org", service: try! ServiceName("web"))
        world.release(1, Fixture.config([Fixture.service("web")], routes: [route]))
        _ = world.deploy(1)
        world.ready(world.starts[0].instance)
        world.answerRoute(drain: true, refused: ["shop.example.org": "it belongs to the app bank"])
        #expect(world.events(DeploySucceeded.self).last?.notes == ["shop.example.org does not lead to web: it belongs to the app bank"])
        #expect(world.events(DeploySucceeded.self).last?.url == "http://shop.localhost:7780")
    }

    @Test("takes away the route of a service that is gone") func removedService() {
        var world = World()
        let api = RouteSpec(host: "api.example.org", service: try! ServiceName("api"))
        world.release(1, Fixture.config([Fixture.service("web"), Fixture.service("api")], routes: [api]))
        _ = world.deploy(1)
        world.settle()
        #expect(world.environment()?.routes["api"]?.hosts == ["api.example.org"])
        world.release(2, Fixture.web)
        _ = world.deploy(2)
        world.settle()
        #expect(world.environment()?.routes.keys.sorted() == ["web"])
        #expect(world.events(RouteRequested.self).last { $0.service.text == "api" }?.servers.isEmpty == true)
    }

    @Test("names its order as cause, and keeps the actor") func cause() {
        var world = World()
        world.release(1, Fixture.web)
        let order = world.deploy(1)
        world.settle()
        let mine = world.log.filter { $0.source == "deployer@host1" }
        #expect(!mine.isEmpty)
        #expect(mine.allSatisfy { $0.cause == order && $0.actor == "ada" })
        #expect(Set(mine.map(\.id)).count == mine.count)
    }
}
