/// A pattern for an event's `subject`, a path such as `shop/production`: `*` is one part, `**` at the end one or more.
///
/// `shop/**` matches `shop/production` and `shop/production/web`, but not `shop` itself.
public struct SubjectPattern: Name {
    private enum Part: Hashable, Sendable { case one, rest, exactly([UInt8]) }
    public let text: String
    private let parts: [Part]

    /// Throws `Problem` (`invalid_name`) when it is empty, longer than 512 bytes, has an empty part, `**` before its end, or a
    /// character that does not print.
    public init(_ text: String) throws {
        func refuse(_ why: String) -> Problem {
            Problem(
                .invalidName, "subject pattern \(Problem.quote(text)): \(why)", hint: "such as 'shop/production', 'shop/*' or 'shop/**'")
        }
        guard (1...512).contains(text.utf8.count) else { throw refuse("expected 1 to 512 bytes") }
        guard text.unicodeScalars.allSatisfy({ $0.value > 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
            throw refuse("has a space or a control character")
        }
        let pieces = text.split(separator: "/", omittingEmptySubsequences: false)
        parts = try pieces.enumerated().map { index, piece in
            switch piece {
            case "": throw refuse("has an empty part")
            case "*": return .one
            case "**":
                guard index == pieces.count - 1 else { throw refuse("'**' may only be last") }
                return .rest
            default: return .exactly(Array(piece.utf8))
            }
        }
        self.text = text
    }

    /// Whether a subject, as UTF-8, is one of those meant. Bytes are compared: another spelling of the same letters is another subject.
    public func matches(_ subject: UnsafeRawBufferPointer) -> Bool {
        let slash = UInt8(ascii: "/")
        var at = 0
        for part in parts {
            guard at < subject.count else { return false }
            var end = at
            while end < subject.count, subject[end] != slash { end += 1 }
            switch part {
            case .rest: return end > at
            case .one: guard end > at else { return false }
            case .exactly(let bytes): guard subject[at..<end].elementsEqual(bytes) else { return false }
            }
            guard end < subject.count else {
                at = end
                continue
            }
            at = end + 1
            // A slash at the end is an empty part, which no pattern has.
            guard at < subject.count else { return false }
        }
        return at == subject.count
    }
}
