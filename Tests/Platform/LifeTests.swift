import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    @Suite("Start, stop, and what lives on", .serialized, .timeLimit(.minutes(5))) struct LifeTests {
        @Test("the app outlives a killed keeper, the suite is taken over, down leaves no process, and up brings the app back") func keeper()
            async throws
        {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("v1\n", to: "VERSION")
                try await copy.commit("One")
                #expect(try await copy.push().status == 0)
                let instance = try await platform.instancePids()

                // The keeper is the process of `slipway up`.
                let keeper = try Self.keeper(platform)
                let before = Self.components(platform)
                let load = Load(platform, host: "hello.localhost", rate: 50)
                // On a machine with many listeners its own are found all the same.
                let crowd = try Background(
                    [
                        "/usr/bin/python3", "-c",
                        "import socket,time\nall=[socket.create_server(('127.0.0.1',0)) for _ in range(200)]\nprint('listening',flush=True)\ntime.sleep(240)",
                    ])
                defer { crowd.send(signal: SIGKILL) }
                try await eventually(within: 20, "the other listeners") { crowd.text.contains("listening") }
                #expect(kill(keeper, SIGKILL) == 0)
                try await eventually(within: 10, "the keeper's end") { kill(keeper, 0) != 0 || !Self.isRunning(keeper) }
                #expect(Self.components(platform) == before, "the components do not need the keeper")
                #expect(try await platform.slipway("status").status == 0)
                let other = try await run(
                    [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(try Ports.freeBase())"], within: 60)
                #expect(
                    other.status == 1 && other.errors.contains("\(platform.portBase)"),
                    "another place is refused with the way out: \(other)")
                let again = try await run(
                    [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"], within: 60)
                #expect(again.status == 0, "\(again)")
                #expect(Self.components(platform) == before, "they were taken over, not started again")
                #expect(try await platform.instancePids() == instance)
                #expect(try Self.keeper(platform) != keeper)
                let result = await load.stop()
                #expect(result.failures.isEmpty && result.sent > 5, "\(result)")
                // The new keeper keeps: it starts a supervisor that dies, although that one is not its child.
                try await platform.kill9(.supervisor)
                try await platform.ready()
                #expect(try await platform.instancePids() == instance)

                // A supervisor that cannot start, because somebody is just saving its settings, takes no app down.
                try "port_bas: 7\n".write(toFile: platform.home + "/suite.yml", atomically: true, encoding: .utf8)
                try await platform.kill9(.supervisor)
                let log = platform.home + "/logs/supervisor.log"
                try await eventually(within: 20, "a start that fails") {
                    try String(contentsOfFile: log, encoding: .utf8).components(separatedBy: "port_base").count > 2
                }
                #expect(await platform.page("hello").contains("v1"))
                try FileManager.default.removeItem(atPath: platform.home + "/suite.yml")
                try await platform.ready()
                #expect(try await platform.instancePids() == instance)

                // With nobody left to look after them, apps are stopped too, and nothing is said to be stopped that is not.
                let orphaned = [try Self.keeper(platform)] + platform.pids(of: .supervisor)
                for pid in orphaned { kill(pid, SIGKILL) }
                try await eventually(within: 10, "their end") { orphaned.allSatisfy { !Self.isRunning($0) } }
                #expect(await platform.page("hello").contains("v1"))
                let down = try await platform.slipway("down")
                #expect(down.status == 0 && down.output.contains("Slipway is stopped"), "\(down)")
                let left = try await Self.processes(platform)
                #expect(left.isEmpty, "left: \(left)")
                for pid in instance { #expect(!Self.isRunning(pid), "the app's process \(pid) is left") }
                for port in Component.allCases.map({ platform.port($0) }) + [platform.ingressPort, platform.busPort] {
                    #expect(await Self.isSilent(port), "\(port) is still served")
                }
                let idle = try await platform.slipway("down")
                #expect(idle.status == 0 && idle.output.contains("Nothing of Slipway runs"), "down twice is no error: \(idle)")
                // A stopped suite is told of, not waited for.
                let status = try await platform.slipway("status", within: 15)
                #expect(status.status == 75 && status.errors.contains("slipway up"), "\(status)")

                try await Self.adopted(platform)

                // As an ordinary login has it: without the directories in which haproxy lies.
                let up = try await run(
                    [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"],
                    environment: ["PATH": "/usr/local/bin:/usr/bin:/bin"], within: 60)
                #expect(up.status == 0 && !up.output.contains("slp_"), "the token is shown at the first start only: \(up)")
                try await eventually(within: 30, "the app's return") { await platform.page("hello").contains("v1") }
                #expect(try await platform.instancePids().count == 1)
                try copy.write("v2\n", to: "VERSION")
                try await copy.commit("Two")
                #expect(try await copy.push().status == 0)
                #expect(await platform.page("hello").contains("v2"))

                // Stopped in the middle of a deployment: what was begun goes on when the suite is back.
                try copy.write("v3\n", to: "VERSION")
                try copy.write("web: sleep 3; exec python3 app.py\n", to: "Procfile")
                let third = try await copy.commit("Three")
                #expect(try await copy.push("-o", "detach").status == 0)
                try await eventually(within: 30, "the start of its instance") {
                    try await platform.events().compactMap { $0.as(InstanceStarted.self) }.contains { $0.instance.number == 3 }
                }
                #expect(try await platform.slipway("down").status == 0)
                let resumed = try await run(
                    [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"], within: 60)
                #expect(resumed.status == 0, "\(resumed)")
                let waited = try await platform.slipway("wait", "hello", third)
                #expect(waited.status == 0, "\(waited)")
                #expect(await platform.page("hello").contains("v3"))
            }
        }

        @Test("without HAProxy the status says so, and instances answer on their own ports", .enabled(if: geteuid() == 0)) func noIngress()
            async throws
        {
            let platform = try Platform.prepare()
            do {
                // In a mount namespace of its own, where the place of HAProxy holds nothing that can be run.
                let hide =
                    "for p in /usr/sbin /usr/local/sbin /usr/bin /usr/local/bin; do [ ! -e $p/haproxy ] || mount --bind /dev/null $p/haproxy; done; exec \"$@\""
                let up = try await run(
                    [
                        "unshare", "-m", "sh", "-ec", hide, "sh", Platform.slipway, "up", "--detach", "--home", platform.home,
                        "--port-base", "\(platform.portBase)",
                    ], within: 90)
                #expect(up.status == 0, "\(up)")
                let status = try await platform.slipway("status")
                #expect(status.status == 0 && status.output.contains("HAProxy is not installed"), "\(status)")
                #expect(await Self.isSilent(platform.ingressPort))
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                for version in ["v1", "v2"] {
                    try copy.write(version + "\n", to: "VERSION")
                    try await copy.commit(version)
                    let pushed = try await copy.push()
                    #expect(pushed.status == 0 && pushed.errors.contains("live"), "\(pushed)")
                    let listed = try await platform.slipway("ps", "hello", "--json")
                    let ports = try Coding.decode([JSON].self, from: Data(listed.output.utf8)).filter { $0["state"]?.string == "ready" }
                        .compactMap { $0["ports"]?["http"]?.int }
                    let port = try #require(ports.last, "\(listed)")
                    let page = await fetch("http://127.0.0.1:\(port)/", host: "localhost")
                    #expect(page.body.contains(version), "\(page)")
                }
                #expect(try await platform.slipway("down").status == 0)
                await platform.stop()
            } catch {
                await platform.stop()
                throw error
            }
        }

        @Test(
            "not as root: the suite runs, and pushed code is refused with the reason; trust: single-user runs it",
            .enabled(if: geteuid() == 0))
        func rootless() async throws {
            for trust in [false, true] {
                let platform = try Platform.prepare()
                #expect(chown(platform.home, 65_534, 65_534) == 0)
                if trust { try "trust: single-user\n".write(toFile: platform.home + "/suite.yml", atomically: true, encoding: .utf8) }
                let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=\(platform.home)"]
                do {
                    let up = try await run(
                        nobody + [Platform.slipway, "up", "--detach", "--home", platform.home, "--port-base", "\(platform.portBase)"],
                        within: 90)
                    #expect(up.status == 0, "\(up)")
                    for component in Component.allCases {
                        for pid in platform.pids(of: component) { #expect(try HostileTests.status(pid)["Uid"]?.first == "65534") }
                    }
                    let copy = try await platform.app("hello", from: "hello")
                    defer { copy.remove() }
                    try copy.write("v1\n", to: "VERSION")
                    let commit = try await copy.commit("One")
                    let pushed = try await copy.push()
                    let waited = try await platform.slipway("wait", "hello", commit)
                    if trust {
                        #expect(waited.status == 0, "\(waited)")
                        #expect(await platform.page("hello").contains("v1"))
                    } else {
                        let status = try await platform.slipway("status")
                        #expect(status.output.contains("pushed code is not run"), "\(status)")
                        #expect(
                            pushed.errors.contains("trust: single-user") && pushed.errors.contains("root"),
                            "the push says why and what to do: \(pushed)")
                        #expect(waited.status == 1, "\(waited)")
                        #expect(try await platform.instancePids().isEmpty)
                        #expect(await platform.get("hello.localhost").status != 200)
                    }
                    let down = try await platform.slipway("down")
                    #expect(down.status == 0, "\(down)")
                    let left = try await Self.processes(platform)
                    #expect(left.isEmpty, "left: \(left)")
                    await platform.stop()
                } catch {
                    await platform.stop()
                    throw error
                }
            }
        }

        /// A component that is handed its listening socket uses that one and opens none of its own (sd_listen_fds(3)). The suite is down.
        static func adopted(_ platform: Platform) async throws {
            let wrapper = """
                import os, socket, sys
                server = socket.socket()
                server.bind(("127.0.0.1", 0))
                server.listen(64)
                port = server.getsockname()[1]
                os.dup2(server.fileno(), 3)
                os.set_inheritable(3, True)
                print("handed over", port, flush=True)
                os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="registry", LISTEN_PID=str(os.getpid()))
                os.execv(sys.argv[1], sys.argv[1:])
                """
            let registry = try Background(
                [
                    "/usr/bin/python3", "-c", wrapper, Platform.binaries + "/slipway-registry", "--home", platform.home, "--port-base",
                    "\(platform.portBase)",
                ])
            defer { registry.send(signal: SIGKILL) }
            try await eventually(within: 10, "the wrapper's port") {
                registry.text.contains("handed over ") && registry.text.contains("\n")
            }
            let port = try #require(Int(registry.text.split(separator: "\n")[0].split(separator: " ").last ?? ""))
            try await eventually(within: 20, "the registry on the inherited socket") {
                let answer = await fetch("http://127.0.0.1:\(port)/version", host: "localhost", timeout: 2)
                return answer.status == 200 && answer.body.contains("\"version\"")
            }
            #expect(await Self.isSilent(platform.port(.registry)), "it opened its own port too")
            registry.send(signal: SIGTERM)
            #expect(try await registry.finish(within: 30).status == 0)
        }

        static func keeper(_ platform: Platform) throws -> Int32 {
            let data = try Data(contentsOf: URL(fileURLWithPath: platform.home + "/run/keeper.json"))
            return Int32(try #require(try Coding.decode(JSON.self, from: data)["keeper"]?["pid"]?.int))
        }

        static func components(_ platform: Platform) -> [Int32] { Component.allCases.flatMap { platform.pids(of: $0) }.sorted() }

        /// Command lines of the suite's processes that name this home. (The tests' own git and curl are over by then.)
        static func processes(_ platform: Platform) async throws -> [String] {
            try await run(["pgrep", "-a", "-f", platform.home]).output.split(separator: "\n").map(String.init).filter {
                !$0.contains("pgrep")
            }
        }

        /// Whether nobody takes a connection.
        static func isSilent(_ port: Int) async -> Bool {
            !Ports.answers(port)
        }

        /// False for one that is dead but not collected yet.
        static func isRunning(_ pid: Int32) -> Bool {
            guard let state = try? HostileTests.status(pid)["State"] else { return false }
            return state.first != "Z"
        }
    }
}
