import Foundation
import Wire

/// Who does not read must not fill the memory of the bus: what is sent waits in libzmq, which counts messages and not bytes, and
/// credit bounds one subscription and no session.
///
/// That a client reads is shown by CREDIT, and by PONG: it echoes a value that went out behind everything sent before it.
extension Router {
    mutating func probe(_ index: Dictionary<Peer, Session>.Index, sent bytes: Int) {
        sessions.values[index].unread += bytes
        if sessions.values[index].probe != nil {
            sessions.values[index].probe?.after += bytes
        } else {
            askIfDue(index)
        }
    }

    private mutating func askIfDue(_ index: Dictionary<Peer, Session>.Index) {
        guard sessions.values[index].unread > settings.unread.ask else { return }
        probeCount += 1
        // No time is so late; PINGs of the heartbeat carry one.
        let value = 1 << 63 | probeCount
        sessions.values[index].probe = (value, 0)
        effects.append(.send(sessions.keys[index], Frame(.ping, a: value, b: last, body: hash).encoded()))
    }

    mutating func proved(_ peer: Peer, by value: UInt64) {
        guard let index = sessions.index(forKey: peer), let probe = sessions.values[index].probe, probe.value == value else { return }
        sessions.values[index].unread = probe.after
        sessions.values[index].probe = nil
        // So much may have gone out since that nothing more goes, and nothing would ask again.
        askIfDue(index)
    }

    mutating func proved(_ peer: Peer, bytes: Int64) {
        guard let index = sessions.index(forKey: peer) else { return }
        sessions.values[index].unread = max(0, sessions.values[index].unread - Int(clamping: bytes))
    }

    /// Whether events may be sent: there is credit, and the client reads.
    func mayFeed(_ key: SubscriptionKey, _ subscription: Subscription) -> Bool {
        subscription.hasCredit && sessions[key.peer]?.unread ?? 0 < settings.unread.hold
    }

    /// Ends those who ask for answers or take calls and read neither.
    mutating func endTheMute(_ now: Int64) {
        for (peer, session) in sessions where session.unread > settings.unread.end {
            effects.append(.note(.warning, "\(session.user): session \(session.id) does not read what it is sent"))
            end(peer, reason: "\(session.unread) bytes were sent to it and not read", now: now)
        }
    }
}
