import Contracts
import Foundation

/// HAProxy's runtime socket: one connection for each line of commands.
///
/// Calls block, for microseconds as a rule and at most for `timeout` seconds; they are made on the ingress's own queue.
struct HAProxySocket: Sendable {
    let path: String
    /// Seconds for a reply.
    var timeout = 3
    /// More than the state of a full pool; what is longer is not HAProxy.
    static let replyLimit = 16 << 20

    /// Sends a line and returns all that HAProxy answers. Throws `Problem` (`unavailable`) when it does not.
    func ask(_ line: String) throws -> String {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("socket", errno) }
        defer { close(descriptor) }
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { throw failure("connect", ENAMETOOLONG) }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard connected == 0 else { throw failure("connect", errno) }
        try write(Array((line + "\n").utf8), to: descriptor)
        return String(decoding: try read(descriptor), as: UTF8.self)
    }

    private func write(_ bytes: [UInt8], to descriptor: Int32) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("write", errno) }
            sent += count
        }
    }

    private func read(_ descriptor: Int32) throws -> [UInt8] {
        var reply: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let end = ContinuousClock.now + .seconds(timeout)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("read", errno) }
            if count == 0 { return reply }
            reply.append(contentsOf: buffer[..<count])
            guard reply.count <= Self.replyLimit, ContinuousClock.now < end else { throw failure("read", ETIMEDOUT) }
        }
    }

    private func failure(_ what: String, _ code: Int32) -> Problem {
        Problem(
            .unavailable, "HAProxy does not answer on \(path) (\(what): \(String(cString: strerror(code))))",
            hint: "see the ingress in slipway status, and its log")
    }
}
