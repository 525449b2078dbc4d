/// Git's framing (gitprotocol-common, "pkt-line Format"): four hexadecimal digits with the length including themselves.
enum PktLine {
    static let flush: [UInt8] = Array("0000".utf8)
    /// Bytes of payload in one line.
    static let limit = 65_516

    /// One line; what does not fit is cut off.
    static func data(_ payload: some Collection<UInt8>) -> [UInt8] {
        let kept = payload.prefix(limit)
        let digits = String(kept.count + 4, radix: 16)
        return Array((String(repeating: "0", count: 4 - digits.utf8.count) + digits).utf8) + kept
    }

    static func text(_ text: String) -> [UInt8] { data(Array(text.utf8)) }

    /// A side-band packet (gitprotocol-pack): band 1 is data, 2 is shown as `remote: …`, 3 is a fatal error.
    static func band(_ number: UInt8, _ payload: some Collection<UInt8>) -> [UInt8] { data([number] + payload.prefix(limit - 1)) }

    /// The lengths that may stand in front: nil when the four bytes are none. 0, 1 and 2 are markers without payload.
    static func length(_ header: some Collection<UInt8>) -> Int? {
        guard header.count == 4 else { return nil }
        var value = 0
        for byte in header {
            switch byte {
            case 0x30...0x39: value = value << 4 | Int(byte - 0x30)
            case 0x61...0x66: value = value << 4 | Int(byte - 0x57)
            case 0x41...0x46: value = value << 4 | Int(byte - 0x37)
            default: return nil
            }
        }
        return value == 3 || value > 65_520 ? nil : value
    }
}
