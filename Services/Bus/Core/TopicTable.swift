import Contracts
import Foundation

/// The number of a topic in the table.
struct TopicID: Hashable, Sendable {
    /// Not looked up, or not in the table because it is full.
    static let none = TopicID(index: .max)
    var index: UInt16
}

/// Numbers for topics, so that what is known of one (may this session publish it, does that filter match it) is found by index and
/// not by text. Topics are few; when somebody invents more than fit, the later ones are looked at each time.
struct TopicTable: Sendable {
    static let limit = 4096

    /// Open addressing with linear probing, at most half full: 1 + the place in `topics`, 0 for none.
    private var slots = [UInt16](repeating: 0, count: 2 * limit)
    private var topics: [[UInt8]] = []

    /// The topic's number, given now if it has none yet. `none` when the table is full, and for text that no topic can be.
    mutating func id(_ topic: UnsafeRawBufferPointer) -> TopicID {
        let (at, known) = slot(topic)
        guard known == .none else { return known }
        guard topics.count < Self.limit, Self.isTopic(topic) else { return .none }
        topics.append(Array(topic))
        slots[at] = UInt16(topics.count)
        return TopicID(index: UInt16(topics.count - 1))
    }

    /// The topic's number, if it has one.
    func known(_ topic: UnsafeRawBufferPointer) -> TopicID { slot(topic).id }

    private func slot(_ topic: UnsafeRawBufferPointer) -> (at: Int, id: TopicID) {
        var at = Int(truncatingIfNeeded: hash(topic)) & (slots.count - 1)
        while slots[at] != 0 {
            let index = slots[at] - 1
            if isEqual(topics[Int(index)], topic) { return (at, TopicID(index: index)) }
            at = (at + 1) & (slots.count - 1)
        }
        return (at, .none)
    }

    private func isEqual(_ known: [UInt8], _ topic: UnsafeRawBufferPointer) -> Bool {
        guard known.count == topic.count else { return false }
        return known.withUnsafeBytes { known in
            guard let left = known.baseAddress, let right = topic.baseAddress else { return true }
            return memcmp(left, right, known.count) == 0
        }
    }

    static func isTopic(_ topic: UnsafeRawBufferPointer) -> Bool { (try? EventType(String(decoding: topic, as: UTF8.self))) != nil }

    private func hash(_ topic: UnsafeRawBufferPointer) -> UInt64 {
        var hash = UInt64(topic.count)
        var at = 0
        while topic.count - at >= 8 {
            hash = (hash ^ topic.loadUnaligned(fromByteOffset: at, as: UInt64.self)) &* 0x9E37_79B9_7F4A_7C15
            hash ^= hash >> 29
            at += 8
        }
        while at < topic.count {
            hash = (hash ^ UInt64(topic[at])) &* 0x9E37_79B9_7F4A_7C15
            at += 1
        }
        return hash ^ (hash >> 32)
    }
}

/// Answers of yes or no by topic.
struct TopicVerdicts: Sendable {
    /// 0 not asked yet, 1 no, 2 yes.
    private var known: [UInt8] = []

    subscript(_ id: TopicID) -> Bool? {
        get {
            let index = Int(id.index)
            return index < known.count && known[index] > 0 ? known[index] == 2 : nil
        }
        set {
            guard id != .none, let newValue else { return }
            let index = Int(id.index)
            if index >= known.count { known.append(contentsOf: repeatElement(0, count: index + 1 - known.count)) }
            known[index] = newValue ? 2 : 1
        }
    }
}
