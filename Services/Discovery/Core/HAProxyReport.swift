import Contracts

/// What HAProxy says about itself on its runtime socket, read into values.
enum HAProxyReport {
    /// A server as `show servers state` has it.
    struct Server: Hashable, Sendable {
        var address: String
        var port: Int
        var inMaintenance: Bool
        var isDraining: Bool
    }

    /// From `show info`: the worker's process id and the description in its configuration.
    static func info(_ text: String) throws -> (pid: Int32, description: String) {
        var fields: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...].drop { $0 == " " }
        }
        guard let pid = fields["Pid"].flatMap({ Int32($0) }) else { throw unreadable("show info", text) }
        return (pid, String(fields["Description"] ?? fields["description"] ?? ""))
    }

    /// From `show servers state [BACKEND]`: the servers of the pool, by backend and slot.
    static func servers(_ text: String) throws -> [Int: [Int: Server]] {
        var result: [Int: [Int: Server]] = [:]
        var columns: [Substring: Int] = [:]
        for line in text.split(separator: "\n") {
            var fields = line.split(separator: " ")
            if line.hasPrefix("#") {
                fields.removeFirst()
                for (index, name) in fields.enumerated() { columns[name] = index }
                continue
            }
            func field(_ name: Substring) -> Substring? { columns[name].flatMap { $0 < fields.count ? fields[$0] : nil } }
            guard let backend = field("be_name").flatMap({ number($0, after: "pool") }),
                let slot = field("srv_name").flatMap({ number($0, after: "s") })
            else { continue }
            guard let address = field("srv_addr"), let port = field("srv_port").flatMap({ Int($0) }),
                let admin = field("srv_admin_state").flatMap({ Int($0) })
            else { throw unreadable("show servers state", String(line)) }
            // Forced, inherited and resolver's maintenance; forced and inherited drain. 0x04 only tells how it was configured.
            result[backend, default: [:]][slot] = Server(
                address: Address(String(address))?.description ?? String(address), port: port, inMaintenance: admin & 0x23 != 0,
                isDraining: admin & 0x18 != 0)
        }
        return result
    }

    /// From `show map FILE`: backend by host. A line is `ADDRESS key value`.
    static func map(_ text: String) -> [String: String] {
        var result: [String: String] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count == 3, fields[0].hasPrefix("0x") { result[String(fields[1])] = String(fields[2]) }
        }
        return result
    }

    /// From `show stat`: requests that are on a server or queued for it, by slot, of one backend.
    static func sessions(_ text: String, backend: Int) throws -> [Int: Int] {
        var columns: [Substring: Int] = [:]
        var result: [Int: Int] = [:]
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# ") {
                for (index, name) in line.dropFirst(2).split(separator: ",", omittingEmptySubsequences: false).enumerated() {
                    columns[name] = index
                }
                continue
            }
            let fields = line.split(separator: ",", maxSplits: 20, omittingEmptySubsequences: false)
            func field(_ name: Substring) -> Substring? { columns[name].flatMap { $0 < fields.count ? fields[$0] : nil } }
            guard field("pxname") == "pool\(backend)", let slot = field("svname").flatMap({ number($0, after: "s") }) else { continue }
            guard let current = field("scur").flatMap({ Int($0) }) else { throw unreadable("show stat", String(line)) }
            result[slot] = current + (field("qcur").flatMap { Int($0) } ?? 0)
        }
        return result
    }

    private static func number(_ name: Substring, after prefix: String) -> Int? {
        name.hasPrefix(prefix) ? Int(name.dropFirst(prefix.count)) : nil
    }

    private static func unreadable(_ command: String, _ text: String) -> Problem {
        Problem(.failed, "HAProxy's answer to '\(command)' cannot be read: \(Problem.quote(text))", hint: "Slipway is made for HAProxy 2.6")
    }
}
