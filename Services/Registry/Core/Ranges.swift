import Contracts

/// What part of a blob a `Range` header asks for (RFC 9110, section 14).
enum ByteRange: Equatable, Sendable {
    /// No range, another unit, or several ranges: the whole blob is a right answer to those.
    case whole
    case part(Range<Int64>)
    case unsatisfiable

    init(header: String?, size: Int64) {
        guard let header, let equals = header.firstIndex(of: "="), header[..<equals].lowercased() == "bytes" else {
            self = .whole
            return
        }
        let spec = header[header.index(after: equals)...].filter { $0 != " " && $0 != "\t" }
        guard !spec.contains(",") else {
            self = .whole
            return
        }
        let sides = spec.split(separator: "-", omittingEmptySubsequences: false)
        guard sides.count == 2 else {
            self = .unsatisfiable
            return
        }
        switch (Self.number(sides[0]), Self.number(sides[1])) {
        case (let first?, let last?) where first <= last && first < size: self = .part(first..<min(last &+ 1, size))
        case (let first?, nil) where sides[1].isEmpty && first < size: self = .part(first..<size)
        case (nil, let count?) where sides[0].isEmpty && count > 0 && size > 0: self = .part(max(0, size - count)..<size)
        default: self = .unsatisfiable
        }
    }

    /// A number too large for 63 bits counts as the largest, which is beyond the end of every blob; one less, so that adding
    /// one to it is safe.
    private static func number(_ text: some StringProtocol) -> Int64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return min(Int64(text) ?? .max, .max - 1)
    }
}

/// Which bytes of an upload a chunk brings: the `Content-Range` of the OCI specification, `START-END`, both inclusive and
/// without a unit.
struct ChunkRange: Equatable, Sendable {
    var start: Int64
    /// One past the last byte.
    var end: Int64
    var count: Int64 { end - start }

    init(_ header: String) throws(OCIError) {
        let sides = header.split(separator: "-", omittingEmptySubsequences: false)
        guard sides.count == 2, sides.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } }),
            let start = Int64(sides[0]), let last = Int64(sides[1]), last < .max, start <= last
        else {
            throw OCIError(400, .uploadInvalid, "Content-Range \(Problem.quote(header)): expected START-END, such as 0-1023")
        }
        self.start = start
        end = last + 1
    }

    /// The `Range` header that tells how far an upload has come. It has no way to say *nothing*: `0-0` is what registries send.
    static func progress(_ offset: Int64) -> String { "0-\(max(0, offset - 1))" }
}

/// A page of a listing: how many, and after which entry.
struct Paging: Equatable, Sendable {
    /// The most entries that one answer carries.
    static let cap = 1000
    var limit: Int
    var last: String?

    /// `n` above the cap means the cap; the `Link` header tells how to go on.
    init(_ parameters: Parameters, lastLimit: Int) throws(OCIError) {
        limit = Self.cap
        if let text = parameters["n"] {
            guard text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = Int(text) else {
                throw OCIError(400, .unsupported, "n=\(Problem.quote(text)): expected a whole number from 0")
            }
            limit = min(number, Self.cap)
        }
        last = parameters["last"].flatMap { $0.isEmpty ? nil : $0 }
        if let last, last.utf8.count > lastLimit {
            throw OCIError(400, .unsupported, "last=\(Problem.quote(last)): longer than any name can be")
        }
    }

    /// The header that leads to the next page; `extra` is the rest of the query, encoded.
    static func link(_ path: String, limit: Int, last: String, extra: String = "") -> String {
        "<\(path)?n=\(limit)&last=\(Percent.encode(last))\(extra)>; rel=\"next\""
    }
}
