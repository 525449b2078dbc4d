import CZeroMQ
import Foundation
import Wire

@testable import BusClient

/// A small bus for tests: a ROUTER with CURVE on a port of its own, on a thread of its own, that keeps everything in memory and
/// can be told to behave badly. It is not the broker: it only speaks enough EB/1 to hold the client to its word.
final class FakeBus: Sendable {
    struct State: Sendable {
        var log: [Record] = []
        var outboxes: [String: UInt64] = [:]
        /// Every frame that came, by the order of arrival.
        var heard: [Frame] = []
        /// Refuse this many PUBs with 429.
        var refusePublications = 0
        /// Numbers refused with 403.
        var forbidden: Set<UInt64> = []
        /// Take in PUBs but never acknowledge them.
        var swallowAcks = false
        var silent = false
        /// Answer the next REQ with this status and nothing else.
        var requestStatuses: [UInt16] = []
        var forgetSessions = false
        var sayGoodbye = false
        var loseSubscriptions = false
        var fence = false
        var stop = false
        var sessions = 0
        var acks: [UInt64] = []
        var credits: [(UInt64, UInt64)] = []
        var epoch: UInt64 = 1
        var hash: String?
        var stream = "0123456789abcdef0123456789abcdef"
    }
    let state = Locked(State())
    let publicKey: String
    private let secretKey: String
    private let port: Locked<Int>
    private let running = Locked(false)

    init(key: (String, String) = FakeBus.pair()) {
        (publicKey, secretKey) = key
        port = Locked(0)
        start()
    }

    deinit { stop() }

    var endpoint: String { "tcp://127.0.0.1:\(port.withLock { $0 })" }

    func configuration(secret: (String, String) = FakeBus.pair(), server: String? = nil) -> BusClientConfiguration {
        BusClientConfiguration(
            endpoint: endpoint, serverKey: server ?? publicKey, publicKey: secret.0, secretKey: secret.1, clientName: "test", version: "0")
    }

    static func pair() -> (String, String) {
        var open = [CChar](repeating: 0, count: 41)
        var secret = [CChar](repeating: 0, count: 41)
        zmq_curve_keypair(&open, &secret)
        return (text(open), text(secret))
    }

    private static func text(_ bytes: [CChar]) -> String { String(decoding: bytes.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self) }

    /// Ends the thread and the socket at once, as a kill would; what is in the log stays.
    func stop() {
        state.withLock { $0.stop = true }
        while running.withLock({ $0 }) { usleep(1000) }
        state.withLock { $0.stop = false }
    }

    /// On the same port as before.
    func start() {
        running.withLock { $0 = true }
        let (state, port, running, secretKey) = (state, port, running, secretKey)
        let bound = DispatchSemaphore(value: 0)
        let thread = Thread {
            FakeBus.serve(state, port, secretKey) { bound.signal() }
            running.withLock { $0 = false }
        }
        thread.start()
        bound.wait()
    }

    func append(_ topic: String, payload: Data, id: String = UUID().uuidString.lowercased()) {
        state.withLock { state in
            let seq = UInt64(state.log.count + 1)
            state.log.append(Record(seq: seq, time: seq, topic: topic, producer: "x", id: id, payload: payload))
        }
    }

    func heard(_ command: Command) -> [Frame] { state.withLock { $0.heard.filter { $0.command == command.rawValue } } }

    private struct Subscription {
        var filters: [Filter]
        var next: UInt64
        var messages: Int
        var bytes: Int
    }

