import Contracts
import Kit
import Testing

@testable import APIService

@Suite("What the log told") struct ReadModelTests {
    @Test("why tells release, commit, author, who pushed and who ordered") func why() throws {
        var world = World()
        try world.release(1)
        let order = try world.event(DeployRequested(app: World.shop, environment: World.production, release: 1), id: "o1", actor: "ann")
        try world.event(DeployPlanned(head: world.head(1, release: 1, order: order), steps: []))
        try world.event(DeployStarted(head: world.head(1, release: 1, order: order)))
        #expect(throws: Problem.self) { try world.state.why(World.shop, nil, service: nil) }
        try world.event(DeploySucceeded(head: world.head(1, release: 1, order: order), url: "http://shop.localhost:7780/", seconds: 1))
        let why = try world.state.why(World.shop, nil, service: nil)
        #expect(why.version == "v1")
        #expect(why.author == "Ann <ann@example.org>")
        #expect(why.pushedBy == "ann")
        #expect(why.orderedBy == "ann")
        #expect(why.url == "http://shop.localhost:7780/")
        #expect(why.kind == "deploy")
    }

    @Test("a deployment that is rolled back leaves what is live alone, and says why it failed") func rolledBack() throws {
        var world = World()
        try world.release(1)
        try world.event(DeploySucceeded(head: world.head(1, release: 1, order: World.id("o1")), url: nil, seconds: 1))
        try world.release(2)
        let head = world.head(2, release: 2, order: World.id("o2"), previous: 1)
        try world.event(DeployStarted(head: head))
        #expect(world.state.environmentView(World.shop, World.production).state == "deploying")
        try world.event(DeployRolledBack(head: head, reason: "web/2 was not healthy", tail: [], complete: true, seconds: 3))
        let view = world.state.environmentView(World.shop, World.production)
        #expect(view.state == "live")
        #expect(view.version == "v1")
        #expect(view.last?.state == "rolled back")
        #expect(view.last?.reason == "web/2 was not healthy")
        let releases = world.state.releaseViews(World.shop, for: Principal(name: "a", role: .viewer))
        #expect(releases.map(\.version) == ["v2", "v1"])
        #expect(releases.map(\.live) == [[], [World.production]])
    }

    @Test("an instance is requested, started, ready, restarting, and gone when it was told to stop") func instances() throws {
        var world = World()
        let id = InstanceID(app: World.shop, environment: World.production, service: World.web, number: 1)
        func state() -> String? { world.state.instances[id.text]?.state }
        try world.event(InstanceRequested(instance: id, host: World.host, action: .start))
        #expect(state() == "requested")
        try world.event(InstanceStarted(instance: id, host: World.host, pid: 7))
        #expect(state() == "started")
        try world.event(
            InstanceReady(instance: id, host: World.host, release: 1, address: "127.0.0.1", ports: ["http": 4000], first: "http"))
        #expect(state() == "ready")
        try world.event(
            InstanceExited(
                instance: id, host: World.host, expected: false, status: 1, signal: nil, reason: "exit 1", tail: [], restartIn: 1))
        #expect(state() == "restarting")
        #expect(world.state.instances[id.text]?.restarts == 1)
        try world.event(InstanceRequested(instance: id, host: World.host, action: .stop))
        // A late word of readiness does not make a stopping instance ready again.
        try world.event(InstanceReady(instance: id, host: World.host, release: 1, address: "127.0.0.1", ports: [:], first: nil))
        #expect(state() == "stopping")
        try world.event(
            InstanceExited(
                instance: id, host: World.host, expected: true, status: 0, signal: nil, reason: "stopped", tail: [], restartIn: nil))
        #expect(state() == nil)
    }

    @Test("a deleted app is forgotten with all that was its own") func deleted() throws {
        var world = World()
        try world.release(1)
        try world.event(DeploySucceeded(head: world.head(1, release: 1, order: World.id("o1")), url: nil, seconds: 1))
        try world.event(RepositoryDeleted(app: World.shop))
        #expect(world.state.apps.isEmpty && world.state.releases.isEmpty && world.state.pushes.isEmpty)
        #expect(world.state.environments.isEmpty && world.state.deployments.isEmpty)
    }

    @Test("the same events twice make the same state") func repeats() throws {
        var once = World()
        try once.release(1)
        let size = (once.state.apps.values, once.state.releases.values)
        once.seq = 0
        try once.release(1)
        #expect(once.state.apps.values == size.0)
        #expect(once.state.releases.values == size.1)
    }

    @Test("an event of a shape that is not known is passed over") func unknown() throws {
        var world = World()
        var envelope = Envelope(
            id: World.id("x"), source: "git@host1", type: RepositoryCreated.type, subject: nil, time: nil,
            data: .object(["apq": .string("shop")]))
        envelope.sequence = Envelope.digits(9)
        world.handle(.event(envelope), cause: envelope.id, actor: nil)
        #expect(world.state.apps.isEmpty)
        #expect(world.state.position == 9)
    }

    @Test("releases are ordered by number, not by digits") func order() throws {
        var world = World()
        for number in [1, 2, 9, 10, 11] { try world.release(number) }
        #expect(world.state.releaseViews(World.shop, for: Principal(name: "a", role: .viewer)).map(\.number) == [11, 10, 9, 2, 1])
    }
}
