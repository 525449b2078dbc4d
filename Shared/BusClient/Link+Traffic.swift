import Contracts
import Foundation
import Wire

/// What is done with each instruction and each message of an open session.
extension Link {
    func obey(_ instruction: Instruction) {
        switch instruction {
        case .emit(let publication):
            guard phase == .open, !isBusy else { return }
            send(Frame(.emit, b: 1, body: Publication.encode([publication])))
        case .publish(let frame, let session):
            if session == self.session { send(frame) }
        case .startOver(let session):
            if session == self.session { startOver("publishing begins again") }
        case .subscribe(let registration):
            consumers[registration.handle] = Consumer(registration)
            if phase == .open { subscribe(registration.handle) }
        case .credit(let handle, let epoch, let messages, let bytes):
            // Of an earlier session: that credit is gone, the new one was counted anew.
            guard consumers[handle]?.creditEpoch == epoch else { return }
            send(Frame(.credit, handle: handle, a: UInt64(messages), b: UInt64(bytes)))
        case .ack(let handle):
            if let frame = consumers[handle]?.acknowledge() { send(frame) }
        case .settle(let handle, let verdict):
            guard consumers[handle] != nil else { return }
            if consumers[handle]?.settle(verdict) == true {
                unsettled.insert(handle)
            } else {
                tooLate(handle, "event \(verdict.seq) is not this session's any more")
            }
        case .unsubscribe(let handle):
            settleEvents()
            guard let consumer = consumers.removeValue(forKey: handle) else { return }
            consumer.registration.mailbox.finish(nil)
            send(Frame(.unsubscribe, handle: handle))
        case .request(let request):
            requests.add(request, now: Monotonic.now())
            ask(request.number)
        case .cancel(let number):
            if requests.cancel(number) { send(Frame(.cancel, a: number)) }
        case .serve(let handle, let service, let concurrency):
            services[handle] = (service, concurrency)
            serve(handle, service, concurrency)
        case .reply(let job, let status, let payload):
            if job.session == session { reply(job.number, status, payload) }
        case .stop:
            stop()
        }
    }

    /// Verdicts of one turn go together.
    func settleEvents() {
        for handle in unsettled {
            while let frame = consumers[handle]?.settlement() { send(frame) }
        }
        unsettled = []
    }

    private func tooLate(_ handle: UInt32, _ why: String) {
        guard consumers[handle]?.registration.mailbox.tooLate(1) == true else { return }
        // Once a subscription; the number is there for whoever wants it.
        logger.warning("a verdict came too late, and the work may be done twice", metadata: ["why": "\(why)"])
    }

    func deliver(_ command: Command, _ frame: Frame) {
        switch command {
        case .publishAck:
            guard let exceptions = try? PublishException.decode(frame.body) else { return startOver("a PUBACK cannot be read") }
            pump.yield(.acknowledged(session: session, upTo: frame.a, exceptions))
        case .subscribed:
            do {
                if let ack = try consumers[frame.handle]?.subscribed(frame) { send(ack) }
            } catch {
                end(frame.handle, Problem(.failed, "the bus's answer to a subscription cannot be read: \(error)"))
            }
        case .events: arrived(frame)
        case .lost: lost(frame)
        case .call: called(frame)
        case .part: requests.part(frame)
        case .reply: requests.reply(frame, now: Monotonic.now())
        // The caller is gone or out of time.
        case .cancel: jobs.yield(.cancel(Job.ID(session: session, number: frame.a)))
        default: break
        }
    }

    /// ERR in an open session; `a` and `b` name the message that was refused.
    func refused(_ frame: Frame, command: Command?, message: String) {
        switch command {
        case .request: requests.refused(frame, now: Monotonic.now())
        case .subscribe, .credit, .ack:
            let handle = frame.handle != 0 ? frame.handle : UInt32(truncatingIfNeeded: frame.a)
            end(handle, Self.problem(frame.status, "the bus refuses a subscription: \(message)"))
        case .serve:
            logger.error("the bus refuses a service", metadata: ["status": "\(frame.status)", "reason": "\(message)"])
        case .publish:
            // No PUBACK will come for it. Not at once again: what could not be read now will hardly be readable in a moment.
            startOver("the bus refuses a publication (\(frame.status)): \(message)", after: 1000)
        case .ackEach where frame.status == 409: tooLate(frame.handle, message)
        case .unsubscribe: break
        default:
            // Once a session: a key that may not emit would otherwise fill the log with every line it says.
            guard complaints.insert(UInt8(truncatingIfNeeded: frame.b)).inserted else { return }
            logger.warning("the bus refuses messages", metadata: ["status": "\(frame.status)", "reason": "\(message)"])
        }
    }

