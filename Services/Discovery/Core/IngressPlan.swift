/// The commands that bring a running HAProxy from what it has to what it should have, in an order that never leaves a route
/// without a server: first the new servers, then the host names, and only then do others leave.
struct IngressPlan: Hashable, Sendable {
    var commands: [String] = []

    /// - Parameters:
    ///   - backends: the backends to look at.
    ///   - servers: what HAProxy has in them.
    ///   - map: what its host map has; nil: leave the map alone.
    init(_ table: IngressTable, backends: some Sequence<Int>, servers: [Int: [Int: HAProxyReport.Server]], map: [String: String]?) {
        var first: [String] = []
        var last: [String] = []
        for backend in backends.sorted() {
            for (slot, actual) in (servers[backend] ?? [:]).sorted(by: { $0.key < $1.key }) {
                let name = "pool\(backend)/s\(slot)"
                guard let wanted = table.backends[backend]?.servers[slot], wanted.mode != .out else {
                    if !actual.inMaintenance { last.append("set server \(name) state maint") }
                    continue
                }
                let same = actual.address == wanted.address && actual.port == wanted.port
                switch wanted.mode {
                case .ready:
                    if !same {
                        // Maintenance closes the pooled connections, so that none goes on to the old address.
                        if !actual.inMaintenance { first.append("set server \(name) state maint") }
                        first.append("set server \(name) addr \(wanted.address) port \(wanted.port)")
                    }
                    if !same || actual.inMaintenance || actual.isDraining { first.append("set server \(name) state ready") }
                case .drain:
                    if !same {
                        if !actual.inMaintenance { last.append("set server \(name) state maint") }
                    } else if !actual.inMaintenance, !actual.isDraining {
                        last.append("set server \(name) state drain")
                    }
                case .out: break
                }
            }
        }
        commands = first + (map.map { Self.hosts(table.hosts.mapValues { "pool\($0)" }, $0) } ?? []) + last
    }

    private static func hosts(_ wanted: [String: String], _ actual: [String: String]) -> [String] {
        let file = HAProxyConfig.mapName
        var commands: [String] = []
        for (host, backend) in wanted.sorted(by: { $0.key < $1.key }) where actual[host] != backend {
            commands.append(actual[host] == nil ? "add map \(file) \(host) \(backend)" : "set map \(file) \(host) \(backend)")
        }
        for host in actual.keys.sorted() where wanted[host] == nil { commands.append("del map \(file) \(host)") }
        return commands
    }

    /// The commands as lines of the runtime socket, each below its limit of 16 KiB.
    var lines: [String] {
        var lines: [String] = []
        for command in commands {
            if let last = lines.last, last.utf8.count + command.utf8.count < 8000 {
                lines[lines.count - 1] = last + ";" + command
            } else {
                lines.append(command)
            }
        }
        return lines
    }
}
