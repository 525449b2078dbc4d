import CZeroMQ
import Contracts
import Foundation
import Wire

/// The DEALER, its monitor and their context. Made, used and closed on the bus thread, never seen by another.
struct Sockets {
    enum News { case connected, ready, refused(Int32), unreadable(String), gone }

    private let context: UnsafeMutableRawPointer
    private let dealer: UnsafeMutableRawPointer
    private let monitor: UnsafeMutableRawPointer

    /// Throws `Problem`: `configuration` when the endpoint is not one, `failed` when the system gives no more.
    init(_ configuration: BusClientConfiguration) throws {
        guard let context = zmq_ctx_new() else { throw Self.problem("make a ZeroMQ context") }
        guard let dealer = zmq_socket(context, ZMQ_DEALER) else {
            let problem = Self.problem("make a ZeroMQ socket")
            zmq_ctx_term(context)
            throw problem
        }
        do {
            try Self.configure(dealer, configuration)
            let address = "inproc://monitor"
            let events =
                ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
                | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
            guard zmq_socket_monitor(dealer, address, events) == 0, let monitor = zmq_socket(context, ZMQ_PAIR) else {
                throw Self.problem("watch the bus connection")
            }
            do {
                try Self.set(monitor, ZMQ_LINGER, 0)
                guard zmq_connect(monitor, address) == 0 else { throw Self.problem("watch the bus connection") }
                guard zmq_connect(dealer, configuration.endpoint) == 0 else {
                    throw Problem(
                        .configuration, "the bus endpoint \(Problem.quote(configuration.endpoint)) cannot be used",
                        hint: "expected something like tcp://127.0.0.1:7710")
                }
            } catch {
                zmq_close(monitor)
                throw error
            }
            self.context = context
            self.dealer = dealer
            self.monitor = monitor
        } catch {
            zmq_close(dealer)
            zmq_ctx_term(context)
            throw error
        }
    }

    /// Leaves one endpoint for another one; false when that is none.
    func move(from old: String, to new: String) -> Bool {
        // What was queued towards the old one is dropped with it: a new session is told everything again.
        zmq_disconnect(dealer, old)
        return zmq_connect(dealer, new) == 0
    }

    /// Gives what was sent last a moment to leave, then ends everything.
    func close() {
        zmq_socket_monitor(dealer, nil, 0)
        zmq_close(monitor)
        var linger: Int32 = 100
        zmq_setsockopt(dealer, ZMQ_LINGER, &linger, 4)
        zmq_close(dealer)
        while zmq_ctx_term(context) != 0, zmq_errno() == EINTR {}
    }

    struct Ready {
        var messages: Bool
        var news: Bool
    }

    /// Sleeps until a message, news, the descriptor or, when `writable`, room to send; at most `milliseconds`.
    func wait(_ milliseconds: Int64, descriptor: Int32, writable: Bool) -> Ready {
        var items = [
            zmq_pollitem_t(socket: dealer, fd: 0, events: Int16(ZMQ_POLLIN | (writable ? ZMQ_POLLOUT : 0)), revents: 0),
            zmq_pollitem_t(socket: monitor, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0),
            zmq_pollitem_t(socket: nil, fd: descriptor, events: Int16(ZMQ_POLLIN), revents: 0),
        ]
        // A signal ends the wait early (EINTR); the caller goes round again either way.
        guard zmq_poll(&items, 3, Int(milliseconds)) > 0 else { return Ready(messages: false, news: false) }
        let input = Int16(ZMQ_POLLIN)
        return Ready(messages: items[0].revents & input != 0, news: items[1].revents & input != 0)
    }

    /// False when there is no connection that takes it now.
    func send(_ data: Data) -> Bool {
        var message = zmq_msg_t()
        guard zmq_msg_init_size(&message, data.count) == 0 else { return false }
        if let target = zmq_msg_data(&message) {
            data.withUnsafeBytes { source in
                if let start = source.baseAddress { target.copyMemory(from: start, byteCount: source.count) }
            }
        }
        while zmq_msg_send(&message, dealer, ZMQ_DONTWAIT) < 0 {
            guard zmq_errno() == EINTR else {
                zmq_msg_close(&message)
                return false
            }
        }
        return true
    }

    /// The next message, nil when none waits. A message of several frames is none of ours and is skipped.
    func receive() -> Data? {
        while true {
            guard let (first, more) = Self.frame(dealer) else { return nil }
            guard more else { return first }
            while let (_, another) = Self.frame(dealer), another {}
        }
    }

    func news() -> News? {
        while let (head, more) = Self.frame(monitor) {
            var rest = more
            while rest {
                guard let (_, another) = Self.frame(monitor) else { break }
                rest = another
            }
            guard head.count >= 6 else { continue }
            let (event, value) = head.withUnsafeBytes {
                (Int32($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: Int32.self))
            }
            switch event {
            case ZMQ_EVENT_CONNECTED: return .connected
            case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: return .ready
            case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return .refused(value)
            case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL: return .unreadable("protocol error \(String(value, radix: 16))")
            case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: return .unreadable(String(cString: strerror(value)))
            case ZMQ_EVENT_DISCONNECTED: return .gone
            default: continue
            }
        }
        return nil
    }

    private static func frame(_ socket: UnsafeMutableRawPointer) -> (Data, more: Bool)? {
        var message = zmq_msg_t()
        zmq_msg_init(&message)
        defer { zmq_msg_close(&message) }
        while zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0 {
            guard zmq_errno() == EINTR else { return nil }
        }
        let size = zmq_msg_size(&message)
        let data = zmq_msg_data(&message).map { Data(bytes: $0, count: size) } ?? Data()
        return (data, zmq_msg_more(&message) != 0)
    }

    private static func configure(_ socket: UnsafeMutableRawPointer, _ configuration: BusClientConfiguration) throws {
        try set(socket, ZMQ_LINGER, 0)
        try set(socket, ZMQ_IMMEDIATE, 1)
        try set(socket, ZMQ_SNDHWM, 20_000)
        try set(socket, ZMQ_RCVHWM, 20_000)
        var largest = Int64(Limits.frame)
        guard zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, 8) == 0 else { throw problem("limit the size of messages") }
        try set(socket, ZMQ_RECONNECT_IVL, 20)
        try set(socket, ZMQ_RECONNECT_IVL_MAX, 1000)
        try set(socket, ZMQ_HEARTBEAT_IVL, 1000)
        try set(socket, ZMQ_HEARTBEAT_TIMEOUT, 3000)
        try set(socket, ZMQ_HEARTBEAT_TTL, 3000)
        try set(socket, ZMQ_HANDSHAKE_IVL, 5000)
        try set(socket, ZMQ_TCP_KEEPALIVE, 1)
        for (option, key) in [
            (ZMQ_CURVE_SERVERKEY, configuration.serverKey), (ZMQ_CURVE_PUBLICKEY, configuration.publicKey),
            (ZMQ_CURVE_SECRETKEY, configuration.secretKey),
        ] {
            guard zmq_setsockopt(socket, option, key, key.utf8.count) == 0 else { throw problem("set a CURVE key") }
        }
    }

    private static func set(_ socket: UnsafeMutableRawPointer, _ option: Int32, _ value: Int32) throws {
        var value = value
        guard zmq_setsockopt(socket, option, &value, MemoryLayout<Int32>.size) == 0 else { throw problem("set ZeroMQ option \(option)") }
    }

    private static func problem(_ action: String) -> Problem {
        Problem(.failed, "cannot \(action): \(String(cString: zmq_strerror(zmq_errno())))")
    }
}
