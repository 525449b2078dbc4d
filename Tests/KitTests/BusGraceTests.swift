import Contracts
import Foundation
import Testing

@testable import Kit

@Suite("the bus as seen by a component that starts") struct BusGraceTests {
    @Test("one that never comes ends the component, to be tried again later", .timeLimit(.minutes(1))) func never() async throws {
        let (boot, home) = try LoopTests.boot()
        defer { try? FileManager.default.removeItem(atPath: home) }
        let problem = await #expect(throws: Problem.self) { try await BusService(client: boot.bus, grace: 0.2).run() }
        #expect(problem?.code == .unavailable && problem?.message.contains("has not been there for") == true)
    }
}
