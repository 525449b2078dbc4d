import BusClient
import Contracts
import Foundation
import Logging
import NIOCore
import ServiceLifecycle
import Story
import Synchronization

/// Tells a push what happens to it, in lines that git shows as `remote: …`, until it has ended.
struct Narrator: Sendable {
    /// What is heard on the bus, from the moment on in which it was opened.
    struct Ear: Sendable {
        /// Nil when there will be no more.
        let next: @Sendable () async throws -> [Envelope]?
        let close: @Sendable () -> Void
    }

    let config: GitConfig
    let logger: Logger
    /// Nil when the bus is away.
    let open: @Sendable () async throws -> Ear?

    /// Opens the events of a story on the bus.
    static func hear(_ bus: BusClient) async throws -> Ear? {
        guard bus.isConnected else { return nil }
        let subscription = try await bus.subscribe(SubscriptionRequest(filters: Story.filters, from: .new))
        return Ear(
            next: {
                var iterator = subscription.makeAsyncIterator()
                return try await iterator.next()?.events
            }, close: { subscription.cancel() })
    }

    /// Whether a push may have a story: it moves a branch and does not ask to be let go.
    func wants(_ head: PushHead) -> Bool {
        !Self.isDetached(head.options) && head.commands.contains { !$0.isDeletion && $0.ref?.hasPrefix("refs/heads/") == true }
    }
    static func isDetached(_ options: [String]) -> Bool { options.contains("detach") }

    /// Nil when the bus is away.
    func listen() async -> Ear? {
        do {
            return try await Deadline.within(5, "the bus") { try await open() }
        } catch {
            logger.info("a push cannot tell its story", metadata: ["error": "\(error)"])
            return nil
        }
    }

    /// Lines as one or more packets of side-band 2.
    static func packet(_ lines: [String]) -> [UInt8] {
        var packets: [UInt8] = []
        for line in lines { packets += PktLine.band(2, Array("\(line)\n".utf8)) }
        return packets
    }
    /// A sign of life that git shows nothing of: an empty packet of side-band 1, as git itself sends.
    static let beat = PktLine.band(1, [UInt8]())

    /// How many deliveries have been heard and not yet told.
    private final class Backlog: Sendable { let count = Mutex(0) }
    private enum Tick: Sendable { case events([Envelope]), beat, stopping, closed }

    /// Returns when all that the push leads to has ended, or when there is no point in waiting; throws when the client is gone.
    func tell(_ moved: [PushReceived], _ ear: Ear?, write: ([UInt8]) async throws -> Void) async throws {
        guard let first = moved.first else { return }
        let follow = "slipway wait \(first.app) \(first.commit.short)"
        if Self.isDetached(first.options) {
            return try await write(Self.packet(["not waiting; to follow it: \(follow)"]))
        }
        guard let ear else {
            return try await write(
                Self.packet(["the push is safe. The bus is away: it is deployed when the bus is back; to follow it: \(follow)"]))
        }
        var stories = Set(moved.map { Story.Subject.commit($0.app, $0.commit) }).map { Story($0) }
        let (ticks, clock) = AsyncStream<Tick>.makeStream()
        let waiting = Backlog()
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                do {
                    while let events = try await ear.next() {
                        waiting.count.withLock { $0 += 1 }
                        clock.yield(.events(events))
                        // A client that does not read must not make us keep what the whole suite says meanwhile: the bus keeps it.
                        while waiting.count.withLock({ $0 >= 64 }) { try await Task.sleep(for: .milliseconds(50)) }
                    }
                } catch {
                    logger.info("a push lost its story", metadata: ["error": "\(error)"])
                }
                clock.yield(.closed)
            }
            group.addTask {
                try? await gracefulShutdown()
                clock.yield(.stopping)
            }
            group.addTask { [config] in
                while !Task.isCancelled {
                    try? await Task.sleep(for: .seconds(config.heartbeat))
                    clock.yield(.beat)
                }
            }
            let pulse = Pulse(limit: config.storyPatience)
            var begun = false
            var warned = false
            for await tick in ticks {
                switch tick {
                case .events(let events):
                    waiting.count.withLock { $0 -= 1 }
                    let lines = events.flatMap { event in stories.indices.flatMap { stories[$0].take(event) } }
                    guard !lines.isEmpty else { break }
                    begun = true
                    pulse.beat()
                    try await write(Self.packet(lines))
                case .beat:
                    if pulse.age > config.storyPatience {
                        let minutes = Int(config.storyPatience / 60)
                        return try await write(
                            Self.packet(["no news for \(minutes) minutes; it goes on without this push waiting. To follow it: \(follow)"]))
                    }
                    if !begun, !warned, pulse.age > 10 {
                        warned = true
                        try await write(
                            Self.packet(["the push is safe; it waits for the scheduler (see slipway status). Ctrl-C leaves, nothing stops"])
                        )
                    }
                    try await write(Self.beat)
                case .stopping:
                    return try await write(Self.packet(["slipway-git is being restarted; what was begun goes on. To follow it: \(follow)"]))
                case .closed:
                    return try await write(Self.packet(["the story breaks off here, the work does not; to follow it: \(follow)"]))
                }
                if stories.allSatisfy({ $0.ending != nil }) { return }
            }
        }
    }
}
