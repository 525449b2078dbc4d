import Contracts
import Foundation
import Wire

/// Who asked: a session under its own number, or this process under a ticket.
enum Caller: Hashable, Sendable {
    case session(Peer, UInt64)
    case local(UInt64)
}

/// A request on its way to a worker or being worked on.
struct Call: Sendable {
    var caller: Caller
    var name: String
    var service: String
    var method: String
    var key: String
    var payload: Data
    /// Milliseconds of the router's clock.
    var deadline: Int64
    /// Nil: waits for a worker with room.
    var worker: SubscriptionKey?
    var parts: UInt64 = 0
}

/// A session that answers calls to one service.
struct Worker: Sendable {
    var key: SubscriptionKey
    /// Calls it takes at once.
    var room: Int
    var busy = 0
}

extension Router {
    mutating func serve(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let body = try JSONDecoder().decode(ServeBody.self, from: frame.body)
        guard allowed.mayServe(body.service), body.service != "bus" else {
            deny(session.user, .serve, body.service, now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not serve \(Problem.quote(body.service))", now)
        }
        guard frame.a > 0, session.served.count < 100 || session.served[frame.handle] != nil else {
            throw WireError("SERVE: credit of at least 1 and at most 100 services a session")
        }
        if session.served[frame.handle] != nil { stopServing(peer, frame.handle, now) }
        sessions[peer]?.served[frame.handle] = body.service
        workers[body.service, default: []].append(
            Worker(key: SubscriptionKey(peer: peer, handle: frame.handle), room: Int(min(frame.a, 10_000))))
        handOut(body.service, now)
    }

    mutating func request(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let body = try RequestBody(frame.body)
        guard allowed.mayCall(body.method) else {
            deny(session.user, .request, body.method, now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not call \(Problem.quote(body.method))", now)
        }
        guard body.payload.count <= Limits.payload, body.method.utf8.count <= Limits.topic, body.key.utf8.count <= Limits.id else {
            return refuse(peer, frame, 413, "too_large", "a request holds at most \(Limits.payload) bytes", now)
        }
        guard callsByCaller[.session(peer, frame.a)] == nil else { throw WireError("REQ: number \(frame.a) is under way") }
        open(
            Call(
                caller: .session(peer, frame.a), name: session.user, service: Self.service(of: body.method), method: body.method,
                key: body.key,
                payload: body.payload, deadline: now + Int64(min(max(frame.b, 1), 600_000))), now)
    }

    /// A request from within this process.
    mutating func call(_ method: String, _ payload: Data, as name: String, milliseconds: Int64, ticket: UInt64, now: Int64) {
        open(
            Call(
                caller: .local(ticket), name: name, service: Self.service(of: method), method: method, key: "", payload: payload,
                deadline: now + milliseconds), now)
    }

    private static func service(of method: String) -> String { method.split(separator: ".", maxSplits: 1).first.map(String.init) ?? method }

    private mutating func open(_ call: Call, _ now: Int64) {
        if call.service == "bus" {
            do {
                return answer(call, 200, try ownAnswer(call, now), now)
            } catch {
                let problem = error as? Problem ?? Problem(.malformed, "\(call.method): the request cannot be read")
                return answer(call, UInt16(clamping: problem.status), (try? Coding.encode(problem)) ?? Data(), now)
            }
        }
        guard let serving = workers[call.service], !serving.isEmpty else { return answer(call, 503, Data(), now) }
        guard waiting[call.service, default: []].count < settings.waitingCalls else { return answer(call, 429, Data(), now) }
        callCount += 1
        calls[callCount] = call
        callsByCaller[call.caller] = callCount
        waiting[call.service, default: []].append(callCount)
        handOut(call.service, now)
    }

    /// Gives waiting calls to workers with room; the one that has rested longest first.
    private mutating func handOut(_ service: String, _ now: Int64) {
        while let number = waiting[service]?.first {
            guard var call = calls[number] else {
                waiting[service]?.removeFirst()
                continue
            }
            guard let at = workers[service]?.firstIndex(where: { $0.busy < $0.room }), var worker = workers[service]?.remove(at: at) else {
                return
            }
            waiting[service]?.removeFirst()
            worker.busy += 1
            workers[service]?.append(worker)
            call.worker = worker.key
            let about = CallBody.About(caller: call.name, key: call.key.isEmpty ? nil : call.key)
            let body = CallBody(method: call.method, about: (try? Coding.text(about)) ?? "{}", payload: call.payload).encoded()
            // The bus keeps no copy: it never asks a second time by itself.
            call.payload = Data()
            calls[number] = call
            send(
                worker.key.peer,
                Frame(.call, handle: worker.key.handle, a: number, b: UInt64(max(1, call.deadline - now)), body: body), now)
        }
    }

    /// PART or REP of a worker. One that nobody waits for any more, or that is not this worker's, is dropped.
    mutating func answer(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        guard let call = calls[frame.a], call.worker?.peer == peer else { return }
        if frame.known == .part {
            // Replies in parts are for clients; a caller in this process asks only what fits into one.
            if case .session(let caller, let number) = call.caller {
                send(caller, Frame(.part, a: number, b: frame.b, body: frame.body), now)
            }
            return
        }
        close(frame.a, now)
        answer(call, frame.status, frame.body, chunk: frame.b, now)
    }

    /// The caller does not want the answer any more; or the worker will not give one.
    mutating func cancel(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        if let number = callsByCaller[.session(peer, frame.a)], let call = calls[number] {
            if let worker = call.worker { send(worker.peer, Frame(.cancel, a: number), now) }
            close(number, now)
        } else if let call = calls[frame.a], call.worker?.peer == peer {
            close(frame.a, now)
            answer(call, 502, Data(), flags: 1, now)
        }
    }

    mutating func answer(_ call: Call, _ status: UInt16, _ body: Data, chunk: UInt64 = 0, flags: UInt16 = 0, _ now: Int64) {
        switch call.caller {
        case .session(let peer, let number):
            send(peer, Frame(.reply, flags: flags, status: status, a: number, b: chunk, body: body), now)
        case .local(let ticket):
            effects.append(.replied(ticket: ticket, status: status, payload: body))
        }
    }

    /// Forgets a call and gives its worker the next.
    private mutating func close(_ number: UInt64, _ now: Int64) {
        guard let call = calls.removeValue(forKey: number) else { return }
        callsByCaller.removeValue(forKey: call.caller)
        guard let worker = call.worker else {
            waiting[call.service]?.removeAll { $0 == number }
            return
        }
        if let at = workers[call.service]?.firstIndex(where: { $0.key == worker }) { workers[call.service]?[at].busy -= 1 }
        handOut(call.service, now)
    }

    mutating func expireCalls(_ now: Int64) {
        for (number, call) in calls where now >= call.deadline {
            if let worker = call.worker { send(worker.peer, Frame(.cancel, a: number), now) }
            close(number, now)
            answer(call, 504, Data(), now)
        }
    }

    /// When the next call runs out of time.
    var nextDeadline: Int64? { calls.values.map(\.deadline).min() }

    mutating func stopServing(_ peer: Peer, _ handle: UInt32, _ now: Int64) {
        guard let service = sessions[peer]?.served.removeValue(forKey: handle) else { return }
        leave(SubscriptionKey(peer: peer, handle: handle), service, now)
    }

    mutating func endCalls(of peer: Peer, _ session: Session, _ now: Int64) {
        for (handle, service) in session.served { leave(SubscriptionKey(peer: peer, handle: handle), service, now) }
        for (number, call) in calls {
            guard case .session(peer, _) = call.caller else { continue }
            if let worker = call.worker { send(worker.peer, Frame(.cancel, a: number), now) }
            close(number, now)
        }
    }

    /// A worker is gone. Its calls may have run, which only the caller can judge; when it was the last, nobody serves the rest.
    private mutating func leave(_ key: SubscriptionKey, _ service: String, _ now: Int64) {
        workers[service]?.removeAll { $0.key == key }
        for (number, call) in calls where call.worker == key {
            close(number, now)
            answer(call, 502, Data(), flags: 1, now)
        }
        if workers[service]?.isEmpty ?? true {
            workers.removeValue(forKey: service)
            for number in waiting.removeValue(forKey: service) ?? [] {
                guard let call = calls[number] else { continue }
                close(number, now)
                answer(call, 503, Data(), now)
            }
        }
    }
}
