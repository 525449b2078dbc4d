import CSys
import Contracts
import Foundation

/// What surrounds everything that was pushed: a user of the app's own, no privileges, limits, a cgroup, a private room.
struct Sandbox: Sendable {
    let config: SupervisorConfig
    let store: HostStore
    let cgroups: Cgroups

    /// The app's user id; nil when everything runs as this process's user, which the operator has allowed. Throws `Problem`
    /// (`forbidden`) when pushed code may not run here at all.
    func user(of app: AppName) async throws -> UInt32? {
        if let refusal = config.refusal { throw Problem(.forbidden, refusal) }
        return config.isRoot ? try await store.user(of: app, taken: ProcFS.namedUsers) : nil
    }

    /// A user's own command line, run by the shell: the one place in the suite where a shell reads anything.
    /// With `-e`, so that of several lines the first that fails ends it.
    func shell(
        _ command: String, in directory: String, room: String, environment: [String: String], user: UInt32?, limits: LimitSpec,
        group: [Int32], output: Int32
    ) -> Launch {
        let base = ["PATH": SupervisorConfig.path, "LANG": "C.UTF-8", "HOME": "\(room)/home", "TMPDIR": "\(room)/tmp", "SHELL": "/bin/sh"]
        var launch = Launch(
            program: "/bin/sh", arguments: ["sh", "-ec", command], environment: base.merging(environment) { _, own in own },
            directory: directory, output: output, user: user)
        launch.umask = 0o027
        launch.groups = group
        // When memory runs out on the host, apps go before the suite does.
        launch.oomScore = 500
        launch.limits = [
            (Int32(RLIMIT_CORE.rawValue), 0),
            (Int32(RLIMIT_NOFILE.rawValue), Self.most(RLIMIT_NOFILE, UInt64(max(16, limits.files ?? SupervisorConfig.files)))),
        ]
        if !cgroups.limitsProcesses {
            launch.limits.append((Int32(__RLIMIT_NPROC.rawValue), Self.most(__RLIMIT_NPROC, UInt64(max(1, limits.processes)))))
        }
        return launch
    }

    /// Only root may go above its own hard limit.
    private static func most(_ resource: __rlimit_resource, _ wanted: UInt64) -> UInt64 {
        var limit = rlimit()
        guard geteuid() != 0, getrlimit(Int32(resource.rawValue), &limit) == 0 else { return wanted }
        return min(wanted, UInt64(limit.rlim_max))
    }

    /// Makes a directory with `home` and `tmp` in it, which the user may write to and nobody else may enter.
    func makeRoom(_ path: String, user: UInt32?) throws {
        for directory in [path, "\(path)/home", "\(path)/tmp"] {
            guard mkdir(directory, 0o700) == 0 || errno == EEXIST else {
                throw Problem(.failed, "cannot make \(directory): \(Spawn.message(errno))")
            }
            let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
            guard descriptor >= 0 else { throw Problem(.failed, "cannot open \(directory): \(Spawn.message(errno))") }
            defer { close(descriptor) }
            guard fchmod(descriptor, 0o700) == 0, user.map({ fchown(descriptor, $0, $0) == 0 }) ?? true else {
                throw Problem(.failed, "cannot give \(directory) to its user: \(Spawn.message(errno))")
            }
        }
    }
}

/// Removes a directory that pushed code could write to. Never follows a link, whoever swaps what while it works.
enum Trash {
    static func remove(_ path: String) {
        let parent = open((path as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { return }
        defer { close(parent) }
        remove((path as NSString).lastPathComponent, in: parent, depth: 0)
    }

    private static func remove(_ name: String, in parent: Int32, depth: Int) {
        if unlinkat(parent, name, 0) == 0 || errno == ENOENT { return }
        // Deeper than any honest tree: left where it is, in a room that nobody uses any more.
        guard depth < 400 else { return }
        let directory = csys_open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0)
        guard directory >= 0 else { return }
        let copy = dup(directory)
        if copy >= 0, let stream = fdopendir(copy) {
            var names: [String] = []
            while let entry = readdir(stream) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                    pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { names.append(name) }
            }
            closedir(stream)
            for name in names { remove(name, in: directory, depth: depth + 1) }
        }
        close(directory)
        unlinkat(parent, name, AT_REMOVEDIR)
    }
}
