import Foundation

/// The ids of the last events of each user: a resend by a client without an outbox is stored once within the window.
///
/// The last million, and as many more of the last hour as fit: 50 MB at most. Grows with what is in it.
struct RecentIDs: Sendable {
    /// Made by `IDHash`.
    struct Key: Hashable, Sendable {
        var high: UInt64
        var low: UInt64
    }

    private struct Entry {
        var key: Key
        var seq: UInt64
    }
    /// Makes the keys of what is remembered here.
    let hash: IDHash
    /// So many are always remembered; younger ones up to `most`, because memory is what bounds them.
    private let least: Int
    private let most: Int
    private static let hour: UInt32 = 3600

    /// A ring: the event that was inserted as number n lies at n % `most`.
    private var entries: [Entry] = []
    /// Seconds since 1970, beside the entries.
    private var times: [UInt32] = []
    /// The newest time that is known.
    private var second: UInt32 = 0
    private var oldest = 0
    private var next = 0
    /// Open addressing with linear probing: 1 + the place in the ring in the low half, 0 for none; in the high half the key's hash,
    /// whose first bits say where it belongs. So the ring, which no cache holds, is touched for one key only. 43 bytes an event in all.
    private var table: [UInt64]
    private var shift: UInt64
    /// Nobody outside can make ids that fall on one place.
    private let seed = UInt64.random(in: .min ... .max) | 1

    /// The default of the bound.
    static let most = 1_400_000

    init(least: Int = 1_000_000, most: Int = Self.most, hash: IDHash = IDHash()) {
        self.hash = hash
        self.least = least
        self.most = max(least, most)
        table = Array(repeating: 0, count: 1024)
        shift = 54
    }

    /// How many are remembered.
    var count: Int { next - oldest }

    /// The number of the event with that id, if it is still remembered.
    func seq(_ key: Key) -> UInt64? { find(key).map { entries[Self.place(table[$0])].seq } }

    /// `time` in nanoseconds since 1970. An id that is there already keeps its first number.
    mutating func insert(_ key: Key, seq: UInt64, time: UInt64) {
        second = UInt32(clamping: time / 1_000_000_000)
        insert(key, seq: seq)
    }

    /// One after the newest.
    var end: Int { next }

    /// As above, for an event whose time is not known yet; `stamp` says it.
    mutating func insert(_ key: Key, seq: UInt64) {
        if find(key) == nil { add(key, seq: seq) }
    }

    /// As above, for a key that is known not to be there.
    mutating func add(_ key: Key, seq: UInt64) {
        while count >= most || (count >= least && second > times[oldest % most] &+ Self.hour) { forgetOldest() }
        if count * 4 >= table.count * 3 { grow() }
        let place = next % most
        if place == entries.count {
            entries.append(Entry(key: key, seq: seq))
            times.append(second)
        } else {
            entries[place] = Entry(key: key, seq: seq)
            times[place] = second
        }
        next += 1
        put(place)
    }

    /// Those from `range.lowerBound` up to `range.upperBound`, as `end` counts, are of that time.
    mutating func stamp(_ range: Range<Int>, time: UInt64) {
        second = UInt32(clamping: time / 1_000_000_000)
        for number in max(range.lowerBound, oldest)..<max(range.upperBound, oldest) { times[number % most] = second }
    }

    /// Forgets the newest ones: what came from `end` on was not stored after all.
    mutating func rollBack(to end: Int) {
        while next > max(end, oldest) {
            next -= 1
            remove(entries[next % most].key)
        }
    }

    /// 32 bits, in the high half.
    private func scatter(_ key: Key) -> UInt64 { ((key.low ^ key.high) &* seed) & 0xFFFF_FFFF_0000_0000 }

    /// Where what has that hash belongs.
    private func home(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash >> shift) }

    private static func place(_ slot: UInt64) -> Int { Int(slot & 0xFFFF_FFFF) - 1 }

    private func find(_ key: Key) -> Int? {
        let hash = scatter(key)
        var at = home(hash)
        while table[at] != 0 {
            if (table[at] ^ hash) >> 32 == 0, entries[Self.place(table[at])].key == key { return at }
            at = (at + 1) & (table.count - 1)
        }
        return nil
    }

    private mutating func put(_ place: Int) {
        let hash = scatter(entries[place].key)
        var at = home(hash)
        while table[at] != 0 { at = (at + 1) & (table.count - 1) }
        table[at] = hash | UInt64(place + 1)
    }

    private mutating func forgetOldest() {
        let key = entries[oldest % most].key
        oldest += 1
        remove(key)
    }

    private mutating func remove(_ key: Key) {
        guard var hole = find(key) else { return }
        table[hole] = 0
        // What follows moves up, or it would not be found beyond the hole (Knuth, The Art of Computer Programming, 6.4, algorithm R).
        var at = (hole + 1) & (table.count - 1)
        while table[at] != 0 {
            let wanted = home(table[at])
            let distance = (at - wanted) & (table.count - 1)
            if distance >= (at - hole) & (table.count - 1) {
                table[hole] = table[at]
                table[at] = 0
                hole = at
            }
            at = (at + 1) & (table.count - 1)
        }
    }

    private mutating func grow() {
        table = Array(repeating: 0, count: table.count * 2)
        shift -= 1
        for number in oldest..<next { put(number % most) }
    }
}

/// What the index beside the log holds of them.
extension RecentIDs {
    struct Remembered: Sendable {
        var key: Key
        var seq: UInt64
        var seconds: UInt32
    }

    /// Those from number `seq` on, in the order in which they came.
    func since(_ seq: UInt64) -> [Remembered] {
        var start = next
        while start > oldest, entries[(start - 1) % most].seq >= seq { start -= 1 }
        return (start..<next).map { number in
            let entry = entries[number % most]
            return Remembered(key: entry.key, seq: entry.seq, seconds: times[number % most])
        }
    }

    mutating func insert(_ id: Remembered) { insert(id.key, seq: id.seq, time: UInt64(id.seconds) * 1_000_000_000) }
}
