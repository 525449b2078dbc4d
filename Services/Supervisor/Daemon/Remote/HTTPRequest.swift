/// One request of HTTP/1.0 or 1.1 (RFC 9112), read strictly: what could be read in two ways is refused.
struct HTTPRequest {
    var method: String
    /// Without the query, percent-decoded.
    var path: String
    var isVersion10: Bool
    /// By lower-case name; of several with one name the last.
    var headers: [String: String]
    var body: [UInt8] = []

    var wantsToClose: Bool {
        let connection = headers["connection"]?.lowercased() ?? ""
        return isVersion10 ? !connection.contains("keep-alive") : connection.contains("close")
    }
}

/// Takes requests out of a stream of bytes.
struct HTTPReader {
    struct Refusal: Error {
        var status: Int
        var why: String
    }
    enum Step {
        case more
        /// The head is complete and asks to be told so before the body is sent.
        case proceed
        case request(HTTPRequest)
    }
    static let mostHead = 32 << 10
    static let mostBody = 1 << 20

    private var bytes: [UInt8] = []
    private var head: HTTPRequest?
    private var framing = Framing.none

    private enum Framing {
        case none
        case length(Int)
        case chunked
    }

    /// Whether a request has begun and is not complete.
    var isInside: Bool { head != nil || !bytes.isEmpty }

    mutating func append(_ more: UnsafeRawBufferPointer) { bytes.append(contentsOf: more) }
    var waiting: Int { bytes.count }

    /// The next request, if it is complete.
    mutating func next() throws(Refusal) -> Step {
        var isNew = false
        if head == nil {
            // Empty lines before a request are passed over (RFC 9112, 2.2).
            while bytes.starts(with: [13, 10]) { bytes.removeFirst(2) }
            if bytes == [13] { return .more }
            guard let end = Self.end(of: bytes) else {
                if bytes.count > Self.mostHead { throw Refusal(status: 431, why: "the head of the request is larger than 32 KiB") }
                // What cannot become a request is refused before it is complete.
                if let first = bytes.first, !Self.isToken(first) { throw Refusal(status: 400, why: "this is no HTTP request") }
                return .more
            }
            if end > Self.mostHead { throw Refusal(status: 431, why: "the head of the request is larger than 32 KiB") }
            let text = Array(bytes[..<end])
            bytes.removeFirst(end + 4)
            head = try readHead(text)
            isNew = true
        }
        guard var request = head else { return .more }
        switch framing {
        case .none: break
        case .length(let length):
            guard bytes.count >= length else {
                return isNew && request.headers["expect"]?.lowercased() == "100-continue" ? .proceed : .more
            }
            request.body = Array(bytes[..<length])
            bytes.removeFirst(length)
        case .chunked:
            guard let (body, used) = try Self.chunks(bytes) else {
                return isNew && request.headers["expect"]?.lowercased() == "100-continue" ? .proceed : .more
            }
            request.body = body
            bytes.removeFirst(used)
        }
        head = nil
        framing = .none
        return .request(request)
    }

    private static func end(of bytes: [UInt8]) -> Int? {
        var at = 0
        while at + 3 < bytes.count {
            if bytes[at] == 13, bytes[at + 1] == 10, bytes[at + 2] == 13, bytes[at + 3] == 10 { return at }
            at += 1
            if at > mostHead { return nil }
        }
        return nil
    }

    private mutating func readHead(_ text: [UInt8]) throws(Refusal) -> HTTPRequest {
        guard String(validating: text, as: UTF8.self) != nil, !text.contains(0) else {
            throw Refusal(status: 400, why: "the head is not text")
        }
        var lines = Lines(text)
        guard let first = try lines.next(), let words = Self.requestLine(first) else {
            throw Refusal(status: 400, why: "this is no HTTP request")
        }
        guard words.version == "HTTP/1.1" || words.version == "HTTP/1.0" else {
            throw Refusal(status: words.version.hasPrefix("HTTP/") ? 505 : 400, why: "expected HTTP/1.0 or HTTP/1.1")
        }
        var headers: [String: String] = [:]
        var count = 0
        while let line = try lines.next() {
            count += 1
            guard count <= 100 else { throw Refusal(status: 431, why: "more than 100 header fields") }
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex, line[..<colon].allSatisfy(Self.isToken)
            else {
                throw Refusal(status: 400, why: "a header field cannot be read")
            }
            let key = String(decoding: line[..<colon].map { (65...90).contains($0) ? $0 + 32 : $0 }, as: UTF8.self)
            var value = line[(colon + 1)...]
            while value.first == 32 || value.first == 9 { value.removeFirst() }
            while value.last == 32 || value.last == 9 { value.removeLast() }
            let text = String(decoding: value, as: UTF8.self)
            if key == "content-length" || key == "transfer-encoding" || key == "authorization", let before = headers[key], before != text {
                throw Refusal(status: 400, why: "two header fields \(key)")
            }
            headers[key] = text
        }
        framing = .none
        if let coding = headers["transfer-encoding"] {
            guard coding.lowercased() == "chunked", headers["content-length"] == nil, words.version == "HTTP/1.1" else {
                throw Refusal(status: 400, why: "the length of the body can be read in two ways")
            }
            framing = .chunked
        } else if let length = headers["content-length"] {
            guard !length.isEmpty, length.utf8.allSatisfy({ (48...57).contains($0) }) else {
                throw Refusal(status: 400, why: "the content length is no number")
            }
            guard let number = Int(length), number <= Self.mostBody else {
                throw Refusal(status: 413, why: "the body is larger than 1 MiB")
            }
            framing = .length(number)
        } else if words.method == "POST" || words.method == "PUT" {
            throw Refusal(status: 411, why: "a content length is needed")
        }
        guard let path = Self.path(words.target) else { throw Refusal(status: 400, why: "the path cannot be decoded") }
        return HTTPRequest(method: words.method, path: path, isVersion10: words.version == "HTTP/1.0", headers: headers)
    }

