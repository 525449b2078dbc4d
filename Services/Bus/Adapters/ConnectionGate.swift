import CZeroMQ
import Contracts
import Foundation
import Kit

/// Takes the bus's listening socket away from libzmq while too many strangers are connected, and gives it back. Belongs to the
/// broker thread, as the ROUTER does.
///
/// libzmq takes every connection that comes; there is no option that bounds them.
final class ConnectionGate {
    private let router: UnsafeMutableRawPointer
    /// A PAIR that hears of the ROUTER's connections.
    let monitor: UnsafeMutableRawPointer
    private let endpoint: String
    /// A listening socket that was handed over. Its connections wait in the kernel's queue meanwhile; without it they are refused.
    private let held: Int32?
    private var strangers: Strangers
    private var lookedAt: Int64 = 0
    /// Connections came or went since the last look.
    var hasNews = true

    /// After the first bind. Throws `Problem` when libzmq gives no monitor.
    init(_ context: ZeroMQContext, router: UnsafeMutableRawPointer, held: Int32?) throws {
        self.router = router
        self.held = held
        endpoint = RouterSocket.endpoint(router)
        // Half of what there is; the rest is for those who are known, and for the log.
        strangers = Strangers(most: min(1024, Descriptors.limit / 2))
        let address = "inproc://bus-connections"
        guard zmq_socket_monitor(router, address, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) == 0,
            let monitor = zmq_socket(context.pointer, ZMQ_PAIR)
        else { throw ZeroMQ.problem("watch the bus's connections") }
        do {
            try ZeroMQ.set(monitor, ZMQ_LINGER, 0)
            // The I/O thread waits for whoever does not read.
            try ZeroMQ.set(monitor, ZMQ_RCVHWM, 0)
            guard zmq_connect(monitor, address) == 0 else { throw ZeroMQ.problem("watch the bus's connections") }
        } catch {
            zmq_close(monitor)
            throw error
        }
        self.monitor = monitor
    }

    /// Reads what happened, and opens or shuts the gate. `known`: connections with a session. What people should know of it.
    func look(known: Int, now: Int64) -> String? {
        // While the gate is open, only a connection that comes can shut it.
        guard hasNews || !strangers.isListening else { return nil }
        hasNews = false
        while let (head, more) = ZeroMQ.receive(monitor) {
            var rest = more
            while rest, let (_, another) = ZeroMQ.receive(monitor) { rest = another }
            guard head.count >= 6 else { continue }
            // In this machine's order: zmq_socket_monitor(3).
            let (event, descriptor) = head.withUnsafeBytes {
                (Int32($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: Int32.self))
            }
            if event == ZMQ_EVENT_ACCEPTED { strangers.accepted(descriptor) } else { strangers.gone(descriptor) }
        }
        if !strangers.isListening, now - lookedAt >= 1000 {
            lookedAt = now
            strangers.keep { fcntl($0, F_GETFD) >= 0 }
        }
        switch strangers.step(known: known) {
        case .rest:
            zmq_unbind(router, endpoint)
            return "\(strangers.open.count - known) connections have not shown a key; no more are taken until half of them are gone"
        case .listen: return listen()
        case nil: return nil
        }
    }

    private func listen() -> String? {
        // libzmq closes the old listening socket on a thread of its own; until it has, the port is taken.
        for _ in 0..<100 {
            if let held {
                // libzmq closes what it is given.
                let copy = fcntl(held, F_DUPFD_CLOEXEC, 3)
                guard copy >= 0, (try? ZeroMQ.set(router, ZMQ_USE_FD, copy)) != nil else { break }
            }
            if zmq_bind(router, endpoint) == 0 { return "connections are taken again" }
            usleep(1000)
        }
        return "the bus cannot listen on \(endpoint) again: \(String(cString: zmq_strerror(zmq_errno()))); it must be started anew"
    }

    /// Before the ROUTER is closed.
    func close() {
        zmq_socket_monitor(router, nil, 0)
        zmq_close(monitor)
    }
}
