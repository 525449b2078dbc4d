import Contracts
import Kit
import Logging
import ServiceLifecycle

/// Carries out what the core decided.
struct Orders: Sendable {
    let repositories: Repositories
    let store: GitStore
    let announcer: Announcer
    let logger: Logger

    func perform(_ effect: GitCore.Effect, _ context: EffectContext) async throws -> GitCore.Notice? {
        switch effect {
        case .create(let id, let app):
            try await repositories.create(id)
            return .created(id: id, app: app)
        case .delete(let id):
            let place = try await repositories.locks.hold("repository \(id)", within: 600)
            defer { withExtendedLifetime(place) {} }
            try repositories.delete(id)
            try await store.forget(id)
            return nil
        case .tag(let id, let order, let time):
            return try await tag(id, order, time, context).map { .tagRefused(order, reason: $0) }
        }
    }

    /// Why it was not made; nil: it was, or there is no repository to make it in.
    private func tag(_ id: Int, _ order: TagRequested, _ time: Timestamp, _ context: EffectContext) async throws -> String? {
        let place = try await repositories.locks.hold("repository \(id)", within: 600)
        defer { withExtendedLifetime(place) {} }
        guard let path = try? repositories.guardFiles(id) else {
            logger.warning(
                "tag ordered in a repository that is gone", metadata: ["app": "\(order.app)", "tag": "\(Problem.quote(order.tag))"])
            return nil
        }
        let objects = Objects(git: repositories.git, path: path)
        let repository = Repository(id: id, app: order.app, ready: true, order: context.cause, actor: context.actor, since: time)
        // Whatever a push that died has left is told under its own name first.
        try await announcer.announce(repository)
        let ref = "refs/tags/\(order.tag)"
        let tagger = Tagger(objects: objects)
        try await store.begin(
            PendingPush(id: context.id, actor: context.actor, cause: context.cause, options: [], refs: [ref: PendingPush.anything]), in: id)
        var refusal: String?
        switch try await tagger.make(order, time: time) {
        case .made, .wasThere: try await store.keep(ref, in: id)
        case .refused(let reason): refusal = reason
        }
        try await announcer.announce(repository)
        return refusal
    }

    /// Tells what moved and was not told, repository by repository. One that cannot be read stops no other.
    func reconcile(_ all: [Repository]) async {
        for repository in all where repository.ready {
            do {
                let place = try await repositories.locks.hold("repository \(repository.id)", within: 600)
                defer { place.leave() }
                try await announcer.announce(repository, settled: false)
                repositories.sweepIncoming(repository.id)
            } catch is CancellationError {
                return
            } catch {
                logger.error("a repository cannot be read", metadata: ["app": "\(repository.app)", "error": "\(error)"])
            }
        }
    }
}

/// Looks again, soon after the start and then every few minutes: a git that outlived the process before this one may still move a
/// ref, and so may an administrator's.
struct Rounds: Service {
    let list: @Sendable () async throws -> [Repository]
    let orders: Orders

    static func pause(_ round: Int) -> Double { [1, 2, 4, 8, 15, 30, 60, 120].dropFirst(round).first ?? 300 }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var round = 0
            while !Task.isCancelled {
                do {
                    try await Task.sleep(for: .seconds(Self.pause(round)))
                    await orders.reconcile(try await list())
                } catch {
                    if !(error is CancellationError) {
                        orders.logger.error("the repositories cannot be listed", metadata: ["error": "\(error)"])
                    }
                }
                round += 1
            }
        }
    }
}
