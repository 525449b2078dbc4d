import Contracts
import Kit

/// A repository, by the app's name. Its directory goes by `id`, which is never given twice: a name can be given back.
struct Repository: Codable, Hashable, Sendable {
    var id: Int
    var app: AppName
    /// False while its directory is being made.
    var ready: Bool
    /// The `repository.requested` that asked for it, and on whose behalf.
    var order: EventID
    var actor: String?
    var since: Timestamp
}

/// Which repositories there are, and which tags were ordered: no disk, no git.
enum GitCore: Core {
    static let filters = [RepositoryRequested.type.text, TagRequested.type.text]

    struct State: CoreState {
        var repositories = Table<Repository>()
        /// `repository`: the last id that was given.
        var counters = Table<Int>()
        init() {}
        mutating func tables(_ visit: inout some TableVisitor) throws {
            try visit.table("repositories", &repositories)
            try visit.table("counters", &counters)
        }
    }

    enum Effect: Codable, Hashable, Sendable {
        case create(id: Int, app: AppName)
        case delete(id: Int)
        case tag(id: Int, order: TagRequested, time: Timestamp)
    }

    enum Notice: Codable, Hashable, Sendable {
        case created(id: Int, app: AppName)
        case tagRefused(TagRequested, reason: String)
    }

    /// What is done to one repository is done in order.
    static func lane(_ effect: Effect) -> String? {
        switch effect {
        case .create(let id, _), .delete(let id), .tag(let id, _, _): "repository \(id)"
        }
    }

    static func handle(_ input: Input<Notice>, _ state: inout State, _ step: inout Step<Effect>) {
        switch input {
        case .event(let event):
            if let order = event.as(RepositoryRequested.self) {
                switch order.action {
                case .create: create(order.app, &state, &step)
                case .delete: delete(order.app, &state, &step)
                }
            } else if let order = event.as(TagRequested.self) {
                tag(order, state, &step)
            } else {
                step.log("an order of type \(event.type) cannot be read and is ignored")
            }
        case .notice(.created(let id, let app)): created(id, app, &state, &step)
        case .notice(.tagRefused(let order, let reason)):
            step.publish(TagRejected(app: order.app, tag: order.tag, commit: order.commit, reason: reason))
            step.log("tag '\(order.tag)' of app '\(order.app)' was not made: \(reason)")
        case .timer: break
        }
    }

    private static func create(_ app: AppName, _ state: inout State, _ step: inout Step<Effect>) {
        if let known = state.repositories[app.text] {
            // The same again is success; while it is being made, the first order's answer is this one's too.
            if known.ready { step.publish(RepositoryCreated(app: app, defaultBranch: Self.defaultBranch)) }
            return
        }
        let id = (state.counters["repository"] ?? 0) + 1
        state.counters["repository"] = id
        state.repositories[app.text] = Repository(
            id: id, app: app, ready: false, order: step.cause, actor: step.actor, since: step.now)
        step.perform(.create(id: id, app: app))
    }

    private static func created(_ id: Int, _ app: AppName, _ state: inout State, _ step: inout Step<Effect>) {
        guard let known = state.repositories[app.text], known.id == id else {
            // Deleted before it was finished.
            step.perform(.delete(id: id))
            return
        }
        guard !known.ready else { return }
        state.repositories.update(app.text) { $0.ready = true }
        step.publish(RepositoryCreated(app: app, defaultBranch: Self.defaultBranch), cause: known.order, actor: known.actor)
        step.log("repository of app '\(app)' made")
    }

    private static func delete(_ app: AppName, _ state: inout State, _ step: inout Step<Effect>) {
        guard let known = state.repositories[app.text] else {
            step.publish(RepositoryRejected(app: app, reason: "app '\(app)' does not exist"))
            return
        }
        // From this moment nobody reaches it; the directory follows.
        state.repositories[app.text] = nil
        step.publish(RepositoryDeleted(app: app))
        step.perform(.delete(id: known.id))
        step.log("repository of app '\(app)' deleted")
    }

    private static func tag(_ order: TagRequested, _ state: State, _ step: inout Step<Effect>) {
        guard let known = state.repositories[order.app.text] else {
            step.log("tag of app '\(order.app)' ordered, which has no repository")
            return
        }
        guard (try? RefName("refs/tags/\(order.tag)")) != nil, !order.tag.hasPrefix("-") else {
            step.log("tag \(Problem.quote(order.tag)) ordered, which is not a tag's name")
            return
        }
        step.perform(.tag(id: known.id, order: order, time: step.now))
    }

    /// What HEAD of a new repository names; a first push of another branch moves it.
    static let defaultBranch = "main"
}
