import Contracts
import Foundation
import Kit

extension JSON {
    /// The elements of an array; none when it is something else.
    var items: [JSON] { if case .array(let values) = self { values } else { [] } }
    /// Text from outside, made inert; a dash when there is none.
    func shown(_ key: String, limit: Int = 80) -> String {
        switch self[key] {
        case .string(let text) where !text.isEmpty: Terminal.inert(text, limit: limit)
        case .int(let number): String(number)
        case .bool(let value): value ? "yes" : "no"
        default: "-"
        }
    }
    /// The first seven digits of a commit.
    func commit(_ key: String) -> String { self[key]?.string.map { Terminal.inert(String($0.prefix(7))) } ?? "-" }
    func time(_ key: String) -> Timestamp? { self[key]?.string.flatMap { Timestamp($0) } }
    /// How long ago, in the largest unit that fits.
    func age(_ key: String) -> String { time(key).map { Span.age(since: $0) } ?? "-" }
}

/// Lengths of time as people write them.
enum Span {
    private static let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]

    /// `90s`, `15m`, `12h`, `30d`, `2w` in seconds; nil when it is none of these.
    static func seconds(_ text: String) -> Double? {
        guard let last = text.last, let unit = units[last], let count = Int(text.dropLast()), count > 0, count <= 1_000_000 else {
            return nil
        }
        return Double(count) * unit
    }

    static func age(since time: Timestamp) -> String {
        let seconds = max(0, Timestamp.now().seconds(since: time))
        switch seconds {
        case ..<120: return "\(Int(seconds))s"
        case ..<7200: return "\(Int(seconds / 60))m"
        case ..<172_800: return "\(Int(seconds / 3600))h"
        default: return "\(Int(seconds / 86_400))d"
        }
    }

    /// The moment that `text` names: a time, or that long from now (`ahead`) or ago. Throws `Problem` (`usage`).
    static func moment(_ text: String, ahead: Bool) throws -> Timestamp {
        if let time = Timestamp(text) { return time }
        if let seconds = seconds(text) { return Timestamp.now().adding(seconds: ahead ? seconds : -seconds) }
        throw Problem(.usage, "time \(Problem.quote(text)): expected such as 90s, 15m, 12h, 30d or 2026-11-23T06:56:54Z")
    }
}
