import Contracts
import Crypto
import Foundation

extension EventID {
    /// A fresh UUID version 7 (RFC 9562, section 5.7): where a chain of events begins.
    public static func fresh(_ now: Timestamp = .now()) -> EventID {
        var bytes = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
        let milliseconds = UInt64(bitPattern: now.milliseconds)
        for index in 0..<6 { bytes[index] = UInt8(truncatingIfNeeded: milliseconds >> UInt64(40 - 8 * index)) }
        return EventID(uuid(bytes, version: 7))
    }

    /// A UUID version 8 (RFC 9562, section 5.8) from SHA-256 over cause, component and ordinal: a handler that runs twice
    /// makes the same ids.
    public static func derived(from cause: EventID, component: String, ordinal: Int) -> EventID {
        derived(from: "\(cause)/\(component)/\(ordinal)")
    }

    /// The same from any text that names one happening and no other.
    public static func derived(from text: String) -> EventID {
        EventID(uuid(Array(SHA256.hash(data: Data(text.utf8)).prefix(16)), version: 8))
    }

    private static func uuid(_ source: [UInt8], version: UInt8) -> UUID {
        var b = source
        b[6] = (b[6] & 0x0F) | (version << 4)
        b[8] = (b[8] & 0x3F) | 0x80
        return UUID(uuid: (b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]))
    }
}

extension Timestamp {
    /// The wall clock. For edges only: cores have it passed in.
    public static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }
}

/// An opaque credential: `slp_`, 32 random bytes in base 62, and 6 characters that tell a slip of the pen from a wrong token.
public enum Token {
    private static let alphabet = Array("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)

    public static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        // 43 characters of base 62 hold 256 bits.
        let body = String(decoding: (0..<43).map { _ in alphabet[Int.random(in: 0..<62, using: &generator)] }, as: UTF8.self)
        return "slp_\(body)\(check(body))"
    }

    /// Whether the text has the form of a token and its check characters agree.
    public static func isWellFormed(_ text: String) -> Bool {
        guard text.hasPrefix("slp_"), text.utf8.count == 53 else { return false }
        let body = String(text.dropFirst(4).prefix(43))
        return text.hasSuffix(check(body)) && body.utf8.allSatisfy { alphabet.contains($0) }
    }

    /// SHA-256 in lower-case hexadecimal: what is stored and what travels instead of the token.
    public static func hash(_ token: String) -> String {
        SHA256.hash(data: Data(token.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    private static func check(_ body: String) -> String {
        String(decoding: SHA256.hash(data: Data("slipway token \(body)".utf8)).prefix(6).map { alphabet[Int($0) % 62] }, as: UTF8.self)
    }
}
