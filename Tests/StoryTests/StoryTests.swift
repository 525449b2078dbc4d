import Contracts
import Foundation
import Testing

@testable import Story

/// Makes envelopes of one app's story, one second apart.
private struct Log {
    let app: AppName
    private var count = 0
    private(set) var events: [Envelope] = []

    init(_ app: String) throws { self.app = try AppName(app) }

    @discardableResult
    mutating func add<E: Event>(_ event: E, cause: EventID? = nil) throws -> EventID {
        count += 1
        let id = EventID(UUID())
        events.append(
            Envelope(
                id: id, source: "test@host1", type: E.type, subject: event.subject, time: Timestamp(milliseconds: Int64(count) * 1000),
                data: try event.json(), cause: cause))
        return id
    }

    func tell(_ subject: Story.Subject) -> (lines: [String], ending: Story.Ending?) {
        var story = Story(subject)
        let lines = events.flatMap { story.take($0) }
        return (lines, story.ending)
    }
}

private let commit = "1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d"
private let digest = "sha256:" + String(repeating: "ab", count: 32)

extension Log {
    fileprivate mutating func build(tests: Bool = true) throws {
        let names = tests ? ["test", "build"] : ["build"]
        let jobs = try names.map { JobID(app: app, run: 4, name: try ServiceName($0)) }
        try add(RunStarted(app: app, run: 4, ref: RefName("refs/heads/main"), commit: CommitID(commit), jobs: jobs))
        for (job, step) in zip(jobs, tests ? ["make test", "make"] : ["make"]) {
            try add(
                JobRequested(
                    job: job, host: HostName("host1"), commit: CommitID(commit), steps: [step], environment: [:], timeout: 60,
                    bundle: job.name.text == "build" ? "." : nil))
            try add(JobStarted(job: job, host: HostName("host1")))
            try add(LogLines(origin: job.text, lines: ["\(step): ok"]))
            try add(JobFinished(job: job, host: HostName("host1"), outcome: .succeeded, seconds: 1.24))
        }
    }

    fileprivate mutating func release(environments: [String] = ["production"]) throws {
        try add(
            ReleaseCreated(
                app: app, number: 3, ref: RefName("refs/heads/main"), commit: CommitID(commit), run: 4, title: "t", bundle: Digest(digest),
                config: ReleaseConfig(services: [], routes: [], environments: [])))
        try add(
            RunFinished(
                app: app, run: 4, ref: RefName("refs/heads/main"), commit: CommitID(commit), outcome: .succeeded, release: 3,
                environments: environments.map { try EnvName($0) }))
    }

    fileprivate func head(_ environment: String, order: EventID, kind: DeploymentHead.Kind = .deploy, previous: Int? = 2) throws
        -> DeploymentHead
    {
        DeploymentHead(
            deployment: DeploymentID(app: app, environment: try EnvName(environment), number: 7), kind: kind, release: 3,
            commit: try CommitID(commit), previous: previous, order: order)
    }

    fileprivate func instance(_ environment: String, _ number: Int = 7) throws -> InstanceID {
        InstanceID(app: app, environment: try EnvName(environment), service: try ServiceName("web"), number: number)
    }

    fileprivate mutating func begin(_ head: DeploymentHead) throws {
        let web = try instance(head.environment.text)
        try add(
            DeployPlanned(
                head: head,
                steps: [PlanStep(kind: .start, service: web.service, instances: [web], text: "start web/7")]))
        try add(DeployStarted(head: head))
        let spec = InstanceSpec(
            release: head.release, commit: head.commit, bundle: try Digest(digest), service: ServiceSpec(name: web.service, run: "./web"),
            environment: [:])
        try add(InstanceRequested(instance: web, host: HostName("host1"), action: .start, spec: spec, deployment: head.deployment))
        try add(InstanceStarted(instance: web, host: HostName("host1"), pid: 4242))
    }

