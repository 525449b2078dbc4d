import Contracts
import Foundation
import Kit
import Logging

/// Tells what moved in a repository, exactly once, by comparing its refs with what was announced before.
///
/// Not by hooks: what git really committed counts, and a push whose process died between moving the ref and telling of it is
/// told when the next push ends or at the next start. The caller holds the repository's lock.
struct Announcer: Sendable {
    let store: GitStore
    let repositories: Repositories
    let source: String
    let now: @Sendable () -> Timestamp
    let published: @Sendable () -> Void
    let logger: Logger

    /// Returns the branches that moved. `settled`: no git of ours changes the repository any more, so what was written down of a push
    /// is done with; otherwise it is kept until the refs are where that push wanted them.
    @discardableResult
    func announce(_ repository: Repository, settled: Bool = true) async throws -> [PushReceived] {
        let objects = Objects(git: repositories.git, path: try repositories.guardFiles(repository.id))
        let refs = try await objects.refs()
        let announced = try await store.announced(repository.id)
        let changes = RefChanges.between(announced: announced.refs, now: refs)
        let isDone = settled || announced.pending?.isReached(refs) ?? true
        guard !changes.isEmpty else {
            if isDone, announced.pending != nil { try await store.forgetPush(in: repository.id) }
            return []
        }
        let head = try await settleHead(repository, refs, objects)
        let facts = try await Facts(changes, objects)
        var counter = announced.counter
        var events: [Envelope] = []
        var pushes: [PushReceived] = []
        for change in changes {
            counter += 1
            let push = announced.pending.flatMap { $0.explains(change) ? $0 : nil }
            let seed = "git/\(repository.id)/\(change.ref)/\(change.old ?? "-")/\(change.new ?? "-")/\(counter)"
            func envelope<E: Event>(_ event: E) throws -> Envelope {
                Envelope(
                    id: .derived(from: seed), source: source, type: E.type, subject: event.subject, time: now(), data: try event.json(),
                    cause: push?.cause, actor: push?.actor)
            }
            if let received = facts.push(repository.app, change, head: head, options: push?.options ?? []) {
                pushes.append(received)
                events.append(try envelope(received))
            } else if let created = facts.tag(repository.app, change) {
                events.append(try envelope(created))
            } else if change.new == nil, let old = change.old, let previous = try? CommitID(old) {
                events.append(try envelope(RefDeleted(app: repository.app, ref: change.ref, previous: facts.peeled[old] ?? previous)))
            } else {
                logger.info("a ref that names no commit is not announced", metadata: ["app": "\(repository.app)", "ref": "\(change.ref)"])
            }
        }
        try await store.announce(repository.id, changes, counter: counter, events: events, pushIsDone: isDone)
        published()
        return pushes
    }

    /// A first push that brings another branch than the one HEAD names makes that one the default.
    private func settleHead(_ repository: Repository, _ refs: [String: String], _ objects: Objects) async throws -> String {
        let branches = Set(refs.keys.compactMap { (try? RefName($0))?.branch })
        let now = repositories.head(repository.id)
        let head = RefChanges.head(now: now, branches: branches)
        if head != now { try await objects.git.check(.setHead(objects.path, RefName("refs/heads/\(head)"))) }
        return head
    }
}

/// What has to be looked up before the changes can be told.
private struct Facts: Sendable {
    /// The commit behind each object id: itself, or what a tag names.
    private(set) var peeled: [String: CommitID] = [:]
    private var descriptions: [CommitID: Objects.Description] = [:]
    private var forced: Set<RefName> = []

    init(_ changes: [RefChange], _ objects: Objects) async throws {
        let ids = Set(changes.flatMap { [$0.old, $0.new].compactMap { $0 } }).sorted()
        for (id, found) in zip(ids, try await objects.look(ids.map { "\($0)^{commit}" })) { peeled[id] = found?.id }
        let heads = changes.filter { $0.ref.branch != nil }.compactMap { $0.new.flatMap { peeled[$0] } }
        descriptions = try await objects.describe(heads)
        for change in changes where change.ref.branch != nil {
            guard let new = change.new.flatMap({ peeled[$0] }), let before = change.old else { continue }
            // A commit that is gone cannot be in the history.
            guard let old = peeled[before] else {
                forced.insert(change.ref)
                continue
            }
            if try await !objects.isAncestor(old, of: new) { forced.insert(change.ref) }
        }
    }

    func push(_ app: AppName, _ change: RefChange, head: String, options: [String]) -> PushReceived? {
        guard let branch = change.ref.branch, let commit = change.new.flatMap({ peeled[$0] }) else { return nil }
        let known = descriptions[commit]
        return PushReceived(
            app: app, ref: change.ref, commit: commit, previous: change.old.flatMap { peeled[$0] }, isDefaultBranch: branch == head,
            forced: forced.contains(change.ref), title: known?.title ?? "", author: known?.author ?? "", options: options)
    }

    func tag(_ app: AppName, _ change: RefChange) -> TagCreated? {
        guard let tag = change.ref.tag, let commit = change.new.flatMap({ peeled[$0] }) else { return nil }
        return TagCreated(app: app, tag: tag, commit: commit)
    }
}
