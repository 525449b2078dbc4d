import CZeroMQ
import Contracts
import Foundation
import Wire

/// The libzmq context of the bus. Safe to hand to another thread, which makes its own sockets in it: libzmq documents contexts,
/// and only contexts, as thread safe.
struct ZeroMQContext: @unchecked Sendable {
    // Safe: the pointer is only ever passed to libzmq, which locks inside.
    let pointer: UnsafeMutableRawPointer

    init() throws {
        guard zmq_has("curve") == 1 else {
            throw Problem(.configuration, "libzmq here has no CURVE", hint: "install Debian's libzmq5, which has it")
        }
        guard let pointer = zmq_ctx_new() else { throw ZeroMQ.problem("make a ZeroMQ context") }
        self.pointer = pointer
        zmq_ctx_set(pointer, ZMQ_MAX_SOCKETS, 4096)
    }

    /// Only after every socket is closed, by the thread that closed the last one.
    func terminate() { while zmq_ctx_term(pointer) != 0, zmq_errno() == EINTR {} }
}

enum ZeroMQ {
    static func problem(_ action: String) -> Problem { Problem(.failed, "cannot \(action): \(String(cString: zmq_strerror(zmq_errno())))") }

    static func set(_ socket: UnsafeMutableRawPointer, _ option: Int32, _ value: Int32) throws {
        var value = value
        guard zmq_setsockopt(socket, option, &value, MemoryLayout<Int32>.size) == 0 else { throw problem("set ZeroMQ option \(option)") }
    }

    /// The next frame; nil when none waits. `whose` is given the User-Id that libzmq keeps beside it.
    static func receive(
        _ socket: UnsafeMutableRawPointer, whose: (UnsafePointer<CChar>?) -> Void = { _ in }
    ) -> (data: Data, more: Bool)? {
        var message = zmq_msg_t()
        zmq_msg_init(&message)
        defer { zmq_msg_close(&message) }
        while zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0 {
            guard zmq_errno() == EINTR else { return nil }
        }
        let data = zmq_msg_data(&message).map { Data(bytes: $0, count: zmq_msg_size(&message)) } ?? Data()
        whose(zmq_msg_gets(&message, "User-Id"))
        return (data, zmq_msg_more(&message) != 0)
    }

    /// Sends one frame, not waiting; 0 or errno.
    static func send(_ data: Data, _ socket: UnsafeMutableRawPointer, more: Bool) -> Int32 {
        let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
        if data.count >= 4096 { return lend(data, socket, flags) }
        while true {
            let sent = data.withUnsafeBytes { zmq_send(socket, $0.baseAddress, $0.count, flags) }
            if sent >= 0 { return 0 }
            let code = zmq_errno()
            if code != EINTR { return code }
        }
    }

    /// As above, without a copy: libzmq reads the bytes where they lie, and says when it needs them no more.
    private static func lend(_ data: Data, _ socket: UnsafeMutableRawPointer, _ flags: Int32) -> Int32 {
        /// The bytes of more than a few lie in one block of memory, which stays where it is and as it is while somebody holds it.
        final class Loan: Sendable {
            let data: Data
            init(_ data: Data) { self.data = data }
        }
        let loan = Unmanaged.passRetained(Loan(data))
        var message = zmq_msg_t()
        let made = data.withUnsafeBytes { bytes in
            zmq_msg_init_data(
                &message, UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count,
                { _, hint in
                    // Called once, on any thread.
                    if let hint { Unmanaged<Loan>.fromOpaque(hint).release() }
                }, loan.toOpaque())
        }
        guard made == 0 else {
            loan.release()
            return ENOMEM
        }
        while true {
            // Taken: the message is empty now. Not taken: to close it ends the loan.
            if zmq_msg_send(&message, socket, flags) >= 0 { return 0 }
            let code = zmq_errno()
            if code != EINTR {
                zmq_msg_close(&message)
                return code
            }
        }
    }
}

