import Foundation

/// An IP address in the form that the system writes it, so that equal addresses are equal text.
struct Address: Hashable, Sendable, CustomStringConvertible {
    let description: String
    /// 4 or 16 bytes in network order.
    let bytes: [UInt8]

    /// Nil when the text is not an IPv4 or IPv6 address.
    init?(_ text: String) {
        guard text.utf8.count <= 45 else { return nil }
        for (family, count) in [(AF_INET, 4), (AF_INET6, 16)] {
            var bytes = [UInt8](repeating: 0, count: count)
            guard inet_pton(family, text, &bytes) == 1 else { continue }
            var shown = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
            guard inet_ntop(family, bytes, &shown, socklen_t(shown.count)) != nil else { continue }
            self.bytes = bytes
            description = String(decoding: shown.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return
        }
        return nil
    }

    var isV6: Bool { bytes.count == 16 }
}
