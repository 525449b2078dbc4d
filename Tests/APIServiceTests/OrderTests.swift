import Contracts
import Kit
import Story
import Testing

@testable import APIService

@Suite("Orders") struct OrderTests {
    private let admin = Principal(name: "admin", role: .admin)

    @Test("an order is published first, under an id derived from the request, with an audit line in the same step") func ids() throws {
        var world = World()
        world.notice(.deploy(DeployRequested(app: World.shop, release: 1)), actor: "ann", id: "request-1")
        #expect(world.published.map(\.type) == [DeployRequested.type, AuditRecorded.type])
        let expected = EventID.derived(from: World.id("request-1"), component: "api", ordinal: 1)
        #expect(world.published.first?.id == expected)
        #expect(world.published.first?.actor == "ann")
        #expect(world.state.orders[expected.text]?.seq == 0)
        // Handled again after a crash it is the same order.
        world.notice(.deploy(DeployRequested(app: World.shop, release: 1)), actor: "ann", id: "request-1")
        #expect(world.published.filter { $0.type == DeployRequested.type }.allSatisfy { $0.id == expected })
    }

    @Test("what cannot be done is refused before it is ordered") func rules() throws {
        var world = World()
        #expect(throws: Problem.self) {
            try OrderRules.check(world.state, World.shop, environment: nil, release: nil, ref: nil, by: admin)
        }
        try world.release(1)
        try OrderRules.check(world.state, World.shop, environment: nil, release: 1, ref: nil, by: admin)
        #expect(throws: Problem.self) { try OrderRules.check(world.state, World.shop, environment: nil, release: 2, ref: nil, by: admin) }
        #expect(throws: Problem.self) {
            try OrderRules.check(world.state, World.shop, environment: try EnvName("qa"), release: 1, ref: nil, by: admin)
        }
        #expect(throws: Problem.self) {
            try OrderRules.check(world.state, World.shop, environment: nil, release: 1, ref: "main", by: admin)
        }
        #expect(throws: Problem.self) {
            try OrderRules.check(world.state, World.shop, environment: nil, release: nil, ref: "--x", by: admin)
        }
    }

    @Test("a token for one environment orders nothing elsewhere") func reach() throws {
        var world = World()
        try world.release(1)
        let staging = Principal(name: "bot", role: .developer, environment: try EnvName("staging"))
        let refusal = #expect(throws: Problem.self) {
            try OrderRules.check(world.state, World.shop, environment: nil, release: 1, ref: nil, by: staging)
        }
        #expect(refusal?.code == .forbidden)
    }

    @Test("a person publishes orders and words of her own, never a fact of the suite") func publishing() throws {
        let deploy = JSON.object(["app": .string("shop"), "release": .int(3)])
        #expect(try Publishing.check("deploy.requested", subject: nil, data: deploy, by: admin) == "shop")
        #expect(try Publishing.check("chat.said", subject: "room/1", data: .object([:]), by: admin) == "room/1")
        for type: EventType in ["deploy.succeeded", "audit.recorded", "component.joined", "git.push.received", "log.lines"] {
            #expect(throws: Problem.self) { try Publishing.check(type, subject: nil, data: .object([:]), by: admin) }
        }
        let refusal = #expect(throws: Problem.self) {
            try Publishing.check("deploy.requested", subject: nil, data: .object(["app": .string("../x")]), by: admin)
        }
        #expect(refusal?.code == .invalid)
        #expect(throws: Problem.self) { try Publishing.check("chat.said", subject: "a\u{1B}[2J", data: .object([:]), by: admin) }
        let scoped = Principal(name: "bot", role: .operator, app: try AppName("other"))
        #expect(throws: Problem.self) { try Publishing.check("deploy.requested", subject: nil, data: deploy, by: scoped) }
    }

    @Test("rights to one app show that app's events only, and to one environment no other's") func visible() throws {
        let holder = Principal(name: "bot", role: .viewer, app: World.shop)
        #expect(holder.sees("deploy.succeeded", subject: "shop/production"))
        #expect(!holder.sees("deploy.succeeded", subject: "shopping/production"))
        #expect(!holder.sees("audit.recorded", subject: "shop"))
        #expect(!holder.sees("component.joined", subject: "shop"))
        #expect(!holder.sees("git.push.received", subject: nil))
        #expect(admin.sees("audit.recorded", subject: "shop"))

        let staging = Principal(name: "bot", role: .viewer, app: World.shop, environment: try EnvName("staging"))
        for (type, subject, seen) in [
            ("log.lines", "shop/production/web/3", false), ("log.lines", "shop/staging/web/3", true),
            ("log.lines", "shop/run-2/test", true),
            ("service.registered", "shop/production/web/3", false), ("health.changed", "shop/production/web/3", false),
            ("scale.requested", "shop/production", false), ("deploy.started", "shop/staging", true), ("run.started", "shop/run-1", true),
            ("git.push.received", "shop", true), ("deploy.started", "other/staging", false),
        ] {
            #expect(staging.sees(type, subject: subject) == seen, "\(type) \(subject)")
        }
    }

    @Test("a type stands for itself and all below it") func filters() throws {
        #expect(try Publishing.filters(nil) == ["**"])
        #expect(try Publishing.filters("deploy") == ["deploy", "deploy.**"])
        #expect(try Publishing.filters("git.*") == ["git.*"])
        #expect(throws: Problem.self) { try Publishing.filters("Deploy") }
        let matching = TopicFilters(["deploy", "deploy.**", "git.*"])
        #expect(matching.match("deploy.requested") && matching.match("deploy") && !matching.match("deployer.x"))
        #expect(matching.match("git.push") && !matching.match("git.push.received"))
    }
}

