import AsyncHTTPClient
import Contracts
import Foundation
import Kit

/// HTTP to the api, with the token in the header and problems turned back into `Problem`.
struct Client: Sendable {
    enum Method: String { case get = "GET", post = "POST", delete = "DELETE" }

    var base: String
    let token: String
    /// Where the git component answers.
    let git: String
    /// Whether it is the suite of `home` on this machine.
    let isLocal: Bool
    let home: Home

    /// Asks, and gives the answer as it came. Throws `Problem`: `unavailable` when nobody answers, otherwise what the api said.
    func data(
        _ method: Method, _ path: String, _ query: [(String, String?)] = [], body: JSON? = nil, timeout seconds: Double = 30
    ) async throws -> Data {
        let response = try await send(method, path, query, body: body, headers: [], timeout: seconds)
        do {
            var collected = Data()
            for try await buffer in response.body {
                guard collected.count < 256 << 20 else { throw Problem(.tooLarge, "the answer is larger than 256 MiB") }
                collected.append(contentsOf: buffer.readableBytesView)
            }
            return collected
        } catch let problem as Problem {
            throw problem
        } catch {
            throw Problem(.unavailable, "\(base) stopped answering", hint: "try again; slipway status")
        }
    }

    func json(
        _ method: Method, _ path: String, _ query: [(String, String?)] = [], body: JSON? = nil, timeout seconds: Double = 30
    ) async throws -> JSON {
        try Coding.decode(JSON.self, from: try await data(method, path, query, body: body, timeout: seconds))
    }

    /// An event stream. Ends when the server ends it.
    func events(_ path: String, _ query: [(String, String?)], lastEventID: String?) async throws -> EventStream {
        var headers = [("Accept", "text/event-stream")]
        if let lastEventID { headers.append(("Last-Event-ID", lastEventID)) }
        return EventStream(body: try await send(.get, path, query, body: nil, headers: headers, timeout: nil).body)
    }

    private func send(
        _ method: Method, _ path: String, _ query: [(String, String?)], body: JSON?, headers: [(String, String)], timeout seconds: Double?
    ) async throws -> HTTPClientResponse {
        var request = HTTPClientRequest(url: base + path + Self.encoded(query))
        request.method = .init(rawValue: method.rawValue)
        request.headers.add(name: "Authorization", value: "Bearer \(token)")
        request.headers.add(name: "User-Agent", value: "slipway/\(Version.text)")
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let body {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(try Coding.encode(body))
        }
        let response = try await execute(request, seconds)
        guard (200..<300).contains(response.status.code) else { throw await Self.problem(response) }
        return response
    }

    /// One that tells of a refused connection at once; how long to be patient is decided below. It lives as long as the program.
    private static let http: HTTPClient = {
        var configuration = HTTPClient.Configuration()
        configuration.connectionPool.retryConnectionEstablishment = false
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

    /// A suite on this machine whose api is being started again is given a moment: a refused connection has changed nothing.
    private func execute(_ request: HTTPClientRequest, _ seconds: Double?) async throws -> HTTPClientResponse {
        let clock = ContinuousClock()
        let patience = clock.now + .seconds(isLocal && KeeperRecord.load(home)?.keeper.isAlive == true ? 10 : 0)
        while true {
            do {
                if let seconds {
                    return try await Self.http.execute(request, timeout: .milliseconds(Int64(seconds * 1000)))
                }
                return try await Self.http.execute(request, deadline: .distantFuture)
            } catch {
                let text = "\(error)"
                let isRefused = text.contains("refused") || text.contains("ECONNREFUSED") || text.contains("errno: 111")
                if isRefused, clock.now < patience {
                    try await Task.sleep(for: .milliseconds(100))
                    continue
                }
                if isRefused, isLocal, KeeperRecord.load(home)?.isAlive != true {
                    throw Problem(.unavailable, "Slipway is not running in \(home.path): nothing answers at \(base)", hint: "slipway up")
                }
                throw Problem(
                    .unavailable, Self.explain(text, base),
                    hint: isLocal ? "slipway up; slipway doctor" : "see that the address is right: slipway login URL")
            }
        }
    }

    private static func explain(_ error: String, _ base: String) -> String {
        if error.contains("refused") || error.contains("errno: 111") { return "nothing answers at \(base)" }
        if error.contains("deadlineExceeded") || error.contains("imeout") { return "\(base) did not answer in time" }
        if error.contains("certificate") { return "the certificate of \(base) is not trusted, or is for another name" }
        if error.contains("resolve") || error.contains("NIOConnectionError") { return "\(base) cannot be reached" }
        return "\(base) cannot be reached (\(Terminal.inert(error, limit: 120)))"
    }

    private static func problem(_ response: HTTPClientResponse) async -> Problem {
        var data = Data()
        do {
            for try await buffer in response.body where data.count < 1 << 16 { data.append(contentsOf: buffer.readableBytesView) }
        } catch {}
        if let details = try? Coding.decode(JSON.self, from: data), let detail = details["detail"]?.string {
            return Problem(Problem.Code(rawValue: details["code"]?.string ?? "failed"), detail, hint: details["hint"]?.string)
        }
        return Problem(.failed, "the server answered \(response.status.code)", hint: "is this the address of a Slipway api?")
    }

    static func encoded(_ query: [(String, String?)]) -> String {
        let pairs = query.compactMap { name, value in value.map { "\(name)=\(escaped($0))" } }
        return pairs.isEmpty ? "" : "?" + pairs.joined(separator: "&")
    }

    /// For one segment of a path or one value of a query (RFC 3986, unreserved characters stay).
    static func escaped(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                result.append(Character(Unicode.Scalar(byte)))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                result += "%" + (digits.count == 1 ? "0" : "") + digits
            }
        }
        return result
    }
}
