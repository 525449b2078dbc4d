import Contracts
import Foundation
import Logging
import Wire

@testable import BusClient

/// An outbox in memory.
final class MemoryOutbox: OutboxSource {
    struct State: Sendable {
        var entries: [OutboxEntry] = []
        var settled: UInt64 = 0
        var refused: [PublishException] = []
        var last: UInt64 = 0
        var failSettle = 0
    }
    let id = UUID()
    let state = Locked(State())

    func add(_ topic: String = "deploy.requested", payload: Data? = nil, skipping: UInt64 = 0) {
        state.withLock { state in
            state.last += 1 + skipping
            let id = UUID().uuidString.lowercased()
            let body = payload ?? envelope(topic, id: id, Int64(state.last))
            state.entries.append(OutboxEntry(number: state.last, topic: topic, id: id, payload: body))
        }
    }
    func pending(after number: UInt64, limit: Int) async throws -> [OutboxEntry] {
        state.withLock { state in Array(state.entries.filter { $0.number > number }.prefix(limit)) }
    }
    func settle(upTo number: UInt64, refused: [PublishException]) async throws {
        try state.withLock { state in
            if state.failSettle > 0 {
                state.failSettle -= 1
                throw Problem(.storageFull, "no room")
            }
            state.entries.removeAll { $0.number <= number }
            state.settled = max(state.settled, number)
            state.refused += refused
        }
    }
}

/// The bytes of an event that the client can read.
func envelope(_ topic: String, id: String = UUID().uuidString.lowercased(), _ value: Int64 = 0) -> Data {
    Data(#"{"specversion":"1.0","id":"\#(id)","source":"test@here","type":"\#(topic)","subject":"shop","data":{"n":\#(value)}}"#.utf8)
}

struct Late: Error, CustomStringConvertible { var description: String }

/// Looks every 5 ms until it holds.
func eventually(_ what: String, within seconds: Double = 10, _ condition: () async throws -> Bool) async throws {
    let deadline = Monotonic.now() + Int64(seconds * 1000)
    while try await !condition() {
        guard Monotonic.now() < deadline else { throw Late(description: "not within \(seconds) s: \(what)") }
        try await Task.sleep(for: .milliseconds(5))
    }
}

/// Runs a client beside `body`, and ends it afterwards.
func withClient<T: Sendable>(
    _ configuration: BusClientConfiguration, outbox: MemoryOutbox? = nil, _ body: @Sendable (BusClient) async throws -> T
) async throws -> T {
    let client = try BusClient(configuration: configuration, logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
    if let outbox { client.setOutbox(outbox) }
    return try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await client.run() }
        let result: T
        do {
            result = try await body(client)
        } catch {
            group.cancelAll()
            throw error
        }
        group.cancelAll()
        return result
    }
}
