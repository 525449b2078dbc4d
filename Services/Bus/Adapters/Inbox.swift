import CSys
import Contracts
import Foundation

/// What other threads ask of the broker thread. Closures are called on that thread and must be short.
enum Order: Sendable {
    case publish([PendingPublication], producer: String, @Sendable ([LocalDecision]?) -> Void)
    case call(method: String, payload: Data, milliseconds: Int64, @Sendable (UInt16, Data) -> Void)
    case consumers(@Sendable ([ConsumerStatus]?) -> Void)
    case parked(owner: String?, consumer: String?, @Sendable ([ParkedStatus]?) -> Void)
    case unpark(ConsumerKey, seq: UInt64, retry: Bool, @Sendable (Problem?) -> Void)
    case forget(ConsumerKey, @Sendable (Problem?) -> Void)
    case flushed(FlushResult)
    /// Who copies the log.
    case replicas(@Sendable ([ReplicaStatus]?) -> Void)
    /// Another bus of this log says that its epoch is this.
    case met(epoch: UInt64, witness: String)
    /// Changes that were stored, or were not.
    case saved((any Error)?)
    /// The log was shortened at its beginning, or could not be.
    case trimmed((any Error)?)
    /// The index of the log was written on.
    case covered
    /// A part of the log was checked; the last one or not.
    case looked(isOver: Bool)
    /// Somebody at this address has a key that is not in the key file.
    case refusedKey(String)
    /// A request over HTTP asked for what its token may not.
    case denied(name: String, request: String, what: String)
    case stop
}

/// An event that the HTTP face publishes.
struct PendingPublication: Sendable, Hashable {
    var topic: String
    var id: String
    var payload: Data
}

/// The queue in front of the broker thread, and the eventfd that wakes it.
final class Inbox: Sendable {
    /// Orders of the HTTP face beyond this are refused.
    static let limit = 4096

    private struct State: Sendable {
        var queue: [Order] = []
        var wakePending = false
        var closed = false
    }
    private let state = Locked(State())
    /// Readable when something waits.
    let descriptor: Int32

    init() throws {
        descriptor = csys_eventfd()
        guard descriptor >= 0 else { throw DiskError("make an eventfd") }
    }

    deinit { close(descriptor) }

    /// False when the broker has stopped or too much waits.
    @discardableResult
    func post(_ order: Order) -> Bool {
        let (taken, wake) = state.withLock { state -> (Bool, Bool) in
            guard !state.closed else { return (false, false) }
            switch order {
            case .publish, .call, .consumers, .parked, .unpark, .forget, .replicas, .refusedKey, .denied:
                guard state.queue.count < Self.limit else { return (false, false) }
            case .flushed, .met, .saved, .trimmed, .covered, .looked, .stop: break
            }
            state.queue.append(order)
            defer { state.wakePending = true }
            return (true, !state.wakePending)
        }
        if wake {
            var one: UInt64 = 1
            _ = write(descriptor, &one, 8)
        }
        return taken
    }

    /// Something waits.
    var isWaiting: Bool { state.withLock { !$0.queue.isEmpty } }

    /// Everything that waits. The eventfd is emptied before the flag is cleared, so a post in between wakes the thread again.
    func takeAll() -> [Order] {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        return state.withLock { state in
            state.wakePending = false
            defer { state.queue = [] }
            return state.queue
        }
    }

    /// Takes nothing more; what was never taken is given back, so that nobody waits for an answer for ever.
    func shut() -> [Order] {
        state.withLock { state in
            state.closed = true
            defer { state.queue = [] }
            return state.queue
        }
    }
}
