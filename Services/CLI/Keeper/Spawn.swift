import CSys
import Contracts
import Foundation

/// A program to start with nothing but the descriptors named here.
struct Spawn {
    var path: String
    var arguments: [String]
    var environment: [String: String]
    /// The child's 0, 1, 2 …
    var descriptors: [Int32]

    /// Starts it in a session of its own, so that Ctrl-C here does not reach it. Throws `Problem` when it cannot be started.
    func start() throws -> Int32 {
        let argv = arguments.map { strdup($0) } + [nil]
        let envp = environment.sorted { $0.key < $1.key }.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        let spawned: csys_spawned = path.withCString { path in
            argv.withUnsafeBufferPointer { argv in
                envp.withUnsafeBufferPointer { envp in
                    descriptors.withUnsafeBufferPointer { descriptors in
                        var what = csys_spawn_order()
                        what.path = path
                        what.argv = argv.baseAddress
                        what.envp = envp.baseAddress
                        what.descriptors = descriptors.baseAddress
                        what.descriptor_count = Int32(descriptors.count)
                        what.new_session = true
                        what.umask = -1
                        return csys_spawn(&what)
                    }
                }
            }
        }
        guard spawned.pid > 0 else {
            throw Problem(.failed, "cannot start \(path): \(String(cString: strerror(spawned.error)))", hint: "slipway doctor")
        }
        close(spawned.pidfd)
        return spawned.pid
    }

    /// A program of the suite, beside this one.
    static func sibling(_ name: String) throws -> String {
        let directory = (try executable() as NSString).deletingLastPathComponent
        let path = "\(directory)/\(name)"
        guard access(path, X_OK) == 0 else {
            throw Problem(
                .failed, "the program \(name) is not in \(directory)",
                hint: "install all programs of Slipway into one directory; 'make build' makes them")
        }
        return path
    }

    static func executable() throws -> String {
        do {
            let path = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
            // A program that was replaced while it runs is listed with this suffix.
            return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
        } catch {
            throw Problem(.failed, "/proc is not there, so this program cannot find its siblings", hint: "mount /proc")
        }
    }
}
