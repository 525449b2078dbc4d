import Contracts

/// One call of git, as a value: argument lists are built here, and tested, and nowhere else.
///
/// Names from outside never come first on the line: they are object ids, full ref names or absolute paths of our own, or they
/// go in on standard input.
struct GitCommand: Sendable, Hashable {
    var arguments: [String]
    /// What is added to the environment that every call has.
    var environment: [String: String] = [:]

    // What clients talk to.

    static func advertise(_ service: GitService, _ repository: String) -> GitCommand {
        GitCommand(arguments: [service.command, "--stateless-rpc", "--http-backend-info-refs", repository])
    }
    /// `idle` in seconds: upload-pack ends by itself when its client stops reading.
    static func uploadPack(_ repository: String, idle: Int) -> GitCommand {
        GitCommand(arguments: ["upload-pack", "--strict", "--timeout=\(idle)", "--stateless-rpc", repository])
    }
    static func receivePack(_ repository: String) -> GitCommand { GitCommand(arguments: ["receive-pack", "--stateless-rpc", repository]) }

    // What we ask ourselves.

    static func version() -> GitCommand { GitCommand(arguments: ["version"]) }
    static func initialize(_ directory: String, branch: String) -> GitCommand {
        GitCommand(arguments: ["init", "--quiet", "--bare", "--template=", "--initial-branch=\(branch)", directory])
    }
    /// All branches and tags, one a line: object id, space, full name.
    static func refs(_ repository: String) -> GitCommand {
        at(repository, ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/"])
    }
    /// One ref below that path, or nothing.
    static func anyBelow(_ repository: String, _ path: String) -> GitCommand {
        at(repository, ["for-each-ref", "--count=1", "--format=%(refname)", "\(path)/"])
    }
    static func setHead(_ repository: String, _ ref: RefName) -> GitCommand { at(repository, ["symbolic-ref", "HEAD", ref.text]) }
    /// Names on standard input, one a line; answers id, kind and size of each, or `missing`.
    static func look(_ repository: String) -> GitCommand { at(repository, ["cat-file", "--batch-check"]) }
    static func blob(_ repository: String, _ object: CommitID) -> GitCommand { at(repository, ["cat-file", "blob", object.text]) }
    /// Title and author of commits, each ended by a zero byte.
    static func describe(_ repository: String, _ commits: [CommitID]) -> GitCommand {
        at(
            repository,
            ["log", "--no-walk=unsorted", "--no-show-signature", "--encoding=UTF-8", "-z", "--format=%H%n%s%n%an <%ae>"]
                + commits.map(\.text))
    }
    /// Exit 0 when `old` is in the history of `new`.
    static func isAncestor(_ repository: String, _ old: CommitID, of new: CommitID) -> GitCommand {
        at(repository, ["merge-base", "--is-ancestor", old.text, new.text])
    }
    /// Every file and directory of a tree with mode, id and size, each ended by a zero byte.
    static func list(_ repository: String, _ commit: CommitID) -> GitCommand {
        at(repository, ["ls-tree", "-r", "-t", "-l", "-z", commit.text])
    }
    static func archive(_ repository: String, _ commit: CommitID) -> GitCommand {
        at(repository, ["archive", "--format=tar", commit.text])
    }
    /// A tag object from its text on standard input.
    static func makeTag(_ repository: String) -> GitCommand { at(repository, ["mktag", "--strict"]) }
    /// Makes a ref that must not exist yet.
    static func createRef(_ repository: String, _ ref: RefName, _ object: CommitID) -> GitCommand {
        at(repository, ["update-ref", ref.text, object.text, String(repeating: "0", count: object.text.utf8.count)])
    }
    /// Fills an index of its own; `files` then writes it out.
    static func readTree(_ repository: String, _ tree: CommitID, index: String) -> GitCommand {
        at(repository, ["read-tree", tree.text], ["GIT_INDEX_FILE": index])
    }
    static func files(_ repository: String, index: String, into directory: String) -> GitCommand {
        at(
            repository, ["--work-tree=\(directory)", "-c", "core.bare=false", "checkout-index", "--all", "--quiet"],
            ["GIT_INDEX_FILE": index])
    }

    private static func at(_ repository: String, _ arguments: [String], _ environment: [String: String] = [:]) -> GitCommand {
        GitCommand(arguments: ["--git-dir=\(repository)"] + arguments, environment: environment)
    }
}

/// The two services of smart HTTP.
enum GitService: String, Sendable, Hashable {
    case uploadPack = "git-upload-pack"
    case receivePack = "git-receive-pack"
    /// The git command behind it.
    var command: String { String(rawValue.dropFirst(4)) }
}

/// The whole environment of every git child: built from nothing, no configuration file of anybody is read.
enum GitEnvironment {
    /// Settings of the highest precedence: a repository's own file cannot override them.
    static func settings(hooks: String, maxPush: Int64) -> [(String, String)] {
        [
            // A directory that is empty and stays so: nothing written into a repository is ever run.
            ("core.hooksPath", hooks),
            ("core.fsync", "all"), ("core.fsyncMethod", "fsync"),
            ("core.attributesFile", "/dev/null"), ("core.excludesFile", "/dev/null"),
            ("core.fsmonitor", "false"), ("core.sshCommand", "false"), ("core.pager", "cat"), ("core.untrackedCache", "false"),
            ("core.precomposeUnicode", "false"), ("core.symlinks", "true"), ("core.autocrlf", "false"), ("core.logAllRefUpdates", "false"),
            ("safe.directory", "*"), ("safe.bareRepository", "explicit"),
            ("gc.auto", "0"), ("maintenance.auto", "false"), ("receive.autogc", "false"),
            ("receive.fsckObjects", "true"), ("receive.maxInputSize", "\(maxPush)"), ("receive.unpackLimit", "1"),
            ("receive.advertiseAtomic", "true"), ("receive.advertisePushOptions", "true"), ("receive.keepAlive", "5"),
            ("receive.denyNonFastForwards", "false"), ("receive.denyDeletes", "false"), ("receive.updateServerInfo", "false"),
            // Only branches and tags may be pushed and are shown: every ref that can move is one that is announced.
            ("transfer.hideRefs", "refs/"), ("transfer.hideRefs", "!refs/heads/"), ("transfer.hideRefs", "!refs/tags/"),
            ("uploadpack.allowFilter", "true"), ("uploadpack.allowReachableSHA1InWant", "true"), ("uploadpack.keepAlive", "5"),
            ("pack.threads", "1"), ("pack.windowMemory", "64m"), ("pack.packSizeLimit", "0"),
            ("tar.umask", "0022"), ("advice.detachedHead", "false"), ("log.showSignature", "false"),
        ]
    }

    static func variables(
        home: String, settings: [(String, String)], protocolVersion: String? = nil, extra: [String: String] = [:]
    ) -> [String: String] {
        var all = [
            "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "HOME": home, "XDG_CONFIG_HOME": home,
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": "none",
            "GIT_CONFIG_COUNT": "\(settings.count)",
        ]
        for (index, (key, value)) in settings.enumerated() {
            all["GIT_CONFIG_KEY_\(index)"] = key
            all["GIT_CONFIG_VALUE_\(index)"] = value
        }
        if let protocolVersion { all["GIT_PROTOCOL"] = protocolVersion }
        return all.merging(extra) { _, new in new }
    }
}
