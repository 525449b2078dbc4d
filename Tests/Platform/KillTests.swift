import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    /// Promise 2: kill any component at any instant, start it again, and the work in flight goes on where it was.
    @Suite("kill -9 between a push and the end of its deployment", .serialized, .timeLimit(.minutes(10))) struct KillTests {
        /// When to strike: just as this event is in the log.
        static let points: [EventType] = [
            PushReceived.type, JobStarted.type, ReleaseCreated.type, InstanceRequested.type, RouteRequested.type,
        ]

        @Test(
            "each component, at five points: the deployment ends live, once, and no event is lost or doubled", arguments: Component.allCases
        )
        func component(_ victim: Component) async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                for (index, point) in Self.points.enumerated() {
                    let pushes = index + 1
                    try copy.write("v\(pushes)\n", to: "VERSION")
                    let commit = try await copy.commit("Version \(pushes)")
                    let last = try await platform.lastSeq()
                    let push = try Background(["git", "push", "slipway", "main"], in: copy.path)
                    try await platform.waitForEvent(point, after: last)
                    try await platform.kill9(victim)
                    _ = try await push.finish(within: 120)
                    try await platform.ready()
                    // The push itself may have lost its connection before it was accepted; then a person pushes again.
                    let again = try await copy.push("-o", "detach")
                    #expect(again.status == 0, "\(again)")
                    let waited = try await platform.slipway("wait", "hello", commit)
                    #expect(waited.status == 0, "\(victim.rawValue) killed at \(point): \(waited)")
                    try await eventually(within: 15, "v\(pushes) after \(victim.rawValue) was killed at \(point)") {
                        await platform.page("hello").contains("v\(pushes)")
                    }
                }
                let events = try await platform.events()
                #expect(events.map(\.seq) == Array(1...UInt64(events.count)), "the log has a gap")
                try Judge.nothingDoubled(events)
                try Judge.deploymentsEndedOnce(events)
                for type in [PushReceived.type, ReleaseCreated.type, DeploySucceeded.type] {
                    #expect(events.filter { $0.type == type }.count == Self.points.count, "\(type)")
                }
                try await eventually(within: 20, "one instance in the end") {
                    let running = try await platform.slipway("ps", "hello", "--json").output
                    return running.components(separatedBy: "hello/production/web/").count - 1 == 1
                }
            }
        }

        @Test("each component, and then two at once, while a release that is never healthy is tried: it is rolled back, once")
        func rollback() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("v1\n", to: "VERSION")
                try await copy.commit("Good")
                #expect(try await copy.push().status == 0)
                // It writes down that it runs, and never listens.
                try copy.write(
                    "services: {web: {run: 'echo $$; exec sleep 600', ports: {http: 80}, health: {tcp: true, grace: 2s}}}\n",
                    to: "slipway.yml")
                let pairs: [[Component]] = [[.bus, .deployer], [.supervisor, .discovery], [.git, .scheduler], [.registry, .api]]
                let victims = Component.allCases.map { [$0] } + pairs
                for (index, victims) in victims.enumerated() {
                    try copy.write("bad \(index)\n", to: "VERSION")
                    let commit = try await copy.commit("Bad \(index)")
                    let last = try await platform.lastSeq()
                    #expect(try await copy.push("-o", "detach").status == 0)
                    try await platform.waitForEvent(InstanceStarted.type, after: last)
                    for victim in victims { for pid in platform.pids(of: victim) { kill(pid, SIGKILL) } }
                    try await platform.ready()
                    let waited = try await platform.slipway("wait", "hello", commit)
                    #expect(
                        waited.status == 1 && waited.errors.contains("rolled back"), "\(victims.map(\.rawValue)) killed: \(waited)")
                    #expect(await platform.page("hello").contains("v1"), "after \(victims.map(\.rawValue)) were killed")
                }
                let events = try await platform.events()
                #expect(events.map(\.seq) == Array(1...UInt64(events.count)), "the log has a gap")
                try Judge.nothingDoubled(events)
                try Judge.deploymentsEndedOnce(events)
                #expect(events.filter { $0.type == DeployRolledBack.type }.count == victims.count)
                try await eventually(within: 30, "one process of the app in the end") { try await platform.instancePids().count == 1 }
            }
        }

        @Test("each component while a build runs that fails: it fails once, with its last lines, and nothing else changes")
        func failingBuild() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write(
                    "build: {run: 'echo compiling; sleep 1; echo the-last-words; exit 3'}\nservices: {web: {run: python3 app.py, ports: {http: 80}}}\n",
                    to: "slipway.yml")
                for victim in Component.allCases {
                    try copy.write("\(victim.rawValue)\n", to: "VERSION")
                    let commit = try await copy.commit("Bad: \(victim.rawValue)")
                    let last = try await platform.lastSeq()
                    #expect(try await copy.push("-o", "detach").status == 0)
                    try await platform.waitForEvent(JobStarted.type, after: last)
                    try await platform.kill9(victim)
                    try await platform.ready()
                    let waited = try await platform.slipway("wait", "hello", commit)
                    #expect(waited.status == 1 && waited.errors.contains("exited with status 3"), "\(victim.rawValue): \(waited)")
                    #expect(waited.output.contains("the-last-words"), "\(victim.rawValue): \(waited)")
                }
                let events = try await platform.events()
                try Judge.nothingDoubled(events)
                #expect(
                    events.compactMap { $0.as(RunFinished.self) }.map(\.outcome)
                        == Array(repeating: .failed, count: Component.allCases.count))
                #expect(!events.contains { $0.type == ReleaseCreated.type || $0.type == DeployRequested.type })
            }
        }

        @Test("the app keeps answering while all eight are dead, and the suite finds it again") func allDead() async throws {
            try await Platform.run { platform in
                let copy = try await platform.app("hello", from: "hello")
                defer { copy.remove() }
                try copy.write("v1\n", to: "VERSION")
                try await copy.commit("First")
                #expect(try await copy.push().status == 0)
                let load = Load(platform, host: "hello.localhost", rate: 50)
                let pid = try await platform.instancePids()
                for component in [Component.supervisor] + Component.allCases.filter({ $0 != .supervisor }) {
                    for victim in platform.pids(of: component) { kill(victim, SIGKILL) }
                }
                try await platform.ready()
                #expect(try await platform.instancePids() == pid, "the instance was not touched")
                let result = await load.stop()
                #expect(result.failures.isEmpty && result.sent > 10, "\(result)")
            }
        }
    }
}

extension Platform {
    /// Pids of the processes that run apps, as the supervisor tells.
    func instancePids() async throws -> [Int32] {
        struct Answer: Decodable {
            struct Program: Decodable {
                var name: String
                var pid: Int32?
            }
            var programs: [Program]
        }
        let answer = try await ask(.supervisor, "/v1/programs")
        guard answer.status == 200 else { throw TestFailure("programs: \(answer)") }
        return try Coding.decode(Answer.self, from: Data(answer.body.utf8)).programs.filter { $0.name.contains("/") }.compactMap(\.pid)
            .sorted()
    }

    func lastSeq() async throws -> UInt64 { try await events().last?.seq ?? 0 }

    /// Waits until the bus's own HTTP shows an event of that type after `seq`.
    func waitForEvent(_ type: EventType, after seq: UInt64) async throws {
        try await eventually(within: 60, "\(type) after \(seq)") {
            let answer = try await self.ask(.bus, "/v1/events?since=\(seq + 1)&type=\(type)&limit=10")
            return answer.status == 200 && answer.body.contains("\"\(type)\"")
        }
    }
}
