import Foundation
import Wire

/// What of an outbox is under way in one session: pure bookkeeping, no clock and no socket.
///
///     settled … acknowledged, gone from the outbox | under way … sent, not decided | not sent
///
/// After a temporary refusal nothing is sent until all that is under way has been decided, so that a late answer to the first
/// attempt can never be taken for an answer to the second.
struct PublishWindow: Sendable {
    struct Decision: Equatable {
        /// Everything up to here is decided for good.
        var settled: UInt64
        /// Permanent refusals among it.
        var refused: [PublishException]
        /// Sending begins again, after a pause.
        var pause: Bool
    }

    let session: UInt64
    private let messages: Int
    private let bytes: Int
    private var underWay: [(number: UInt64, bytes: Int)] = []
    private var bytesUnderWay = 0
    private(set) var settled: UInt64
    private(set) var sent: UInt64
    private var refused: [PublishException] = []
    /// First number that was refused for now.
    private(set) var refusedFrom: UInt64?
    private var answered: UInt64 = 0
    /// The next PUB starts again after a temporary refusal.
    private(set) var resume = false

    init(session: UInt64, messages: Int, bytes: Int, settled: UInt64) {
        self.session = session
        self.messages = max(1, messages)
        self.bytes = max(1, bytes)
        self.settled = settled
        sent = settled
    }

    /// How many more events may be sent now.
    var room: Int { refusedFrom == nil && bytesUnderWay < bytes ? messages - underWay.count : 0 }
    /// Whether an event of that size may go too; one always may when nothing is under way.
    func fits(_ size: Int) -> Bool { underWay.isEmpty || bytesUnderWay + size <= bytes }
    var isIdle: Bool { underWay.isEmpty }

    mutating func send(_ number: UInt64, bytes size: Int) {
        underWay.append((number, size))
        bytesUnderWay += size
        sent = number
        resume = false
    }

    /// An event that cannot be sent at all is decided here. Only while nothing is under way, because decisions are in order.
    mutating func refuse(_ number: UInt64, status: UInt16) -> Decision {
        sent = number
        settled = number
        return Decision(settled: number, refused: [PublishException(number: number, status: status)], pause: false)
    }

    /// PUBACK.
    mutating func acknowledged(upTo: UInt64, _ exceptions: [PublishException]) -> Decision {
        for exception in exceptions {
            switch exception.status {
            case 208: break
            case 425, 429, 507, 503: refusedFrom = min(refusedFrom ?? .max, exception.number)
            default: refused.append(exception)
            }
            answered = max(answered, exception.number)
        }
        answered = max(answered, upTo)
        var decided = upTo
        if let refusedFrom { decided = min(decided, refusedFrom - 1) }
        decided = max(settled, min(decided, sent))
        while let first = underWay.first, first.number <= decided {
            bytesUnderWay -= first.bytes
            underWay.removeFirst()
        }
        settled = decided
        let final = refused.filter { $0.number <= decided }
        refused.removeAll { $0.number <= decided || $0.number >= refusedFrom ?? .max }
        return Decision(settled: decided, refused: final, pause: refusedFrom != nil && answered >= sent)
    }

    /// After the pause: from the first refused event on, once more.
    mutating func startAgain() {
        guard let first = refusedFrom else { return }
        underWay = []
        bytesUnderWay = 0
        sent = first - 1
        refusedFrom = nil
        answered = 0
        resume = true
    }
}
