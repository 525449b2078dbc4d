import Contracts
import Testing

@testable import DeployerService

@Suite("an order") struct OrderTests {
    private func failure(_ world: World) -> String? { world.events(DeployFailed.self).last.map { "\($0.reason) | \($0.hint ?? "-")" } }

    @Test("for what does not exist is rejected with the next command, and changes nothing") func unknown() throws {
        var world = World()
        _ = world.deploy(1)
        #expect(failure(world) == "there is no app 'shop' | slipway app create shop")
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        _ = world.deploy(nil)
        #expect(failure(world) == "shop has no release yet | push a commit: git push slipway main")
        world.deliver(DeployRequested(app: try AppName("shpo"), release: 1))
        #expect(failure(world) == "there is no app 'shpo' | did you mean 'shop'?")
        world.release(1, Fixture.web)
        _ = world.deploy(9)
        #expect(failure(world) == "shop has no release v9 | the newest is v1; 'slipway releases shop' lists all")
        _ = world.deploy(1, try EnvName("prodution"))
        #expect(failure(world) == "shop has no environment 'prodution' | did you mean 'production'? it has: production")
        _ = world.rollback()
        #expect(failure(world) == "nothing to roll back to: nothing has been live in production of shop | slipway releases shop")
        #expect(world.state.environments.isEmpty)
        #expect(world.orders.isEmpty)
        _ = world.deploy(1)
        world.settle()
        _ = world.rollback()
        #expect(failure(world) == "nothing to roll back to: only v1 has been live in production of shop | slipway releases shop")
    }

    @Test("goes back to the release before, and to a named one, without building") func rollback() {
        var world = World()
        for number in 1...3 {
            world.release(number, Fixture.web)
            _ = world.deploy(number)
            world.settle()
        }
        let order = world.rollback()
        world.settle()
        #expect(world.ends(of: order) == ["live"])
        #expect(world.events(DeploySucceeded.self).last?.head.kind == .rollback)
        #expect(world.environment()?.live?.release == 2)
        _ = world.rollback(to: 1)
        world.settle()
        #expect(world.environment()?.live?.release == 1)
        #expect(world.environment()?.before == 2)
    }

    @Test("waits while a deployment is under way, and is superseded by a newer one") func superseded() {
        var world = World()
        for number in 1...4 { world.release(number, Fixture.web) }
        let first = world.deploy(1)
        let second = world.deploy(2)
        let third = world.deploy(3)
        #expect(world.ends(of: second) == ["rejected"])
        #expect(world.events(DeployFailed.self).last?.reason == "superseded by the deployment of v3")
        #expect(world.starts.count == 1)
        world.settle()
        #expect(world.ends(of: first) == ["live"])
        #expect(world.ends(of: third) == ["live"])
        #expect(world.environment()?.live?.release == 3)
        #expect(world.environment()?.history == [1, 3])
    }

    @Test("that waits begins before the old instances are gone") func overlap() {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        world.release(2, Fixture.web)
        world.release(3, Fixture.web)
        _ = world.deploy(2)
        let last = world.deploy(3)
        world.ready(world.starts[0].instance, release: 2)
        world.answerRoute(drain: false)
        // web/1 still drains; web/3 is on its way.
        #expect(world.starts.map(\.instance.number) == [3])
        world.settle()
        world.fire("drain|")
        world.settle()
        #expect(world.ends(of: last) == ["live"])
        #expect(world.state.instances.keys == ["shop/production/web/3"])
    }

