import Contracts
import Foundation

/// Gives instances ports that nobody listens on. Once given, a port belongs to the instance until it is forgotten.
struct Ports: Sendable {
    let store: HostStore

    /// A port for each name: those the instance has already, free ones for the rest.
    func claim(_ names: [String], for instance: InstanceID) async throws -> [String: Int] {
        var ports = try await store.ports(of: instance)
        let range = SupervisorConfig.ports
        for name in names where ports[name] == nil {
            // From a random place, so that two suites on one machine seldom look at the same port at the same moment.
            let start = Int.random(in: 0..<range.count)
            for step in 0..<range.count {
                let port = range.lowerBound + (start + step) % range.count
                guard Self.isFree(port), try await store.claim(port: port, name: name, for: instance) else { continue }
                ports[name] = port
                break
            }
            guard ports[name] != nil else { throw Problem(.failed, "no free port between \(range.lowerBound) and \(range.upperBound)") }
        }
        return ports
    }

    /// Whether an instance could bind it, on all addresses.
    static func isFree(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        return withAddress(port, any: true) { address, length in bind(descriptor, address, length) } == 0
    }

    /// Nil when something accepts connections on 127.0.0.1 at that port, otherwise why not.
    static func refusal(_ port: Int, within seconds: Double) async -> String? {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_INET, kind, 0)
        guard descriptor >= 0 else { return Spawn.message(errno) }
        defer { close(descriptor) }
        if withAddress(port, any: false, { address, length in connect(descriptor, address, length) }) == 0 { return nil }
        guard errno == EINPROGRESS else { return "port \(port): \(Spawn.message(errno).lowercased())" }
        // On the loopback only a full queue takes time.
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline, !Task.isCancelled {
            var item = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            if poll(&item, 1, 0) > 0 {
                var error: Int32 = 0
                var size = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
                return error == 0 ? nil : "port \(port): \(Spawn.message(error).lowercased())"
            }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return "port \(port): no connection within \(seconds) s"
    }

    private static func withAddress(_ port: Int, any: Bool, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port).bigEndian)
        address.sin_addr.s_addr = any ? 0 : UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
}
