import Contracts
import Foundation
import Testing

@testable import SchedulerService

@Suite("a push") struct RunTests {
    @Test("is tested, built, released, tagged and deployed, in this order") func happy() throws {
        var world = World()
        let push = world.push(1)
        #expect(world.questions == [.readConfig(app: World.app, run: 1, commit: World.commit(1))])
        world.file(staged)
        #expect(world.jobs.map(\.job.text) == ["shop/run-1/test"])
        #expect(world.jobs[0].steps == ["make test"])
        #expect(world.jobs[0].bundle == nil)
        #expect(world.jobs[0].timeout == 3600)
        world.finish()
        #expect(world.jobs.map(\.job.text) == ["shop/run-1/build"])
        #expect(world.jobs[0].steps == ["make dist"])
        #expect(world.jobs[0].bundle == "dist")
        world.finish()
        #expect(
            world.told == [
                "run.started", "job.requested", "job.requested", "release.created", "tag.requested", "deploy.requested", "deploy.requested",
                "run.finished",
            ])
        let release = try #require(world.events(ReleaseCreated.self).first)
        #expect(release.number == 1)
        #expect(release.bundle == World.bundle)
        #expect(release.title == "change 1")
        #expect(world.events(TagRequested.self).map(\.tag) == ["v1"])
        #expect(world.events(DeployRequested.self).map(\.subject) == ["shop/dev", "shop/staging"])
        #expect(world.events(DeployRequested.self).allSatisfy { $0.release == 1 && $0.ref == nil })
        #expect(world.ends.map(\.outcome) == [.succeeded])
        #expect(world.ends[0].environments.map(\.text) == ["dev", "staging"])
        #expect(world.ends[0].release == 1)
        let mine = world.log.filter { $0.source == "scheduler@host1" }
        #expect(mine.allSatisfy { $0.cause == push && $0.actor == "ada" })
        #expect(world.timers.isEmpty)
    }

    @Test("without tests has one job, which bundles the checkout") func noTests() {
        var world = World()
        world.push(1)
        world.file(plain)
        #expect(world.jobs.map(\.job.name.text) == ["build"])
        #expect(world.jobs[0].steps.isEmpty)
        #expect(world.jobs[0].bundle == ".")
        world.finish()
        #expect(world.events(DeployRequested.self).map(\.subject) == ["shop/production"])
    }

    @Test("with a Procfile needs no slipway.yml") func procfile() throws {
        var world = World()
        world.push(1)
        world.file(.procfile(Data("# processes\nweb: python3 app.py --port $PORT\r\nworker: ./work\n".utf8)))
        world.finish()
        let services = try #require(world.events(ReleaseCreated.self).first).config.services
        #expect(services.map(\.name.text) == ["web", "worker"])
        #expect(services[0].run == "python3 app.py --port $PORT")
        #expect(services[0].ports.map(\.name.text) == ["http"])
        #expect(services[1].ports.isEmpty)
    }

    @Test("without either file, or with a wrong one, is rejected and nothing else happens") func rejected() {
        var world = World()
        world.push(1)
        world.file(.none)
        #expect(world.told == ["run.finished"])
        #expect(world.ends[0].outcome == .rejected)
        #expect(
            world.ends[0].reason
                == "no slipway.yml and no Procfile at this commit (add a Procfile with a line such as 'web: python3 app.py', or a slipway.yml (docs/slipway.yml.md))"
        )
        world.push(2)
        world.file("servcies: {}\n")
        #expect(world.ends[1].reason == "slipway.yml line 1, column 1: unknown key 'servcies' (did you mean 'services'?)")
        world.push(3)
        world.file(.unreadable(Problem(.notFound, "no commit here")))
        #expect(world.ends[2].reason == "no commit here")
        #expect(world.jobs.isEmpty)
        #expect(world.events(ReleaseCreated.self).isEmpty)
    }

    @Test("that fails names the step, and nothing is released") func failed() {
        var world = World()
        world.push(1)
        world.file(staged)
        world.finish(.failed, step: "make test", status: 2)
        #expect(world.ends.map(\.reason) == ["test: 'make test' exited with status 2"])
        #expect(world.ends[0].outcome == .failed)
        #expect(world.jobs.isEmpty)
        world.push(2)
        world.file(staged)
        world.finish()
        world.finish(.failed, reason: "the bundle is too large")
        #expect(world.ends.last?.reason == "build: the bundle is too large")
        world.push(3)
        world.file(staged)
        world.finish(.failed, step: "make test", reason: "the job did not finish within 3600 s")
        #expect(world.ends.last?.reason == "test: 'make test': the job did not finish within 3600 s")
        #expect(world.events(ReleaseCreated.self).isEmpty)
        #expect(world.events(DeployRequested.self).isEmpty)
    }

    @Test("to a branch that no rule takes ends well without a job") func noRule() {
        var world = World()
        world.push(1, branch: "idea", isDefault: false)
        world.file(plain)
        #expect(world.told == ["run.finished"])
        #expect(world.ends[0].outcome == .succeeded)
        #expect(world.ends[0].reason == "no environment takes branch idea")
        #expect(world.ends[0].release == nil)
        #expect(world.ends[0].environments.isEmpty)
    }

    @Test("waits for the one before; of those that wait on a ref only the newest runs") func oneAtATime() {
        var world = World()
        for commit in 1...3 { world.push(commit) }
        #expect(world.ends.map(\.run) == [1, 2])
        #expect(world.ends.allSatisfy { $0.outcome == .superseded })
        #expect(world.ends[1].reason == "superseded by the push of 0000000")
        world.settle(plain)
        #expect(world.ends.last?.run == 3)
        world.push(4)
        world.file(plain)
        world.push(5)
        world.file(plain)
        world.push(6, branch: "other", isDefault: true)
        world.file(plain)
        // 4 builds, 5 and 6 wait: another ref supersedes nothing, and what has begun goes on.
        #expect(world.jobs.map(\.job.run) == [4])
        world.push(7)
        #expect(world.ends.last?.run == 5)
        #expect(world.ends.last?.outcome == .superseded)
        world.settle(plain)
        #expect(world.ends.map(\.run) == [1, 2, 3, 5, 4, 6, 7])
        #expect(world.events(ReleaseCreated.self).map(\.number) == [1, 2, 3, 4])
    }

    @Test("that is superseded while its file is read stays so when the file comes") func lateFile() {
        var world = World()
        world.push(1)
        world.push(2)
        world.file(plain)
        #expect(world.jobs.isEmpty)
        world.file(plain)
        #expect(world.jobs.map(\.job.run) == [2])
    }

    @Test("that comes twice, and late or repeated news of its jobs, change nothing") func repeats() {
        var world = World()
        world.push(1)
        let push = world.log[0]
        world.take(.event(push), cause: push.id)
        #expect(world.state.runs.count == 1)
        world.file(plain)
        let job = world.jobs[0]
        world.finish()
        let before = world.log.count
        world.take(.event(push), cause: push.id)
        world.deliver(JobFinished(job: job.job, host: World.host, outcome: .failed, seconds: 1))
        world.take(.notice(.config(app: World.app, run: 1, .none)))
        world.take(.timer("job|\(job.job)"))
        #expect(world.log.count == before + 1)
        #expect(world.ends.count == 1)
    }

    @Test("whose supervisor never speaks again fails in the end, and the next begins") func silence() {
        var world = World()
        world.push(1)
        world.file(plain)
        world.push(2)
        world.file(plain)
        world.take(.timer("job|shop/run-1/build"))
        #expect(world.ends.last?.reason == "build: no word from the supervisor of host 'host1'")
        #expect(world.jobs.last?.job.run == 2)
    }

    @Test("of an app that is deleted ends; run numbers are not used again") func deleted() {
        var world = World()
        world.push(1)
        world.file(plain)
        world.push(2, branch: "other")
        world.deliver(RepositoryDeleted(app: World.app))
        #expect(world.ends.map(\.outcome) == [.failed, .failed])
        #expect(world.ends.allSatisfy { $0.reason == "app 'shop' was deleted" })
        world.push(3)
        #expect(world.ends.count == 2)
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        world.push(4)
        #expect(world.questions.last == .readConfig(app: World.app, run: 3, commit: World.commit(4)))
    }

    @Test("is remembered, but not for ever") func kept() {
        var world = World()
        for commit in 1...70 {
            world.push(commit)
            world.file(.none)
        }
        #expect(world.state.runs.count == SchedulerState.keptRuns)
        #expect(world.state.runs(of: World.app).first?.number == 21)
    }
}

