import Contracts
import Testing

@testable import DiscoveryService

@Suite("catalogue") struct CatalogueTests {
    @Test("an instance is registered once, its health told on change only, and it leaves when it is stopped") func life() throws {
        var desk = Desk()
        let web = try Sample.id(1)
        try desk.take(Sample.ready(web, port: 5001))
        try desk.take(Sample.ready(web, port: 5001))
        #expect(desk.types == ["service.registered"])
        try desk.take(Sample.unready(web))
        try desk.take(Sample.unready(web))
        try desk.take(Sample.ready(web, port: 5001))
        #expect(desk.all(HealthChanged.self).map(\.healthy) == [false, true])
        #expect(desk.all(HealthChanged.self).first?.reason == "GET /healthz answered 500")
        try desk.take(Sample.exited(web, expected: true, restartIn: nil))
        #expect(desk.types.last == "service.deregistered")
        #expect(desk.state.instances.isEmpty)
        let before = desk.types
        try desk.take(Sample.exited(web, expected: true, restartIn: nil))
        try desk.take(Sample.unready(web))
        #expect(desk.types == before)
    }

    @Test("one that died and will be started again stays, unhealthy") func restart() throws {
        var desk = Desk()
        let web = try Sample.id(1)
        try desk.take(Sample.ready(web, port: 5001))
        try desk.take(Sample.exited(web))
        #expect(desk.state.instances[web.text]?.healthy == false)
        try desk.take(Sample.ready(web, port: 5002))
        #expect(desk.state.instances[web.text]?.mainPort == 5002)
        #expect(desk.types == ["service.registered", "health.changed", "service.registered", "health.changed"])
    }

    @Test("an order is answered after the ingress acknowledged it, then again when the leaving servers have finished") func order() throws {
        var desk = Desk()
        let one = try Sample.id(1)
        let two = try Sample.id(2)
        let first = try desk.take(Sample.route([(one, 5001)]))
        #expect(desk.types.isEmpty)
        try desk.obey()
        #expect(desk.types == ["route.changed", "route.drained"])
        #expect(desk.published.allSatisfy { $0.cause == first && $0.actor == "ada" })
        let second = try desk.take(Sample.route([(two, 5002)]))
        let table = IngressTable(desk.state)
        #expect(table.backends[0]?.servers[0]?.mode == .drain)
        #expect(table.backends[0]?.servers[1]?.mode == .ready)
        desk.published = []
        try desk.take(.led(route: "shop/production/web", generation: desk.state.generation, ingress: true))
        #expect(desk.types == ["route.changed"])
        #expect(desk.all(RouteChanged.self).first?.servers.map(\.instance) == [two])
        try desk.take(.drained(route: "shop/production/web", generation: desk.state.generation, late: 0))
        let drained = try #require(desk.all(RouteDrained.self).first)
        #expect(drained.instances == [one] && drained.order == second)
        #expect(desk.state.routes["shop/production/web"]?.slots.map(\.index) == [1])
    }

    @Test("without an ingress both answers come at once and say so") func absent() throws {
        var desk = Desk()
        try desk.take(Sample.route([(try Sample.id(1), 5001)]))
        try desk.obey(ingress: false)
        try desk.take(Sample.route([(try Sample.id(2), 5002)]))
        try desk.obey(ingress: false)
        #expect(desk.types == ["route.changed", "route.drained", "route.changed", "route.drained"])
        #expect(desk.all(RouteChanged.self).allSatisfy { !$0.ingress })
        #expect(desk.all(RouteDrained.self).last?.instances == [try Sample.id(1)])
    }

    @Test("an order that a newer one overtook is answered too, with where requests really go") func overtaken() throws {
        var desk = Desk()
        let first = try desk.take(Sample.route([(try Sample.id(1), 5001)]))
        let second = try desk.take(Sample.route([(try Sample.id(2), 5002)]))
        try desk.take(.led(route: "shop/production/web", generation: desk.state.generation, ingress: true))
        #expect(desk.all(RouteChanged.self).map(\.order) == [first, second])
        #expect(desk.all(RouteChanged.self).allSatisfy { $0.servers.map(\.port) == [5002] })
    }

    @Test("a server that comes back while it drains stays in its place, and its drain is answered") func comesBack() throws {
        var desk = Desk()
        let one = try Sample.id(1)
        let two = try Sample.id(2)
        try desk.take(Sample.route([(one, 5001)]))
        try desk.obey()
        let away = try desk.take(Sample.route([(two, 5002)]))
        try desk.take(.led(route: "shop/production/web", generation: desk.state.generation, ingress: true))
        let drain = try #require(desk.effects.last)
        try desk.take(Sample.route([(one, 5001)]))
        try desk.obey()
        guard case .drain(let route, let generation) = drain else {
            Issue.record("expected a drain")
            return
        }
        try desk.take(.drained(route: route, generation: generation, late: 0))
        #expect(desk.all(RouteDrained.self).contains { $0.order == away && $0.instances.isEmpty })
        #expect(desk.state.routes["shop/production/web"]?.slots.map(\.server.instance) == [one])
    }

