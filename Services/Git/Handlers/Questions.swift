import BusClient
import Contracts
import Foundation

/// What others ask of repositories on the bus.
struct Questions: Sendable {
    let find: @Sendable (AppName) async throws -> Repository?
    let repositories: Repositories
    let checkouts: Checkouts

    func serve(on bus: BusClient) {
        let routes = QueryRoutes()
            .on(ReadFile.self) { query, _ in try await file(query) }
            .on(ResolveRevision.self) { query, _ in try await resolve(query) }
            .on(CheckOut.self) { query, _ in try await checkouts.path(of: query.commit, in: objects(query.app)) }
        bus.serve(Component.git.rawValue, routes)
    }

    private func objects(_ app: AppName) async throws -> Objects {
        guard let repository = try await find(app), repository.ready else { throw Problem.unknownApp(app) }
        return Objects(git: repositories.git, path: try repositories.guardFiles(repository.id))
    }

    func file(_ query: ReadFile) async throws -> ReadFile.Reply {
        let path = try Grammar.path(query.path)
        let objects = try await objects(query.app)
        let found = try await objects.look(["\(query.commit)^{commit}", "\(query.commit):\(path)"])
        guard found.first ?? nil != nil else { throw Problem(.notFound, "app '\(query.app)' has no commit \(query.commit.short)") }
        guard let file = found.last ?? nil, file.kind == "blob" else { return ReadFile.Reply(content: nil) }
        let limit = objects.git.config.maxFile
        guard file.size <= limit else {
            throw Problem(.tooLarge, "\(Problem.quote(path)) has \(file.size) bytes; at most \(limit) are read")
        }
        return ReadFile.Reply(content: try await objects.git.check(.blob(objects.path, file.id), limit: limit).bytes)
    }

    func resolve(_ query: ResolveRevision) async throws -> ResolveRevision.Reply {
        let candidates = try Grammar.candidates(query.revision)
        let objects = try await objects(query.app)
        let found = try await objects.look(candidates.map { "\($0.name)^{commit}" })
        for (candidate, object) in zip(candidates, found) {
            guard let commit = object?.id else { continue }
            let title = try await objects.describe([commit])[commit]?.title ?? ""
            return ResolveRevision.Reply(commit: commit, ref: candidate.ref, title: title)
        }
        return ResolveRevision.Reply(commit: nil, ref: nil, title: "")
    }
}

extension Problem {
    static func unknownApp(_ app: AppName) -> Problem {
        Problem(.notFound, "app '\(app)' does not exist", hint: "slipway app create \(app)")
    }
}
