import Contracts
import Foundation
import Wire

extension Router {
    mutating func serve(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let body = try JSONDecoder().decode(ServeBody.self, from: frame.body)
        guard let address = Address(body.service) else {
            throw WireError(
                "SERVE: \(Problem.quote(body.service)) is no service's name, which is one token, or one with '@' and an instance")
        }
        // Where a session runs is said by its key, so that nobody can take the calls that are meant for another host.
        let instance = Self.instance(of: session.user) ?? settings.host
        guard allowed.mayServe(address.service), address.service != "bus", address.instance ?? instance == instance else {
            deny(session.user, .serve, body.service, now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not serve \(Problem.quote(body.service))", now)
        }
        guard frame.a > 0, body.idempotent.count <= 1000 else { throw WireError("SERVE: credit of at least 1, at most 1000 methods") }
        guard session.served.count < 100 || session.served[frame.handle] != nil else {
            return refuse(peer, frame, 429, "too_many", "at most 100 services a session", now)
        }
        if session.served[frame.handle] != nil { stopServing(peer, frame.handle, now) }
        sessions[peer]?.served[frame.handle] = address.text
        pools[address.service, default: Pool()].workers.append(
            Worker(
                key: SubscriptionKey(peer: peer, handle: frame.handle), instance: instance, isExclusive: address.instance != nil,
                room: Int(min(frame.a, 10_000)), idempotent: Set(body.idempotent)))
        handOut(address.service, now)
    }

    /// What stands after the `@` of `build@host2`.
    static func instance(of user: String) -> String? { user.firstIndex(of: "@").map { String(user[user.index(after: $0)...]) } }

    mutating func request(_ frame: Frame, _ peer: Peer, _ session: Session, _ allowed: Rights, _ now: Int64) throws {
        let body = try RequestBody(frame.body)
        guard frame.b > 0 else { throw WireError("REQ: 0 milliseconds allowed; a deadline is needed") }
        guard body.payload.count <= Limits.payload, body.method.utf8.count <= Limits.topic, body.key.utf8.count <= Limits.id else {
            return refuse(peer, frame, 413, "too_large", "a request holds at most \(Limits.payload) bytes", now)
        }
        let name = body.method.prefix { $0 != "." }
        guard let address = Address(name) else { throw WireError("REQ: \(Problem.quote(String(name))) is no service") }
        let method = address.service + body.method.dropFirst(name.count)
        guard allowed.mayCall(method) || isReplicaCall(method, allowed) else {
            deny(session.user, .request, body.method, now)
            return refuse(peer, frame, 403, "forbidden", "'\(session.user)' may not call \(Problem.quote(body.method))", now)
        }
        let caller = Caller.session(peer, frame.a)
        guard callsByCaller[caller] == nil else {
            return refuse(peer, frame, 409, "conflict", "a request with the number \(frame.a) is under way", now)
        }
        let deadline = now + Int64(min(frame.b, 600_000))
        let call = Call(
            caller: caller, name: session.user, address: address, method: method, key: body.key, payload: body.payload, deadline: deadline,
            patience: min(deadline, now + Int64(frame.handle)))
        if let key = call.callKey, let number = callsByKey[key] { return takeOver(number, call, frame, peer, now) }
        open(call, now)
    }

    /// The same caller asks again under the same key, as after a lost connection: the call goes on, and its answer goes to
    /// whoever asked last.
    private mutating func takeOver(_ number: UInt64, _ call: Call, _ frame: Frame, _ peer: Peer, _ now: Int64) {
        guard let running = calls[number], running.method == call.method, running.address == call.address, running.parts == 0 else {
            let why = calls[number]?.method == call.method ? "part of its reply has been sent" : "it is a call of another method"
            return refuse(peer, frame, 409, "conflict", "a request with this key is under way: \(why)", now)
        }
        callsByCaller.removeValue(forKey: running.caller)
        answer(running, 409, Data(), now)
        calls[number]?.caller = call.caller
        calls[number]?.deadline = call.deadline
        callsByCaller[call.caller] = number
        callTimes.add(number, at: call.deadline)
    }

    /// A request from within this process.
    mutating func call(_ method: String, _ payload: Data, as name: String, milliseconds: Int64, ticket: UInt64, now: Int64) {
        guard let address = Address(method.prefix { $0 != "." }) else {
            return effects.append(.replied(ticket: ticket, status: 400, payload: Data()))
        }
        open(
            Call(
                caller: .local(ticket), name: name, address: address, method: method, key: "", payload: payload,
                deadline: now + milliseconds, patience: now), now)
    }

    private mutating func open(_ call: Call, _ now: Int64) {
        if call.address.service == "bus" {
            do {
                return answer(call, 200, try ownAnswer(call, now), now)
            } catch {
                let problem = error as? Problem ?? Problem(.malformed, "\(call.method): the request cannot be read")
                return answer(call, UInt16(clamping: problem.status), (try? Coding.encode(problem)) ?? Data(), now)
            }
        }
        let pool = pools[call.address.service] ?? Pool()
        guard pool.isServed(call.address) || call.patience > now else { return answer(call, 503, Data(), now) }
        guard pool.waiting < settings.waitingCalls, callBytes + call.payload.count <= settings.callBytes else {
            return answer(call, 429, Data(), now)
        }
        callCount += 1
        calls[callCount] = call
        callBytes += call.payload.count
        callsByCaller[call.caller] = callCount
        if let key = call.callKey { callsByKey[key] = callCount }
        callTimes.add(callCount, at: call.deadline)
        if call.patience > now, call.patience < call.deadline { callTimes.add(callCount, at: call.patience) }
        pools[call.address.service, default: Pool()].add(callCount, for: call.address)
        handOut(call.address.service, now)
    }

    /// Gives waiting calls to workers with room; the one that has rested longest first.
    private mutating func handOut(_ service: String, _ now: Int64) {
        while let (number, worker) = pools[service]?.match() {
            guard var call = calls[number] else { continue }
            call.worker = worker.key
            call.attempts += 1
            let about = CallBody.About(caller: call.name, key: call.key.isEmpty ? nil : call.key)
            let body = CallBody(method: call.method, about: (try? Coding.text(about)) ?? "{}", payload: call.payload).encoded()
            if !worker.mayRepeat(call.method) || call.attempts >= Self.attempts {
                // The bus keeps no copy: it will not ask a second time by itself.
                callBytes -= call.payload.count
                call.payload = Data()
                call.isKept = false
            } else {
                call.isKept = true
            }
            calls[number] = call
            send(
                worker.key.peer,
                Frame(.call, handle: worker.key.handle, a: number, b: UInt64(max(1, call.deadline - now)), body: body), now)
        }
    }

    /// How often a call of an idempotent method is handed out: one that ends each of its workers must not go round for ever.
    static let attempts = 3

    /// PART or REP of a worker. One that nobody waits for any more, or that is not this worker's, is dropped.
    mutating func answer(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        guard let call = calls[frame.a], call.worker?.peer == peer else { return }
        let bytes = call.partBytes + frame.body.count
        guard frame.known == .reply || frame.b == call.parts else {
            fail(frame.a, 502, flags: 1, telling: true, now)
            return refuse(peer, frame, 400, "malformed", "PART \(frame.b) of call \(frame.a): expected \(call.parts)", now)
        }
        guard frame.body.count <= Limits.payload, bytes <= Limits.reply else {
            fail(frame.a, 502, flags: 1, telling: true, now)
            return refuse(peer, frame, 413, "too_large", "a reply has at most \(Limits.reply) bytes, a part \(Limits.payload)", now)
        }
        if frame.known == .part {
            // Replies in parts are for clients; a caller in this process asks only what fits into one.
            if case .session(let caller, let number) = call.caller {
                send(caller, Frame(.part, a: number, b: frame.b, body: frame.body), now)
            }
            calls[frame.a]?.parts += 1
            calls[frame.a]?.partBytes = bytes
            return
        }
        close(frame.a, now)
        answer(call, frame.status, frame.body, chunk: call.parts, now)
    }

    /// The caller does not want the answer any more; or the worker will not give one.
    mutating func cancel(_ frame: Frame, _ peer: Peer, _ now: Int64) {
        if let number = callsByCaller[.session(peer, frame.a)] {
            abandon(number, now)
        } else if calls[frame.a]?.worker?.peer == peer {
            fail(frame.a, 502, flags: 1, now)
        }
    }

    private mutating func answer(_ call: Call, _ status: UInt16, _ body: Data, chunk: UInt64 = 0, flags: UInt16 = 0, _ now: Int64) {
        counts.calls[status, default: 0] += 1
        switch call.caller {
        case .session(let peer, let number):
            send(peer, Frame(.reply, flags: flags, status: status, a: number, b: chunk, body: body), now)
        case .local(let ticket):
            effects.append(.replied(ticket: ticket, status: status, payload: body))
        }
    }

    /// Ends a call with a status of the bus's own. `telling`: its worker is to stop.
    private mutating func fail(_ number: UInt64, _ status: UInt16, flags: UInt16 = 0, telling: Bool = false, _ now: Int64) {
        guard let call = calls[number] else { return }
        if telling, let worker = call.worker { send(worker.peer, Frame(.cancel, a: number), now) }
        close(number, now)
        answer(call, status, Data(), chunk: call.parts, flags: flags, now)
    }

    /// Nobody waits for it any more.
    private mutating func abandon(_ number: UInt64, _ now: Int64) {
        if let worker = calls[number]?.worker { send(worker.peer, Frame(.cancel, a: number), now) }
        close(number, now)
    }

    /// Forgets a call and gives its worker the next.
    private mutating func close(_ number: UInt64, _ now: Int64) {
        guard let call = calls.removeValue(forKey: number) else { return }
        callBytes -= call.payload.count
        callsByCaller.removeValue(forKey: call.caller)
        if let key = call.callKey { callsByKey.removeValue(forKey: key) }
        let service = call.address.service
        if let worker = call.worker {
            pools[service]?.release(worker)
            handOut(service, now)
        } else {
            pools[service]?.remove(number, for: call.address)
        }
        if pools[service]?.isEmpty == true { pools.removeValue(forKey: service) }
    }

    /// Deadlines, and the patience of those that wait for somebody to serve.
    mutating func expireCalls(_ now: Int64) {
        while let number = callTimes.due(now) {
            guard let call = calls[number] else { continue }
            if now >= call.deadline {
                fail(number, 504, telling: true, now)
            } else if call.worker == nil, now >= call.patience, pools[call.address.service]?.isServed(call.address) != true {
                fail(number, 503, now)
            }
        }
        callTimes.tidy(calls)
    }

    /// When the next call runs out of time.
    var nextDeadline: Int64? { callTimes.next }

    mutating func stopServing(_ peer: Peer, _ handle: UInt32, _ now: Int64) {
        guard let text = sessions[peer]?.served.removeValue(forKey: handle) else { return }
        leave(SubscriptionKey(peer: peer, handle: handle), text, now)
    }

    mutating func endCalls(of peer: Peer, _ session: Session, _ now: Int64) {
        for (handle, text) in session.served { leave(SubscriptionKey(peer: peer, handle: handle), text, now) }
        for (number, call) in calls {
            if case .session(peer, _) = call.caller { abandon(number, now) }
        }
    }

    /// A worker is gone. Its calls may have run, which only the caller can judge, unless the service said that twice is no harm:
    /// those wait for the next worker. What waits for nobody else fails, when its time for that is over.
    private mutating func leave(_ key: SubscriptionKey, _ text: String, _ now: Int64) {
        guard let service = Address(text)?.service else { return }
        pools[service]?.workers.removeAll { $0.key == key }
        for number in calls.filter({ $0.value.worker == key }).keys.sorted() {
            guard var call = calls[number] else { continue }
            guard call.isKept, call.parts == 0 else {
                fail(number, 502, flags: 1, now)
                continue
            }
            call.worker = nil
            call.patience = call.deadline
            calls[number] = call
            pools[service, default: Pool()].add(number, for: call.address)
        }
        for number in pools[service]?.waitingCalls ?? [] {
            guard let call = calls[number], call.patience <= now, pools[service]?.isServed(call.address) != true else { continue }
            fail(number, 503, now)
        }
        handOut(service, now)
        if pools[service]?.isEmpty == true { pools.removeValue(forKey: service) }
    }
}