    @Test("a sick server leaves the route unless it is the last; a dead one always does") func health() throws {
        var desk = Desk()
        let one = try Sample.id(1)
        let two = try Sample.id(2)
        try desk.take(Sample.ready(one, port: 5001))
        try desk.take(Sample.ready(two, port: 5002))
        try desk.take(Sample.route([(one, 5001), (two, 5002)]))
        func modes() -> [IngressTable.Server.Mode?] { (0..<2).map { IngressTable(desk.state).backends[0]?.servers[$0]?.mode } }
        #expect(modes() == [.ready, .ready])
        try desk.take(Sample.unready(one))
        #expect(modes() == [.out, .ready])
        try desk.take(Sample.unready(two))
        #expect(modes() == [.ready, .ready])
        try desk.take(Sample.exited(one))
        #expect(modes() == [.out, .ready])
        try desk.take(Sample.exited(two))
        #expect(modes() == [.out, .out])
        try desk.take(Sample.ready(one, port: 5001))
        #expect(modes() == [.ready, .out])
    }

    @Test("an instance that comes back on another port gets a fresh place") func moved() throws {
        var desk = Desk()
        let one = try Sample.id(1)
        try desk.take(Sample.ready(one, port: 5001))
        try desk.take(Sample.route([(one, 5001)]))
        try desk.obey()
        try desk.take(Sample.exited(one))
        try desk.take(Sample.ready(one, port: 5009))
        let servers = try #require(IngressTable(desk.state).backends[0]?.servers)
        #expect(servers[0]?.mode == .out && servers[1]?.mode == .ready && servers[1]?.port == 5009)
        try desk.obey()
        #expect(desk.state.routes["shop/production/web"]?.slots.map(\.server.port) == [5009])
    }

    @Test("a host name of another app is refused by name, and stays where it is") func theft() throws {
        var desk = Desk()
        try desk.take(Sample.route([(try Sample.id(1), 5001)], hosts: ["shop.localhost", "shop.example.org"]))
        try desk.take(
            Sample.route(
                [(try Sample.id(1, app: "evil"), 6001)],
                hosts: ["shop.localhost", "shop.example.org", "*.example.org", "A.b", "evil.localhost", "-x.y", ""],
                app: "evil"))
        try desk.obey()
        let answer = try #require(desk.all(RouteChanged.self).last)
        #expect(answer.hosts == ["evil.localhost"])
        #expect(answer.refused?.keys.sorted() == ["", "*.example.org", "-x.y", "A.b", "shop.example.org", "shop.localhost"])
        #expect(answer.refused?["shop.example.org"] == "it belongs to the app shop")
        #expect(IngressTable(desk.state).hosts == ["shop.localhost": 0, "shop.example.org": 0, "evil.localhost": 1])
    }

    @Test("the app's own name moves to the environment that asked last") func ownName() throws {
        var desk = Desk()
        try desk.take(Sample.route([(try Sample.id(1), 5001)]))
        try desk.take(Sample.route([(try Sample.id(1, env: "staging"), 5002)], env: "staging"))
        #expect(IngressTable(desk.state).hosts == ["shop.localhost": 1])
    }

    @Test("an order with no servers, and the end of an app, remove the route and say so") func removal() throws {
        var desk = Desk()
        try desk.take(Sample.ready(try Sample.id(1), port: 5001))
        try desk.take(Sample.route([(try Sample.id(1), 5001)]))
        try desk.obey()
        desk.published = []
        try desk.take(RepositoryDeleted(app: try AppName("shop")))
        #expect(IngressTable(desk.state).hosts.isEmpty)
        try desk.obey()
        #expect(desk.types == ["service.deregistered", "route.changed", "route.drained"])
        #expect(desk.state.routes.isEmpty && desk.state.instances.isEmpty)
    }

    @Test("an order that cannot be carried out changes nothing and is not answered") func wrong() throws {
        var desk = Desk()
        try desk.take(Sample.route([(try Sample.id(1), 5001)]))
        try desk.obey()
        let before = desk.state.routes.values
        desk.published = []
        try desk.take(Sample.route([(try Sample.id(2), 0)]))
        try desk.take(Sample.route([(try Sample.id(2), 65_536)]))
        var named = try Sample.route([(try Sample.id(2), 80)])
        named.servers[0].address = "db.example.org"
        try desk.take(named)
        named.servers[0].address = "127.0.0.1 disabled\nbackend x"
        try desk.take(named)
        #expect(desk.state.routes.values == before)
        #expect(desk.published.isEmpty && desk.effects.isEmpty)
        #expect(desk.notes.count == 4)
    }
}
