import NIOCore
import Synchronization

/// How many TCP connections there are, in all and by client.
final class DNSGuests: Sendable {
    static let limit = 512
    static let limitOfOne = 64
    private let counts = Mutex<[String: Int]>([:])

    /// False: no room.
    func enter(_ client: String) -> Bool {
        counts.withLock { counts in
            guard counts.values.reduce(0, +) < Self.limit, counts[client, default: 0] < Self.limitOfOne else { return false }
            counts[client, default: 0] += 1
            return true
        }
    }
    func leave(_ client: String) {
        counts.withLock { counts in
            let left = counts[client, default: 0] - 1
            counts[client] = left > 0 ? left : nil
        }
    }
}

/// Answers one TCP connection: frames with a two-byte length (RFC 1035, section 4.2.2), any number one after another.
///
/// Ten seconds without a whole question end it; while the client does not read its answers, no more questions are read. Lives on
/// its channel's event loop.
final class DNSStream: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    static let idle = TimeAmount.seconds(10)

    private let zone: CurrentZone
    private let counters: DNSCounters
    private let guests: DNSGuests
    private var client: String?
    private var buffer = ByteBuffer()
    private var deadline: Scheduled<Void>?
    private var turn = Int.random(in: 0..<1024)

    init(zone: CurrentZone, counters: DNSCounters, guests: DNSGuests) {
        self.zone = zone
        self.counters = counters
        self.guests = guests
    }

    func channelActive(context: ChannelHandlerContext) {
        let name = context.remoteAddress?.ipAddress ?? "?"
        guard guests.enter(name) else {
            counters.turnedAway.wrappingAdd(1, ordering: .relaxed)
            context.close(promise: nil)
            return
        }
        client = name
        wait(context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        if let client { guests.leave(client) }
        client = nil
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var piece = unwrapInboundIn(data)
        buffer.writeBuffer(&piece)
        answerAll(context)
    }

    func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            answerAll(context)
            context.flush()
        }
        context.channel.setOption(.autoRead, value: context.channel.isWritable).whenFailure { _ in }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answerAll(_ context: ChannelHandlerContext) {
        while context.channel.isActive, context.channel.isWritable {
            guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt16.self), buffer.readableBytes >= 2 + Int(length) else {
                break
            }
            buffer.moveReaderIndex(forwardBy: 2)
            guard let question = buffer.readSlice(length: Int(length)) else { break }
            turn &+= 1
            counters.tcp.wrappingAdd(1, ordering: .relaxed)
            let responder = DNSResponder(zone: zone.value)
            guard let answer = question.withUnsafeReadableBytes({ responder.answer($0, over: .tcp, turn: turn & .max) }) else {
                // Not a question at all; there is no way to tell where the next one would begin.
                counters.silent.wrappingAdd(1, ordering: .relaxed)
                context.close(promise: nil)
                return
            }
            var frame = context.channel.allocator.buffer(capacity: answer.count + 2)
            frame.writeInteger(UInt16(truncatingIfNeeded: answer.count))
            frame.writeBytes(answer)
            context.write(wrapOutboundOut(frame), promise: nil)
            wait(context)
        }
        buffer.discardReadBytes()
    }

    private func wait(_ context: ChannelHandlerContext) {
        deadline?.cancel()
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: Self.idle) { bound.value.close(promise: nil) }
    }
}
