import CSys
import Contracts
import Foundation

/// A process to start, as a value.
struct Launch: Sendable {
    /// A path; PATH is not searched.
    var program: String
    /// With the program's own name first.
    var arguments: [String]
    var environment: [String: String]
    var directory: String
    /// Where standard output and error go; standard input is empty.
    var output: Int32
    /// Listening sockets to hand over, as sd_listen_fds(3) describes; descriptors 3 and up there.
    var listeners: [(name: String, descriptor: Int32)] = []
    /// Nil: as this process.
    var user: UInt32?
    var limits: [(resource: Int32, value: UInt64)] = []
    /// Open cgroup.procs files of the groups to join.
    var groups: [Int32] = []
    var umask: Int32 = 0o022
    var oomScore: Int32?
}

/// Starts processes; the only place that does.
enum Spawn {
    /// In a session of its own, with no descriptor but 0 to 2 and its listeners and, always, `no_new_privs`. Throws a `Problem` that says which
    /// step failed and why; nothing runs then.
    static func start(_ launch: Launch) throws -> (pid: Int32, pidfd: Int32) {
        let texts = [launch.program, launch.directory] + launch.arguments + launch.environment.flatMap { [$0.key, $0.value] }
        guard !texts.contains(where: { $0.utf8.contains(0) }) else {
            throw Problem(.invalid, "cannot start it: its command or environment holds a NUL character")
        }
        let empty = open("/dev/null", O_RDONLY | O_CLOEXEC)
        guard empty >= 0 else { throw Problem(.failed, "cannot open /dev/null: \(message(errno))") }
        defer { close(empty) }
        var arguments: [UnsafeMutablePointer<CChar>?] = launch.arguments.map { strdup($0) } + [nil]
        var variables = launch.environment
        let pidVariable = "LISTEN_PID"
        if !launch.listeners.isEmpty {
            variables["LISTEN_FDS"] = "\(launch.listeners.count)"
            variables["LISTEN_FDNAMES"] = launch.listeners.map(\.name).joined(separator: ":")
            // The child writes its own number there.
            variables[pidVariable] = String(repeating: " ", count: 11)
        }
        let sorted = variables.sorted { $0.key < $1.key }
        var environment: [UnsafeMutablePointer<CChar>?] = sorted.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in arguments + environment { free(pointer) } }
        let limits = launch.limits.map { csys_limit(resource: $0.resource, value: $0.value, maximum: $0.value) }
        let descriptors = [empty, launch.output, launch.output] + launch.listeners.map(\.descriptor)
        let ownPid =
            launch.listeners.isEmpty
            ? nil : sorted.firstIndex { $0.key == pidVariable }.flatMap { environment[$0] }.map { $0 + pidVariable.utf8.count + 1 }

        let result = launch.program.withCString { program in
            launch.directory.withCString { directory in
                arguments.withUnsafeMutableBufferPointer { arguments in
                    environment.withUnsafeMutableBufferPointer { environment in
                        descriptors.withUnsafeBufferPointer { descriptors in
                            limits.withUnsafeBufferPointer { limits in
                                launch.groups.withUnsafeBufferPointer { groups in
                                    var what = csys_spawn_order()
                                    what.path = program
                                    what.directory = directory
                                    what.argv = UnsafePointer(arguments.baseAddress)
                                    what.envp = UnsafePointer(environment.baseAddress)
                                    what.listen_pid = ownPid
                                    what.descriptors = descriptors.baseAddress
                                    what.descriptor_count = Int32(descriptors.count)
                                    what.limits = limits.baseAddress
                                    what.limit_count = Int32(limits.count)
                                    what.cgroups = groups.baseAddress
                                    what.cgroup_count = Int32(groups.count)
                                    what.new_session = true
                                    what.no_new_privileges = true
                                    what.umask = launch.umask
                                    if let user = launch.user {
                                        what.change_user = true
                                        what.uid = user
                                        what.gid = user
                                    }
                                    if let score = launch.oomScore {
                                        what.set_oom_score = true
                                        what.oom_score = score
                                    }
                                    return csys_spawn(&what)
                                }
                            }
                        }
                    }
                }
            }
        }
        guard result.pid > 0 else { throw failure(result, launch) }
        return (result.pid, result.pidfd)
    }

    private static func failure(_ result: csys_spawned, _ launch: Launch) -> Problem {
        let why = message(result.error)
        switch result.step {
        case CSYS_STEP_EXEC:
            let text = result.error == E2BIG ? "its command line and environment are too large" : why
            return Problem(.failed, "cannot run \(launch.program): \(text)")
        case CSYS_STEP_DIRECTORY:
            let hint =
                result.error == EACCES
                ? "the app's own user must be able to pass through every directory above it: chmod o+x them, or choose another --home" : nil
            return Problem(.failed, "cannot enter \(launch.directory): \(why)", hint: hint)
        case CSYS_STEP_CGROUP: return Problem(.failed, "cannot put the process into its cgroup: \(why)")
        case CSYS_STEP_LIMIT: return Problem(.failed, "cannot set a resource limit: \(why)")
        case CSYS_STEP_USER, CSYS_STEP_GROUPS, CSYS_STEP_BOUNDING_SET:
            return Problem(.failed, "cannot become user \(launch.user.map(String.init) ?? "?"): \(why)", hint: "run the suite as root")
        default: return Problem(.failed, "cannot start a process: \(why)")
        }
    }

    static func message(_ error: Int32) -> String { String(cString: strerror(error)) }
}
