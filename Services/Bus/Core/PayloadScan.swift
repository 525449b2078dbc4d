import Foundation

/// Finds the members `source` and `subject` of a CloudEvent in JSON without decoding it: on the way of every event, so it looks
/// at each byte about once and makes nothing.
///
/// It is more lenient than a decoder, never less: whatever any decoder would take for such a member is found, also a second one
/// of the same name (decoders differ in which counts) and one whose name or value is spelled with escapes.
enum PayloadScan {
    enum Member { case source, subject }
    enum Shape {
        /// A JSON object, as far as its braces tell.
        case object
        /// Something else, or cut short.
        case opaque
        /// A member was not approved; nothing after it was looked at.
        case refused
    }

    /// Calls `approve` with each value that is text, as UTF-8. A value of another type is no source and no subject.
    static func scan(
        _ bytes: UnsafeRawBufferPointer, wide: Bool = true, _ approve: (Member, UnsafeRawBufferPointer) -> Bool
    ) -> Shape {
        if wide, isWide(bytes) { return scanWide(bytes, approve) }
        // A byte order mark of UTF-8, which some decoders pass over.
        let mark = bytes.count >= 3 && bytes[0] == 0xEF && bytes[1] == 0xBB && bytes[2] == 0xBF ? 3 : 0
        var at = skipSpace(bytes, mark)
        guard at < bytes.count, bytes[at] == UInt8(ascii: "{") else { return .opaque }
        at += 1
        let isPlain = bytes.baseAddress.map { memchr($0, Int32(backslash), bytes.count) == nil } ?? true
        while true {
            at = skipSpace(bytes, at)
            guard at < bytes.count else { return .opaque }
            if bytes[at] == UInt8(ascii: "}") { return skipSpace(bytes, at + 1) == bytes.count ? .object : .opaque }
            if bytes[at] == UInt8(ascii: ",") {
                at += 1
                continue
            }
            guard bytes[at] == quote, let name = string(bytes, at, isPlain) else { return .opaque }
            at = skipSpace(bytes, name.end)
            guard at < bytes.count, bytes[at] == UInt8(ascii: ":") else { return .opaque }
            at = skipSpace(bytes, at + 1)
            guard at < bytes.count else { return .opaque }
            let member = member(bytes, name)
            guard bytes[at] == quote else {
                guard let end = skipValue(bytes, at, isPlain) else { return .opaque }
                at = end
                continue
            }
            guard let value = string(bytes, at, isPlain) else { return .opaque }
            at = value.end
            guard let member else { continue }
            if value.isPlain {
                guard approve(member, UnsafeRawBufferPointer(rebasing: bytes[value.start..<value.end - 1])) else { return .refused }
            } else {
                // No decoder takes a text with a wrong escape; then the whole is no JSON.
                guard let text = unescaped(bytes, value) else { return .opaque }
                guard text.withUnsafeBytes({ approve(member, $0) }) else { return .refused }
            }
        }
    }

    // MARK: Parts of JSON (RFC 8259)

    private static let quote = UInt8(ascii: "\"")
    private static let backslash = UInt8(ascii: "\\")

    /// What lies between two quotes.
    private struct Text {
        var start: Int
        /// After the closing quote.
        var end: Int
        /// It holds no escape.
        var isPlain: Bool
    }

    private static func skipSpace(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int {
        var at = start
        while at < bytes.count, bytes[at] == 0x20 || bytes[at] == 0x0A || bytes[at] == 0x0D || bytes[at] == 0x09 { at += 1 }
        return at
    }

    /// The text whose opening quote is at `open`; nil when it does not end. `isPlain`: there is no backslash in all of it.
    private static func string(_ bytes: UnsafeRawBufferPointer, _ open: Int, _ isPlain: Bool) -> Text? {
        var at = open + 1
        if isPlain {
            guard let base = bytes.baseAddress, let close = memchr(base + at, Int32(quote), bytes.count - at) else { return nil }
            return Text(start: at, end: UnsafeRawPointer(close) - base + 1, isPlain: true)
        }
        var isPlain = true
        while at < bytes.count {
            // Eight bytes at once, as long as none of them is a quote or a backslash.
            while at + 8 <= bytes.count {
                let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
                let found = matches(word, quote) | matches(word, backslash)
                guard found == 0 else {
                    at += found.trailingZeroBitCount / 8
                    break
                }
                at += 8
            }
            guard at < bytes.count else { return nil }
            switch bytes[at] {
            case quote: return Text(start: open + 1, end: at + 1, isPlain: isPlain)
            case backslash:
                isPlain = false
                at += 2
            default: at += 1
            }
        }
        return nil
    }

    /// The highest bit of the lowest byte that equals `byte` is set; of higher ones perhaps as well. 0: no byte does.
    private static func matches(_ word: UInt64, _ byte: UInt8) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let differences = word ^ (ones &* UInt64(byte))
        return (differences &- ones) & ~differences & (ones << 7)
    }