@Suite("an order that names a ref") struct RefOrderTests {
    @Test("is tested and built, and deployed where it says") func fresh() {
        var world = World()
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        let order = world.deliver(DeployRequested(app: World.app, environment: try! EnvName("production"), ref: "v9"))
        world.resolve(7, ref: "refs/tags/v9")
        world.settle(staged)
        let deploy = world.log.last { $0.type == DeployRequested.type }
        #expect(deploy?.subject == "shop/production")
        #expect(deploy?.cause == order)
        #expect(deploy?.actor == "ada")
        #expect(world.ends.last?.environments.map(\.text) == ["production"])
    }

    @Test("follows the rules of its branch, or means the last environment") func rules() {
        var world = World()
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        world.deliver(DeployRequested(app: World.app, ref: "main"))
        world.resolve(1, ref: "refs/heads/main")
        world.settle(staged)
        #expect(world.ends.last?.environments.map(\.text) == ["dev", "staging"])
        world.deliver(DeployRequested(app: World.app, ref: "0002"))
        world.resolve(2)
        world.settle(staged)
        #expect(world.ends.last?.environments.map(\.text) == ["production"])
        #expect(world.ends.last?.ref.text == "refs/commits/\(World.commit(2))")
    }

    @Test("whose commit is a release already is only deployed") func reuse() {
        var world = World()
        world.push(1)
        world.settle(staged)
        let order = world.deliver(DeployRequested(app: World.app, environment: try! EnvName("production"), ref: "main"))
        world.resolve(1, ref: "refs/heads/main")
        #expect(world.jobs.isEmpty)
        #expect(world.ends.count == 1)
        let deploy = world.log.last
        #expect(deploy?.as(DeployRequested.self)?.release == 1)
        #expect(deploy?.cause == order)
    }

