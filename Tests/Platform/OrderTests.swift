import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    @Suite("Orders", .serialized, .timeLimit(.minutes(5))) struct OrderTests {
        /// Two environments: every branch goes to dev, main to production too.
        static let chain = """
            services:
              web: {run: python3 app.py, ports: {http: 80}, health: {http: /healthz, interval: 100ms, timeout: 1s}}
            environments:
              dev: {from: "branch:*"}
              production: {from: "branch:main"}

            """

        @Test("branches go to the environments that take them; orders that name what is not there are refused; an app goes with all it has")
        func environments() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try await copy.git("rm", "-q", "--cached", "--ignore-unmatch", "Procfile")
                try FileManager.default.removeItem(atPath: copy.path + "/Procfile")
                try copy.write(Self.chain, to: "slipway.yml")
                try copy.write("one\n", to: "VERSION")
                try await copy.commit("One")
                let first = try await copy.push()
                #expect(first.errors.contains("dev") && first.errors.contains("production"), "\(first)")
                try await eventually(within: 10, "v1 in both") {
                    let dev = await platform.get("dev.hello.localhost").body
                    let production = await platform.get("production.hello.localhost").body
                    return dev.contains("one") && production.contains("one")
                }
                #expect(await platform.page("hello").contains("one"), "the last of the chain has the app's own name")

                // Nothing to go back to yet: one sentence, exit 1, nothing changes.
                let before = try await platform.slipway("ps", "hello", "--json").output
                let none = try await platform.slipway("rollback", "hello")
                #expect(none.status == 1 && none.errors.contains("nothing to roll back to"), "\(none)")

                // A branch reaches dev and not production.
                try await copy.git("checkout", "-q", "-b", "feature/two")
                try copy.write("two\n", to: "VERSION")
                let two = try await copy.commit("Two")
                let feature = try await copy.git("push", "slipway", "feature/two")
                #expect(feature.status == 0 && !feature.errors.contains("production:"), "\(feature)")
                #expect(try await platform.slipway("wait", "hello", two).status == 0)
                #expect(await platform.get("dev.hello.localhost").body.contains("two"))
                #expect(await platform.page("hello").contains("one"))
                let why = try await platform.slipway("why", "hello", "--env", "dev", "--json")
                #expect(why.output.contains(two) && why.output.contains("feature/two"), "\(why)")

                // A plan is read and changes nothing; the order carries it out.
                let seq = try await platform.lastSeq()
                let plan = try await platform.slipway("plan", "hello", "--env", "production", "--release", "v2")
                #expect(plan.status == 0 && plan.output.contains("v1 → v2") && plan.output.contains("web"), "\(plan)")
                #expect(try await platform.lastSeq() == seq, "a plan is no event")
                let deployed = try await platform.slipway("deploy", "hello", "--env", "production", "--release", "v2")
                #expect(deployed.status == 0, "\(deployed)")
                #expect(await platform.page("hello").contains("two"))
                let back = try await platform.slipway("rollback", "hello")
                #expect(back.status == 0, "\(back)")
                #expect(await platform.page("hello").contains("one"), "back to what was live before")
                #expect(await platform.get("dev.hello.localhost").body.contains("two"), "the other environment is not touched")
                let now = try await platform.slipway("ps", "hello", "--env", "dev", "--json").output
                #expect(!before.isEmpty && now != before)

                // What is not there. (First the one that was replaced must be gone, or it would go meanwhile.)
                try await eventually(within: 30, "two instances, both at work") {
                    let listed = try await platform.slipway("ps", "hello", "--json").output
                    return listed.components(separatedBy: "\"hello/").count == 3 && listed.components(separatedBy: "ready").count == 3
                }
                let state = try await platform.slipway("app", "show", "hello", "--json").output
                let wrong: [([String], Int32, [String])] = [
                    (["deploy", "hello", "--env", "staging"], 1, ["staging", "dev", "production"]),
                    (["deploy", "hello", "--release", "v99"], 1, ["v99", "slipway releases hello"]),
                    (["deploy", "hello", "--ref", "no-such-branch"], 1, ["no-such-branch"]),
                    (["deploy", "hallo"], 1, ["hallo", "slipway app list"]),
                    (["rollback", "hello", "--to", "v99"], 1, ["v99"]), (["rollback", "hello", "--env", "staging"], 1, ["staging"]),
                    (["plan", "hello", "--release", "v99"], 1, ["v99"]), (["wait", "hello", "v99"], 1, ["v99"]),
                    (["wait", "hello", "0123456789abcdef"], 1, ["0123456789abcdef"]),
                    // Wrong usage: 2, before anything is asked.
                    (["deploy", "hello", "--release", "newest"], 2, ["newest", "v3"]),
                    (["deploy", "hello", "--release", "v1", "--ref", "main"], 2, ["--ref", "--release"]),
                    (["wait", "hello", "--order", "x"], 2, ["x"]), (["deploy", "--env", "dev"], 2, ["hint"]),
                    (["roll-back", "hello"], 2, ["rollback"]), (["token", "create", "x", "--role", "king"], 2, ["king", "viewer"]),
                    (["app", "show", "Hello"], 2, ["a-z"]), (["events", "--since", "yesterday"], 2, ["yesterday"]),
                    (["publish", "deploy.requested", "--data", "{"], 2, ["--data"]),
                ]
                for (arguments, status, words) in wrong {
                    let answer = try await run([Platform.slipway] + arguments + ["--home", platform.home], within: 30)
                    #expect(answer.status == status, "\(arguments): \(answer)")
                    for word in words { #expect(answer.errors.contains(word), "\(arguments): \(answer)") }
                    #expect(answer.errors.split(separator: "\n").count <= 2, "one sentence and a hint: \(arguments): \(answer)")
                }
                #expect(try await platform.slipway("app", "show", "hello", "--json").output == state)
                let missing = try await run([Platform.slipway, "status", "--home", platform.home + "-nowhere"], within: 10)
                #expect(missing.status == 75 && missing.errors.contains("slipway up"), "\(missing)")

                // An app goes with its repository, its addresses and its instances.
                let pids = try await platform.instancePids()
                #expect(pids.count == 2)
                #expect(try await platform.slipway("app", "delete", "hello", "--yes").status == 0)
                try await eventually(within: 20, "the end of its instances") {
                    let left = try await platform.instancePids().isEmpty
                    let shows = await platform.get("hello.localhost").status
                    return left && shows != 200 && pids.allSatisfy { kill($0, 0) != 0 }
                }
                #expect(try await platform.slipway("app", "show", "hello").status == 1)
                #expect(try await platform.slipway("app", "list", "--json").output.contains("hello") == false)
                let pushed = try await copy.git("push", "slipway", "main:again")
                #expect(pushed.status != 0 && pushed.errors.contains("does not exist"), "\(pushed)")
                // The name is free again, and the new app has none of the old one's releases.
                #expect(try await platform.slipway("app", "create", "hello", "--no-remote").status == 0)
                #expect(try await copy.git("push", "slipway", "feature/two:main").status == 0)
                #expect(await platform.page("hello").contains("two"))
                let releases = try await platform.slipway("releases", "hello", "--json").output
                #expect(try Coding.decode([JSON].self, from: Data(releases.utf8)).count == 1, "\(releases)")
                #expect(try await platform.slipway("rollback", "hello").errors.contains("nothing to roll back to"))
            }
        }

        @Test("one run at a time: a newer push supersedes one that waits, never the one that runs") func superseded() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                let gate = "/tmp/slipway-test-gate-\(UUID().uuidString.prefix(8))"
                defer { try? FileManager.default.removeItem(atPath: gate) }
                // The first run's test waits for the gate, a minute at most.
                try copy.write(
                    "test: \"i=0; while [ ! -e \(gate) ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done\"\nservices: {web: {run: python3 app.py, ports: {http: 80}}}\n",
                    to: "slipway.yml")
                var commits: [String] = []
                for name in ["first", "second", "third"] {
                    try copy.write(name + "\n", to: "VERSION")
                    commits.append(try await copy.commit(name))
                    #expect(try await copy.push("-o", "detach").status == 0)
                    if name == "first" { try await platform.waitForEvent(JobStarted.type, after: 0) }
                }
                let second = try await platform.slipway("wait", "hello", commits[1], within: 30)
                #expect(second.status == 1 && second.errors.contains("superseded by the push of \(commits[2].prefix(7))"), "\(second)")
                #expect(!(try await platform.events()).contains { $0.type == ReleaseCreated.type }, "the first still runs")
                #expect(FileManager.default.createFile(atPath: gate, contents: nil))
                #expect(try await platform.slipway("wait", "hello", commits[0]).status == 0)
                #expect(try await platform.slipway("wait", "hello", commits[2]).status == 0)
                #expect(await platform.page("hello").contains("third"))
                let events = try await platform.events()
                #expect(events.compactMap { $0.as(ReleaseCreated.self)?.commit.text } == [commits[0], commits[2]])
                #expect(!events.contains { $0.as(RunStarted.self)?.commit.text == commits[1] }, "what was superseded never began")
                try Judge.deploymentsEndedOnce(events)
                try Judge.nothingDoubled(events)
            }
        }

        @Test("tokens reach as far as their role, app and time; through the command line, git and HTTP") func roles() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("one\n", to: "VERSION")
                try await copy.commit("One")
                #expect(try await copy.push().status == 0)
                #expect(try await platform.slipway("app", "create", "other", "--no-remote").status == 0)

                // Somebody else's machine: a home with nothing but a login.
                func login(_ name: String, _ arguments: String...) async throws -> (home: String, token: String) {
                    let made = try await run(
                        [Platform.slipway, "token", "create", name] + arguments + ["--home", platform.home], within: 30)
                    guard made.status == 0 else { throw TestFailure("token: \(made)") }
                    let token = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
                    let home = "\(platform.home)-\(name)"
                    let done = try await run(
                        [Platform.slipway, "login", "http://127.0.0.1:\(platform.port(.api))", "--home", home], input: token + "\n",
                        within: 30)
                    guard done.status == 0, !done.description.contains(token) else { throw TestFailure("login: \(done)") }
                    return (home, token)
                }
                let viewer = try await login("viewer", "--role", "viewer")
                let developer = try await login("developer", "--role", "developer", "--app", "hello")
                defer { for one in [viewer, developer] { try? FileManager.default.removeItem(atPath: one.home) } }
                @Sendable func ask(_ who: (home: String, token: String), _ arguments: String...) async throws -> Finished {
                    try await run([Platform.slipway] + arguments + ["--home", who.home], within: 60)
                }
                func push(_ who: (home: String, token: String), _ app: String) async throws -> Finished {
                    try await copy.git("push", "http://x:\(who.token)@127.0.0.1:\(platform.port(.git))/\(app).git", "main:\(app)-branch")
                }

                // A viewer sees all and changes nothing.
                #expect(try await ask(viewer, "app", "list", "--json").output.contains("other"))
                #expect(try await ask(viewer, "releases", "hello").status == 0)
                let state = try await platform.slipway("app", "list", "--json").output
                let refusals = [
                    try await ask(viewer, "app", "create", "mine", "--no-remote"), try await ask(viewer, "deploy", "hello"),
                    try await ask(viewer, "rollback", "hello"), try await ask(viewer, "app", "delete", "hello", "--yes"),
                    try await ask(viewer, "publish", "deploy.requested", "--data", #"{"app":"hello","release":1}"#),
                    try await ask(viewer, "token", "create", "more", "--role", "developer"),
                ]
                for refused in refusals {
                    #expect(refused.status == 1 && refused.errors.contains("viewer"), "\(refused)")
                    #expect(refused.errors.split(separator: "\n").count <= 2, "\(refused)")
                }
                let pushedByViewer = try await push(viewer, "hello")
                #expect(pushedByViewer.status != 0 && pushedByViewer.errors.contains("developer"), "\(pushedByViewer)")

                // A developer of one app: this app, and no other is even there.
                #expect(try await ask(developer, "app", "show", "hello").status == 0)
                #expect(try await !ask(developer, "app", "list", "--json").output.contains("other"))
                #expect(try await ask(developer, "app", "show", "other").status == 1)
                let elsewhere = try await push(developer, "other")
                #expect(elsewhere.status != 0 && elsewhere.errors.contains("other"), "\(elsewhere)")
                #expect(try await push(developer, "hello").status == 0)
                #expect(try await ask(developer, "deploy", "hello").status == 0)
                let wider = try await ask(developer, "token", "create", "wide", "--role", "operator")
                #expect(wider.status == 1 && wider.errors.contains("operator"), "\(wider)")
                let unbound = try await ask(developer, "token", "create", "unbound", "--role", "developer")
                #expect(unbound.status == 1, "a token of one app makes none of all: \(unbound)")
                #expect(try await ask(developer, "app", "delete", "hello", "--yes").status == 1)
                #expect(try await platform.slipway("app", "list", "--json").output.contains("hello") && state.contains("hello"))

                // Listed without secrets; revoked everywhere.
                let listed = try await platform.slipway("token", "list", "--json").output
                #expect(listed.contains("developer") && !listed.contains(developer.token) && !listed.contains("slp_"))
                #expect(try await platform.slipway("token", "revoke", "developer").status == 0)
                try await eventually(within: 10, "refusal everywhere") {
                    let api = try await ask(developer, "app", "list").status
                    let git = try await platform.ask(.git, "/hello.git/info/refs?service=git-upload-pack", token: developer.token).status
                    let bus = try await platform.ask(.bus, "/v1/events", token: developer.token).status
                    let registry = try await platform.ask(.registry, "/v2/", token: developer.token).status
                    return api == 1 && git == 401 && bus == 401 && registry == 401
                }
                // No token is in any log of the suite.
                let grep = try await run(["grep", "-rlE", "slp_[0-9A-Za-z]{40}", "\(platform.home)/logs", "\(platform.home)/bus"])
                #expect(grep.status == 1 && grep.output.isEmpty, "tokens are in \(grep.output)")
            }
        }
    }
}
