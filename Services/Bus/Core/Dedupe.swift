import Crypto
import Foundation

/// The ids of the last events of each user, for clients without an outbox: a resend within the window is stored once.
struct RecentIDs: Sendable {
    /// 128 bits of SHA-256 over user and id: nobody can make another's id look like one of his.
    struct Key: Hashable, Sendable {
        var high: UInt64
        var low: UInt64
        init(_ user: String, _ id: String) {
            var hash = SHA256()
            hash.update(data: Data(user.utf8))
            hash.update(data: [0])
            hash.update(data: Data(id.utf8))
            (high, low) = hash.finalize().withUnsafeBytes {
                ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            }
        }
    }

    let limit: Int
    private var seqs: [Key: UInt64] = [:]
    private var ring: [Key] = []
    private var oldest = 0

    init(limit: Int = 100_000) { self.limit = limit }

    /// The number of the event with that id, if it is still remembered.
    func seq(_ key: Key) -> UInt64? { seqs[key] }

    mutating func insert(_ key: Key, seq: UInt64) {
        guard seqs.updateValue(seq, forKey: key) == nil else { return }
        guard ring.count == limit else {
            ring.append(key)
            return
        }
        seqs.removeValue(forKey: ring[oldest])
        ring[oldest] = key
        oldest = (oldest + 1) % limit
    }
}

/// The last events, in memory, so that consumers at the tail are not fed from disk.
struct Tail: Sendable {
    private static let byteLimit = 8 << 20
    private var records: [StoredRecord] = []
    private var start = 0
    private var bytes = 0

    /// The first number held.
    var first: UInt64? { start < records.count ? records[start].seq : nil }

    /// Numbers are gapless, so an event is found by counting.
    func slice(from seq: UInt64) -> ArraySlice<StoredRecord>? {
        guard let first, seq >= first, seq - first < UInt64(records.count - start) else { return nil }
        return records[(start + Int(seq - first))...]
    }

    mutating func append(_ new: [StoredRecord]) {
        records.append(contentsOf: new)
        bytes += new.reduce(0) { $0 + $1.bytes.count }
        while bytes > Self.byteLimit, start < records.count {
            bytes -= records[start].bytes.count
            start += 1
        }
        if start > 1024, start > records.count / 2 {
            records.removeFirst(start)
            start = 0
        }
    }
}
