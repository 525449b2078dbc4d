import Contracts
import Foundation
import TestKit
import Testing

/// The tests in this folder start whole suites of real programs; they run one after another so that two cores are enough.
@Suite("The platform", .serialized) struct PlatformTests {}

extension PlatformTests {
    @Suite("A push", .serialized, .timeLimit(.minutes(5))) struct PushTests {
        @Test("v1, v2 without a failed request, v3 that never becomes healthy is rolled back, and a rollback brings v1 back")
        func story() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }

                try copy.write("v1\n", to: "VERSION")
                let first = try await copy.commit("First version")
                let pushed = try await copy.push()
                #expect(pushed.status == 0, "\(pushed)")
                #expect(pushed.errors.contains("http://hello.localhost:\(platform.ingressPort)"), "the push ends with the URL: \(pushed)")
                #expect(await platform.page("hello").contains("v1"))
                #expect(try await platform.slipway("wait", "hello", first).status == 0)

                // v2 under load.
                var load = Load(platform, host: "hello.localhost")
                try copy.write("v2\n", to: "VERSION")
                try await copy.commit("Second version")
                let second = try await copy.push()
                #expect(second.status == 0, "\(second)")
                #expect(await platform.page("hello").contains("v2"))
                try await eventually(within: 30, "the old instance's end") {
                    try await platform.events().contains { $0.type == InstanceExited.type && $0.subject == "hello/production/web/1" }
                }
                var result = await load.stop()
                #expect(result.failures.isEmpty && result.sent > 50, "\(result)")

                // v3 starts, but never answers.
                load = Load(platform, host: "hello.localhost")
                try copy.write("v3\n", to: "VERSION")
                try copy.write("web: python3 -c 'import time; print(\"I will not listen\", flush=True); time.sleep(600)'\n", to: "Procfile")
                try copy.write(
                    "services: {web: {run: \"python3 -u -c 'import time; print(1234567); time.sleep(600)'\", ports: {http: 80}, health: {tcp: true, grace: 2s}}}\n",
                    to: "slipway.yml")
                let third = try await copy.commit("Third version, broken")
                let broken = try await copy.push()
                #expect(broken.status == 0, "git counts an accepted ref as success: \(broken)")
                #expect(broken.errors.contains("rolled back"), "\(broken)")
                #expect(broken.errors.contains("1234567"), "the last lines of the instance are shown: \(broken)")
                let waited = try await platform.slipway("wait", "hello", third)
                #expect(waited.status == 1 && (waited.output + waited.errors).contains("rolled back"), "\(waited)")
                #expect(await platform.page("hello").contains("v2"))
                result = await load.stop()
                #expect(result.failures.isEmpty && result.sent > 100, "\(result)")

                // Back to v1, without a build.
                let runsBefore = try await platform.events().filter { $0.type == JobStarted.type }.count
                let rollback = try await platform.slipway("rollback", "hello", "--to", "v1")
                #expect(rollback.status == 0, "\(rollback)")
                #expect(await platform.page("hello").contains("v1"))
                let events = try await platform.events()
                #expect(events.filter { $0.type == JobStarted.type }.count == runsBefore)

