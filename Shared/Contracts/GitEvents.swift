/// An order to make or remove a repository. Taken by `git`.
public struct RepositoryRequested: Event {
    public static let type: EventType = "repository.requested"
    public enum Action: String, Codable, Hashable, Sendable { case create, delete }
    public var app: AppName
    public var action: Action
    public var subject: String { app.text }
    public init(app: AppName, action: Action) {
        self.app = app
        self.action = action
    }
}

/// A repository exists and takes pushes.
public struct RepositoryCreated: Event {
    public static let type: EventType = "repository.created"
    public var app: AppName
    /// The branch that HEAD names, such as `main`.
    public var defaultBranch: String
    public var subject: String { app.text }
    public init(app: AppName, defaultBranch: String) {
        self.app = app
        self.defaultBranch = defaultBranch
    }
}

/// A repository is gone. Its app's instances are stopped by the deployer, its releases forgotten.
public struct RepositoryDeleted: Event {
    public static let type: EventType = "repository.deleted"
    public var app: AppName
    public var subject: String { app.text }
    public init(app: AppName) { self.app = app }
}

/// `git` would not do what `repository.requested` asked.
public struct RepositoryRejected: Event {
    public static let type: EventType = "repository.rejected"
    public var app: AppName
    public var reason: String
    public var subject: String { app.text }
    public init(app: AppName, reason: String) {
        self.app = app
        self.reason = reason
    }
}

/// `git` would not make the tag that `tag.requested` asked for. The release is what it is all the same.
public struct TagRejected: Event {
    public static let type: EventType = "tag.rejected"
    public var app: AppName
    public var tag: String
    public var commit: CommitID
    public var reason: String
    public var subject: String { app.text }
    public init(app: AppName, tag: String, commit: CommitID, reason: String) {
        self.app = app
        self.tag = tag
        self.commit = commit
        self.reason = reason
    }
}

/// A branch moved in a repository that this suite hosts.
///
/// Published by `git` once the commit is safe on disk. Carries all that planning needs, so that acting on a push never
/// starts with a question back to `git`.
public struct PushReceived: Event {
    public static let type: EventType = "git.push.received"
    public var app: AppName
    public var ref: RefName
    public var commit: CommitID
    /// Where the ref was before; nil when it is new.
    public var previous: CommitID?
    /// Whether the repository's HEAD names this branch.
    public var isDefaultBranch: Bool
    /// True when the old commit is not an ancestor of the new one.
    public var forced: Bool
    /// First line of the commit message and the author it claims: text from outside.
    public var title: String
    public var author: String
    /// What `git push -o` gave.
    public var options: [String]
    public var subject: String { app.text }
    public init(
        app: AppName, ref: RefName, commit: CommitID, previous: CommitID?, isDefaultBranch: Bool, forced: Bool, title: String,
        author: String, options: [String]
    ) {
        self.app = app
        self.ref = ref
        self.commit = commit
        self.previous = previous
        self.isDefaultBranch = isDefaultBranch
        self.forced = forced
        self.title = title
        self.author = author
        self.options = options
    }
}

/// A tag was made, by a push or by `tag.requested`.
public struct TagCreated: Event {
    public static let type: EventType = "git.tag.created"
    public var app: AppName
    public var tag: String
    /// The commit it names, annotated tags peeled.
    public var commit: CommitID
    public var subject: String { app.text }
    public init(app: AppName, tag: String, commit: CommitID) {
        self.app = app
        self.tag = tag
        self.commit = commit
    }
}

/// A branch or tag was removed.
public struct RefDeleted: Event {
    public static let type: EventType = "git.ref.deleted"
    public var app: AppName
    public var ref: RefName
    public var previous: CommitID
    public var subject: String { app.text }
    public init(app: AppName, ref: RefName, previous: CommitID) {
        self.app = app
        self.ref = ref
        self.previous = previous
    }
}

/// An order to tag a commit. Taken by `git`; the same tag on the same commit again is success.
public struct TagRequested: Event {
    public static let type: EventType = "tag.requested"
    public var app: AppName
    public var tag: String
    public var commit: CommitID
    public var message: String
    public var subject: String { app.text }
    public init(app: AppName, tag: String, commit: CommitID, message: String) {
        self.app = app
        self.tag = tag
        self.commit = commit
        self.message = message
    }
}