/// The one ROUTER of the bus. Made, used and closed on the broker thread.
struct RouterSocket {
    enum Delivery { case sent, unreachable }

    let socket: UnsafeMutableRawPointer
    let gate: ConnectionGate
    private let users = KnownUsers()

    /// Binds `tcp://address:port`, or adopts `descriptor`, a listening socket that somebody else holds open across restarts.
    /// `secretKey` nil: no CURVE.
    init(_ context: ZeroMQContext, secretKey: String?, address: String, port: Int, descriptor: Int32?) throws {
        guard let socket = zmq_socket(context.pointer, ZMQ_ROUTER) else { throw ZeroMQ.problem("make a ZeroMQ socket") }
        do {
            try Self.configure(socket, secretKey)
            // libzmq closes what it is given; the original is for the gate.
            if let descriptor { try ZeroMQ.set(socket, ZMQ_USE_FD, fcntl(descriptor, F_DUPFD_CLOEXEC, 3)) }
            try Self.bind(socket, address, port)
            gate = try ConnectionGate(context, router: socket, held: descriptor)
        } catch {
            zmq_close(socket)
            throw error
        }
        self.socket = socket
    }

    private static func configure(_ socket: UnsafeMutableRawPointer, _ secretKey: String?) throws {
        try ZeroMQ.set(socket, ZMQ_LINGER, 200)
        // A peer that is gone is an error, not silence; handover stays off, or one client could take another's answers.
        try ZeroMQ.set(socket, ZMQ_ROUTER_MANDATORY, 1)
        try ZeroMQ.set(socket, ZMQ_SNDHWM, 20_000)
        try ZeroMQ.set(socket, ZMQ_RCVHWM, 20_000)
        var largest = Int64(Limits.frame)
        guard zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, 8) == 0 else { throw ZeroMQ.problem("limit the size of messages") }
        // No ZMQ_HEARTBEAT_IVL: libzmq 4.3.4 ends the whole process when its timer comes to a connection that broke while more had come
        // than was read (libzmq's issue 4364; docs/adr/0014). Clients' PINGs are answered, and TCP itself notices who is gone.
        try ZeroMQ.set(socket, ZMQ_TCP_KEEPALIVE_IDLE, 5)
        try ZeroMQ.set(socket, ZMQ_TCP_KEEPALIVE_INTVL, 2)
        try ZeroMQ.set(socket, ZMQ_TCP_KEEPALIVE_CNT, 3)
        try ZeroMQ.set(socket, ZMQ_TCP_MAXRT, 10_000)
        // Connections that say nothing hold a descriptor each.
        try ZeroMQ.set(socket, ZMQ_HANDSHAKE_IVL, 3000)
        try ZeroMQ.set(socket, ZMQ_TCP_KEEPALIVE, 1)
        try ZeroMQ.set(socket, ZMQ_BACKLOG, 512)
        if let secretKey {
            try ZeroMQ.set(socket, ZMQ_CURVE_SERVER, 1)
            guard zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secretKey, secretKey.utf8.count) == 0 else {
                throw Problem(.configuration, "the bus's key file holds no CURVE key", hint: "restore HOME/keys/bus.json from a backup")
            }
        }
        guard zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "bus", 3) == 0 else { throw ZeroMQ.problem("set the ZAP domain") }
    }

    private static func bind(_ socket: UnsafeMutableRawPointer, _ address: String, _ port: Int) throws {
        let host = address.contains(":") ? "[\(address)]" : address
        if address.contains(":") { try ZeroMQ.set(socket, ZMQ_IPV6, 1) }
        guard zmq_bind(socket, "tcp://\(host):\(port)") == 0 else {
            let code = zmq_errno()
            switch code {
            case EADDRINUSE:
                throw Problem(
                    .configuration, "port \(port) on \(address) is taken by another program",
                    hint: "stop that program ('ss -ltnp sport = :\(port)' shows it), or start the suite with another --port-base")
            case EACCES: throw Problem(.configuration, "port \(port) needs root", hint: "choose a --port-base above 1024")
            default:
                throw Problem(
                    .configuration, "cannot listen on \(address), port \(port): \(String(cString: zmq_strerror(code)))",
                    hint: "see 'listen' and 'port_base' in suite.yml")
            }
        }
    }

    /// Sleeps until a message or the descriptor; at most that long. True: messages wait.
    func wait(milliseconds: Int64, descriptor: Int32) -> Bool {
        var items = [
            zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0),
            zmq_pollitem_t(socket: nil, fd: descriptor, events: Int16(ZMQ_POLLIN), revents: 0),
            zmq_pollitem_t(socket: gate.monitor, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0),
        ]
        // A signal ends the wait early (EINTR); the caller goes round again either way.
        guard zmq_poll(&items, 3, Int(milliseconds)) > 0 else { return false }
        if items[2].revents != 0 { gate.hasNews = true }
        return items[0].revents & Int16(ZMQ_POLLIN) != 0
    }

    /// The next message with its sender and the name and public key by which the sender was let in; nil when none waits. A
    /// message of more than one frame comes as empty bytes, which nobody can read.
    func receive() -> (peer: Data, user: UserID?, message: Data)? {
        guard let (peer, hasBody) = ZeroMQ.receive(socket), hasBody else { return nil }
        var user: UserID?
        guard var (message, more) = ZeroMQ.receive(socket, whose: { user = users.read($0) }) else { return nil }
        while more {
            message = Data()
            guard let another = ZeroMQ.receive(socket) else { break }
            more = another.more
        }
        return (peer, user, message)
    }

    func send(_ message: Data, to peer: Data) -> Delivery {
        // A failure shows at the first frame; once that is taken, so is the second.
        guard ZeroMQ.send(peer, socket, more: true) == 0 else { return .unreachable }
        return ZeroMQ.send(message, socket, more: false) == 0 ? .sent : .unreachable
    }

    /// The port that was bound, for a port of 0.
    var port: Int {
        Self.endpoint(socket).split(separator: ":").last.flatMap { Int($0) } ?? 0
    }

    /// Where it was bound last, with its port.
    static func endpoint(_ socket: UnsafeMutableRawPointer) -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        var size = buffer.count
        guard zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, &buffer, &size) == 0 else { return "" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func close() {
        gate.close()
        zmq_close(socket)
    }
}

