import Contracts
import Foundation
import Logging
import Wire

/// What the pump hears from the bus thread, from the outbox's owner and from its own pauses.
enum PumpSignal: Sendable {
    case opened(session: UInt64, messages: Int, bytes: Int)
    case closed
    case acknowledged(session: UInt64, upTo: UInt64, [PublishException])
    case changed
    case pauseOver(session: UInt64)
    case retry
}

/// Drains the outbox: sends within the window what is pending, in order, settles what the bus has decided. One task, so the
/// source is never asked twice at a time; state in `PublishWindow`.
struct OutboxPump: Sendable {
    static let packEvents = 16
    static let packBytes = 1 << 18

    let source: any OutboxSource
    let inbox: Inbox
    let signals: AsyncStream<PumpSignal>
    let signal: AsyncStream<PumpSignal>.Continuation
    /// True while a `changed` waits in the stream: one is as good as a thousand.
    let changePending: Locked<Bool>
    let logger: Logger

    func run() async {
        await withDiscardingTaskGroup { group in
            var window: PublishWindow?
            var settled: UInt64 = 0
            var unsettled: [PublishException] = []
            var known: UInt64 = 0
            var pauses = 0
            func later(_ next: PumpSignal, milliseconds: Int) {
                group.addTask {
                    try? await Task.sleep(for: .milliseconds(milliseconds))
                    signal.yield(next)
                }
            }
            for await next in signals {
                switch next {
                case .opened(let session, let messages, let bytes):
                    window = PublishWindow(session: session, messages: messages, bytes: bytes, settled: settled)
                    pauses = 0
                case .closed:
                    window = nil
                case .acknowledged(let session, let upTo, let exceptions):
                    guard window?.session == session, let decision = window?.acknowledged(upTo: upTo, exceptions) else { continue }
                    if decision.settled > settled { pauses = 0 }
                    (settled, known) = (max(settled, decision.settled), max(known, decision.settled))
                    unsettled += decision.refused
                    if decision.pause {
                        pauses += 1
                        logger.notice("the bus takes no events for now", metadata: ["from": "\(settled + 1)", "attempt": "\(pauses)"])
                        later(.pauseOver(session: session), milliseconds: min(100 << min(pauses, 6), 5000))
                    }
                case .changed:
                    changePending.withLock { $0 = false }
                case .pauseOver(let session):
                    if window?.session == session { window?.startAgain() }
                case .retry:
                    break
                }
                if known > 0 || !unsettled.isEmpty {
                    do {
                        try await source.settle(upTo: settled, refused: unsettled)
                        (known, unsettled) = (0, [])
                    } catch {
                        logger.error("cannot settle the outbox; trying again", metadata: ["error": "\(error)"])
                        later(.retry, milliseconds: 1000)
                    }
                }
                guard window != nil, !Task.isCancelled else { continue }
                do {
                    while let decision = try await fill(&window) {
                        settled = max(settled, decision.settled)
                        unsettled += decision.refused
                        try await source.settle(upTo: settled, refused: unsettled)
                        unsettled = []
                    }
                } catch {
                    logger.error("cannot read the outbox; trying again", metadata: ["error": "\(error)"])
                    later(.retry, milliseconds: 1000)
                }
            }
            group.cancelAll()
        }
    }

    /// Sends what is pending and fits. Returns a decision when an event had to be refused here; the caller settles and goes on.
    private func fill(_ window: inout PublishWindow?) async throws -> PublishWindow.Decision? {
        while var current = window, current.room > 0 {
            let entries = try await source.pending(after: current.sent, limit: min(current.room, 256))
            guard !entries.isEmpty else { return nil }
            var pack: [OutboxEntry] = []
            var packed = 0
            func flush() {
                guard let first = pack.first else { return }
                let body = Publication.encode(pack.map { Publication(topic: $0.topic, id: $0.id, payload: $0.payload) })
                let frame = Frame(.publish, flags: current.resume ? 1 : 0, a: first.number, b: UInt64(pack.count), body: body)
                for entry in pack { current.send(entry.number, bytes: entry.payload.count) }
                inbox.post(.publish(frame, session: current.session))
                (pack, packed) = ([], 0)
            }
            for entry in entries {
                // Too large for any message: it would cost the connection, so the bus never sees it.
                if entry.payload.count > Limits.payload || entry.topic.utf8.count > Limits.topic || entry.id.utf8.count > Limits.id {
                    flush()
                    window = current
                    guard current.isIdle else { return nil }
                    let decision = current.refuse(entry.number, status: entry.payload.count > Limits.payload ? 413 : 422)
                    window = current
                    return decision
                }
                let size = entry.payload.count + entry.topic.utf8.count + entry.id.utf8.count + 8
                // One PUB holds consecutive numbers; a gap in the outbox begins a new one.
                let follows = pack.last.map { $0.number &+ 1 == entry.number } ?? true
                if !follows || pack.count == Self.packEvents || packed + size > Self.packBytes { flush() }
                guard current.fits(packed + entry.payload.count) else { break }
                pack.append(entry)
                packed += size
            }
            flush()
            let progressed = window.map { $0.sent != current.sent } ?? false
            window = current
            guard progressed else { return nil }
        }
        return nil
    }
}
