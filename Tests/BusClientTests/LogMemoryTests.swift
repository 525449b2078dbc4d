import Contracts
import Foundation
import Testing
import Wire

@testable import BusClient

@Suite("What a client has seen of the log", .timeLimit(.minutes(1))) struct LogMemoryTests {
    private let memory = LogMemory(stream: "a1", epoch: 3, seq: 10, hash: "aa")

    @Test("a log that goes on from what was seen is accepted") func extends() {
        #expect(memory.contradiction(stream: "a1", epoch: 3, last: 10, hash: "aa") == nil)
        #expect(memory.contradiction(stream: "a1", epoch: 3, last: 11, hash: "bb") == nil)
        // The mark of a start changes the hash, not the number.
        #expect(memory.contradiction(stream: "a1", epoch: 4, last: 10, hash: "cc") == nil)
        #expect(memory.contradiction(stream: "a1", epoch: 3, last: 10, hash: nil) == nil)
    }

    @Test(
        "another log, an older start, a shorter log and a changed event are refused by name",
        arguments: [
            ("b2", 3, 10, "aa", "another log"), ("a1", 2, 10, "aa", "2 times, and 3 starts"), ("a1", 4, 9, "cc", "ends with event 9"),
            ("a1", 3, 10, "bb", "not what it was"),
        ] as [(String, UInt64, UInt64, String, String)])
    func contradicts(stream: String, epoch: UInt64, last: UInt64, hash: String, why: String) {
        #expect(memory.contradiction(stream: stream, epoch: epoch, last: last, hash: hash)?.contains(why) == true)
    }

    @Test("after a failover that the operator ordered, the log goes on from where that one is") func failover() {
        var memory = memory
        #expect(memory.contradiction(stream: "a1", epoch: 1 << 20, last: 8, hash: "ff") == nil)
        memory.saw(epoch: 1 << 20, last: 8, hash: "ff")
        #expect(memory.seq == 8 && memory.contradiction(stream: "a1", epoch: 4, last: 10, hash: nil) != nil)
        #expect(memory.contradiction(stream: "b2", epoch: 1 << 20, last: 8, hash: "ff") != nil)
    }

    @Test("it only grows, and a number without its hash forgets the hash") func grows() {
        var memory = memory
        memory.saw(epoch: 3, last: 9, hash: "00")
        #expect(memory == self.memory)
        memory.reached(12)
        #expect(memory.seq == 12 && memory.hash == nil)
        memory.saw(epoch: 3, last: 12, hash: "dd")
        #expect(memory.hash == "dd")
        // What a bus can check lies behind what was delivered since.
        memory.reached(15)
        #expect(memory.seen == Hello.Seen(stream: "a1", seq: 12, hash: "dd"))
        memory.saw(epoch: 4, last: 12, hash: "ee")
        #expect(memory.epoch == 4 && memory.hash == "ee")
    }

    enum Change: CaseIterable { case shorter, older, other, rewritten }

    @Test("a bus whose log does not extend what was seen gets no session, with what to do; the right one does", arguments: Change.allCases)
    func refused(change: Change) async throws {
        let bus = FakeBus()
        for _ in 0..<10 { bus.append("a.b", payload: envelope("a.b")) }
        bus.state.withLock { ($0.epoch, $0.hash) = (3, "aa") }
        try await withClient(bus.configuration()) { client in
            #expect(await client.connected(within: 5))
            let right = bus.state.withLock { $0 }
            bus.stop()
            bus.state.withLock { state in
                switch change {
                case .shorter: state.log.removeLast()
                case .older: state.epoch = 2
                case .other: state.stream = "ffffffffffffffffffffffffffffffff"
                case .rewritten: state.hash = "bb"
                }
            }
            bus.start()
            try await eventually("the refusal") { client.lastError?.contains("does not extend what this program has seen") == true }
            #expect(!client.isConnected && client.lastError?.contains("a restored backup needs the whole home") == true)
            let away = await #expect(throws: Problem.self) { try await client.call("calc.double", Data(), timeout: 0.2) }
            #expect(away?.code == .unavailable && away?.message.contains("does not extend") == true)
            bus.stop()
            bus.state.withLock { ($0.log, $0.epoch, $0.stream, $0.hash) = (right.log, right.epoch, right.stream, right.hash) }
            bus.start()
            #expect(await client.connected(within: 20))
        }
    }

    @Test("the memory outlives the program, and is believed no more when its file is removed") func file() async throws {
        let path = "/tmp/slipway-test-\(UUID().uuidString.lowercased()).json"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let bus = FakeBus()
        for _ in 0..<10 { bus.append("a.b", payload: envelope("a.b")) }
        var configuration = bus.configuration()
        configuration.memoryFile = path
        try await withClient(configuration) { client in #expect(await client.connected(within: 5)) }
        try await eventually("it is written down") { LogMemory.load(path)?.seq == 10 }
        bus.state.withLock { _ = $0.log.removeLast() }
        try await withClient(configuration) { client in
            try await eventually("the refusal") { client.lastError?.contains("remove \(path)") == true }
        }
        try FileManager.default.removeItem(atPath: path)
        try await withClient(configuration) { client in #expect(await client.connected(within: 5)) }
    }
}