    @Test("to go back waits, and its goal is known when its turn comes") func waitingRollback() {
        var world = World()
        world.release(1, Fixture.web)
        world.release(2, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        _ = world.deploy(2)
        let back = world.rollback()
        world.settle()
        #expect(world.ends(of: back) == ["live"])
        #expect(world.environment()?.live?.release == 1)
    }

    @Test("that comes twice is followed once") func twice() {
        var world = World()
        world.release(1, Fixture.web)
        let order = world.deploy(1)
        let again = world.log.first { $0.id == order }!
        world.deliver(again)
        world.settle()
        world.deliver(again)
        #expect(world.ends(of: order) == ["live"])
        #expect(world.events(DeployPlanned.self).count == 1)
    }

    @Test("that names a ref is not the deployer's") func ref() {
        var world = World()
        world.release(1, Fixture.web)
        world.deliver(DeployRequested(app: World.app, ref: "main"))
        #expect(world.environment() == nil)
        #expect(world.events(DeployFailed.self).isEmpty)
    }

    @Test("for one environment leaves the other alone; names of hosts lead to the last one only") func twoEnvironments() throws {
        var world = World()
        let shop = RouteSpec(host: "shop.example.org", service: try ServiceName("web"))
        world.release(1, Fixture.config([Fixture.service("web")], routes: [shop], chain: Fixture.chain))
        let early = world.deploy(1)
        #expect(world.ends(of: early) == ["rejected"])
        #expect(
            failure(world)
                == "v1 has not been live in staging, and production of shop takes releases from there | slipway deploy shop --env staging --release v1"
        )
        _ = world.deploy(1, World.staging)
        world.settle()
        #expect(world.environment(World.staging)?.routes["web"]?.hosts == ["staging.shop.localhost"])
        #expect(world.events(DeploySucceeded.self).last?.url == "http://staging.shop.localhost:7780")
        let order = world.deploy(nil)
        world.settle()
        #expect(world.ends(of: order) == ["live"])
        #expect(
            world.environment(World.production)?.routes["web"]?.hosts == [
                "shop.localhost", "production.shop.localhost", "shop.example.org",
            ])
        #expect(world.state.instances.keys == ["shop/production/web/1", "shop/staging/web/1"])
    }

    @Test("of an app that is deleted ends; its routes and instances go, its numbers are not used again") func deleted() throws {
        var world = World()
        world.release(1, Fixture.web)
        _ = world.deploy(1)
        world.settle()
        world.release(2, Fixture.web)
        let running = world.deploy(2)
        let waiting = world.deploy(1)
        world.deliver(RepositoryDeleted(app: World.app))
        #expect(world.ends(of: running) == ["rolled back"])
        #expect(world.ends(of: waiting) == ["rejected"])
        #expect(world.routes.last?.servers.isEmpty == true)
        #expect(world.stops.map(\.instance.number) == [1, 2])
        world.settle()
        #expect(world.state.instances.isEmpty)
        #expect(world.state.releases.isEmpty)
        world.release(3, Fixture.web)
        #expect(world.state.releases.isEmpty)
        let late = world.deploy(1)
        #expect(world.ends(of: late) == ["rejected"])
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        world.release(4, Fixture.web)
        _ = world.deploy(4)
        #expect(world.starts.map(\.instance.number) == [3])
    }
}

@Suite("a live instance") struct LiveInstanceTests {
    private func world() -> World {
        var world = World()
        world.release(1, Fixture.config([Fixture.service("web", instances: 2)]))
        _ = world.deploy(1)
        world.settle()
        return world
    }

    @Test("that is unwell leaves the route, and comes back when it is well") func unready() throws {
        var world = world()
        let id = try InstanceID("shop/production/web/1")
        world.deliver(InstanceUnready(instance: id, host: World.host, reason: "no answer"))
        #expect(world.routes.last?.servers.map(\.instance.number) == [2])
        world.settle()
        world.ready(id)
        #expect(world.routes.last?.servers.map(\.instance.number) == [1, 2])
    }

    @Test("that is the last one stays in the route however unwell") func last() throws {
        var world = world()
        for number in 1...2 {
            world.deliver(InstanceUnready(instance: try InstanceID("shop/production/web/\(number)"), host: World.host, reason: "no answer"))
        }
        world.settle()
        #expect(world.environment()?.routes["web"]?.servers.map(\.instance.number) == [2])
    }

    @Test("that comes back on another port gets its route changed") func moved() throws {
        var world = world()
        let id = try InstanceID("shop/production/web/2")
        world.exit(id, expected: false)
        world.settle()
        world.ready(id, port: 31_000)
        #expect(world.routes.last?.servers.map(\.port) == [20_001, 31_000])
    }

    @Test("nobody knows of changes nothing") func unknown() throws {
        var world = world()
        let before = world.state.environments.values
        let id = try InstanceID("shop/production/web/9")
        world.ready(id)
        world.exit(id, expected: false)
        #expect(world.state.environments.values == before)
        #expect(world.orders.isEmpty)
    }
}
