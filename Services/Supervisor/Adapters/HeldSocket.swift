import Contracts
import Foundation

/// A listening TCP socket that nobody reads: the supervisor holds it for a program, which gets a copy at each start.
enum HeldSocket {
    /// Connections that may wait while the program is away.
    static let backlog: Int32 = 512

    /// Binds and listens; close-on-exec. Throws `Problem` when the address is none of this machine's or the port is taken.
    static func open(_ socket: Program.Socket) throws -> Int32 {
        var hints = addrinfo()
        hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(socket.address, "\(socket.port)", &hints, &list)
        guard code == 0, let info = list?.pointee else {
            throw Problem(.failed, "'\(socket.address)' is no IP address: \(String(cString: gai_strerror(code)))")
        }
        defer { freeaddrinfo(list) }
        let descriptor = Glibc.socket(info.ai_family, info.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Problem(.failed, "cannot make a socket: \(Spawn.message(errno))") }
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        guard bind(descriptor, info.ai_addr, info.ai_addrlen) == 0, listen(descriptor, backlog) == 0 else {
            let why = Spawn.message(errno)
            close(descriptor)
            throw Problem(.failed, "cannot listen on \(socket.address), port \(socket.port): \(why)")
        }
        return descriptor
    }
}