    @Test("to an environment that its file does not have is rejected before anything is built") func noEnvironment() {
        var world = World()
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        let order = world.deliver(DeployRequested(app: World.app, environment: try! EnvName("stagin"), ref: "main"))
        world.resolve(1, ref: "refs/heads/main")
        world.file(staged)
        #expect(world.ends.last?.outcome == .rejected)
        #expect(world.ends.last?.reason == "shop has no environment 'stagin' at this commit (did you mean 'staging'?)")
        #expect(world.jobs.isEmpty)
        // Whoever gave the order is told its end.
        let end = world.events(DeployFailed.self)
        #expect(end.count == 1 && end[0].order == order && end[0].environment?.text == "stagin" && end[0].reason == world.ends.last?.reason)
    }

    @Test("that leads nowhere is rejected with the reason") func nowhere() {
        var world = World()
        let first = world.deliver(DeployRequested(app: World.app, ref: "main"))
        #expect(world.events(DeployFailed.self).last?.reason == "there is no app 'shop'")
        #expect(world.events(DeployFailed.self).last?.order == first)
        world.deliver(RepositoryCreated(app: World.app, defaultBranch: "main"))
        world.deliver(DeployRequested(app: World.app, ref: "nope"))
        world.resolve(nil)
        #expect(world.events(DeployFailed.self).last?.reason == "shop has no branch, tag or commit 'nope'")
        world.deliver(DeployRequested(app: World.app, ref: "--upload-pack=x"))
        #expect(world.events(DeployFailed.self).last?.reason == "'--upload-pack=x' names no branch, tag or commit")
        world.deliver(DeployRequested(app: World.app, release: 1, ref: "main"))
        #expect(world.events(DeployFailed.self).last?.reason == "the order names both release v1 and ref 'main'")
        #expect(world.questions.isEmpty)
        #expect(world.state.orders.isEmpty)
        // One that names no ref is the deployer's.
        world.deliver(DeployRequested(app: World.app, release: 1))
        #expect(world.events(DeployFailed.self).count == 4)
    }
}
