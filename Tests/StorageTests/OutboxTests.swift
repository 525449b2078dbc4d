import Contracts
import Foundation
import GRDB
import Storage
import Testing

@Suite("The outbox") struct OutboxTests {
    static func store() throws -> (Store, String) {
        let path = NSTemporaryDirectory() + "slipway-store-\(UUID().uuidString).sqlite"
        return (try Store(path: path, durability: .normal), path)
    }

    static func envelope(_ n: Int) throws -> Envelope {
        Envelope(
            id: EventID(UUID()), source: "git@host1", type: "git.tag.created", subject: "shop", time: nil,
            data: .object(["n": .int(Int64(n))]))
    }

    @Test("keeps order, never gives a number twice, and forgets only what is settled") func order() throws {
        let (store, path) = try Self.store()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try store.db.write { db in for n in 1...5 { try Outbox.append(Self.envelope(n), in: db) } }
        #expect(try store.db.read { try Outbox.pending(after: 0, limit: 10, in: $0).map(\.number) } == [1, 2, 3, 4, 5])
        try store.db.write { try Outbox.settle(upTo: 5, refused: [4: 403], in: $0) }
        try store.db.write { try Outbox.append(Self.envelope(6), in: $0) }
        #expect(try store.db.read { try Outbox.pending(after: 0, limit: 10, in: $0).map(\.number) } == [6])
        #expect(try store.db.read { try Outbox.counts(in: $0) } == (1, 1))
        let again = try Store(path: path, durability: .full)
        #expect(again.outboxID == store.outboxID)
    }

    @Test("an event of a transaction that failed is not there") func rollback() throws {
        let (store, path) = try Self.store()
        defer { try? FileManager.default.removeItem(atPath: path) }
        struct Stop: Error {}
        #expect(throws: Stop.self) {
            try store.db.write { db in
                try Outbox.append(Self.envelope(1), in: db)
                throw Stop()
            }
        }
        #expect(try store.db.read { try Outbox.counts(in: $0) } == (0, 0))
    }

    @Test("a file that is no database is refused with its path, and left as it is") func damaged() throws {
        let path = NSTemporaryDirectory() + "slipway-store-\(UUID().uuidString).sqlite"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let bytes = Data(repeating: 0x5A, count: 8192)
        try bytes.write(to: URL(fileURLWithPath: path))
        #expect { try Store(path: path, durability: .normal) } throws: { ($0 as? Problem)?.message.contains(path) == true }
        #expect(FileManager.default.contents(atPath: path) == bytes)
    }
}
