import Contracts
import Foundation
import HTTPKit
import Kit
import Logging
import ServiceLifecycle

/// Makes the parts of `git` and hands them to each other.
public enum GitComponent {
    public static func services(_ boot: Boot, config: GitConfig = GitConfig()) async throws -> [any Service] {
        let git = try await Git.find(directory: boot.directory, config: config, logger: boot.logger)
        let repositories = try Repositories(directory: boot.directory, git: git, logger: boot.logger)
        repositories.sweep()
        let store = try boot.openStore(durability: .full) { GitStore.migrate(&$0) }
        let records = GitStore(store: store)
        let announcer = Announcer(
            store: records, repositories: repositories, source: boot.source, now: { boot.now() }, published: { boot.bus.outboxChanged() },
            logger: boot.logger)
        let orders = Orders(repositories: repositories, store: records, announcer: announcer, logger: boot.logger)
        let loop = Loop(
            GitCore.self, boot: boot, store: store, perform: { try await orders.perform($0, $1) },
            reconcile: { state in
                await orders.reconcile(state.repositories.values)
                return []
            })
        let list: @Sendable () async throws -> [Repository] = { try await loop.read { $0.repositories.values } }
        let find: @Sendable (AppName) async throws -> Repository? = { app in try await loop.read { $0.repositories[app.text] } }

        Questions(find: find, repositories: repositories, checkouts: Checkouts(directory: boot.directory)).serve(on: boot.bus)

        let processes = Turnstile(config.processes, waiting: config.waiting, what: "git")
        let narrator = Narrator(config: config, logger: boot.logger) { try await Narrator.hear(boot.bus) }
        let pushes = Pushes(repositories: repositories, store: records, announcer: announcer, narrator: narrator, logger: boot.logger)
        let smart = SmartHTTP(
            access: Access(find: find), repositories: repositories, processes: processes, pushes: pushes, config: config)
        let nouns = RepositoryRoutes(
            list: list, find: find, repositories: repositories, processes: processes,
            config: config)
        let server = HTTPServer(boot, errors: .git) { routes in
            smart.install(routes)
            nouns.install(routes)
        }
        return [loop, Rounds(list: list, orders: orders), server]
    }
}