    fileprivate mutating func succeed(_ head: DeploymentHead, url: String?) throws {
        let web = try instance(head.environment.text)
        try add(
            InstanceReady(
                instance: web, host: HostName("host1"), release: 3, address: "127.0.0.1", ports: ["http": 40_001], first: "http"))
        try add(
            RouteChanged(
                app: app, environment: head.environment, service: web.service, hosts: ["\(app).localhost"],
                servers: [RouteServer(instance: web, address: "127.0.0.1", port: 40_001)], order: EventID(UUID()), ingress: true))
        try add(DeploySucceeded(head: head, url: url, seconds: 2.5))
    }
}

@Suite("a story") struct StoryTests {
    @Test("tells a push from its tests to its address, whole") func live() throws {
        var log = try Log("shop")
        try log.build()
        try log.release()
        let order = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3))
        let head = try log.head("production", order: order)
        try log.begin(head)
        try log.succeed(head, url: "http://shop.localhost:7780")
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(
            lines == [
                "run 4: 1a2b3c4 on main",
                "test: make test",
                "    make test: ok",
                "test: done (1.2 s)",
                "build: make",
                "    make: ok",
                "build: done (1.2 s)",
                "release v3",
                "production: deploying v3 (v2 serves until it is healthy)",
                "production: starting web/7",
                "production: web/7 is healthy (2.0 s)",
                "production: traffic goes to v3",
                "production: v3 live at http://shop.localhost:7780 (2.5 s)",
            ])
        #expect(ending == .live(url: "http://shop.localhost:7780"))
    }

    @Test("a build that fails shows the command and the end of its output, once") func failedBuild() throws {
        var log = try Log("shop")
        let job = JobID(app: log.app, run: 4, name: try ServiceName("build"))
        try log.add(RunStarted(app: log.app, run: 4, ref: RefName("refs/heads/main"), commit: CommitID(commit), jobs: [job]))
        try log.add(JobStarted(job: job, host: HostName("host1")))
        try log.add(LogLines(origin: job.text, lines: ["cc main.c"]))
        try log.add(
            JobFinished(
                job: job, host: HostName("host1"), outcome: .failed, failedStep: "make", status: 2,
                tail: ["cc main.c", "main.c:1: error: no", "make: *** 1"], seconds: 0.4))
        try log.add(
            RunFinished(
                app: log.app, run: 4, ref: RefName("refs/heads/main"), commit: CommitID(commit), outcome: .failed,
                reason: "build: 'make' exited with status 2"))
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(
            lines == [
                "run 4: 1a2b3c4 on main",
                "build: started",
                "    cc main.c",
                "    main.c:1: error: no",
                "    make: *** 1",
                "build: failed after 0.4 s: 'make' exited with status 2",
                "failed: build: 'make' exited with status 2; nothing was deployed",
            ])
        #expect(ending == .failed(reason: "build: 'make' exited with status 2"))
    }

    @Test("a release whose tag could not be made says so, and goes on") func untagged() throws {
        var log = try Log("shop")
        try log.build()
        try log.release()
        try log.add(TagRejected(app: log.app, tag: "v3", commit: CommitID(commit), reason: "the name is taken by 'refs/tags/v3/x'"))
        try log.add(TagRejected(app: log.app, tag: "v4", commit: CommitID(commit), reason: "not ours"))
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(lines.last == "release v3 has no tag in git: the name is taken by 'refs/tags/v3/x'")
        #expect(ending == nil)
    }

    @Test("a release that is not healthy ends rolled back, with the reason and what still serves") func rolledBack() throws {
        var log = try Log("shop")
        try log.build(tests: false)
        try log.release()
        let order = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3))
        let head = try log.head("production", order: order)
        try log.begin(head)
        try log.add(
            InstanceExited(
                instance: log.instance("production"), host: HostName("host1"), expected: false, status: 1, signal: nil,
                reason: "exited with status 1", tail: ["Traceback"], restartIn: 0.5))
        try log.add(
            DeployRolledBack(head: head, reason: "web/7 was not healthy within 30 s", tail: [], complete: true, seconds: 31))
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(
            Array(lines.suffix(5)) == [
                "production: starting web/7",
                "    Traceback",
                "production: web/7 ended: exited with status 1",
                "production: rolled back: web/7 was not healthy within 30 s",
                "production: v2 still serves",
            ])
        #expect(ending == .failed(reason: "production: rolled back: web/7 was not healthy within 30 s"))
    }

    @Test("several environments: it ends when all have ended, and is live only when all are") func environments() throws {
        var log = try Log("shop")
        try log.build(tests: false)
        try log.release(environments: ["dev", "production"])
        let dev = try log.head("dev", order: log.add(DeployRequested(app: log.app, environment: EnvName("dev"), release: 3)))
        let live = try log.head("production", order: log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3)))
        try log.begin(dev)
        try log.begin(live)
        try log.succeed(live, url: "http://shop.localhost:7780")
        #expect(log.tell(.commit(log.app, try CommitID(commit))).ending == nil)
        try log.succeed(dev, url: nil)
        #expect(log.tell(.commit(log.app, try CommitID(commit))).ending == .live(url: "http://shop.localhost:7780"))
    }

    @Test(
        "an end without a deployment says why",
        arguments: [
            (
                RunOutcome.rejected, "slipway.yml:3: unknown key 'servces'",
                "rejected: slipway.yml:3: unknown key 'servces'; nothing was deployed"
            ),
            (.superseded, "1111111 came first", "superseded: 1111111 came first"),
        ])
    func withoutDeployment(_ outcome: RunOutcome, _ reason: String, _ line: String) throws {
        var log = try Log("shop")
        try log.add(
            RunFinished(
                app: log.app, run: 5, ref: RefName("refs/heads/main"), commit: CommitID(commit), outcome: outcome, reason: reason))
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(lines == [line])
        #expect(ending == (outcome == .rejected ? .failed(reason: reason) : .ended(reason)))
    }

    @Test("a branch that no environment takes ends with the release") func noEnvironment() throws {
        var log = try Log("shop")
        try log.build(tests: false)
        try log.release(environments: [])
        let (lines, ending) = log.tell(.commit(log.app, try CommitID(commit)))
        #expect(lines.suffix(2) == ["release v3", "no environment takes this branch: nothing to deploy"])
        #expect(ending == .ended("release v3 made; no environment takes this branch, so nothing is deployed"))
    }

    @Test("a rollback is followed by its order") func rollback() throws {
        var log = try Log("shop")
        let order = try log.add(RollbackRequested(app: log.app, environment: EnvName("production"), to: 3))
        let head = try log.head("production", order: order, kind: .rollback, previous: 4)
        try log.begin(head)
        #expect(log.tell(.order(log.app, order)).ending == nil)
        try log.succeed(head, url: "http://shop.localhost:7780")
        let (lines, ending) = log.tell(.order(log.app, order))
        #expect(lines.first == "production: rolling back to v3 (v4 serves until it is healthy)")
        #expect(ending == .live(url: "http://shop.localhost:7780"))
        #expect(log.tell(.order(log.app, EventID(UUID()))).lines.isEmpty)
    }

    @Test("an order that is rejected ends with the reason and what to do") func rejectedOrder() throws {
        var log = try Log("shop")
        let order = try log.add(DeployRequested(app: log.app, release: 9))
        try log.add(
            DeployFailed(
                app: log.app, environment: nil, release: 9, reason: "there is no release v9", hint: "slipway releases shop", order: order))
        let (lines, ending) = log.tell(.order(log.app, order))
        #expect(lines == ["deployment: rejected: there is no release v9", "deployment: slipway releases shop"])
        #expect(ending == .failed(reason: "deployment: rejected: there is no release v9"))
    }

    @Test("an order for a ref that is a release already is followed through the order it leads to") func releasedRef() throws {
        var log = try Log("shop")
        let order = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), ref: "main"))
        let second = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3), cause: order)
        let head = try log.head("production", order: second)
        #expect(log.tell(.order(log.app, order)).ending == nil)
        try log.add(DeployStarted(head: head))
        try log.add(DeploySucceeded(head: head, url: nil, seconds: 1, notes: ["shop.example.org does not lead to web: it is bank's"]))
        let (lines, ending) = log.tell(.order(log.app, order))
        #expect(ending == .live(url: nil))
        #expect(lines.contains("production: shop.example.org does not lead to web: it is bank's"))
    }

    @Test("an order that names a ref is followed through its run") func refOrder() throws {
        var log = try Log("shop")
        let order = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), ref: "main"))
        try log.add(RunStarted(app: log.app, run: 4, ref: RefName("refs/heads/main"), commit: CommitID(commit), jobs: []), cause: order)
        try log.release()
        let second = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3))
        let head = try log.head("production", order: second)
        try log.begin(head)
        try log.succeed(head, url: nil)
        let (lines, ending) = log.tell(.order(log.app, order))
        #expect(lines.last == "production: v3 live (2.5 s)")
        #expect(ending == .live(url: nil))
    }

    @Test("an order for a ref that was released before is followed into every environment") func releasedBefore() throws {
        var log = try Log("shop")
        let order = try log.add(DeployRequested(app: log.app, ref: "main"))
        let dev = try log.add(DeployRequested(app: log.app, environment: EnvName("dev"), release: 3), cause: order)
        let live = try log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3), cause: order)
        try log.begin(try log.head("dev", order: dev))
        try log.succeed(try log.head("dev", order: dev), url: nil)
        #expect(log.tell(.order(log.app, order)).ending == nil)
        try log.begin(try log.head("production", order: live))
        try log.succeed(try log.head("production", order: live), url: "http://shop.localhost:7780")
        #expect(log.tell(.order(log.app, order)).ending == .live(url: "http://shop.localhost:7780"))
    }

    @Test("what belongs to another app or commit adds nothing") func others() throws {
        var log = try Log("shop")
        try log.build()
        try log.release()
        let head = try log.head("production", order: log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3)))
        try log.begin(head)
        try log.succeed(head, url: nil)
        #expect(log.tell(.commit(try AppName("other"), try CommitID(commit))).lines.isEmpty)
        #expect(log.tell(.commit(log.app, try CommitID(String(repeating: "0", count: 40)))).lines.isEmpty)
    }

    @Test("every event twice tells the same story") func repeats() throws {
        var log = try Log("shop")
        try log.build(tests: false)
        try log.release()
        let head = try log.head("production", order: log.add(DeployRequested(app: log.app, environment: EnvName("production"), release: 3)))
        try log.begin(head)
        try log.succeed(head, url: nil)
        var story = Story(.commit(log.app, try CommitID(commit)))
        var again: [String] = []
        for event in log.events where event.type != LogLines.type && event.type != JobStarted.type && event.type != InstanceReady.type {
            _ = story.take(event)
            again += story.take(event)
        }
        #expect(again.isEmpty)
        #expect(story.ending == .live(url: nil))
    }
}

@Suite("text from outside") struct InertTests {
    @Test(
        "cannot move a cursor, hide or recolour",
        arguments: [
            ("\u{1B}[31mred\u{1B}[0m", "red"), ("\u{1B}]0;title\u{07}x", "\\u{1B}]0;title\\u{7}x"), ("10%\r50%\r100%", "100%"),
            ("a\tb", "a    b"), ("x\u{202E}y", "x\\u{202E}y"), ("line\r", "line"), ("\u{1B}", "\\u{1B}"), ("\u{1B}[", ""),
            ("Zoë ✓", "Zoë ✓"),
            ("a\nb", "a\\u{A}b"),
        ])
    func inert(_ text: String, _ shown: String) { #expect(Inert.line(text) == shown) }

    @Test("is cut") func cut() { #expect(Inert.line(String(repeating: "x", count: 600)) == String(repeating: "x", count: 500) + "…") }
}
