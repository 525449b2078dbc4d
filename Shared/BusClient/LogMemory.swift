import Contracts
import Foundation
import Wire

/// What a client has seen of the bus's log. A log only ever grows: a bus that shows another one, or less, has been restored from a
/// backup, or is an old one that came back, and going on with it would mean two histories.
///
/// Pure; the bus thread keeps it over sessions, and a file keeps it over restarts of the program.
struct LogMemory: Codable, Hashable, Sendable {
    /// The log's random id: 32 hexadecimal digits.
    var stream: String
    /// Counts the starts of the bus on this log.
    var epoch: UInt64
    /// The newest event that was heard of.
    var seq: UInt64
    /// The log's hash chain just after that event as it was in that epoch, 64 hexadecimal digits; nil when it was not told.
    var hash: String?
    /// With what the bus confirms to others that it gave that epoch out.
    var witness: String?
    /// The last event after which the hash was told: by it a bus can check its whole log up to there.
    var anchor: Anchor?
    struct Anchor: Codable, Hashable, Sendable {
        var seq: UInt64
        var hash: String
    }
    /// For HELLO.
    var seen: Hello.Seen? { anchor.map { Hello.Seen(stream: stream, seq: $0.seq, hash: $0.hash) } }

    /// Epochs of one term follow each other by starts alone; a failover or a deliberate restore begins the next.
    static let startsATerm: UInt64 = 1 << 20

    /// Nil: what the bus shows extends what was seen. Otherwise what does not fit, for people.
    func contradiction(stream: String, epoch: UInt64, last: UInt64, hash: String?) -> String? {
        // A failover, or a restore that says that it is one: the operator decided with what the log goes on. A consumer that is
        // beyond it is told so by the bus (LOST).
        if stream == self.stream, epoch / Self.startsATerm > self.epoch / Self.startsATerm { return nil }
        if stream != self.stream { return "it is another log (\(stream.prefix(8))…, not \(self.stream.prefix(8))…)" }
        if epoch < self.epoch { return "it was started \(epoch) times, and \(self.epoch) starts were seen" }
        if last < seq { return "it ends with event \(last), and event \(seq) was seen" }
        // Each start adds a mark without a number, so that hashes can only be compared within one.
        if epoch == self.epoch, last == seq, let hash, let known = self.hash, hash != known {
            return "event \(last), or one before it, is not what it was"
        }
        return nil
    }

    /// Takes in what was said last; what does not extend it must have been refused.
    mutating func saw(epoch: UInt64, last: UInt64, hash: String?, witness: String? = nil) {
        guard (epoch, last) >= (self.epoch, seq) else { return }
        if epoch != self.epoch || witness != nil { self.witness = witness }
        if (epoch, last) != (self.epoch, seq) || self.hash == nil { self.hash = hash }
        self.epoch = epoch
        seq = last
        if let hash { anchor = Anchor(seq: last, hash: hash) }
    }

    /// An event was delivered.
    mutating func reached(_ seq: UInt64) {
        guard seq > self.seq else { return }
        self.seq = seq
        hash = nil
    }

    /// What such a refusal tells people.
    static func problem(_ contradiction: String, file: String?) -> Problem {
        Problem(
            .conflict, "the bus's log does not extend what this program has seen: \(contradiction)",
            hint: "a restored backup needs the whole home from the same moment"
                + (file.map { "; to go on with this log all the same, stop the suite and remove \($0)" } ?? ""))
    }

    // MARK: The file

    /// Nil when there is none, or none that can be read: then everything is believed, as at the first start.
    static func load(_ path: String) -> LogMemory? {
        (try? Data(contentsOf: URL(fileURLWithPath: path))).flatMap { try? Coding.decode(LogMemory.self, from: $0) }
    }

    /// Replaces the file whole. Not flushed to the device: an older memory is a weaker one, not a wrong one.
    func save(_ path: String) throws { try Coding.encode(self).write(to: URL(fileURLWithPath: path), options: .atomic) }
}