/// What ZAP tells libzmq of a client, and libzmq tells with each of its messages: name and public key. The key is there so that
/// a connection made with a key that was replaced since is not taken for the new one's.
struct UserID: Hashable, Sendable {
    var name: String
    /// Z85, 40 characters.
    var key: String
    init(name: String, key: String) {
        self.name = name
        self.key = key
    }

    /// Z85 has no space.
    var text: String { "\(name) \(key)" }
    init?(_ text: String) {
        guard let space = text.lastIndex(of: " ") else { return nil }
        name = String(text[..<space])
        key = String(text[text.index(after: space)...])
    }
}

/// The texts of `UserID` that were read before, so that one is read once and not with each message. One thread's.
private final class KnownUsers {
    private var known: [(text: [CChar], user: UserID)] = []
    private var latest = 0

    func read(_ text: UnsafePointer<CChar>?) -> UserID? {
        guard let text else { return nil }
        // Most messages come from the one who sent the last.
        if latest < known.count, strcmp(known[latest].text, text) == 0 { return known[latest].user }
        if let at = known.firstIndex(where: { strcmp($0.text, text) == 0 }) {
            latest = at
            return known[at].user
        }
        guard let user = UserID(String(cString: text)) else { return nil }
        if known.count >= 64 { known = [] }
        latest = known.count
        known.append((Array(UnsafeBufferPointer(start: text, count: strlen(text) + 1)), user))
        return user
    }
}
