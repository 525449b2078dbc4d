import Contracts
import Foundation
import Kit
import Logging
import NIOCore

/// Carries one push from its first byte to the end of its story.
struct Pushes: Sendable {
    let repositories: Repositories
    let store: GitStore
    let announcer: Announcer
    let narrator: Narrator
    let logger: Logger

    struct Work: Sendable {
        var repository: Repository
        var actor: String
        var head: PushHead
        var body: BodyReader
        var version: String?
        /// Given back before the story begins.
        var places: [Turnstile.Place]
    }

    private struct Outcome: Sendable {
        var moved: [PushReceived] = []
        var band: AnswerBand
        var subscription: Narrator.Ear?
        var trouble: String?
    }

    /// `write` sends to the client. A client that goes away changes nothing but that nobody listens any more.
    func carry(_ work: Work, write: ([UInt8]) async throws -> Void) async throws {
        let (answer, sink) = AsyncStream<[UInt8]>.makeStream()
        // On a task of its own, because git must not be interrupted by a client that hangs up; awaited below in any case.
        let task = Task {
            defer { sink.finish() }
            return await receive(work) { sink.yield($0) }
        }
        var lost: (any Error)?
        for await bytes in answer where lost == nil {
            do { try await write(bytes) } catch { lost = error }
        }
        var outcome = await task.value
        for place in work.places { place.leave() }
        defer { outcome.subscription?.close() }
        if let lost { throw lost }
        if outcome.band.isHeld {
            if let trouble = outcome.trouble { try await write(Narrator.packet([trouble])) }
            try await narrator.tell(outcome.moved, outcome.subscription, write: write)
        }
        try await write(outcome.band.finish())
    }

    private func receive(_ work: Work, _ send: @escaping @Sendable ([UInt8]) -> Void) async -> Outcome {
        let isBanded = work.head.hasSideBand
        let listens = isBanded && narrator.wants(work.head)
        // Before anything is published, so that no word of the story is missed.
        async let ear = listens ? narrator.listen() : nil
        var outcome = Outcome(band: AnswerBand())
        // What we could not read, git may have understood.
        let moves = !work.head.commands.isEmpty || work.head.isMalformed
        do {
            let path = try repositories.guardFiles(work.repository.id)
            if moves {
                // What another one left behind is told under its own name, not under this push's.
                try await announcer.announce(work.repository)
                try await store.begin(pending(work), in: work.repository.id)
            }
            let body = work.body
            var band = outcome.band
            _ = try await repositories.git.stream(
                .receivePack(path), protocolVersion: work.version, input: { try await body.next() },
                output: { chunk in
                    let passed = isBanded ? band.take(chunk.readableBytesView) : Array(chunk.readableBytesView)
                    if !passed.isEmpty { send(passed) }
                })
            outcome.band = band
        } catch {
            // The client sees an answer that ends too early; what git did move is told all the same.
            logger.warning("a push broke off", metadata: ["app": "\(work.repository.app)", "error": "\(error)"])
        }
        do {
            if moves { outcome.moved = try await announcer.announce(work.repository) }
        } catch {
            logger.error("a push cannot be announced yet", metadata: ["app": "\(work.repository.app)", "error": "\(error)"])
            outcome.trouble = "the push is stored, but cannot be announced now: it is when slipway-git starts again"
        }
        outcome.subscription = await ear
        return outcome
    }

    private func pending(_ work: Work) -> PendingPush {
        var refs: [String: String] = [:]
        for command in work.head.commands { if let ref = command.ref { refs[ref] = command.new } }
        return PendingPush(id: .fresh(), actor: work.actor, cause: nil, options: work.head.options, refs: refs)
    }
}
