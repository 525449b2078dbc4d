import Contracts
import Crypto
import Foundation
import Wire

/// How epochs are counted: a start adds 1; a failover or a restored backup begins a new *term*, the next multiple of 2^20.
///
/// So a bus that another one has replaced cannot come up to that one's epoch by being started again, and whoever has seen
/// both knows which is the newer.
enum Epoch {
    static let startsATerm: UInt64 = 1 << 20
    static func term(_ epoch: UInt64) -> UInt64 { epoch / startsATerm }
    /// The first epoch of the next term. Epochs stay below 2^32, because generations have them in their upper half.
    static func nextTerm(after epoch: UInt64) -> UInt64 { (epoch / startsATerm &+ 1) &* startsATerm }
}

/// Shows that an epoch was given out by a bus that holds the suite's key: no client can stop a bus by making up a number.
///
/// HMAC-SHA256 with the secret key over what it is for, the log's id and the epoch.
struct Witness: Sendable {
    private let key: SymmetricKey
    /// `secretKey`: the bus's own, which a replica's home has, too.
    init(secretKey: String) { key = SymmetricKey(data: Data(secretKey.utf8)) }

    private static func words(_ stream: String, _ epoch: UInt64) -> Data { Data("slipway bus epoch \(stream) \(epoch)".utf8) }

    func text(stream: String, epoch: UInt64) -> String {
        Router.hex(Data(HMAC<SHA256>.authenticationCode(for: Self.words(stream, epoch), using: key)))
    }

    func confirms(_ text: String, stream: String, epoch: UInt64) -> Bool {
        guard let code = Data(hex: text) else { return false }
        return HMAC<SHA256>.isValidAuthenticationCode(code, authenticating: Self.words(stream, epoch), using: key)
    }
}

extension Data {
    /// Nil when the text is not hexadecimal.
    init?(hex text: String) {
        let digits = text.utf8.map { UInt8(ascii: "0") <= $0 && $0 <= UInt8(ascii: "9") ? $0 - 48 : $0 >= 97 && $0 <= 102 ? $0 - 87 : 255 }
        guard digits.count % 2 == 0, !digits.contains(255) else { return nil }
        self.init(stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] })
    }
}

extension Router {
    /// Whether a client that says HELLO may come in, as far as epochs go. One that has seen a later epoch of this log may not:
    /// another bus has taken over. When it can show that, this bus stops for good.
    mutating func admits(_ hello: Hello, _ frame: Frame, _ peer: Peer, _ user: String, _ now: Int64) -> Bool {
        if let seen = hello.seen, let why = contradicts(seen, epoch: hello.epoch ?? settings.epoch) {
            effects.append(.note(.warning, "'\(user)' has seen another history of this log: \(why)"))
            refuse(peer, frame, 409, "history", why, now)
            return false
        }
        guard let seen = hello.epoch, seen > settings.epoch, let witness = hello.witness else { return true }
        if settings.witness?.confirms(witness, stream: settings.stream, epoch: seen) == true {
            effects.append(.note(.warning, "'\(user)' has seen epoch \(seen) of this log: another bus has taken over, and this one stops"))
            supersede(by: seen, now)
            refuseSuperseded(peer, frame, seen, now)
            return false
        }
        // Of another log, or made up: no reason for anything.
        effects.append(.note(.debug, "'\(user)' names epoch \(seen), which this bus cannot confirm"))
        return true
    }

    /// Nil: the log extends what was seen, or nobody can tell. What a failover or a restore by a new term left behind is no
    /// contradiction: a person decided with what the log goes on.
    private func contradicts(_ seen: Hello.Seen, epoch: UInt64) -> String? {
        guard seen.stream == settings.stream, Epoch.term(settings.epoch) <= Epoch.term(epoch) else { return nil }
        guard seen.seq <= last else { return "it ends with event \(last), and event \(seen.seq) was seen" }
        guard let known = try? log.hashes(at: seen.seq), !known.isEmpty else { return nil }
        guard !known.contains(where: { Self.hex($0) == seen.hash.lowercased() }) else { return nil }
        return "event \(seen.seq), or one before it, is not what it was"
    }

    /// From now on everything is refused and nothing is written. Every session ends; what was not acknowledged never will be.
    mutating func supersede(by epoch: UInt64, _ now: Int64) {
        guard supersededBy == nil else { return }
        supersededBy = epoch
        for peer in sessions.keys {
            bye(peer, 410, "epoch \(settings.epoch) is over; a bus of epoch \(epoch) has taken over", retry: nil, now)
            end(peer, reason: "another bus has taken over", now: now)
        }
        effects.append(.superseded(by: epoch))
    }

    mutating func refuseSuperseded(_ peer: Peer, _ frame: Frame?, _ epoch: UInt64, _ now: Int64) {
        refuse(
            peer, frame, 410, "superseded",
            "this bus is of epoch \(settings.epoch); one of epoch \(epoch) has taken over, and this one serves nobody any more", now)
    }

    /// What was under way when this bus stopped: nobody is told that it is stored.
    mutating func abandon() {
        recent.rollBack(to: flying?.ids.lowerBound ?? filling.ids.lowerBound)
        flying = nil
        filling = FillingBatch(idsFrom: recent.end)
    }
}
