/// Answers a query from a zone. Pure: bytes in, bytes out.
struct DNSResponder: Sendable {
    enum Transport: Sendable { case udp, tcp }

    let zone: Zone

    /// The answer; nil: silence. `turn` says with which of several equal records to begin.
    func answer(_ bytes: UnsafeRawBufferPointer, over transport: Transport, turn: Int) -> [UInt8]? {
        guard let query = DNSQuery(bytes) else { return nil }
        var writer = DNSWriter(query, limit: Self.limit(query, transport))
        let code = fill(&writer, query, turn)
        return writer.finish(code, edns: query.edns)
    }

    /// Bytes that the answer may have.
    private static func limit(_ query: DNSQuery, _ transport: Transport) -> Int {
        switch transport {
        case .tcp: DNS.tcpLimit
        case .udp: query.edns.map { min(max(Int($0.size), DNS.plainLimit), DNS.udpLimit) } ?? DNS.plainLimit
        }
    }

    private func fill(_ writer: inout DNSWriter, _ query: DNSQuery, _ turn: Int) -> DNS.Code {
        guard query.fault == .noError, let question = query.question else { return query.fault }
        let name = question.name.key
        // Only the Internet class, only our names, and nothing that asks for a whole zone or for a record of the server.
        guard question.klass == DNS.internet, !DNS.Kind.meta.contains(question.type), question.type != DNS.Kind.opt,
            name.isAtOrBelow(Zone.apex)
        else { return .refused }
        writer.setAuthoritative()
        guard let node = zone.nodes[name] else {
            negative(&writer)
            return .nxDomain
        }
        switch question.type {
        case DNS.Kind.a, DNS.Kind.aaaa:
            addresses(&writer, node.addresses(question.type), question.type, turn)
        case DNS.Kind.srv:
            services(&writer, node.srv, turn)
        case DNS.Kind.soa where name == Zone.apex:
            if writer.record(.answer, owner: .pointer(DNSWriter.questionOffset), type: DNS.Kind.soa, ttl: Zone.negativeTTL, data: zone.soa)
                == nil
            {
                writer.setTruncated()
            }
        case DNS.Kind.ns where name == Zone.apex:
            nameServers(&writer)
        default:
            negative(&writer)
        }
        return .noError
    }

    private func addresses(_ writer: inout DNSWriter, _ records: [[UInt8]], _ type: UInt16, _ turn: Int) {
        guard !records.isEmpty else { return negative(&writer) }
        for index in records.indices {
            let data = records[(index &+ turn) % records.count]
            guard writer.record(.answer, owner: .pointer(DNSWriter.questionOffset), type: type, ttl: Zone.ttl, data: data) != nil else {
                return writer.setTruncated()
            }
        }
    }

    private func services(_ writer: inout DNSWriter, _ records: [Zone.Target], _ turn: Int) {
        guard !records.isEmpty else { return negative(&writer) }
        var written: [(target: Zone.Target, offset: Int)] = []
        for index in records.indices {
            let target = records[(index &+ turn) % records.count]
            guard
                let offset = writer.record(
                    .answer, owner: .pointer(DNSWriter.questionOffset), type: DNS.Kind.srv, ttl: Zone.ttl, data: target.data)
            else { return writer.setTruncated() }
            written.append((target, offset))
        }
        // A courtesy that saves the client a question each; when it does not fit, it is simply not there.
        for (target, offset) in written {
            let type = target.address.isV6 ? DNS.Kind.aaaa : DNS.Kind.a
            // The target's name stands behind priority, weight and port.
            guard
                writer.record(
                    .additional, owner: .at(offset + 6, target.name), type: type, ttl: Zone.ttl, data: target.address.bytes) != nil
            else { return }
        }
    }

    private func nameServers(_ writer: inout DNSWriter) {
        guard
            let offset = writer.record(
                .answer, owner: .pointer(DNSWriter.questionOffset), type: DNS.Kind.ns, ttl: Zone.negativeTTL, data: zone.ns)
        else { return writer.setTruncated() }
        guard let address = zone.nameServer else { return }
        _ = writer.record(
            .additional, owner: .pointer(offset), type: address.isV6 ? DNS.Kind.aaaa : DNS.Kind.a, ttl: Zone.negativeTTL,
            data: address.bytes)
    }

    /// Says that there is nothing, and for how long that may be believed (RFC 2308).
    private func negative(_ writer: inout DNSWriter) {
        _ = writer.record(.authority, owner: .name(Zone.apex), type: DNS.Kind.soa, ttl: Zone.negativeTTL, data: zone.soa)
    }
}
