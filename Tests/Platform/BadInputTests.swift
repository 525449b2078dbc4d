import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    /// Promise 8: bad input changes nothing, and gets one clear sentence with what to do.
    @Suite("Bad input", .serialized, .timeLimit(.minutes(5))) struct BadInputTests {
        @Test("files, names, tokens and pushes that are wrong are refused and change nothing") func refused() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("v1\n", to: "VERSION")
                try await copy.commit("Good")
                #expect(try await copy.push().status == 0)
                let before = try await platform.slipway("ps", "hello", "--json").output

                // slipway.yml
                let files: [(String, [String])] = [
                    ("servcies: {web: {run: x}}\n", ["slipway.yml line 1", "servcies", "services"]),
                    ("services:\n  web: {run: 7, instances: many}\n", ["slipway.yml line 2", "instances"]),
                    ("services:\n  web: {run: a, needs: [db]}\n  db: {run: b, needs: [web]}\n", ["→"]),
                    ("services: {web: {run: a, needs: [nobody]}}\n", ["nobody"]), ("services: [\n", ["slipway.yml"]),
                    ("services: {web: {run: a, ports: {http: 70000}}}\n", ["70000"]),
                ]
                for (text, words) in files {
                    try copy.write(text, to: "slipway.yml")
                    let commit = try await copy.commit("Bad: \(text.prefix(20))")
                    let pushed = try await copy.push()
                    for word in words { #expect(pushed.errors.contains(word), "\(text): \(pushed)") }
                    #expect(try await platform.slipway("wait", "hello", commit).status == 1)
                }
                try await copy.git("rm", "-q", "slipway.yml", "Procfile")
                try await copy.commit("Neither file")
                let neither = try await copy.push()
                #expect(neither.errors.contains("slipway.yml") && neither.errors.contains("Procfile"), "\(neither)")
                #expect(try await platform.slipway("ps", "hello", "--json").output == before)
                #expect(await platform.page("hello").contains("v1"))

                // Names
                let state = try await platform.slipway("app", "list", "--json").output
                for name in ["..", "a/b", "-rf", "sh\u{43E}p", "$(id)", "A", "v2", ""] {
                    let created = try await platform.slipway("app", "create", "--", name)
                    #expect(created.status != 0, "\(name)")
                    #expect(created.errors.contains("hint:") || created.errors.contains("slipway:"), "\(name): \(created)")
                    let encoded = name.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
                    let answer = try await platform.ask(.api, "/v1/apps", method: "POST", json: try Coding.text(["name": name]))
                    #expect(answer.status == 422, "\(name): \(answer)")
                    let url = try await platform.ask(.git, "/\(encoded).git/info/refs?service=git-upload-pack")
                    #expect(url.status == 404, "\(name): \(url)")
                }
                #expect(try await platform.slipway("app", "list", "--json").output == state)

                // Tokens
                #expect(try await platform.ask(.api, "/v1/apps", token: .some(nil)).status == 401)
                #expect(try await platform.ask(.api, "/v1/apps", token: "slp_wrong").status == 401)
                let short = try await platform.slipway("token", "create", "brief", "--role", "developer", "--expires", "1s", "--json")
                #expect(short.status == 0, "\(short)")
                let token = try #require(try Coding.decode(JSON.self, from: Data(short.output.utf8))["token"]?.string)
                try await eventually(within: 10, "the token's expiry") {
                    try await platform.ask(.api, "/v1/apps", token: token).status == 401
                }
                for component in [Component.bus, .git, .registry] {
                    let path =
                        component == .bus ? "/v1/events" : component == .git ? "/hello.git/info/refs?service=git-upload-pack" : "/v2/"
                    try await eventually(within: 10, "refusal by \(component)") {
                        try await platform.ask(component, path, token: token).status == 401
                    }
                    #expect(try await platform.ask(component, path, token: .some(nil)).status == 401, "\(component)")
                }

                // A push to an app that does not exist
                let url = "http://slipway:\(try platform.operatorToken())@127.0.0.1:\(platform.port(.git))/nothere.git"
                let missing = try await run(["git", "push", url, "main"], in: copy.path)
                #expect(missing.status != 0 && missing.errors.contains("nothere"), "\(missing)")

                // A second suite in the same home
                let second = try await run(
                    [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"], within: 30)
                #expect(second.status != 0 && second.errors.split(separator: "\n").count <= 2, "\(second)")
                try await platform.ready()
            }
        }

        @Test("a suite that cannot start says why in one sentence") func start() async throws {
            // A taken port.
            let taken = try Platform.prepare()
            let blocker = try Background(["/usr/bin/python3", "-m", "http.server", "\(taken.port(.git))", "--bind", "127.0.0.1"])
            try await eventually(within: 10, "the blocker") { Ports.answers(taken.port(.git)) }
            let up = try await run(
                [Platform.slipway, "up", "--detach", "--home", taken.home, "--port-base", "\(taken.portBase)"], within: 90)
            #expect(up.status != 0 && up.errors.contains("\(taken.port(.git))"), "\(up)")
            blocker.send(signal: SIGKILL)
            await taken.stop()

            // A file with a typo, and a home that cannot be written.
            let typo = try Platform.prepare()
            try "port_bas: 7\n".write(toFile: typo.home + "/suite.yml", atomically: true, encoding: .utf8)
            let wrong = try await run([Platform.slipway, "up", "--detach", "--home", typo.home], within: 30)
            #expect(wrong.status == 2 && wrong.errors.contains("suite.yml:1") && wrong.errors.contains("port_base"), "\(wrong)")
            let component = try await run([Platform.binaries + "/slipway-git", "--home", typo.home], within: 30)
            #expect(component.status == 2 && component.errors.contains("port_base"), "\(component)")
            // Its log on a full disk: what it has to say is lost, it itself is not.
            let mute = try await run([
                "/bin/sh", "-c", "exec \"$0\" --home \"$1\" 2>/dev/full", Platform.binaries + "/slipway-git", typo.home,
            ])
            #expect(mute.status == 2, "\(mute)")
            await typo.stop()
            let unwritable = try await run([Platform.slipway, "up", "--detach", "--home", "/proc/slipway"], within: 30)
            #expect(unwritable.status == 2 && unwritable.errors.contains("/proc/slipway"), "\(unwritable)")
        }
    }
}