@Suite("Where a story begins") struct StoryLookTests {
    @Test("a push begins at its own event, an order not yet in the log after all that was taken") func begins() throws {
        var world = World()
        try world.release(1)
        let push = try StoryRoutes.look(world.state, .commit(String(World.commit.text.prefix(7))), nil, World.shop)
        #expect(push?.subject == .commit(World.shop, World.commit))
        #expect(push?.seq == 2)
        world.notice(.deploy(DeployRequested(app: World.shop, release: 1)), id: "later")
        let id = EventID.derived(from: World.id("later"), component: "api", ordinal: 1)
        #expect(try StoryRoutes.look(world.state, .order(id), nil, World.shop)?.seq == world.state.position + 1)
        #expect(try StoryRoutes.look(world.state, .order(id), nil, try AppName("other")) == nil)
        #expect(try StoryRoutes.look(world.state, .commit("bbbb"), nil, World.shop) == nil)
    }

    @Test("with nothing named, the newest push is followed, or an order given after it") func newest() throws {
        var world = World()
        try world.release(1)
        // The push's own deployment belongs to the push's story.
        try world.event(RunStarted(app: World.shop, run: 1, ref: World.main, commit: World.commit, jobs: []))
        try world.event(
            RunFinished(
                app: World.shop, run: 1, ref: World.main, commit: World.commit, outcome: .succeeded, release: 1,
                environments: [World.production]))
        try world.event(DeployRequested(app: World.shop, environment: World.production, release: 1), id: "own", actor: "ann")
        #expect(try StoryRoutes.look(world.state, .newest, nil, World.shop)?.subject == .commit(World.shop, World.commit))
        world.now = world.now.adding(seconds: 5)
        let back = try world.event(RollbackRequested(app: World.shop, environment: World.production), id: "back", actor: "bob")
        #expect(try StoryRoutes.look(world.state, .newest, nil, World.shop)?.subject == .order(World.shop, back))
    }

    @Test("a release is followed by its newest order") func release() throws {
        var world = World()
        try world.release(1)
        #expect(try StoryRoutes.look(world.state, .release(1), nil, World.shop)?.subject == .commit(World.shop, World.commit))
        let order = try world.event(DeployRequested(app: World.shop, environment: World.production, release: 1), id: "o", actor: "ann")
        #expect(try StoryRoutes.look(world.state, .release(1), nil, World.shop)?.subject == .order(World.shop, order))
        #expect(try StoryRoutes.look(world.state, .release(2), nil, World.shop) == nil)
    }
}

@Suite("Lines from two sources") struct OverlapTests {
    @Test("lines that were both read and heard are told once") func overlap() {
        #expect(Overlap.count(["a", "b", "c"], ["b", "c", "d"]) == 2)
        #expect(Overlap.count(["a", "b"], ["c"]) == 0)
        #expect(Overlap.count([], ["c"]) == 0)
        #expect(Overlap.count(["x"], ["x", "x"]) == 1)
    }

    @Test("in one environment, what is told is what was ordered for it, and what may still come there") func environment() throws {
        var world = World()
        let staging = try EnvName("staging")
        try world.release(1)
        #expect(try StoryRoutes.look(world.state, .newest, staging, World.shop)?.subject == .commit(World.shop, World.commit))
        try world.event(RunStarted(app: World.shop, run: 1, ref: World.main, commit: World.commit, jobs: []))
        #expect(try StoryRoutes.look(world.state, .newest, staging, World.shop)?.subject == .commit(World.shop, World.commit))
        try world.event(
            RunFinished(
                app: World.shop, run: 1, ref: World.main, commit: World.commit, outcome: .succeeded, release: 1,
                environments: [World.production]))
        let own = try world.event(DeployRequested(app: World.shop, environment: World.production, release: 1), id: "own", actor: "ann")
        #expect(try StoryRoutes.look(world.state, .newest, World.production, World.shop)?.subject == .order(World.shop, own))
        #expect(try StoryRoutes.look(world.state, .newest, staging, World.shop) == nil, "nothing went there, and nothing is on its way")
        let commit = String(World.commit.text.prefix(7))
        #expect(try StoryRoutes.look(world.state, .commit(commit), World.production, World.shop)?.subject == .order(World.shop, own))
        world.now = world.now.adding(seconds: 5)
        let later = try world.event(DeployRequested(app: World.shop, environment: staging, release: 1), id: "later", actor: "ann")
        #expect(try StoryRoutes.look(world.state, .release(1), staging, World.shop)?.subject == .order(World.shop, later))
        #expect(try StoryRoutes.look(world.state, .release(1), World.production, World.shop)?.subject == .order(World.shop, own))
    }
}
