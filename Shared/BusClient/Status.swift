import Contracts

/// What the bus said of itself when it welcomed this client.
public struct BusSession: Sendable, Hashable {
    /// Random id of the log: 32 hexadecimal digits.
    public var stream: String
    /// Counts the starts of the bus.
    public var epoch: UInt64
    /// First and last event in the log at that moment.
    public var first: UInt64
    public var last: UInt64
    /// The name of this client's key.
    public var name: String
}

/// The session as other threads see it; written by the bus thread alone.
final class Status: Sendable {
    private struct State: Sendable {
        var session: BusSession?
        var lastError: String?
        var waiting: [UInt64: CheckedContinuation<Bool, Never>] = [:]
        var nextWaiter: UInt64 = 0
        var ended = false
    }
    private let state = Locked(State())

    var session: BusSession? { state.withLock(\.session) }
    var lastError: String? { state.withLock(\.lastError) }

    func opened(_ session: BusSession) {
        let waiting = state.withLock { state in
            state.session = session
            state.lastError = nil
            defer { state.waiting = [:] }
            return state.waiting
        }
        for continuation in waiting.values { continuation.resume(returning: true) }
    }

    /// True when this is news.
    @discardableResult
    func failed(_ reason: String) -> Bool {
        state.withLock { state in
            defer { state.lastError = reason }
            return state.lastError != reason
        }
    }

    func lost() { state.withLock { $0.session = nil } }

    func ended() {
        let waiting = state.withLock { state in
            state.session = nil
            state.ended = true
            defer { state.waiting = [:] }
            return state.waiting
        }
        for continuation in waiting.values { continuation.resume(returning: false) }
    }

    /// Suspends until a session is open; false when the task is cancelled or the client stops.
    func wait() async -> Bool {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let known: Bool? = state.withLock { state in
                    if state.session != nil { return true }
                    if state.ended { return false }
                    state.waiting[id] = continuation
                    return nil
                }
                if let known {
                    continuation.resume(returning: known)
                } else if Task.isCancelled {
                    // Cancelled before it was stored: the handler found nothing to resume.
                    giveUp(id)
                }
            }
        } onCancel: {
            giveUp(id)
        }
    }

    private func giveUp(_ id: UInt64) {
        state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(returning: false)
    }
}
