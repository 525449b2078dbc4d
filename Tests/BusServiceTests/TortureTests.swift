import Foundation
import TestKit
import Testing

/// Foreign clients break a real bus from the outside, and a checker that knows nothing of it judges: Tests/Torture, here for
/// seconds each and with fixed seeds; `make torture-bus` runs them at length.
@Suite("Torture", .serialized) struct TortureTests {
    private static let folder = "\(Platform.root)/Tests/Torture"

    private static func python(_ arguments: String..., within seconds: Double) async throws -> Finished {
        try await TestKit.run(["/usr/bin/python3"] + arguments, environment: ["SLIPWAY_BIN": Platform.binaries], within: seconds)
    }

    @Test("the checker takes a good history, and finds each way in which one can be broken") func checker() async throws {
        let finished = try await Self.python("\(Self.folder)/checker.py", "--self-test", "1", within: 60)
        #expect(finished.status == 0, "\(finished.output)\(finished.errors)")
    }

    static let scenarios = [
        "kill", "calls", "clients", "stopped", "pause", "clock", "partition", "netns", "storm", "duplicates", "overrun", "full",
        "takeover", "window", "slow", "mute", "retention", "poison", "bookkeeping", "restored", "failover", "keys", "hostile", "fuzz",
        "replay", "soak",
    ]

    @Test("nothing acknowledged is lost, made up, reordered or done twice", arguments: scenarios) func holds(scenario: String) async throws
    {
        let finished = try await Self.python("\(Self.folder)/torture.py", scenario, "--seed", "1", within: 300)
        #expect(finished.status == 0, "\(finished.output)\(finished.errors)")
    }

    @Test("every scenario is run here") func complete() async throws {
        let listed = try await Self.python("\(Self.folder)/torture.py", "list", within: 30)
        let names = listed.output.split(separator: "\n").compactMap { $0.split(separator: " ").first.map(String.init) }
        #expect(names == Self.scenarios)
    }
}
