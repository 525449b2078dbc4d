import Contracts
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

extension Response {
    /// JSON with sorted keys.
    public static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) throws -> Response {
        data(try Coding.encode(value), type: "application/json", status: status, headers: headers)
    }
    /// UTF-8 text.
    public static func text(_ text: String, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        data(Data(text.utf8), type: "text/plain; charset=utf-8", status: status, headers: headers)
    }
    public static func data(_ data: Data, type: String, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var fields = headers
        fields[.contentType] = type
        return Response(status: status, headers: fields, body: ResponseBody(byteBuffer: ByteBuffer(bytes: data)))
    }
    /// `application/problem+json` (RFC 9457).
    public static func problem(_ problem: Problem, correlation: String? = nil) -> Response {
        let body = ProblemDetails(
            type: "urn:slipway:problem:\(problem.code.rawValue)", title: problem.code.rawValue.replacing("_", with: " "),
            status: problem.status,
            detail: problem.message, hint: problem.hint, code: problem.code.rawValue, correlation: correlation)
        var fields: HTTPFields = [:]
        if problem.code == .unauthenticated {
            fields[.wwwAuthenticate] = "Basic realm=\"slipway\", charset=\"UTF-8\""
            fields.append(HTTPField(name: .wwwAuthenticate, value: "Bearer realm=\"slipway\""))
        }
        if problem.code == .unavailable || problem.code == .tooMany { fields[.retryAfter] = "1" }
        let encoded = (try? Coding.encode(body)) ?? Data()
        return data(encoded, type: "application/problem+json", status: .init(code: problem.status), headers: fields)
    }

    /// Server-sent events (WHATWG HTML, 9.2), each flushed as it comes. The stream's end ends the answer; when the client
    /// goes away the stream is dropped, which its producer sees as `onTermination`. A comment goes out every 15 idle seconds.
    public static func events(_ stream: AsyncStream<ServerSentEvent>) -> Response {
        var fields: HTTPFields = [:]
        fields[.contentType] = "text/event-stream; charset=utf-8"
        fields[.cacheControl] = "no-store"
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: ": open\n\n"))
                for await event in beating(stream) { try await writer.write(ByteBuffer(string: event.text)) }
                try await writer.finish(nil)
            })
    }

    /// Adds an empty comment whenever the stream has been silent for 15 seconds, so that a dead client is noticed.
    private static func beating(_ stream: AsyncStream<ServerSentEvent>) -> AsyncStream<ServerSentEvent> {
        AsyncStream(bufferingPolicy: .bufferingOldest(4096)) { continuation in
            let task = Task {
                await withTaskGroup(of: Void.self) { group in
                    group.addTask {
                        while !Task.isCancelled {
                            do { try await Task.sleep(for: .seconds(15)) } catch { return }
                            continuation.yield(.comment)
                        }
                    }
                    for await event in stream {
                        // A client that cannot keep up is cut off and comes back with Last-Event-ID; it never gets a gap.
                        if case .dropped = continuation.yield(event) { break }
                    }
                    group.cancelAll()
                }
                continuation.finish()
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }
}

/// One server-sent event.
public struct ServerSentEvent: Sendable, Hashable {
    public var id: String?
    public var event: String?
    public var data: String?
    public init(id: String? = nil, event: String? = nil, data: String?) {
        self.id = id
        self.event = event
        self.data = data
    }
    static let comment = ServerSentEvent(data: nil)

    var text: String {
        guard let data else { return ":\n\n" }
        var text = ""
        if let id { text += "id: \(id)\n" }
        if let event { text += "event: \(event)\n" }
        for line in data.split(separator: "\n", omittingEmptySubsequences: false) { text += "data: \(line)\n" }
        return text + "\n"
    }
}

struct ProblemDetails: Codable {
    var type: String
    var title: String
    var status: Int
    var detail: String
    var hint: String?
    var code: String
    var correlation: String?
}

extension Request {
    /// The body as JSON. Throws `Problem`: 415 when it is declared as something else, 413 over the limit, 400 when it does not fit.
    public func json<T: Decodable & Sendable>(_ type: T.Type, _ context: SlipwayContext, limit: Int = 1 << 20) async throws -> T {
        let declared = headers[.contentType].map { $0.prefix { $0 != ";" }.lowercased() }
        if let declared, !declared.hasSuffix("/json"), !declared.hasSuffix("+json") {
            throw Problem(.unsupportedMedia, "the body is \(Problem.quote(declared)); expected application/json")
        }
        return try Coding.decode(type, from: try await bytes(limit: limit))
    }

    /// The whole body. Throws `Problem` (`too_large`) while reading, not after.
    public func bytes(limit: Int) async throws -> Data {
        var collected = Data()
        for try await buffer in body {
            guard collected.count + buffer.readableBytes <= limit else {
                throw Problem(.tooLarge, "the body is larger than \(limit) bytes")
            }
            collected.append(contentsOf: buffer.readableBytesView)
        }
        return collected
    }

    /// The query parameter, percent-decoded; nil when it is not there.
    public func query(_ name: String) -> String? { uri.queryParameters[name[...]].map(String.init) }

    /// A whole number in the query. Throws `Problem` (`malformed`) outside the range.
    public func integer(_ name: String, in range: ClosedRange<Int>, default fallback: Int) throws -> Int {
        guard let text = query(name) else { return fallback }
        guard let value = Int(text), range.contains(value) else {
            throw Problem(
                .malformed, "\(name)=\(Problem.quote(text)): expected a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }
}
