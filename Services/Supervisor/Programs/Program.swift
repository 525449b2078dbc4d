import Contracts
import Foundation
import Kit

/// One of the programs that the supervisor keeps running for the suite itself. The list is derived, never ordered.
struct Program: Sendable, Hashable {
    /// A component's name, or `ingress`.
    var name: String
    var executable: String
    /// Without the program's own name.
    var arguments: [String]
    /// It is started only once this file exists.
    var needs: String?
    /// The listening socket that is kept open for it while it is started again: who connects meanwhile waits, and is not refused.
    var socket: Socket?

    struct Socket: Sendable, Hashable {
        /// As the program looks for it in LISTEN_FDNAMES.
        var name: String
        /// An IP address of this machine.
        var address: String
        var port: Int
    }

    static let ingress = "ingress"

    /// The seven other components in the order in which they start: the bus first, because all others join it.
    static let order: [Component] = [.bus, .registry, .git, .discovery, .scheduler, .deployer, .api]

    /// The suite's programs. `haproxy` is nil where it is not installed.
    static func suite(_ config: SuiteConfig, binaries: String, haproxy: String?) -> [Program] {
        var programs = order.map { component in
            Program(
                name: component.rawValue, executable: "\(binaries)/slipway-\(component.rawValue)",
                arguments: [
                    "--home", config.home.path, "--port-base", "\(config.portBase)", "--log-level", config.logLevel.rawValue,
                ], needs: nil,
                socket: component == .bus ? Socket(name: "bus-zmq", address: config.listen, port: config.busPort) : nil)
        }
        if let haproxy {
            let file = "\(config.home.directory(.discovery))/haproxy.cfg"
            programs.append(Program(name: ingress, executable: haproxy, arguments: ["-W", "-db", "-f", file], needs: file))
        }
        return programs
    }

    /// The directory of this process's own executable, where its siblings are.
    static func ownDirectory() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        guard length > 0 else { throw Problem(.failed, "cannot tell where this program lies: \(Spawn.message(errno))") }
        // After an update the link says " (deleted)"; the new file lies at the same path.
        let path = String(decoding: buffer[0..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self).replacing(" (deleted)", with: "")
        return (path as NSString).deletingLastPathComponent
    }

    /// Where HAProxy is installed; nil: nowhere.
    static func haproxy() -> String? {
        ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/bin/haproxy"].first { access($0, X_OK) == 0 }
    }

    /// How a program of the suite is started.
    func launch(home: String, environment: [String: String], output: Int32, listener: Int32? = nil) -> Launch {
        var environment = environment
        for key in environment.keys where key.hasPrefix("LISTEN_") { environment[key] = nil }
        // Swift's crash reports take many seconds, during which nothing would be restarted.
        environment["SWIFT_BACKTRACE"] = "enable=no"
        // By its whole path: HAProxy's master executes itself again by the name that it was started with.
        var launch = Launch(
            program: executable, arguments: [executable] + arguments, environment: environment,
            directory: home, output: output, user: nil)
        if let socket, let listener { launch.listeners = [(socket.name, listener)] }
        return launch
    }
}
