import Contracts
import Foundation
import Kit

/// Whether the suite's ports are free, and whose they are when they are not.
enum Ports {
    struct Port: Hashable, Sendable {
        var number: Int
        var user: String
        var isDatagram = false
    }

    /// Every port that the suite listens on.
    static func all(_ config: SuiteConfig) -> [Port] {
        Component.allCases.map { Port(number: config.port($0), user: $0.rawValue) } + [
            Port(number: config.busPort, user: "bus"), Port(number: config.dnsPort, user: "discovery (DNS)"),
            Port(number: config.dnsPort, user: "discovery (DNS)", isDatagram: true), Port(number: config.ingressPort, user: "ingress"),
        ]
    }

    /// Throws `Problem` (`configuration`) for the first that another program has. What a part of this very suite holds, left over
    /// when its keeper was killed, is no obstacle: it is taken over.
    static func check(_ config: SuiteConfig) throws {
        var seen: [Port: String] = [:]
        for port in all(config) {
            let key = Port(number: port.number, user: "", isDatagram: port.isDatagram)
            if let other = seen[key] {
                throw Problem(
                    .configuration, "port \(port.number) is set for \(other) and for \(port.user)",
                    hint: "change 'ports:' in \(config.home.suiteFile)")
            }
            seen[key] = port.user
            guard let code = bindError(port, config.listen) else { continue }
            if code == EACCES {
                throw Problem(.configuration, "port \(port.number) for \(port.user) needs root", hint: "choose a --port-base above 1024")
            }
            if code == EADDRNOTAVAIL {
                throw Problem(
                    .configuration, "this machine has no address \(config.listen)", hint: "change 'listen:' in \(config.home.suiteFile)")
            }
            guard code == EADDRINUSE else { continue }
            let owner = owner(of: port)
            if let owner, owner.commandLine.contains(config.home.path) { continue }
            let who = owner.map { "\(Terminal.inert($0.name, limit: 40)) (process \($0.pid))" } ?? "another program"
            throw Problem(
                .configuration, "port \(port.number), which \(port.user) needs, is taken by \(who)",
                hint: "stop that program, or start on other ports: slipway up --port-base \(suggestion(config.portBase))")
        }
    }

    private static func suggestion(_ base: Int) -> Int { base + 100 <= 65_000 ? base + 100 : 7700 }

    /// The errno of binding it; nil when it is free.
    static func bindError(_ port: Port, _ address: String) -> Int32? {
        let isSix = address.contains(":")
        let descriptor = socket(isSix ? AF_INET6 : AF_INET, Int32(port.isDatagram ? SOCK_DGRAM.rawValue : SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var yes: Int32 = 1
        if !port.isDatagram { setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size)) }
        func attempt<A>(_ value: A) -> Int32? {
            withUnsafeBytes(of: value) { bytes in
                guard let raw = bytes.baseAddress else { return nil }
                let result = bind(descriptor, raw.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
                guard result == 0 else { return errno }
                // A listener with SO_REUSEADDR is refused only here.
                return !port.isDatagram && listen(descriptor, 1) != 0 ? errno : nil
            }
        }
        if isSix {
            var six = sockaddr_in6()
            six.sin6_family = sa_family_t(AF_INET6)
            six.sin6_port = in_port_t(UInt16(truncatingIfNeeded: port.number).bigEndian)
            inet_pton(AF_INET6, address, &six.sin6_addr)
            return attempt(six)
        }
        var four = sockaddr_in()
        four.sin_family = sa_family_t(AF_INET)
        four.sin_port = in_port_t(UInt16(truncatingIfNeeded: port.number).bigEndian)
        inet_pton(AF_INET, address, &four.sin_addr)
        return attempt(four)
    }

    struct Owner {
        var pid: Int32
        var name: String
        var commandLine: String
    }

    /// The process that holds the port, as far as this user may see it (proc(5): /proc/net/tcp, /proc/PID/fd).
    static func owner(of port: Port) -> Owner? {
        var inodes: Set<Substring> = []
        for table in port.isDatagram ? ["udp", "udp6"] : ["tcp", "tcp6"] {
            guard let text = ProcFile.read("/proc/net/\(table)") else { continue }
            for line in text.split(separator: "\n").dropFirst() {
                let fields = line.split(separator: " ")
                guard fields.count > 9, let local = fields[1].split(separator: ":").last, Int(local, radix: 16) == port.number,
                    port.isDatagram || fields[3] == "0A"
                else { continue }
                inodes.insert(fields[9])
            }
        }
        guard !inodes.isEmpty else { return nil }
        let links = Set(inodes.map { "socket:[\($0)]" })
        for pid in Processes.all() {
            let directory = "/proc/\(pid)/fd"
            for descriptor in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] {
                guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(descriptor)"),
                    links.contains(target)
                else { continue }
                return Owner(pid: pid, name: Processes.name(pid), commandLine: Processes.commandLine(pid).joined(separator: " "))
            }
        }
        return nil
    }
}

/// What runs on this machine, as /proc tells.
enum Processes {
    static func all() -> [Int32] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { Int32($0) }
    }
    static func name(_ pid: Int32) -> String {
        ProcFile.read("/proc/\(pid)/comm").map { $0.trimmingCharacters(in: .newlines) } ?? "?"
    }
    static func commandLine(_ pid: Int32) -> [String] {
        (ProcFile.read("/proc/\(pid)/cmdline") ?? "").split(separator: "\0").map(String.init)
    }
    static func parent(_ pid: Int32) -> Int32? {
        guard let text = ProcFile.read("/proc/\(pid)/stat"), let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[close...].split(separator: " ")
        return fields.count > 2 ? Int32(fields[2]) : nil
    }
    /// What the supervisor of this home runs beside the components: instances and jobs of apps, and the ingress.
    static func apps(of home: Home) -> [ProcessMark] {
        all().compactMap { pid in
            let ingress = name(pid) == "haproxy" && commandLine(pid).contains("\(home.directory(.discovery))/haproxy.cfg")
            let app = (ProcFile.read("/proc/\(pid)/environ") ?? "").split(separator: "\0").contains {
                $0.hasPrefix("HOME=\(home.directory(.supervisor))/")
            }
            return ingress || app ? ProcessMark(pid: pid) : nil
        }
    }

    /// Programs of the suite in this home: `slipway-NAME --home HOME …`.
    static func components(of home: Home) -> [ProcessMark] {
        all().compactMap { pid in
            let words = commandLine(pid)
            guard let program = words.first?.split(separator: "/").last, program.hasPrefix("slipway-"),
                let at = words.firstIndex(of: "--home"), words.indices.contains(at + 1), words[at + 1] == home.path
            else { return nil }
            return ProcessMark(pid: pid)
        }
    }
}
