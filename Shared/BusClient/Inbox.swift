import CZeroMQ
import Contracts
import Foundation
import Wire

/// What other threads ask of the bus thread.
enum Instruction: Sendable {
    case emit(Publication)
    /// A packed PUB of the outbox, valid only in that session.
    case publish(Frame, session: UInt64)
    /// Ends the session, so that publishing begins again from what is settled.
    case startOver(session: UInt64)
    case subscribe(Consumer.Registration)
    case credit(handle: UInt32, epoch: UInt64, messages: Int, bytes: Int)
    case ack(handle: UInt32)
    case settle(handle: UInt32, Verdict)
    case unsubscribe(handle: UInt32)
    case request(OpenRequest)
    case cancel(number: UInt64)
    case serve(handle: UInt32, service: String, concurrency: Int)
    case reply(Job.ID, status: UInt16, payload: Data)
    case stop
}

/// The bounded queue in front of the bus thread, and the eventfd that wakes it.
final class Inbox: Sendable {
    /// Emits and requests beyond this are refused; everything else is bounded by what it belongs to.
    static let limit = 8192

    private struct State: Sendable {
        var queue: [Instruction] = []
        var wakePending = false
        var closed = false
    }
    private let state = Locked(State())
    /// Readable when something waits.
    let descriptor: Int32

    init() throws {
        descriptor = eventfd(0, Int32(O_CLOEXEC | O_NONBLOCK))
        guard descriptor >= 0 else {
            throw Problem(.failed, "cannot make an eventfd: \(String(cString: strerror(errno)))", hint: "raise the limit of open files")
        }
    }

    deinit { close(descriptor) }

    /// False when the client has stopped, or when this may be refused and too much waits already.
    @discardableResult
    func post(_ instruction: Instruction) -> Bool {
        let (taken, wake) = state.withLock { state -> (Bool, Bool) in
            guard !state.closed else { return (false, false) }
            switch instruction {
            case .emit, .request: guard state.queue.count < Self.limit else { return (false, false) }
            default: break
            }
            state.queue.append(instruction)
            defer { state.wakePending = true }
            return (true, !state.wakePending)
        }
        if wake {
            var one: UInt64 = 1
            _ = write(descriptor, &one, 8)
        }
        return taken
    }

    /// Everything that waits. The eventfd is emptied before the flag is cleared, so a post in between wakes the thread again.
    func takeAll() -> [Instruction] {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        return state.withLock { state in
            state.wakePending = false
            defer { state.queue = [] }
            return state.queue
        }
    }

    /// Takes nothing more; gives back what was never taken, so that nobody waits for an answer for ever.
    func close() -> [Instruction] {
        state.withLock { state in
            state.closed = true
            defer { state.queue = [] }
            return state.queue
        }
    }

    private func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }
}
