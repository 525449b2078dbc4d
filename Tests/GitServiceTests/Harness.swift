import Contracts
import Foundation
import HTTPKit
import Kit
import Logging
import Storage
import Synchronization
import TestKit

@testable import GitService

/// Git over real HTTP with real clients, without a bus: tokens, repositories and the story's events come from the test.
final class Harness: Sendable {
    let boot: Boot
    let store: Store
    let records: GitStore
    let repositories: Repositories
    let announcer: Announcer
    let orders: Orders
    let questions: Questions
    let directory: String
    private let bound = Mutex<Int?>(nil)

    static let tokens: [(role: Role, app: String?)] = [(.admin, nil), (.developer, nil), (.viewer, nil), (.developer, "other")]
    private let secrets: [String]
    let component = Token.make()

    private struct Door: Authenticator {
        let principals: [String: Principal]
        func authenticate(hash: String) async throws -> Principal? { principals[hash] }
    }

    /// Starts a server in a fresh directory, runs the test, and takes everything away again.
    static func run(config: GitConfig = GitConfig(), _ body: (Harness) async throws -> Void) async throws {
        let directory = "/tmp/git-test-\(UUID().uuidString)"
        defer { Durable.removeTree(directory) }
        let harness = try await Harness(directory, config)
        try await withThrowingTaskGroup(of: Void.self) { group in
            let server = harness.server(config)
            group.addTask { try await server.run() }
            while harness.bound.withLock({ $0 }) == nil { try await Task.sleep(for: .milliseconds(5)) }
            try await body(harness)
            group.cancelAll()
        }
    }

    private init(_ directory: String, _ config: GitConfig) async throws {
        self.directory = directory
        let suite = try SuiteConfig.load(ComponentOptions(home: "\(directory)/home"), environment: ["SLIPWAY_HOST": "host1"])
        try Keyring.prepare(suite)
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        boot = try Boot.make(.git, suite, logger)
        let git = try await Git.find(directory: boot.directory, config: config, logger: logger)
        repositories = try Repositories(directory: boot.directory, git: git, logger: logger)
        store = try boot.openStore(durability: .full) { GitStore.migrate(&$0) }
        records = GitStore(store: store)
        announcer = Announcer(
            store: records, repositories: repositories, source: boot.source, now: { .now() }, published: {}, logger: logger)
        orders = Orders(repositories: repositories, store: records, announcer: announcer, logger: logger)
        secrets = Self.tokens.map { _ in Token.make() }
        let box = Box()
        questions = Questions(find: { box.names[$0] }, repositories: repositories, checkouts: Checkouts(directory: boot.directory))
        self.box = box
    }

    /// What is shared with the closures that the server was given. `tale`: what happens to a push; nil: the bus is away.
    final class Box: Sendable {
        private let all = Mutex<[AppName: Repository]>([:])
        var names: [AppName: Repository] {
            get { all.withLock { $0 } }
            set { all.withLock { $0 = newValue } }
        }
        let tale = Mutex<(@Sendable (PushReceived) throws -> [Envelope])?>(nil)
    }
    let box: Box

    private func server(_ config: GitConfig) -> HTTPServer {
        var principals: [String: Principal] = [:]
        for (index, token) in Self.tokens.enumerated() {
            principals[Token.hash(secrets[index])] = Principal(
                name: "\(token.role.rawValue)\(token.app ?? "")", role: token.role, app: token.app.flatMap { try? AppName($0) })
        }
        principals[Token.hash(component)] = Principal(name: "component:supervisor", role: .admin)
        let box = box
        let store = store
        let narrator = Narrator(config: config, logger: boot.logger) {
            guard let tale = box.tale.withLock({ $0 }) else { return nil }
            let told = Mutex(false)
            return Narrator.Ear(
                next: {
                    if told.withLock({ $0 }) {
                        try await Task.sleep(for: .seconds(3600))
                        return nil
                    }
                    // The push that was announced meanwhile is what the tale is about.
                    while true {
                        let entries = try await store.db.read { try Outbox.pending(after: 0, limit: 1000, in: $0) }
                        let push = try entries.map { try Coding.decode(Envelope.self, from: $0.payload) }.last {
                            $0.type == PushReceived.type
                        }
                        if let push = try push?.decode(PushReceived.self) {
                            told.withLock { $0 = true }
                            return try tale(push)
                        }
                        try await Task.sleep(for: .milliseconds(10))
                    }
                }, close: {})
        }
        let pushes = Pushes(repositories: repositories, store: records, announcer: announcer, narrator: narrator, logger: boot.logger)
        let processes = Turnstile(config.processes, waiting: config.waiting, what: "git")
        let smart = SmartHTTP(
            access: Access(find: { box.names[$0] }), repositories: repositories, processes: processes, pushes: pushes, config: config)
        let nouns = RepositoryRoutes(
            list: { box.names.values.sorted { $0.app < $1.app } }, find: { box.names[$0] }, repositories: repositories,
            processes: processes,
            config: config)
        return HTTPServer(
            boot, port: 0, authenticator: Door(principals: principals), errors: .git, bound: { port in self.bound.withLock { $0 = port } }
        ) { routes in
            smart.install(routes)
            nouns.install(routes)
        }
    }

    // MARK: What tests do

    func repository(_ name: String) async throws -> Repository {
        let id = box.names.count + 1
        let repository = Repository(
            id: id, app: try AppName(name), ready: true, order: EventID(UUID()), actor: nil, since: Timestamp(milliseconds: 0))
        try await repositories.create(id)
        box.names[repository.app] = repository
        return repository
    }

    func token(_ role: Role, app: String? = nil) -> String {
        secrets[Self.tokens.firstIndex { $0.role == role && $0.app == app } ?? 0]
    }

    var address: String { "http://127.0.0.1:\(bound.withLock { $0 } ?? 0)" }
    func url(_ name: String, _ role: Role? = .developer, app: String? = nil) -> String {
        guard let role else { return "\(address)/\(name).git" }
        return "http://x:\(token(role, app: app))@127.0.0.1:\(bound.withLock { $0 } ?? 0)/\(name).git"
    }

    @discardableResult
    func git(_ arguments: String..., in work: String? = nil) async throws -> Finished {
        try await TestKit.run(["git"] + arguments, in: work, within: 60)
    }

    /// A working copy with one commit on `branch`.
    func work(_ name: String, branch: String = "main", files: [String: String] = ["a.txt": "one\n"]) async throws -> String {
        let path = "\(directory)/\(name)"
        try await git("init", "-q", "-b", branch, path)
        try await commit(path, files, "first")
        return path
    }

    func commit(_ work: String, _ files: [String: String], _ message: String) async throws {
        for (name, text) in files {
            let path = "\(work)/\(name)"
            try FileManager.default.createDirectory(atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        }
        try await git("add", "-A", in: work)
        try await git("commit", "-q", "--allow-empty", "-m", message, in: work)
    }

    func head(_ work: String) async throws -> CommitID {
        try CommitID(try await git("rev-parse", "HEAD", in: work).output.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// What waits to be published, in order.
    func events() async throws -> [Envelope] {
        try await store.db.read { try Outbox.pending(after: 0, limit: 100_000, in: $0) }.map {
            try Coding.decode(Envelope.self, from: $0.payload)
        }
    }
}
