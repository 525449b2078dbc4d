import CZeroMQ
import Contracts
import Foundation

/// Answers libzmq's questions about keys (ZeroMQ RFC 27, ZAP): a thread with a REP socket in the bus's context. A public key in the
/// key table gets its name and the key as User-Id; every other one is refused. There is no mode that lets anybody in.
final class ZapThread: Sendable {
    private let keys: KeyTable
    private let context: ZeroMQContext
    private let refused: @Sendable (_ address: String) -> Void
    /// Whom every connection without CURVE is taken for. Only the benchmark sets this.
    private let unencrypted: UserID?
    private let stopping = Locked(false)
    private let finished = DispatchSemaphore(value: 0)

    /// Listens when this returns, as it must before the first bind. `refused` is told addresses of unknown keys.
    init(_ context: ZeroMQContext, keys: KeyTable, unencrypted: UserID? = nil, refused: @escaping @Sendable (String) -> Void) throws {
        self.context = context
        self.unencrypted = unencrypted
        self.keys = keys
        self.refused = refused
        let ready = DispatchSemaphore(value: 0)
        let outcome = Locked<Problem?>(nil)
        let thread = Thread { [self] in
            do {
                let socket = try Self.bind(context)
                ready.signal()
                serve(socket)
                zmq_close(socket)
            } catch {
                outcome.withLock { $0 = error as? Problem ?? Problem(.failed, "\(error)") }
                ready.signal()
            }
            finished.signal()
        }
        thread.name = "bus-zap"
        thread.start()
        ready.wait()
        if let problem = outcome.withLock({ $0 }) { throw problem }
    }

    /// Returns when the socket is closed.
    func stop() {
        stopping.withLock { $0 = true }
        finished.wait()
    }

    private static func bind(_ context: ZeroMQContext) throws -> UnsafeMutableRawPointer {
        guard let socket = zmq_socket(context.pointer, ZMQ_REP) else { throw ZeroMQ.problem("make the ZAP socket") }
        do {
            try ZeroMQ.set(socket, ZMQ_LINGER, 0)
            try ZeroMQ.set(socket, ZMQ_SNDTIMEO, 1000)
            guard zmq_bind(socket, "inproc://zeromq.zap.01") == 0 else { throw ZeroMQ.problem("answer for keys") }
        } catch {
            zmq_close(socket)
            throw error
        }
        return socket
    }

    private func serve(_ socket: UnsafeMutableRawPointer) {
        while !stopping.withLock({ $0 }) {
            var item = zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
            guard zmq_poll(&item, 1, 100) > 0 else { continue }
            var frames: [Data] = []
            while let (data, more) = ZeroMQ.receive(socket) {
                frames.append(data)
                if !more { break }
            }
            answer(frames, socket)
        }
    }

    /// Request: version, id, domain, address, routing id, mechanism, credentials. Reply: version, id, status, text, user, metadata.
    private func answer(_ frames: [Data], _ socket: UnsafeMutableRawPointer) {
        guard frames.count >= 6, frames[0] == Data("1.0".utf8) else {
            // Not ZAP; the answer keeps the REP socket in step.
            _ = ZeroMQ.send(Data(), socket, more: false)
            return
        }
        var user: UserID?
        if frames.count == 7, frames[5] == Data("CURVE".utf8), frames[6].count == 32 { user = keys.user(of: frames[6]) }
        if let unencrypted, frames[5] == Data("NULL".utf8) { user = unencrypted }
        if user == nil { refused(String(decoding: frames[3].prefix(64), as: UTF8.self)) }
        let reply = [
            frames[0], frames[1], Data((user == nil ? "400" : "200").utf8), Data((user == nil ? "unknown key" : "OK").utf8),
            Data((user?.text ?? "").utf8), Data(),
        ]
        for (index, frame) in reply.enumerated() { _ = ZeroMQ.send(frame, socket, more: index < reply.count - 1) }
    }
}
