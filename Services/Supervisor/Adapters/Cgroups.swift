import Contracts
import Foundation
import Kit

/// The control groups of this host that the supervisor may use: version 1, version 2, or both side by side.
struct Cgroups: Sendable {
    /// One hierarchy: where our groups go, and what it can limit.
    struct Tree: Sendable, Hashable {
        var path: String
        var version: Int
        var controllers: Set<String>
    }
    let trees: [Tree]
    /// For people: what cannot be limited here; nil when all can.
    let note: String?

    /// Looks at the mounts, and makes one parent group for this home in each hierarchy that lets us.
    init(home: String, isRoot: Bool) {
        let name =
            "slipway-" + String(home.utf8.reduce(UInt64(14_695_981_039_346_656_037)) { ($0 ^ UInt64($1)) &* 1_099_511_628_211 }, radix: 36)
        let own = Self.membership()
        var found: [Tree] = []
        for mount in Self.mounts() where isRoot {
            let wanted = mount.controllers.intersection(["memory", "pids", "cpu"])
            let place = own[mount.version == 2 ? "" : mount.controllers.sorted().first ?? ""] ?? "/"
            guard mount.version == 2 || !wanted.isEmpty else { continue }
            // At the top, because that place is the same whoever starts the suite and from where: a supervisor that takes over finds the
            // groups of the one before. Where the top is not ours, below our own group.
            let parents = [mount.path] + (place == "/" || place.hasPrefix("/..") ? [] : [mount.path + place])
            let paths = parents.map { "\($0)/\(name)" }
            guard
                let path = paths.first(where: { path in
                    (mkdir(path, 0o755) == 0 || errno == EEXIST) && access("\(path)/cgroup.procs", W_OK) == 0
                })
            else { continue }
            var usable = wanted
            if mount.version == 2 {
                usable = []
                let offered = Set(
                    (ProcFile.read("\(path)/cgroup.controllers") ?? "").split(whereSeparator: \.isWhitespace).map(String.init))
                // Our parent group holds no process itself, so its children may be limited, if its own parent hands that down.
                for controller in offered.intersection(["memory", "pids", "cpu"])
                where Self.write("+\(controller)", to: "\(path)/cgroup.subtree_control") { usable.insert(controller) }
            }
            found.append(Tree(path: path, version: mount.version, controllers: usable))
        }
        trees = found
        let missing = ["memory", "pids", "cpu"].filter { controller in !found.contains { $0.controllers.contains(controller) } }
        note =
            missing.isEmpty
            ? nil : "limits of \(missing.joined(separator: ", ")) are not enforced: this host gives no writable cgroup controller for them"
    }

    var limitsProcesses: Bool { trees.contains { $0.controllers.contains("pids") } }

