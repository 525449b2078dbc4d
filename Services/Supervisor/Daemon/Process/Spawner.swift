import CSys
import Glibc

/// Starts programs as supervisord does: in a process group of their own, with three descriptors and no shell.
enum Spawner {
    static func start(
        _ path: String, _ arguments: [String], environment: [String: String], directory: String?, descriptors: [Int32],
        user: Accounts.User?, umask: mode_t?, files: (soft: UInt64, hard: UInt64), listeners: [(name: String, fd: Int32)] = [],
        limits: Program.Limits = Program.Limits()
    ) -> csys_spawned {
        var environment = environment
        let descriptors = descriptors + listeners.map(\.fd)
        if !listeners.isEmpty {
            environment["LISTEN_FDS"] = "\(listeners.count)"
            environment["LISTEN_FDNAMES"] = listeners.map(\.name).joined(separator: ":")
            // The child writes its own number there.
            environment["LISTEN_PID"] = String(repeating: " ", count: 11)
        }
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in argv + envp { free(text) } }
        let ownPid = listeners.isEmpty ? nil : envp.compactMap { $0 }.first { strncmp($0, "LISTEN_PID=", 11) == 0 }.map { $0 + 11 }
        var all = [csys_limit(resource: Int32(RLIMIT_NOFILE.rawValue), value: files.soft, maximum: files.hard)]
        // RLIMIT_NPROC of Linux is 6; glibc's Swift module leaves it out.
        for (kind, value) in [
            (Int32(RLIMIT_NOFILE.rawValue), limits.files), (6, limits.processes), (Int32(RLIMIT_CORE.rawValue), limits.core),
            (Int32(RLIMIT_AS.rawValue), limits.memory),
        ] {
            if let value { all.append(csys_limit(resource: kind, value: value, maximum: value)) }
        }
        // Who is that user already needs no right to become it.
        let changes = user.map { $0.uid != geteuid() || geteuid() == 0 } ?? false
        return path.withCString { path in
            withCString(directory) { directory in
                argv.withUnsafeMutableBufferPointer { argv in
                    envp.withUnsafeMutableBufferPointer { envp in
                        descriptors.withUnsafeBufferPointer { descriptors in
                            (user?.groups ?? []).withUnsafeBufferPointer { groups in
                                all.withUnsafeBufferPointer { all in
                                    var order = csys_spawn_order()
                                    order.path = path
                                    order.argv = UnsafePointer(argv.baseAddress)
                                    order.envp = UnsafePointer(envp.baseAddress)
                                    order.descriptors = descriptors.baseAddress
                                    order.descriptor_count = Int32(descriptors.count)
                                    order.directory = directory
                                    order.limits = all.baseAddress
                                    order.limit_count = Int32(all.count)
                                    order.no_new_privileges = limits.noNewPrivileges
                                    if let nice = limits.nice {
                                        order.set_nice = true
                                        order.nice = nice
                                    }
                                    if let score = limits.oomScore {
                                        order.set_oom_score = true
                                        order.oom_score = score
                                    }
                                    order.new_group = true
                                    order.listen_pid = ownPid
                                    order.umask = umask.map { Int32($0) } ?? -1
                                    if let user, changes {
                                        order.change_user = true
                                        order.ordinary_user = true
                                        order.uid = user.uid
                                        order.gid = user.gid
                                        order.groups = groups.baseAddress
                                        order.group_count = Int32(groups.count)
                                    }
                                    return csys_spawn(&order)
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    private static func withCString<T>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> T) -> T {
        guard let text else { return body(nil) }
        return text.withCString { body($0) }
    }

    /// The step that failed, in words.
    static func complaint(_ result: csys_spawned, _ path: String, _ program: Program) -> Complaint {
        let why = reason(result.error)
        switch result.step {
        case CSYS_STEP_CLONE where result.error == EAGAIN:
            return Complaint("Too many processes in process table to spawn '\(program.name)'")
        case CSYS_STEP_DIRECTORY: return Complaint("couldn't chdir to \(program.directory ?? "."): \(why)")
        case CSYS_STEP_USER, CSYS_STEP_GROUPS: return Complaint("couldn't setuid to \(program.user?.name ?? "?"): \(why)")
        case CSYS_STEP_LIMIT: return Complaint("couldn't set a limit or nice: \(why)")
        case CSYS_STEP_OOM: return Complaint("couldn't set oom_score_adj: \(why)")
        case CSYS_STEP_EXEC:
            return Complaint(
                result.error == E2BIG
                    ? "couldn't exec \(path): its arguments and environment are too large" : "couldn't exec \(path): \(why)")
        default: return Complaint("unknown error during fork for '\(program.name)': \(why)")
        }
    }
}
