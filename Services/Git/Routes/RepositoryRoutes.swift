import Contracts
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit
import NIOCore

/// The repositories as a list, and their commits as archives for the suite's own programs.
struct RepositoryRoutes: Sendable {
    let list: @Sendable () async throws -> [Repository]
    let find: @Sendable (AppName) async throws -> Repository?
    let repositories: Repositories
    let processes: Turnstile
    let config: GitConfig

    func install(_ routes: Routes) {
        routes.get("/v1/repositories", .role(.viewer)) { _, context in try await index(context) }
        routes.get("/internal/:app/archive/:file", .component) { _, context in try await archive(context) }
    }

    private struct Item: Encodable {
        var app: AppName
        var defaultBranch: String
        var ready: Bool
        var since: Timestamp
    }

    private func index(_ context: SlipwayContext) async throws -> Response {
        let all = try await list().filter { context.principal?.may(.viewer, app: $0.app) == true }
        let items = all.map { Item(app: $0.app, defaultBranch: repositories.head($0.id), ready: $0.ready, since: $0.since) }
        return try .json(["repositories": items])
    }

    /// `COMMIT.tar`: exactly the tree of the commit, whatever its attributes say.
    private func archive(_ context: SlipwayContext) async throws -> Response {
        let app = try context.app()
        let file = try context.parameter("file")
        guard file.hasSuffix(".tar") else { throw Problem(.notFound, "expected COMMIT.tar") }
        let commit = try CommitID(String(file.dropLast(4)))
        guard let repository = try await find(app), repository.ready else { throw Problem.unknownApp(app) }
        let objects = Objects(git: repositories.git, path: try repositories.guardFiles(repository.id))
        let place = try await processes.enter(within: config.patience)
        try await objects.checkBudget(commit)
        var fields: HTTPFields = [:]
        fields[.contentType] = "application/x-tar"
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody { writer in
                defer { place.leave() }
                let status = try await objects.git.stream(
                    .archive(objects.path, commit), input: { nil }, output: { try await writer.write($0) })
                // Thrown before the end is written: the reader sees that something is missing.
                guard status == 0 else { throw Problem(.failed, "git archive exited with status \(status)") }
                try await writer.finish(nil)
            })
    }
}
