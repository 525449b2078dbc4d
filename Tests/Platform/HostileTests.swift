import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    /// What was pushed is confined: security.md, attack C4.
    @Suite("The hostile app", .serialized, .timeLimit(.minutes(5))) struct HostileTests {
        struct Report: Decodable {
            var tried: [String: Int]
            var successes: Int
            var first: [String]
            var status: [String: [String]]
        }

        @Test("it reaches nothing from its job and from its instance, another app keeps serving, and nothing of it stays behind")
        func hostile() async throws {
            try await Platform.run { platform in
                let hello = try await platform.app("hello", from: "hello")
                defer { hello.remove() }
                try hello.write("v1\n", to: "VERSION")
                try await hello.commit("A neighbour")
                #expect(try await hello.push().status == 0)

                let daemons = (job: "86000.\(UInt32.random(in: 1...999_999))", instance: "86001.\(UInt32.random(in: 1...999_999))")
                let hostile = try await platform.app("hostile", from: "hostile")
                defer { hostile.remove() }
                try hostile.write(try Self.targets(platform, daemons.job, daemons.instance), to: "targets.json")
                try await hostile.commit("Attack")

                let load = Load(platform, host: "hello.localhost", rate: 50)
                let components = Component.allCases.flatMap { platform.pids(of: $0) }.sorted()
                let pushed = try await hostile.push()
                #expect(pushed.errors.contains("http://hostile.localhost"), "\(pushed)")

                // The instance, as it says itself and as the kernel says.
                let answer = await platform.get("hostile.localhost")
                let report = try Coding.decode(Report.self, from: Data(answer.body.utf8))
                #expect(report.successes == 0, "the instance could: \(report.first)")
                let kinds = [
                    "read", "write", "list", "create", "environ", "memory", "signal", "ask", "bind", "privilege", "host", "fork",
                    "own release",
                ]
                for kind in kinds { #expect(report.tried[kind, default: 0] > 0, "'\(kind)' was not tried: \(report.tried)") }
                let own = try await platform.events().compactMap { $0.as(InstanceStarted.self) }
                let pid = try #require(own.last { $0.instance.app.text == "hostile" }?.pid)
                let neighbour = try #require(own.last { $0.instance.app.text == "hello" }?.pid)
                let status = try Self.status(Int32(pid))
                #expect(status["NoNewPrivs"] == ["1"], "\(status)")
                for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] { #expect(status[set] == ["0000000000000000"], "\(set) \(status)") }
                #expect(
                    status["Groups"] == [] && status["Uid"].map(Set.init)?.count == 1 && status["Uid"] != ["0", "0", "0", "0"], "\(status)")
                #expect(try Self.status(Int32(neighbour))["Uid"] != status["Uid"], "each app has a user of its own")

                // The job: the end of its output is in its event.
                let job = try #require(
                    try await platform.events().compactMap { $0.as(JobFinished.self) }.last {
                        $0.job.app.text == "hostile" && !$0.tail.isEmpty && $0.tail.contains { $0.hasPrefix("kinds ") }
                    })
                let said = job.tail.joined(separator: "\n")
                #expect(said.contains("successes 0"), "the job could: \(said)")
                #expect(said.contains("status NoNewPrivs 1") && said.contains("status CapEff 0000000000000000"), "\(said)")
                #expect(!said.contains("status Uid 0 "), "\(said)")

                // A job leaves nothing behind, whatever session it hid in.
                #expect(try await Self.sleeping(daemons.job).isEmpty, "the job's daemon lives on")
                #expect(
                    try await !Self.sleeping(daemons.instance).isEmpty,
                    "the test's own check: the instance's daemon can be seen while the instance lives")

                // The neighbour and the suite did not notice.
                let result = await load.stop()
                #expect(result.failures.isEmpty && result.sent > 5, "\(result)")
                #expect(Component.allCases.flatMap { platform.pids(of: $0) }.sorted() == components, "a component was restarted")

                // With the app goes its daemon.
                #expect(try await platform.slipway("app", "delete", "hostile", "--yes").status == 0)
                try await eventually(within: 20, "the end of the instance's daemon") { try await Self.sleeping(daemons.instance).isEmpty }
                try await eventually(within: 20, "the app's address is gone") { await platform.get("hostile.localhost").status != 200 }
                #expect(await platform.page("hello").contains("v1"))
            }
        }

        /// Every file and directory of the suite as it is now, every port, and questions that need a token.
        static func targets(_ platform: Platform, _ job: String, _ instance: String) throws -> String {
            var files: [String] = []
            var directories = [platform.home]
            let walk = FileManager.default.enumerator(atPath: platform.home)
            while let name = walk?.nextObject() as? String, files.count < 1500 {
                var isDirectory: ObjCBool = false
                let path = "\(platform.home)/\(name)"
                guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else { continue }
                if isDirectory.boolValue { directories.append(path) } else { files.append(path) }
            }
            for needed in ["keys/operator.token", "keys/bus.json", "git/state.sqlite", "logs/apps"] {
                guard (files + directories).contains("\(platform.home)/\(needed)") else {
                    throw TestFailure("\(needed) is not in \(platform.home)")
                }
            }
            guard files.contains(where: { $0.contains("/supervisor/bundles/hello/") }) else {
                throw TestFailure("the neighbour's bundle is not found")
            }
            let questions: [(Component, String)] = [
                (.api, "/v1/apps"), (.api, "/v1/events"), (.api, "/v1/tokens"), (.bus, "/v1/events"),
                (.deployer, "/v1/apps/hello/deployments"),
                (.git, "/hello.git/info/refs?service=git-upload-pack"), (.git, "/internal/hello/archive/HEAD.tar"),
                (.registry, "/v2/_catalog"),
                (.supervisor, "/v1/programs"), (.scheduler, "/v1/apps/hello/runs"), (.git, "/v1/repositories"),
                (.discovery, "/v1/catalogue"),
            ]
            let ports = Component.allCases.map { platform.port($0) } + [platform.busPort, platform.dnsPort, platform.ingressPort]
            return try Coding.text(
                JSON.object([
                    "files": .array(files.map { .string($0) }), "directories": .array(directories.map { .string($0) }),
                    "questions": .array(questions.map { .array([.int(Int64(platform.port($0.0))), .string($0.1)]) }),
                    "ports": .array(ports.map { .int(Int64($0)) }),
                    "daemon": .object(["job": .string(job), "instance": .string(instance)]),
                ]))
        }

        static func status(_ pid: Int32) throws -> [String: [String]] {
            let text = try run(reading: "/proc/\(pid)/status")
            return text.split(separator: "\n").reduce(into: [:]) { result, line in
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2 else { return }
                result[String(parts[0])] = parts[1].split(whereSeparator: \.isWhitespace).map(String.init)
            }
        }

        /// Files in /proc have no size, so they are read to their end.
        private static func run(reading path: String) throws -> String {
            let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            return String(decoding: try handle.readToEnd() ?? Data(), as: UTF8.self)
        }

        /// The pids of `sleep SECONDS`.
        static func sleeping(_ seconds: String) async throws -> [String] {
            try await TestKit.run(["pgrep", "-x", "-f", "sleep \(seconds)"]).output.split(separator: "\n").map(String.init)
        }
    }
}
