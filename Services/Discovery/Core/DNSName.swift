/// A domain name in wire form (RFC 1035, section 3.1): labels with a length byte each, then a zero.
struct DNSName: Hashable, Sendable {
    /// As it was asked, in its case.
    let wire: [UInt8]

    init(wire: [UInt8]) { self.wire = wire }

    /// From labels that are known to be valid.
    init(_ labels: [String]) {
        var wire: [UInt8] = []
        for label in labels {
            wire.append(UInt8(truncatingIfNeeded: label.utf8.count))
            wire.append(contentsOf: label.utf8)
        }
        wire.append(0)
        self.wire = wire
    }

    /// The key by which names are found: ASCII letters in lower case (RFC 4343). Length bytes are below 64 and not touched.
    var key: DNSName { DNSName(wire: wire.map { $0 >= 0x41 && $0 <= 0x5A ? $0 | 0x20 : $0 }) }

    /// Whether the name is this one or below it; both in lower case.
    func isAtOrBelow(_ other: DNSName) -> Bool {
        guard wire.count >= other.wire.count else { return false }
        // A suffix of bytes is a suffix of labels only where a label begins.
        var at = 0
        while at < wire.count - other.wire.count { at += Int(wire[at]) + 1 }
        return at == wire.count - other.wire.count && wire[at...].elementsEqual(other.wire)
    }

    /// The name without its first label; nil for the root.
    var parent: DNSName? {
        guard let length = wire.first, length > 0 else { return nil }
        return DNSName(wire: Array(wire[(Int(length) + 1)...]))
    }

    var isRoot: Bool { wire == [0] }
}