    /// Lines that end with CR and LF, and hold neither.
    private struct Lines {
        private let text: [UInt8]
        private var at = 0
        init(_ text: [UInt8]) { self.text = text }

        mutating func next() throws(Refusal) -> ArraySlice<UInt8>? {
            guard at <= text.count else { return nil }
            let start = at
            while at < text.count {
                if text[at] == 13 || text[at] == 10 {
                    guard text[at] == 13, at + 1 < text.count, text[at + 1] == 10 else {
                        throw Refusal(status: 400, why: "a line ends with less than CR and LF")
                    }
                    defer { at += 2 }
                    return text[start..<at]
                }
                at += 1
            }
            at = text.count + 1
            return text[start...]
        }
    }

    private static func requestLine(_ line: ArraySlice<UInt8>) -> (method: String, target: String, version: String)? {
        let words = line.split(separator: 32, maxSplits: 3, omittingEmptySubsequences: false)
        guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(isToken) else { return nil }
        let target = String(decoding: words[1], as: UTF8.self)
        guard target.hasPrefix("/") || target.hasPrefix("http://") else { return nil }
        return (String(decoding: words[0], as: UTF8.self), target, String(decoding: words[2], as: UTF8.self))
    }

    /// Without scheme, host and query; nil when it holds a wrong escape or a NUL.
    private static func path(_ target: String) -> String? {
        var rest = Array(target.utf8)[...]
        if target.hasPrefix("http://") { rest = rest.dropFirst(7).drop { $0 != UInt8(ascii: "/") } }
        if let query = rest.firstIndex(of: UInt8(ascii: "?")) { rest = rest[..<query] }
        var bytes: [UInt8] = []
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16), value != 0 else {
                return nil
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// The body and how many bytes it took; nil when it is not complete.
    private static func chunks(_ bytes: [UInt8]) throws(Refusal) -> ([UInt8], Int)? {
        var body: [UInt8] = []
        var at = 0
        while true {
            guard let end = line(bytes, from: at) else {
                if bytes.count - at > 1024 { throw Refusal(status: 400, why: "the size of a chunk cannot be read") }
                return nil
            }
            let text = String(decoding: bytes[at..<end], as: UTF8.self)
            let digits = text.prefix { $0 != ";" }.trimmed
            guard digits.utf8.count <= 8, !digits.isEmpty, !digits.hasPrefix("+"), let size = Int(digits, radix: 16), size >= 0 else {
                throw Refusal(status: 400, why: "the size of a chunk cannot be read")
            }
            guard body.count + size <= mostBody else { throw Refusal(status: 413, why: "the body is larger than 1 MiB") }
            at = end + 2
            if size == 0 {
                // Trailers are passed over.
                var lines = 0
                while let end = line(bytes, from: at) {
                    let isLast = end == at
                    at = end + 2
                    lines += 1
                    if isLast { return (body, at) }
                    if lines > 100 { throw Refusal(status: 431, why: "more than 100 trailer fields") }
                }
                return nil
            }
            guard bytes.count >= at + size + 2 else { return nil }
            body += bytes[at..<(at + size)]
            guard bytes[at + size] == 13, bytes[at + size + 1] == 10 else {
                throw Refusal(status: 400, why: "a chunk is longer than it says")
            }
            at += size + 2
        }
    }

    private static func line(_ bytes: [UInt8], from start: Int) -> Int? {
        var at = start
        while at + 1 < bytes.count {
            if bytes[at] == 13, bytes[at + 1] == 10 { return at }
            at += 1
        }
        return nil
    }

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}
