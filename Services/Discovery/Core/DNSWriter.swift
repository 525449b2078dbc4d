/// Writes one answer within a limit. Records are written whole or not at all.
struct DNSWriter {
    private(set) var bytes: [UInt8]
    private let limit: Int
    /// Bytes kept free for the OPT record.
    private let reserve: Int
    private var counts: (answers: UInt16, authorities: UInt16, additionals: UInt16) = (0, 0, 0)

    enum Section { case answer, authority, additional }
    /// Where the question's name stands: answers point to it.
    static let questionOffset = 12

    init(_ query: DNSQuery, limit: Int) {
        self.limit = limit
        reserve = query.edns == nil ? 0 : 11
        bytes = []
        bytes.reserveCapacity(min(limit, 512))
        append(query.id)
        append(
            0x8000 | UInt16(query.opcode) << 11 | (query.recursionDesired ? 0x0100 : 0) | (query.checkingDisabled ? 0x0010 : 0))
        append(query.question == nil ? 0 : 1)
        for _ in 0..<3 { append(0) }
        if let question = query.question {
            bytes.append(contentsOf: question.name.wire)
            append(question.type)
            append(question.klass)
        }
    }

    mutating func setAuthoritative() { bytes[2] |= 0x04 }
    mutating func setTruncated() { bytes[2] |= 0x02 }

    /// Appends a record. False, and nothing is written, when it does not fit. Gives the data's offset otherwise.
    mutating func record(_ section: Section, owner: Owner, type: UInt16, ttl: UInt32, data: [UInt8]) -> Int? {
        let ownerSize =
            switch owner {
            case .pointer: 2
            case .name(let name): name.wire.count
            }
        guard bytes.count + ownerSize + 10 + data.count + reserve <= limit, data.count <= Int(UInt16.max) else { return nil }
        switch owner {
        case .pointer(let offset): append(0xC000 | UInt16(truncatingIfNeeded: offset))
        case .name(let name): bytes.append(contentsOf: name.wire)
        }
        append(type)
        append(DNS.internet)
        append(UInt16(truncatingIfNeeded: ttl >> 16))
        append(UInt16(truncatingIfNeeded: ttl))
        append(UInt16(truncatingIfNeeded: data.count))
        let offset = bytes.count
        bytes.append(contentsOf: data)
        switch section {
        case .answer: counts.answers += 1
        case .authority: counts.authorities += 1
        case .additional: counts.additionals += 1
        }
        return offset
    }

    enum Owner {
        /// A name that stands at this offset already; only offsets below 16384 can be pointed to.
        case pointer(Int)
        case name(DNSName)
        /// Points when it can.
        static func at(_ offset: Int, _ name: DNSName) -> Owner { offset < 0x4000 ? .pointer(offset) : .name(name) }
    }

    /// Fills in counts, code and OPT.
    mutating func finish(_ code: DNS.Code, edns: DNSQuery.EDNS?) -> [UInt8] {
        bytes[3] = bytes[3] & 0xF0 | UInt8(truncatingIfNeeded: code.rawValue & 0xF)
        if let edns {
            bytes.append(0)
            append(DNS.Kind.opt)
            append(UInt16(DNS.udpLimit))
            bytes.append(UInt8(truncatingIfNeeded: code.rawValue >> 4))
            bytes.append(0)
            append(edns.wantsDNSSEC ? 0x8000 : 0)
            append(0)
            counts.additionals += 1
        }
        put(counts.answers, at: 6)
        put(counts.authorities, at: 8)
        put(counts.additionals, at: 10)
        return bytes
    }

    private mutating func append(_ value: UInt16) {
        bytes.append(UInt8(truncatingIfNeeded: value >> 8))
        bytes.append(UInt8(truncatingIfNeeded: value))
    }
    private mutating func put(_ value: UInt16, at offset: Int) {
        bytes[offset] = UInt8(truncatingIfNeeded: value >> 8)
        bytes[offset + 1] = UInt8(truncatingIfNeeded: value)
    }
}
