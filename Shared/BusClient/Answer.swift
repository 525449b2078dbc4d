import Contracts
import Foundation

/// A promise kept at most once: whoever comes first decides, all others are too late. Nobody resumes a continuation but this.
final class Answer<Value: Sendable>: Sendable {
    private struct State: Sendable {
        var result: Result<Value, Problem>?
        var waiting: CheckedContinuation<Result<Value, Problem>, Never>?
    }
    private let state = Locked(State())

    func resolve(_ result: Result<Value, Problem>) {
        let waiting = state.withLock { state -> CheckedContinuation<Result<Value, Problem>, Never>? in
            guard state.result == nil else { return nil }
            state.result = result
            defer { state.waiting = nil }
            return state.waiting
        }
        waiting?.resume(returning: result)
    }

    /// Suspends until it is resolved; a cancelled task resolves it with `cancelled`.
    func value(cancelled: Problem) async throws -> Value {
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let known = state.withLock { state in
                    if state.result == nil { state.waiting = continuation }
                    return state.result
                }
                if let known { continuation.resume(returning: known) }
            }
        } onCancel: {
            resolve(.failure(cancelled))
        }
        return try result.get()
    }
}

extension Answer {
    /// As `value`, but the task's cancellation changes nothing: for what ends only by its own doing.
    func valueRegardless() async throws {
        let result = await withCheckedContinuation { continuation in
            let known = state.withLock { state in
                if state.result == nil { state.waiting = continuation }
                return state.result
            }
            if let known { continuation.resume(returning: known) }
        }
        _ = try result.get()
    }
}
