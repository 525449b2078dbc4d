import Contracts
import Foundation
import HTTPKit
import HTTPTypes
import Hummingbird
import NIOCore
import ServiceLifecycle
import Synchronization

/// Server-sent events (WHATWG HTML, 9.2) on their way to one client. A full pipe makes its writer wait, so that a slow reader
/// slows the replay of the log and neither fills the memory nor loses an event.
final class EventPipe: Sendable {
    static let capacity = 64

    private struct State {
        var waiting: [String] = []
        var closed = false
        var reader: CheckedContinuation<String?, Never>?
        var writers: [CheckedContinuation<Void, Never>] = []
    }
    private let state = Mutex(State())

    /// Waits while the pipe is full. Throws `CancellationError` once the client is gone or the component stops.
    func send(id: UInt64? = nil, event: String? = nil, _ data: String) async throws {
        var text = ""
        if let id, id > 0 { text += "id: \(id)\n" }
        if let event { text += "event: \(event)\n" }
        for line in data.split(separator: "\n", omittingEmptySubsequences: false) { text += "data: \(line)\n" }
        try await put(text + "\n")
    }

    private func put(_ text: String) async throws {
        while true {
            try Task.checkCancellation()
            let (sent, closed, reader): (Bool, Bool, CheckedContinuation<String?, Never>?) = state.withLock { state in
                if state.closed { return (false, true, nil) }
                if let reader = state.reader {
                    state.reader = nil
                    return (true, false, reader)
                }
                guard state.waiting.count < Self.capacity else { return (false, false, nil) }
                state.waiting.append(text)
                return (true, false, nil)
            }
            if closed { throw CancellationError() }
            reader?.resume(returning: text)
            if sent { return }
            await withCheckedContinuation { continuation in
                let full = state.withLock { state in
                    guard !state.closed, state.waiting.count >= Self.capacity else { return false }
                    state.writers.append(continuation)
                    return true
                }
                if !full { continuation.resume() }
            }
        }
    }

    /// A comment, when there is room: tells a dead connection from a silent one.
    func beat() {
        let reader: CheckedContinuation<String?, Never>? = state.withLock { state in
            if state.reader == nil, !state.closed, state.waiting.isEmpty { state.waiting.append(":\n\n") }
            guard !state.closed, let reader = state.reader else { return nil }
            state.reader = nil
            return reader
        }
        reader?.resume(returning: ":\n\n")
    }

    /// What is still in the pipe is delivered; nothing more is taken.
    func close() {
        let (reader, writers) = state.withLock { state in
            state.closed = true
            defer {
                state.reader = nil
                state.writers = []
            }
            return (state.reader, state.writers)
        }
        reader?.resume(returning: nil)
        for writer in writers { writer.resume() }
    }

    /// All that waits, as one piece; nil at the end. For one reader.
    fileprivate func next() async -> String? {
        let (ready, writers): (String?, [CheckedContinuation<Void, Never>]) = state.withLock { state in
            guard !state.waiting.isEmpty else { return (nil, []) }
            defer {
                state.waiting = []
                state.writers = []
            }
            return (state.waiting.joined(), state.writers)
        }
        for writer in writers { writer.resume() }
        if let ready { return ready }
        return await withCheckedContinuation { continuation in
            let now: (text: String?, done: Bool) = state.withLock { state in
                if !state.waiting.isEmpty {
                    defer { state.waiting = [] }
                    return (state.waiting.joined(), true)
                }
                if state.closed { return (nil, true) }
                state.reader = continuation
                return (nil, false)
            }
            if now.done { continuation.resume(returning: now.text) }
        }
    }
}

extension Response {
    /// An event stream that `produce` fills. It ends when `produce` returns, when the client goes away, or when the component
    /// stops: clients come back by themselves with Last-Event-ID.
    static func following(_ produce: @escaping @Sendable (EventPipe) async throws -> Void) -> Response {
        var fields: HTTPFields = [:]
        fields[.contentType] = "text/event-stream; charset=utf-8"
        fields[.cacheControl] = "no-store"
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody { writer in
                let pipe = EventPipe()
                let work = Task {
                    defer { pipe.close() }
                    do {
                        try await produce(pipe)
                    } catch let problem as Problem {
                        // The head is long gone: the reason travels as an event.
                        try await pipe.send(event: "problem", try Coding.text(problem))
                    }
                }
                let beats = Task {
                    while true {
                        try await Task.sleep(for: .seconds(10))
                        pipe.beat()
                    }
                }
                let stopping = Task {
                    try await gracefulShutdown()
                    pipe.close()
                }
                defer {
                    pipe.close()
                    for task in [work, beats, stopping] { task.cancel() }
                }
                try await writer.write(ByteBuffer(string: ": open\n\n"))
                try await withTaskCancellationHandler {
                    while let text = await pipe.next() { try await writer.write(ByteBuffer(string: text)) }
                } onCancel: {
                    pipe.close()
                }
                try await writer.finish(nil)
            })
    }
}