    /// A group for one instance or job, made when needed; `limits` are written where a controller takes them.
    func group(_ name: String, limits: LimitSpec) throws -> Cgroup {
        let group = Cgroup(paths: trees.map { ("\($0.path)/\(name)", $0.version) })
        for tree in trees where access(tree.path, F_OK) != 0 {
            // Somebody tidied up the empty parent group since the start.
            mkdir(tree.path, 0o755)
            if tree.version == 2 {
                for controller in tree.controllers { _ = Self.write("+\(controller)", to: "\(tree.path)/cgroup.subtree_control") }
            }
        }
        for (path, _) in group.paths {
            guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
                throw Problem(.failed, "cannot make the cgroup \(path): \(Spawn.message(errno))")
            }
        }
        for tree in trees {
            let path = "\(tree.path)/\(name)"
            let two = tree.version == 2
            var wishes: [(file: String, value: String)] = []
            if tree.controllers.contains("pids") { wishes.append(("pids.max", "\(limits.processes)")) }
            if tree.controllers.contains("memory"), let memory = limits.memory {
                wishes.append((two ? "memory.max" : "memory.limit_in_bytes", "\(memory)"))
            }
            if tree.controllers.contains("cpu"), let cpu = limits.cpu {
                let quota = max(1000, Int64(cpu * 100_000))
                if two {
                    wishes.append(("cpu.max", "\(quota) 100000"))
                } else {
                    wishes.append(("cpu.cfs_period_us", "100000"))
                    wishes.append(("cpu.cfs_quota_us", "\(quota)"))
                }
            }
            for wish in wishes where !Self.write(wish.value, to: "\(path)/\(wish.file)") {
                throw Problem(.failed, "cannot limit it: \(path)/\(wish.file) does not take \(wish.value): \(Spawn.message(errno))")
            }
        }
        return group
    }

    /// Removes our parent groups where nothing is left in them; they are made again when they are needed.
    func removeEmpty() { for tree in trees { rmdir(tree.path) } }

    /// A group that may be left from before, without making it.
    func existing(_ name: String) -> Cgroup { Cgroup(paths: trees.map { ("\($0.path)/\(name)", $0.version) }) }

    static func write(_ text: String, to path: String) -> Bool {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count
    }

    /// This process's group in each hierarchy: by first controller's name, the empty name for version 2.
    private static func membership() -> [String: String] {
        var result: [String: String] = [:]
        for line in (ProcFile.read("/proc/self/cgroup") ?? "").split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 3 else { continue }
            for name in parts[1].split(separator: ",", omittingEmptySubsequences: false) { result[String(name)] = parts[2] }
        }
        return result
    }

    private static func mounts() -> [(path: String, version: Int, controllers: Set<String>)] {
        (ProcFile.read("/proc/self/mounts") ?? "").split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ").map(String.init)
            guard fields.count > 3 else { return nil }
            switch fields[2] {
            case "cgroup2": return (fields[1], 2, [])
            case "cgroup":
                let known: Set<String> = ["memory", "pids", "cpu"]
                return (fields[1], 1, Set(fields[3].split(separator: ",").map(String.init)).intersection(known))
            default: return nil
            }
        }
    }
}

/// The group of one instance or job, in every hierarchy.
struct Cgroup: Sendable {
    let paths: [(path: String, version: Int)]

    /// The files to write a pid to; the caller closes them.
    func open() throws -> [Int32] {
        var descriptors: [Int32] = []
        for (path, _) in paths {
            let descriptor = Glibc.open("\(path)/cgroup.procs", O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else {
                let why = Spawn.message(errno)
                for descriptor in descriptors { close(descriptor) }
                throw Problem(.failed, "cannot open the cgroup \(path): \(why)")
            }
            descriptors.append(descriptor)
        }
        return descriptors
    }

    var members: Set<Int32> {
        Set(paths.flatMap { path, _ in (ProcFile.read("\(path)/cgroup.procs") ?? "").split(separator: "\n").compactMap { Int32($0) } })
    }

    /// Processes that the kernel ended because the group was over its memory limit.
    var outOfMemoryKills: Int {
        for (path, version) in paths {
            let text = ProcFile.read("\(path)/\(version == 2 ? "memory.events" : "memory.oom_control")") ?? ""
            for line in text.split(separator: "\n") where line.hasPrefix("oom_kill ") {
                return Int(line.dropFirst(9)) ?? 0
            }
        }
        return 0
    }

    /// Ends everything in the group, until nothing is left or `seconds` are over.
    func kill(within seconds: Double = 5) async {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while true {
            for (path, version) in paths where version == 2 { _ = Cgroups.write("1", to: "\(path)/cgroup.kill") }
            let left = members
            for pid in left where pid > 1 { Glibc.kill(pid, SIGKILL) }
            guard !left.isEmpty, ContinuousClock.now < deadline else { return }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Removes the group; a busy one is tried again for a moment, because its last process may still be on its way out.
    func remove() async {
        for (path, _) in paths {
            for _ in 0..<50 {
                if rmdir(path) == 0 || errno != EBUSY { break }
                try? await Task.sleep(for: .milliseconds(10))
            }
        }
    }
}