    private static func serve(_ state: Locked<State>, _ port: Locked<Int>, _ secretKey: String, bound: () -> Void) {
        let context = zmq_ctx_new()
        let socket = zmq_socket(context, ZMQ_ROUTER)
        var one: Int32 = 1
        var zero: Int32 = 0
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, 4)
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secretKey, 40)
        zmq_setsockopt(socket, ZMQ_LINGER, &zero, 4)
        zmq_setsockopt(socket, ZMQ_ROUTER_MANDATORY, &one, 4)
        let known = port.withLock { $0 }
        while zmq_bind(socket, "tcp://127.0.0.1:\(known == 0 ? "*" : String(known))") != 0 { usleep(2000) }
        var name = [CChar](repeating: 0, count: 100)
        var length = 100
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, &name, &length)
        let endpoint = String(decoding: name.prefix(length - 1).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        port.withLock { $0 = Int(endpoint.split(separator: ":").last ?? "") ?? 0 }
        bound()
        defer {
            zmq_close(socket)
            zmq_ctx_term(context)
        }
        var sessions: [Data: String?] = [:]
        var subscriptions: [Data: [UInt32: Subscription]] = [:]
        var services: [String: (Data, UInt32)] = [:]
        var calls: [UInt64: (Data, UInt64)] = [:]
        // Sessions in which a PUB was refused for now: everything is, until one says that it starts again.
        var blocked: Set<Data> = []
        var nextCall: UInt64 = 0
        func send(_ peer: Data, _ frame: Frame) {
            _ = peer.withUnsafeBytes { zmq_send(socket, $0.baseAddress, peer.count, ZMQ_SNDMORE) }
            let data = frame.encoded()
            _ = data.withUnsafeBytes { zmq_send(socket, $0.baseAddress, data.count, 0) }
        }
        func deliver() {
            let log = state.withLock(\.log)
            for (peer, all) in subscriptions {
                for (handle, var subscription) in all {
                    while subscription.next <= UInt64(log.count), subscription.messages > 0, subscription.bytes > 0 {
                        var body = Data()
                        let first = subscription.next
                        var count = 0
                        while subscription.next <= UInt64(log.count), count < min(128, subscription.messages), body.count < 1 << 18 {
                            let record = log[Int(subscription.next) - 1]
                            if subscription.filters.contains(where: { $0.matches(record.topic) }) {
                                record.encode(into: &body)
                                count += 1
                            }
                            subscription.next += 1
                        }
                        subscription.messages -= count
                        subscription.bytes -= body.count
                        send(peer, Frame(.events, handle: handle, a: first, b: subscription.next - 1, body: body))
                    }
                    subscriptions[peer]?[handle] = subscription
                }
            }
        }
        while !state.withLock(\.stop) {
            var item = zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)
            zmq_poll(&item, 1, 5)
            if state.withLock({ $0.forgetSessions }) {
                state.withLock { $0.forgetSessions = false }
                (sessions, subscriptions, services) = ([:], [:], [:])
            }
            if state.withLock({ $0.sayGoodbye }) {
                state.withLock { $0.sayGoodbye = false }
                for peer in sessions.keys { send(peer, Frame(.bye, status: 503, body: Data(#"{"reason":"drain","retry_ms":20}"#.utf8))) }
                (sessions, subscriptions, services) = ([:], [:], [:])
            }
            if state.withLock({ $0.loseSubscriptions }) {
                state.withLock { $0.loseSubscriptions = false }
                for (peer, all) in subscriptions {
                    for handle in all.keys { send(peer, Frame(.lost, status: 410, handle: handle, a: 5, b: 9)) }
                }
            }
            if state.withLock({ $0.fence }) {
                state.withLock { $0.fence = false }
                for (peer, all) in subscriptions { for handle in all.keys { send(peer, Frame(.bye, status: 410, handle: handle)) } }
            }
            deliver()
            while let peer = receive(socket), let data = receive(socket), let frame = try? Frame(data), let command = frame.known {
                if state.withLock(\.silent) { continue }
                state.withLock { $0.heard.append(frame) }
                if command == .hello {
                    let hello = try? JSONDecoder().decode(Hello.self, from: frame.body)
                    sessions[peer] = .some(hello?.outbox)
                    blocked.remove(peer)
                    subscriptions[peer] = [:]
                    let welcome = state.withLock { state in
                        state.sessions += 1
                        return Welcome(
                            session: "s", stream: state.stream, first: 1, last: UInt64(state.log.count), heartbeat_ms: 200, you: "test",
                            hash: state.hash, witness: "witness of \(state.epoch)")
                    }
                    send(peer, Frame(.welcome, a: state.withLock(\.epoch), body: (try? JSONEncoder().encode(welcome)) ?? Data()))
                    continue
                }
                guard let outbox = sessions[peer] else {
                    send(
                        peer,
                        Frame(
                            .error, status: 401, a: frame.a, b: UInt64(frame.command),
                            body: Data(#"{"code":"no_session","message":"no session"}"#.utf8)))
                    continue
                }
                switch command {
                case .ping: send(peer, Frame(.pong, a: frame.a, b: UInt64(state.withLock { $0.log.count })))
                case .publish:
                    let publications = (try? Publication.decode(frame.body, count: frame.b)) ?? []
                    if frame.flags & 1 != 0 { blocked.remove(peer) }
                    if blocked.contains(peer) {
                        let exceptions = publications.indices.map { PublishException(number: frame.a + UInt64($0), status: 425) }
                        send(peer, Frame(.publishAck, a: frame.a + frame.b - 1, b: 0, body: PublishException.encode(exceptions)))
                        continue
                    }
                    let (exceptions, acknowledge) = state.withLock { state -> ([PublishException], Bool) in
                        var exceptions: [PublishException] = []
                        if state.refusePublications > 0 {
                            state.refusePublications -= 1
                            blocked.insert(peer)
                            return (
                                publications.indices.map { PublishException(number: frame.a + UInt64($0), status: $0 == 0 ? 429 : 425) },
                                true
                            )
                        }
                        for (index, publication) in publications.enumerated() {
                            let number = frame.a + UInt64(index)
                            if state.forbidden.contains(number) {
                                exceptions.append(PublishException(number: number, status: 403))
                                continue
                            }
                            if let outbox {
                                guard number > state.outboxes[outbox, default: 0] else {
                                    exceptions.append(PublishException(number: number, status: 208))
                                    continue
                                }
                                state.outboxes[outbox] = number
                            }
                            let seq = UInt64(state.log.count + 1)
                            state.log.append(
                                Record(
                                    seq: seq, time: seq, topic: publication.topic, producer: "test", id: publication.id,
                                    payload: publication.payload))
                        }
                        return (exceptions, !state.swallowAcks)
                    }
                    if acknowledge {
                        send(peer, Frame(.publishAck, a: frame.a + frame.b - 1, b: 0, body: PublishException.encode(exceptions)))
                    }
                    deliver()
                case .emit:
                    for publication in (try? Publication.decode(frame.body, count: frame.b)) ?? [] {
                        var body = Data()
                        Record(
                            seq: 0, time: 0, topic: publication.topic, producer: "test", id: publication.id, payload: publication.payload
                        )
                        .encode(into: &body)
                        for (peer, all) in subscriptions {
                            for (handle, subscription) in all where subscription.filters.contains(where: { $0.matches(publication.topic) })
                            {
                                send(peer, Frame(.events, handle: handle, body: body))
                            }
                        }
                    }
                case .subscribe:
                    guard let body = try? JSONDecoder().decode(SubscribeBody.self, from: frame.body) else { continue }
                    if body.filters.contains("secret.**") {
                        send(
                            peer,
                            Frame(
                                .error, status: 403, handle: frame.handle, b: UInt64(frame.command),
                                body: Data(#"{"code":"forbidden","message":"not yours"}"#.utf8)))
                        continue
                    }
                    let log = state.withLock(\.log)
                    var next: UInt64 = 1
                    switch body.from {
                    case .new: next = UInt64(log.count + 1)
                    case .seq(let seq, _, _): next = seq
                    default: break
                    }
                    subscriptions[peer]?[frame.handle] = Subscription(
                        filters: body.filters.compactMap { try? Filter($0) }, next: next, messages: body.credit_msgs,
                        bytes: body.credit_bytes)
                    let answer = SubscribedBody(stream: state.withLock(\.stream), first: 1, last: UInt64(log.count), pending: 0)
                    send(
                        peer,
                        Frame(.subscribed, handle: frame.handle, a: next - 1, b: 1, body: (try? JSONEncoder().encode(answer)) ?? Data()))
                    deliver()
                case .credit:
                    subscriptions[peer]?[frame.handle]?.messages += Int(frame.a)
                    subscriptions[peer]?[frame.handle]?.bytes += Int(frame.b)
                    state.withLock { $0.credits.append((frame.a, frame.b)) }
                    deliver()
                case .ack: state.withLock { $0.acks.append(frame.a) }
                case .unsubscribe: subscriptions[peer]?[frame.handle] = nil
                case .serve:
                    if let body = try? JSONDecoder().decode(ServeBody.self, from: frame.body) {
                        services[body.service] = (peer, frame.handle)
                    }
                case .request:
                    guard let body = try? RequestBody(frame.body) else { continue }
                    let status = state.withLock { $0.requestStatuses.isEmpty ? nil : $0.requestStatuses.removeFirst() }
                    if let status {
                        if status != 0 { send(peer, Frame(.reply, status: status, a: frame.a)) }
                        continue
                    }
                    guard let (worker, handle) = services[body.method.split(separator: ".").first.map(String.init) ?? ""] else {
                        send(peer, Frame(.reply, status: 503, a: frame.a))
                        continue
                    }
                    nextCall += 1
                    calls[nextCall] = (peer, frame.a)
                    let call = CallBody(method: body.method, about: #"{"caller":"test","key":"\#(body.key)"}"#, payload: body.payload)
                    send(worker, Frame(.call, handle: handle, a: nextCall, b: frame.b, body: call.encoded()))
                case .part, .reply:
                    guard let (caller, number) = calls[frame.a] else { continue }
                    send(caller, Frame(command, status: frame.status, a: number, b: frame.b, body: frame.body))
                case .bye: sessions[peer] = nil
                default: break
                }
            }
        }
    }

    private static func receive(_ socket: UnsafeMutableRawPointer?) -> Data? {
        var message = zmq_msg_t()
        zmq_msg_init(&message)
        defer { zmq_msg_close(&message) }
        guard zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0, let start = zmq_msg_data(&message) else { return nil }
        return Data(bytes: start, count: zmq_msg_size(&message))
    }
}
