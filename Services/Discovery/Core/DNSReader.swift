/// Reads a DNS message with every read checked: outside bytes never trap, never loop, never allocate much.
struct DNSReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var at: Int

    /// Pointers followed in one name; a name has at most 127 labels, so honest ones need far fewer.
    static let maxHops = 64

    init(_ bytes: UnsafeRawBufferPointer, at: Int = 0) {
        self.bytes = bytes
        self.at = at
    }

    var isAtEnd: Bool { at == bytes.count }

    mutating func u8() -> UInt8? {
        guard at < bytes.count else { return nil }
        defer { at += 1 }
        return bytes[at]
    }
    mutating func u16() -> UInt16? {
        guard at + 2 <= bytes.count else { return nil }
        defer { at += 2 }
        return UInt16(bytes[at]) << 8 | UInt16(bytes[at + 1])
    }
    mutating func u32() -> UInt32? {
        guard let high = u16(), let low = u16() else { return nil }
        return UInt32(high) << 16 | UInt32(low)
    }
    mutating func skip(_ count: Int) -> Bool {
        guard count >= 0, at + count <= bytes.count else { return false }
        at += count
        return true
    }

    /// A name, possibly compressed. Nil when it runs past the end, is longer than 255 bytes, has a label type other than the
    /// plain one, or points anywhere but strictly backwards into the part after the header.
    mutating func name() -> DNSName? {
        var wire: [UInt8] = []
        wire.reserveCapacity(64)
        var position = at
        var end: Int?
        var floor = at
        var hops = 0
        while true {
            guard position < bytes.count else { return nil }
            let length = bytes[position]
            switch length & 0xC0 {
            case 0x00:
                guard wire.count + Int(length) + 1 <= 255, position + 1 + Int(length) <= bytes.count else { return nil }
                wire.append(length)
                wire.append(contentsOf: bytes[position + 1..<position + 1 + Int(length)])
                position += 1 + Int(length)
                if length == 0 {
                    at = end ?? position
                    return DNSName(wire: wire)
                }
            case 0xC0:
                guard position + 1 < bytes.count else { return nil }
                let target = Int(length & 0x3F) << 8 | Int(bytes[position + 1])
                hops += 1
                // Each jump must go further back than any before: that alone ends every loop.
                guard hops <= Self.maxHops, target >= 12, target < floor else { return nil }
                if end == nil { end = position + 2 }
                floor = target
                position = target
            default: return nil
            }
        }
    }
}
