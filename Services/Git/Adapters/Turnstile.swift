import Contracts
import Synchronization

/// Lets a number of holders in at a time; the others wait in a queue of limited length and for a limited time.
final class Turnstile: Sendable {
    private struct State: Sendable {
        var free: Int
        var next: UInt64 = 0
        var queue: [(number: UInt64, continuation: CheckedContinuation<Bool, Never>)] = []
        /// Given up before they had joined the queue.
        var gone: Set<UInt64> = []
    }
    private let state: Mutex<State>
    private let waiting: Int
    private let what: String

    init(_ places: Int, waiting: Int, what: String) {
        state = Mutex(State(free: places))
        self.waiting = waiting
        self.what = what
    }

    /// How many wait.
    var length: Int { state.withLock { $0.queue.count } }

    /// Given back when it is dropped, or sooner.
    final class Place: Sendable {
        private let turnstile: Turnstile
        private let held = Mutex(true)
        fileprivate init(_ turnstile: Turnstile) { self.turnstile = turnstile }
        deinit { leave() }
        func leave() {
            let first = held.withLock { held in
                defer { held = false }
                return held
            }
            if first { turnstile.leave() }
        }
    }

    /// Throws `Problem` (`unavailable`, 503) when the queue is full or the time is over.
    func enter(within seconds: Double) async throws -> Place {
        let refusal = Problem(.unavailable, "\(what): too many at the same time", hint: "try again in a moment")
        enum Turn { case now, full, queued(UInt64) }
        let turn = state.withLock { state -> Turn in
            if state.free > 0 {
                state.free -= 1
                return .now
            }
            guard state.queue.count < waiting else { return .full }
            state.next += 1
            return .queued(state.next)
        }
        switch turn {
        case .now: return Place(self)
        case .full: throw refusal
        case .queued(let number):
            let timer = Task {
                guard (try? await Task.sleep(for: .seconds(seconds))) != nil else { return }
                giveUp(number)
            }
            defer {
                timer.cancel()
                state.withLock { state in _ = state.gone.remove(number) }
            }
            let admitted = await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in queue(number, continuation) }
            } onCancel: {
                giveUp(number)
            }
            guard admitted else {
                try Task.checkCancellation()
                throw refusal
            }
            return Place(self)
        }
    }

    private func queue(_ number: UInt64, _ continuation: CheckedContinuation<Bool, Never>) {
        // Since the look a place may have become free, or the task may have been cancelled.
        let now = state.withLock { state -> Bool? in
            if Task.isCancelled || state.gone.contains(number) { return false }
            if state.free > 0 {
                state.free -= 1
                return true
            }
            state.queue.append((number, continuation))
            return nil
        }
        if let now { continuation.resume(returning: now) }
    }

    private func giveUp(_ number: UInt64) {
        let found = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            guard let at = state.queue.firstIndex(where: { $0.number == number }) else {
                state.gone.insert(number)
                return nil
            }
            return state.queue.remove(at: at).continuation
        }
        found?.resume(returning: false)
    }

    fileprivate func leave() {
        let next = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            guard state.queue.isEmpty else { return state.queue.removeFirst().continuation }
            state.free += 1
            return nil
        }
        next?.resume(returning: true)
    }
}

/// One turnstile for each key: whoever changes a repository's refs is alone.
final class Locks: Sendable {
    private let all = Mutex<[String: Turnstile]>([:])

    func hold(_ key: String, within seconds: Double) async throws -> Turnstile.Place {
        let turnstile = all.withLock { all in
            if let known = all[key] { return known }
            let made = Turnstile(1, waiting: 256, what: key)
            all[key] = made
            return made
        }
        return try await turnstile.enter(within: seconds)
    }
}
