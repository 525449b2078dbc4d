import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    @Suite("Streams and checkouts", .serialized, .timeLimit(.minutes(5))) struct StreamTests {
        @Test(
            "server-sent events of the bus and the api go on after Last-Event-ID, without a gap or a repeat, and refuse what is no number of theirs"
        )
        func resume() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                let commit = try await copy.commit("One")
                #expect(try await copy.push().status == 0)
                let secret = "\(platform.home)-curl"
                defer { try? FileManager.default.removeItem(atPath: secret) }
                try "header = \"Authorization: Bearer \(try platform.operatorToken())\"\n".write(
                    toFile: secret, atomically: true, encoding: .utf8)

                let streams: [(Component, String)] = [(.bus, "/v1/events/stream"), (.api, "/v1/events?follow=1")]
                for (component, path) in streams {
                    let url = "http://127.0.0.1:\(platform.port(component))\(path)"
                    func follow(after id: UInt64) throws -> Background {
                        try Background(["curl", "-sSN", "--max-time", "60", "-K", secret, "-H", "Last-Event-ID: \(id)", url])
                    }
                    let head = try await platform.lastSeq()
                    let early = try follow(after: 3)
                    try await eventually(within: 10, "\(component): the past") { Self.ids(early.text).contains(head) }
                    #expect(Self.ids(early.text).starts(with: Array(4...head)), "\(component)")
                    // What happens now arrives too; then the reader goes away, and comes back after more has happened.
                    #expect(try await platform.slipway("publish", "test.\(component.rawValue).a").status == 0)
                    try await eventually(within: 10, "\(component): the present") {
                        early.text.contains("\"type\":\"test.\(component.rawValue).a\"")
                    }
                    let last = try #require(Self.ids(early.text).last)
                    early.send(signal: SIGTERM)
                    #expect(try await platform.slipway("publish", "test.\(component.rawValue).b").status == 0)
                    let late = try follow(after: last)
                    try await eventually(within: 10, "\(component): what was missed") {
                        late.text.contains("\"type\":\"test.\(component.rawValue).b\"")
                    }
                    #expect(Self.ids(late.text).first == last + 1, "\(component)")
                    #expect(!late.text.contains("\"type\":\"test.\(component.rawValue).a\""))
                    late.send(signal: SIGTERM)
                    for wrong in ["999999999", "-1", "soon"] {
                        let answer = try await run(
                            [
                                "curl", "-sSN", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "-K", secret, "-H",
                                "Last-Event-ID: \(wrong)", url,
                            ])
                        #expect(answer.output == "400", "\(component) Last-Event-ID \(wrong): \(answer)")
                    }
                }

                // A following command line survives the end of the component that it reads from.
                let follower = try Background([Platform.slipway, "events", "-f", "--since", "1", "--json", "--home", platform.home])
                try await eventually(within: 10, "the follower") { follower.text.contains("test.api.b") }
                try await platform.kill9(.api)
                try await platform.ready()
                #expect(try await platform.slipway("publish", "test.afterwards").status == 0)
                try await eventually(within: 20, "the follower goes on") { follower.text.contains("test.afterwards") }
                follower.send(signal: SIGTERM)
                let numbers = try follower.text.split(separator: "\n").filter { $0.hasPrefix("{") }.map {
                    try Coding.decode(Envelope.self, from: Data($0.utf8)).seq
                }
                #expect(numbers == Array(1...UInt64(numbers.count)), "nothing missed, nothing twice")

                // SIGHUP ends nothing: the settings are read again.
                let pids = Component.allCases.flatMap { platform.pids(of: $0) }
                let file = platform.home + "/suite.yml"
                let before = try String(contentsOfFile: file, encoding: .utf8)
                try (before + "log_level: debug\n").write(toFile: file, atomically: true, encoding: .utf8)
                for pid in pids { kill(pid, SIGHUP) }
                for component in Component.allCases {
                    try await eventually(within: 20, "\(component) reads its settings") {
                        try String(contentsOfFile: "\(platform.home)/logs/\(component.rawValue).log", encoding: .utf8).contains(
                            "log_level=debug")
                    }
                }
                #expect(Component.allCases.flatMap { platform.pids(of: $0) } == pids)

                try await Self.checkout(platform, commit)
            }
        }

        /// What the bus gives as a checkout is complete and has no right to write, for anybody.
        static func checkout(_ platform: Platform, _ commit: String) async throws {
            let key = "\(platform.home)-reader.json"
            defer { try? FileManager.default.removeItem(atPath: key) }
            #expect(try await platform.slipway("key", "create", "reader", "--call", "git.*", "--out", key).status == 0)
            let wire = "\(Platform.root)/Tests/Conformance/wire.py"
            let answer = try await run(
                ["/usr/bin/python3", wire, key, "call", "git.checkout", #"{"app":"hello","commit":"\#(commit)"}"#], within: 30)
            let path = try #require(try? Coding.decode(JSON.self, from: Data(answer.output.utf8))["path"]?.string, "\(answer)")
            #expect(
                FileManager.default.contents(atPath: path + "/app.py")
                    == FileManager.default.contents(atPath: "\(Platform.root)/Tests/Fixtures/apps/hello/app.py"))
            let writable = try await run(["find", path, "-perm", "/222"])
            #expect(writable.status == 0 && writable.output.isEmpty, "\(writable)")
            let missing = try await run(
                [
                    "/usr/bin/python3", wire, key, "call", "git.checkout",
                    #"{"app":"hello","commit":"\#(String(repeating: "0", count: 40))"}"#,
                ], within: 30)
            #expect(missing.status == 1 && missing.errors.contains("commit"), "\(missing)")
        }

        static func ids(_ text: String) -> [UInt64] {
            text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("id:") }.compactMap {
                UInt64($0.dropFirst(3).trimmingCharacters(in: .whitespaces))
            }
        }
    }
}
