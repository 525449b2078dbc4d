/// Numbers of the protocol (IANA, *Domain Name System Parameters*).
enum DNS {
    static let headerSize = 12
    /// The largest UDP message in either direction with EDNS: fits an IPv6 packet everywhere.
    static let udpLimit = 1232
    static let plainLimit = 512
    static let tcpLimit = 65_535

    enum Code: UInt16, Sendable {
        case noError = 0, formErr = 1, servFail = 2, nxDomain = 3, notImp = 4, refused = 5
        /// Needs EDNS: the high bits travel in the OPT record.
        case badVers = 16
    }
    enum Kind {
        static let a: UInt16 = 1
        static let ns: UInt16 = 2
        static let soa: UInt16 = 6
        static let aaaa: UInt16 = 28
        static let srv: UInt16 = 33
        static let opt: UInt16 = 41
        /// Types that are questions about a whole zone or server, from TKEY to ANY (RFC 6895, section 3.1).
        static let meta: ClosedRange<UInt16> = 128...255
    }
    static let internet: UInt16 = 1
}

/// What a datagram or a TCP frame asks.
struct DNSQuery: Sendable {
    struct Question: Sendable {
        var name: DNSName
        var type: UInt16
        var klass: UInt16
    }
    struct EDNS: Sendable {
        /// What the client says it can take, in bytes.
        var size: UInt16
        var version: UInt8
        var wantsDNSSEC: Bool
    }

    var id: UInt16
    var opcode: UInt8
    var recursionDesired: Bool
    var checkingDisabled: Bool
    /// Nil: none was readable.
    var question: Question?
    var edns: EDNS?
    /// Anything but `noError`: what the query itself deserves, before its name is looked at.
    var fault: DNS.Code = .noError

    /// Nil: nothing to answer, because it is too short for a header or is itself an answer (never answer an answer: two
    /// servers would talk for ever).
    init?(_ bytes: UnsafeRawBufferPointer) {
        var reader = DNSReader(bytes)
        guard let id = reader.u16(), let flags = reader.u16(), let questions = reader.u16(), let answers = reader.u16(),
            let authorities = reader.u16(), let additionals = reader.u16(), flags & 0x8000 == 0
        else { return nil }
        self.id = id
        opcode = UInt8(truncatingIfNeeded: flags >> 11 & 0xF)
        recursionDesired = flags & 0x0100 != 0
        checkingDisabled = flags & 0x0010 != 0
        guard opcode == 0 else {
            fault = .notImp
            return
        }
        guard questions == 1, let name = reader.name(), let type = reader.u16(), let `class` = reader.u16() else {
            fault = .formErr
            return
        }
        question = Question(name: name, type: type, klass: `class`)
        guard readRecords(&reader, count: Int(answers) + Int(authorities), optionAllowed: false),
            readRecords(&reader, count: Int(additionals), optionAllowed: true), reader.isAtEnd
        else {
            fault = .formErr
            return
        }
        if let edns, edns.version != 0 {
            fault = .badVers
        }
    }

    /// Walks over records; only an OPT among the additional ones means something. False when they are malformed.
    private mutating func readRecords(_ reader: inout DNSReader, count: Int, optionAllowed: Bool) -> Bool {
        for _ in 0..<count {
            guard let name = reader.name(), let type = reader.u16(), let `class` = reader.u16(), let ttl = reader.u32(),
                let length = reader.u16()
            else { return false }
            guard type == DNS.Kind.opt else {
                guard reader.skip(Int(length)) else { return false }
                continue
            }
            guard optionAllowed, edns == nil, name.isRoot else { return false }
            let end = reader.at + Int(length)
            while reader.at < end {
                guard reader.u16() != nil, let size = reader.u16(), reader.at + Int(size) <= end, reader.skip(Int(size)) else {
                    return false
                }
            }
            guard reader.at == end else { return false }
            edns = EDNS(size: `class`, version: UInt8(truncatingIfNeeded: ttl >> 16), wantsDNSSEC: ttl & 0x8000 != 0)
        }
        return true
    }
}