                // What is told is true.
                let releases = try await platform.slipway("releases", "hello")
                for version in ["v1", "v2", "v3"] { #expect(releases.output.contains(version), "\(releases)") }
                let why = try await platform.slipway("why", "hello")
                #expect(why.output.contains("v1") && why.output.contains(first.prefix(7)) && why.output.contains("First version"), "\(why)")
                // The log: numbered without a gap, every deployment with exactly one end.
                #expect(events.map(\.seq) == Array(1...UInt64(events.count)))
                try Judge.deploymentsEndedOnce(events)
                #expect(try await copy.git("ls-remote", "--tags", "slipway").output.contains("refs/tags/v3"))
            }
        }

        @Test("a build that fails shows its command and the end of its output in the push, and changes nothing else")
        func failingBuild() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("v1\n", to: "VERSION")
                try await copy.commit("Good")
                #expect(try await copy.push().status == 0)
                let before = try await platform.slipway("ps", "hello", "--json").output

                try copy.write(
                    "build: {run: 'echo compiling; echo the-last-words-of-the-build; exit 3'}\nservices: {web: {run: python3 app.py, ports: {http: 80}}}\n",
                    to: "slipway.yml")
                let bad = try await copy.commit("Bad build")
                let pushed = try await copy.push()
                #expect(pushed.errors.contains("the-last-words-of-the-build"), "\(pushed)")
                #expect(pushed.errors.contains("exit 3"), "the failing command is named: \(pushed)")
                let waited = try await platform.slipway("wait", "hello", bad)
                #expect(waited.status == 1, "\(waited)")
                #expect(try await platform.slipway("ps", "hello", "--json").output == before)
                let releases = try await platform.slipway("releases", "hello", "--json").output
                #expect(!releases.contains(bad))

                // A push that does not wait.
                try copy.write("services: {web: {run: python3 app.py, ports: {http: 80}}}\n", to: "slipway.yml")
                try copy.write("v9\n", to: "VERSION")
                let good = try await copy.commit("Good again")
                let detached = try await copy.push("-o", "detach")
                #expect(detached.status == 0 && !detached.errors.contains("live at"), "\(detached)")
                #expect(try await platform.slipway("wait", "hello", good).status == 0)
                #expect(await platform.page("hello").contains("v9"))
            }
        }

        @Test("an app with a build, a test and two services, one of which needs the other")
        func counter() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("counter", from: "counter")
                defer { copy.remove() }
                try await copy.commit("Counter")
                let pushed = try await copy.push()
                #expect(pushed.errors.contains("http://counter.localhost:\(platform.ingressPort)"), "\(pushed)")
                #expect(await platform.get("counter.localhost").status == 200)
                let events = try await platform.events()
                let ready = events.compactMap { $0.as(InstanceReady.self) }
                let web = try #require(ready.first { $0.instance.service.text == "web" })
                let started = try #require(events.first { $0.as(InstanceRequested.self)?.instance.service.text == "worker" })
                let spec = try #require(started.as(InstanceRequested.self)?.spec)
                #expect(spec.environment["WEB_HOST"] == web.address)
                #expect(spec.environment["WEB_PORT_HTTP"] == web.ports["http"].map(String.init))
                let webReady = try #require(events.first { $0.as(InstanceReady.self)?.instance == web.instance })
                #expect(webReady.seq < started.seq, "the worker is asked for only when the web is ready")
                let logs = try await platform.slipway("logs", "counter/worker")
                #expect(logs.status == 0 && !logs.output.isEmpty, "\(logs)")
            }
        }
    }
}

/// Looks at the log from outside and says what is wrong.
enum Judge {
    /// Every planned deployment has exactly one terminal event; nobody has two.
    static func deploymentsEndedOnce(_ events: [Envelope]) throws {
        let planned = events.compactMap { $0.as(DeployPlanned.self)?.head.deployment }
        let ended = events.compactMap { $0.as(DeploySucceeded.self)?.head.deployment ?? $0.as(DeployRolledBack.self)?.head.deployment }
        guard ended.sorted() == planned.sorted(), Set(planned).count == planned.count else {
            throw TestFailure("planned \(planned), ended \(ended)")
        }
    }

    /// No id is in the log twice, and what may happen only once for each cause did.
    static func nothingDoubled(_ events: [Envelope]) throws {
        let ids = Dictionary(grouping: events, by: \.id).filter { $0.value.count > 1 }
        guard ids.isEmpty else { throw TestFailure("stored twice: \(ids.values.map { "\($0[0].type) \($0[0].subject ?? "")" })") }
        func once<E: Event, Key: Hashable>(_ type: E.Type, _ key: (E) -> Key) throws {
            let groups = Dictionary(grouping: events.compactMap { $0.as(type) }, by: key).filter { $0.value.count > 1 }
            guard groups.isEmpty else { throw TestFailure("\(type) more than once for \(groups.keys)") }
        }
        try once(PushReceived.self) { "\($0.ref) \($0.commit) \($0.previous?.text ?? "")" }
        try once(RunStarted.self) { "\($0.app) \($0.run)" }
        try once(RunStarted.self) { "\($0.commit)" }
        try once(RunFinished.self) { "\($0.app) \($0.run)" }
        try once(JobRequested.self) { $0.job }
        try once(JobFinished.self) { $0.job }
        try once(ReleaseCreated.self) { "\($0.app) \($0.number)" }
        try once(TagCreated.self) { "\($0.app) \($0.tag)" }
        try once(DeployPlanned.self) { $0.head.deployment }
    }
}