    /// Behind a number, a word, an array or an object; nil when it does not end.
    private static func skipValue(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ isPlain: Bool) -> Int? {
        var at = start
        var depth = 0
        while at < bytes.count {
            switch bytes[at] {
            case quote:
                guard let text = string(bytes, at, isPlain) else { return nil }
                at = text.end
                continue
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                // Not this value's own: the end of the object that it is in.
                if depth == 0 { return at }
                depth -= 1
                if depth == 0 { return at + 1 }
            case UInt8(ascii: ","): if depth == 0 { return at }
            default: break
            }
            at += 1
        }
        return nil
    }

    private static func member(_ bytes: UnsafeRawBufferPointer, _ name: Text) -> Member? {
        guard name.isPlain else {
            // Six bytes for each letter, as an escape; a longer one is neither.
            guard name.end - name.start <= 43, let text = unescaped(bytes, name) else { return nil }
            return text.elementsEqual("source".utf8) ? .source : text.elementsEqual("subject".utf8) ? .subject : nil
        }
        switch name.end - name.start - 1 {
        case 6: return equals(bytes, name.start, "source") ? .source : nil
        case 7: return equals(bytes, name.start, "subject") ? .subject : nil
        default: return nil
        }
    }

    private static func equals(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ word: StaticString) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        return memcmp(base + start, word.utf8Start, word.utf8CodeUnitCount) == 0
    }

    /// The text in UTF-8; nil when it has an escape that is none. Half of a pair of surrogates becomes U+FFFD.
    private static func unescaped(_ bytes: UnsafeRawBufferPointer, _ text: Text) -> [UInt8]? {
        var result: [UInt8] = []
        var at = text.start
        let end = text.end - 1
        func unit() -> UInt16? {
            guard at + 6 <= end, bytes[at] == backslash, bytes[at + 1] == UInt8(ascii: "u") else { return nil }
            return UInt16(String(decoding: bytes[at + 2..<at + 6], as: UTF8.self), radix: 16)
        }
        while at < end {
            guard bytes[at] == backslash else {
                result.append(bytes[at])
                at += 1
                continue
            }
            guard at + 1 < end else { return nil }
            switch bytes[at + 1] {
            case quote, backslash, UInt8(ascii: "/"): result.append(bytes[at + 1])
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                var units: [UInt16] = []
                while let next = unit() {
                    units.append(next)
                    at += 6
                }
                guard !units.isEmpty else { return nil }
                result.append(contentsOf: String(decoding: units, as: UTF16.self).utf8)
                continue
            default: return nil
            }
            at += 2
        }
        return result
    }

    // MARK: JSON in UTF-16 and UTF-32, which decoders of today still guess

    private static func isWide(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= 4 else { return false }
        return bytes[0] == 0 || bytes[1] == 0 || bytes[0] >= 0xFE
    }

    private static func scanWide(_ bytes: UnsafeRawBufferPointer, _ approve: (Member, UnsafeRawBufferPointer) -> Bool) -> Shape {
        let data = Data(bytes)
        for encoding in [.utf16LittleEndian, .utf16BigEndian, .utf32LittleEndian, .utf32BigEndian] as [String.Encoding] {
            guard let text = String(data: data, encoding: encoding) else { continue }
            let plain = Array(text.drop { $0 == "\u{FEFF}" }.utf8)
            if case .refused = plain.withUnsafeBytes({ scan($0, wide: false, approve) }) { return .refused }
        }
        return .opaque
    }
}
