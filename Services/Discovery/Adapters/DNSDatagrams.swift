import NIOCore

/// Answers datagrams, a vector of them at a time.
///
/// Lives on one event loop; nothing of it is touched from elsewhere.
final class DNSDatagrams: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    private let zone: CurrentZone
    private let counters: DNSCounters
    private var turn = 0

    init(zone: CurrentZone, counters: DNSCounters) {
        self.zone = zone
        self.counters = counters
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        turn &+= 1
        counters.udp.wrappingAdd(1, ordering: .relaxed)
        let responder = DNSResponder(zone: zone.value)
        // When the socket's buffer is full the answer is lost, as any datagram may be: the client asks again.
        guard let answer = envelope.data.withUnsafeReadableBytes({ responder.answer($0, over: .udp, turn: turn & .max) }),
            context.channel.isWritable
        else {
            counters.silent.wrappingAdd(1, ordering: .relaxed)
            return
        }
        var metadata: AddressedEnvelope<ByteBuffer>.Metadata?
        if let asked = envelope.metadata?.packetInfo {
            metadata = .init(ecnState: .transportNotCapable, packetInfo: asked)
        }
        let reply = AddressedEnvelope(
            remoteAddress: envelope.remoteAddress, data: context.channel.allocator.buffer(bytes: answer), metadata: metadata)
        context.write(wrapOutboundOut(reply), promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

    /// A client that is gone sends back ICMP errors; they concern its question only.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}
