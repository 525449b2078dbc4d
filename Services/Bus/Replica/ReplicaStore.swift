import Foundation
import GRDB
import Storage

extension CursorStore {
    /// Takes over how far another bus's consumers are, and what was parked for them, instead of what is here. Work queues begin
    /// again where their first unsettled event was.
    func replace(_ state: ReplicaState, mark: DurableMark) throws {
        var changes = Changes()
        for consumer in state.consumers {
            let key = ConsumerKey(owner: consumer.owner, name: consumer.consumer)
            changes.cursors[key] = Cursor(seq: consumer.seq)
            if consumer.group { changes.queues[key] = WorkQueue(next: consumer.seq &+ 1) }
        }
        for parked in state.parked {
            changes.parked[ConsumerKey(owner: parked.owner, name: parked.consumer), default: [:]][parked.seq] = Parked(
                seq: parked.seq, deliveries: parked.deliveries, reason: parked.reason, at: parked.at.milliseconds)
        }
        try store.db.write { db in
            for table in ["cursors", "queues", "parked"] {
                try db.execute(sql: "DELETE FROM \(table) WHERE stream = ?", arguments: [state.stream])
            }
            try Self.save(changes, mark, state.stream, db)
        }
    }

    /// Forgets where the last flush ended, durably: what is after it is about to be moved away.
    func forgetMark() throws {
        try store.db.writeWithoutTransaction { db in
            try db.execute(sql: "PRAGMA synchronous=FULL")
            defer { try? db.execute(sql: "PRAGMA synchronous=NORMAL") }
            try db.execute(sql: "DELETE FROM durable_mark")
        }
    }
}