    // MARK: subscriptions

    func subscribe(_ handle: UInt32) {
        guard let welcome, phase == .open else { return }
        do {
            if let frame = try consumers[handle]?.subscribe(configuration, welcome, memory) { send(frame) }
        } catch {
            end(handle, Problem(.failed, "a subscription cannot be written down: \(error)"))
        }
    }

    /// The subscription is over, with a reason that its reader gets.
    func end(_ handle: UInt32, _ problem: Problem) {
        guard let consumer = consumers.removeValue(forKey: handle) else { return }
        consumer.registration.answered.resolve(.failure(problem))
        consumer.registration.mailbox.finish(problem)
    }

    private func arrived(_ frame: Frame) {
        guard let arrival = consumers[frame.handle]?.arrived(frame) else { return }
        switch arrival {
        case .nothing: break
        case .batch(let batch):
            memory?.reached(batch.last)
            consumers[frame.handle]?.registration.mailbox.put(batch)
            // What the reader was done with before this session came, and has now come again.
            if let ack = consumers[frame.handle]?.acknowledge() { send(ack) }
        case .gap(let expected, let got):
            logger.error("the bus skipped events; asking again", metadata: ["expected": "\(expected)", "got": "\(got)"])
            send(Frame(.unsubscribe, handle: frame.handle))
            if consumers[frame.handle]?.isBroken == true {
                end(frame.handle, Problem(.failed, "the bus keeps skipping events \(expected) to \(got - 1)", hint: "slipway doctor"))
            } else {
                subscribe(frame.handle)
            }
        case .damaged(let why):
            send(Frame(.unsubscribe, handle: frame.handle))
            end(frame.handle, Problem(.failed, "events arrived damaged: \(why)", hint: "slipway doctor"))
        }
    }

    private func lost(_ frame: Frame) {
        if frame.status == 410 {
            end(
                frame.handle,
                Problem(
                    .gone, "event \(frame.a) is no longer in the log, which begins at \(frame.b)",
                    hint: "start again from what its owner knows"))
        } else {
            end(
                frame.handle,
                Problem(
                    .conflict, "the log is not the one that was read before (event \(frame.a) was expected)",
                    hint: "a restored backup needs a restored home"))
        }
    }

    // MARK: queries

    func ask(_ number: UInt64) {
        guard phase == .open, let frame = requests.frame(number, now: Monotonic.now()) else { return }
        send(frame)
    }

    func serve(_ handle: UInt32, _ service: String, _ concurrency: Int) {
        guard phase == .open, let body = try? Coding.encode(ServeBody(service: service, idempotent: ["*"])) else { return }
        send(Frame(.serve, handle: handle, a: UInt64(concurrency), body: body))
    }

    private func called(_ frame: Frame) {
        guard let body = try? CallBody(frame.body),
            let handle = services[frame.handle] != nil
                ? frame.handle : services.first(where: { body.method.hasPrefix($0.value.name + ".") })?.key,
            let service = services[handle]
        else { return send(Frame(.reply, status: 400, a: frame.a)) }
        let about = try? Coding.decode(CallBody.About.self, from: Data(body.about.utf8))
        let prefix = service.name + "."
        jobs.yield(
            .begin(
                Job(
                    id: Job.ID(session: session, number: frame.a), handle: handle,
                    method: body.method.hasPrefix(prefix) ? body.method : prefix + body.method,
                    caller: about?.caller ?? "", payload: body.payload,
                    deadline: Monotonic.now() + Int64(clamping: min(frame.b, 3_600_000)))))
    }

    /// REP, after PARTs when the payload is larger than a message may be.
    private func reply(_ number: UInt64, _ status: UInt16, _ payload: Data) {
        let chunk = Limits.payload / 2
        var rest = payload[...]
        var index: UInt64 = 0
        while rest.count > Limits.payload {
            send(Frame(.part, a: number, b: index, body: Data(rest.prefix(chunk))))
            rest = rest.dropFirst(chunk)
            index += 1
        }
        send(Frame(.reply, status: status, a: number, b: index, body: Data(rest)))
    }

    static func problem(_ status: UInt16, _ message: String) -> Problem {
        switch status {
        case 400, 422: Problem(.malformed, message)
        case 403: Problem(.forbidden, message, hint: "slipway key list shows what a key may do")
        case 409: Problem(.conflict, message)
        case 410: Problem(.conflict, message, hint: "only one may run at a time")
        case 501: Problem(.unsupported, message)
        default: Problem(.failed, message)
        }
    }
}
