import Contracts
import Foundation
import Testing

/// The JSON of every event is fixed by a file in Tests/Fixtures/events. An event may gain optional fields, never lose or
/// rename one: the file of a released shape is history.
@Suite("Events keep their shape") struct EventFixtureTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path + "/Fixtures/events"

    @Test("every event reads its fixture and writes the same again") func shapes() throws {
        for example in try Self.examples() { try Self.check(example) }
    }

    static func check(_ example: any Event) throws {
        func same<E: Event>(_ event: E) throws {
            let path = "\(folder)/\(E.type).json"
            if ProcessInfo.processInfo.environment["RECORD_FIXTURES"] != nil, !FileManager.default.fileExists(atPath: path) {
                try Data((Coding.text(event) + "\n").utf8).write(to: URL(fileURLWithPath: path))
            }
            let stored = try #require(FileManager.default.contents(atPath: path), "there is no fixture \(path)")
            #expect(try Coding.decode(E.self, from: stored) == event, "\(E.type)")
            #expect(String(decoding: stored, as: UTF8.self) == (try Coding.text(event)) + "\n", "\(E.type)")
        }
        try same(example)
    }

    @Test("an older reader ignores what it does not know") func newer() throws {
        let json = #"{"component":"git","version":"9.9","later":{"a":[1]}}"#
        #expect(try Coding.decode(ComponentJoined.self, from: Data(json.utf8)) == ComponentJoined(component: "git", version: "9.9"))
    }

    @Test("an envelope is CloudEvents 1.0 and survives a round trip") func envelope() throws {
        let event = TagCreated(app: try AppName("shop"), tag: "v3", commit: try CommitID(String(repeating: "a", count: 40)))
        let envelope = Envelope(
            id: try EventID("01900000-0000-7000-8000-000000000000"), source: "git@host1", type: TagCreated.type, subject: event.subject,
            time: Timestamp(milliseconds: 0), data: try event.json())
        let text = try Coding.text(envelope)
        for part in [
            #""specversion":"1.0""#, #""type":"git.tag.created""#, #""source":"git@host1""#, #""subject":"shop""#,
            #""datacontenttype":"application/json""#,
        ] {
            #expect(text.contains(part))
        }
        let read = try Coding.decode(Envelope.self, from: Data(text.utf8))
        #expect(read == envelope)
        #expect(try read.decode(TagCreated.self) == event)
        #expect(read.as(RefDeleted.self) == nil)
    }

    static func examples() throws -> [any Event] {
        let app = try AppName("shop")
        let environment = try EnvName("production")
        let web = try ServiceName("web")
        let host = try HostName("host1")
        let commit = try CommitID(String(repeating: "c", count: 40))
        let digest = try Digest("sha256:" + String(repeating: "d", count: 64))
        let main = try RefName("refs/heads/main")
        let job = JobID(app: app, run: 12, name: try ServiceName("build"))
        let instance = InstanceID(app: app, environment: environment, service: web, number: 3)
        let order = try EventID("01900000-0000-7000-8000-000000000000")
        let head = DeploymentHead(
            deployment: DeploymentID(app: app, environment: environment, number: 7), kind: .deploy, release: 3, commit: commit, previous: 2,
            order: order)
        let service = ServiceSpec(
            name: web, run: "./server --port $PORT", ports: [PortSpec(name: try ServiceName("http"), number: 8080)], instances: 2,
            needs: [try ServiceName("db")],
            health: HealthSpec(check: .http(path: "/healthz")), limits: LimitSpec(memory: 1 << 28), environment: ["LOG": "info"])
        let config = ReleaseConfig(
            services: [service], routes: [RouteSpec(host: "shop.example.org", service: web)],
            environments: [EnvironmentSpec(name: environment, from: .branch("main"))])
        let server = RouteServer(instance: instance, address: "127.0.0.1", port: 40001)
        return [
            RepositoryRequested(app: app, action: .create), RepositoryCreated(app: app, defaultBranch: "main"), RepositoryDeleted(app: app),
            RepositoryRejected(app: app, reason: "it exists"),
            PushReceived(
                app: app, ref: main, commit: commit, previous: nil, isDefaultBranch: true, forced: false, title: "First",
                author: "Ada <ada@example.org>",
                options: ["detach"]),
            TagCreated(app: app, tag: "v3", commit: commit), RefDeleted(app: app, ref: main, previous: commit),
            TagRequested(app: app, tag: "v3", commit: commit, message: "Release 3"),
            TagRejected(app: app, tag: "v3", commit: commit, reason: "the name is taken by 'refs/tags/v3/x'"),
            RunStarted(app: app, run: 12, ref: main, commit: commit, jobs: [job]),
            RunFinished(app: app, run: 12, ref: main, commit: commit, outcome: .succeeded, release: 3, environments: [environment]),
            JobRequested(job: job, host: host, commit: commit, steps: ["make"], environment: [:], timeout: 3600, bundle: "dist"),
            JobStarted(job: job, host: host),
            JobFinished(
                job: job, host: host, outcome: .failed, failedStep: "make", status: 2, reason: "make exited with 2", tail: ["error"],
                seconds: 1.5),
            ReleaseCreated(app: app, number: 3, ref: main, commit: commit, run: 12, title: "First", bundle: digest, config: config),
            DeployRequested(app: app, environment: environment, release: 3), RollbackRequested(app: app, environment: environment, to: 2),
            DeployPlanned(head: head, steps: [PlanStep(kind: .start, service: web, instances: [instance], text: "start web/3")]),
            DeployStarted(head: head),
            DeploySucceeded(head: head, url: "http://shop.localhost:7780", seconds: 0.5),
            DeployRolledBack(head: head, reason: "not healthy within 30 s", tail: ["boom"], complete: true, seconds: 30),
            DeployFailed(
                app: app, environment: environment, release: 9, reason: "there is no release v9", hint: "slipway releases shop",
                order: order),
            InstanceRequested(
                instance: instance, host: host, action: .start,
                spec: InstanceSpec(release: 3, commit: commit, bundle: digest, service: service, environment: ["DB_HOST": "127.0.0.1"]),
                deployment: head.deployment),
            InstanceStarted(instance: instance, host: host, pid: 4711),
            InstanceReady(instance: instance, host: host, release: 3, address: "127.0.0.1", ports: ["http": 40001], first: "http"),
            InstanceUnready(instance: instance, host: host, reason: "GET /healthz answered 500"),
            InstanceExited(
                instance: instance, host: host, expected: false, status: 1, signal: nil, reason: "exited with 1", tail: ["boom"],
                restartIn: 0.5),
            HostJoined(host: host, address: "127.0.0.1", version: "0.1.0", mode: "root", cores: 2, memory: 1 << 34),
            RouteRequested(app: app, environment: environment, service: web, hosts: ["shop.localhost"], servers: [server]),
            RouteChanged(
                app: app, environment: environment, service: web, hosts: ["shop.localhost"], servers: [server], order: order, ingress: true),
            RouteDrained(app: app, environment: environment, service: web, instances: [instance], order: order),
            ServiceRegistered(instance: instance, host: host, address: "127.0.0.1", ports: ["http": 40001]),
            ServiceDeregistered(instance: instance),
            HealthChanged(instance: instance, healthy: false, reason: "GET /healthz answered 500"),
            ComponentJoined(component: "git", version: "0.1.0"),
            ComponentLeft(component: "git", reason: "left"), BusDenied(key: "script", command: "PUB", what: "git.push.received"),
            ConsumerLagging(owner: "script", consumer: "core", events: 10000, bytes: 2_560_000, seconds: 12),
            MessageParked(owner: "script", consumer: "jobs", sequence: 7, deliveries: 8, reason: "refused by its consumer"),
            ConsumerStopped(owner: "script", consumer: "core", sequence: 7, deliveries: 8, reason: "refused by its consumer"),
            ImagePushed(
                repository: "bundles/shop", tag: nil, digest: digest, mediaType: "application/vnd.oci.image.manifest.v1+json", size: 512),
            ImageDeleted(repository: "bundles/shop", tag: "v1", digest: digest),
            AuditRecorded(action: "token.create", object: "ci", outcome: "done"),
            LogLines(origin: "shop/production/web/3", lines: ["hello"]),
        ]
    }
}
