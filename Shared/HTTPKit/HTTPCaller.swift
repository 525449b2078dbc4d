import AsyncHTTPClient
import Contracts
import Foundation
import HTTPTypes
import Kit
import NIOCore
import NIOHTTP1

/// A component's way to the HTTP of its siblings: shows the component's token, and turns their problems back into `Problem`.
public struct HTTPCaller: Sendable {
    private let token: String?
    private let client = HTTPClient.shared

    public init(_ boot: Boot) { token = boot.key.token }
    public init(token: String?) { self.token = token }

    /// Sends a request and gives the answer with its body still to be read. Throws `Problem`: `unavailable` when nobody answers,
    /// otherwise what the sibling said.
    public func send(
        _ method: HTTPMethod, _ url: String, headers: [(String, String)] = [], body: HTTPClientRequest.Body? = nil,
        timeout seconds: Double = 30,
        accept: Set<Int> = []
    ) async throws -> HTTPClientResponse {
        var request = HTTPClientRequest(url: url)
        request.method = method
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let token { request.headers.replaceOrAdd(name: "Authorization", value: "Bearer \(token)") }
        request.body = body
        let response: HTTPClientResponse
        do {
            response = try await client.execute(request, timeout: .milliseconds(Int64(seconds * 1000)))
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw Problem(.unavailable, "\(url) does not answer: \(error)", hint: "see slipway status")
        }
        let status = Int(response.status.code)
        if (200..<300).contains(status) || accept.contains(status) { return response }
        let data = Data(buffer: try await response.body.collect(upTo: 1 << 16))
        if let details = try? Coding.decode(ProblemDetails.self, from: data) {
            throw Problem(Problem.Code(rawValue: details.code), details.detail, hint: details.hint)
        }
        throw Problem(
            .failed, "\(method.rawValue) \(url) answered \(status): \(Problem.quote(String(decoding: data.prefix(200), as: UTF8.self)))")
    }

    /// The same, with a JSON answer read whole.
    public func json<T: Decodable>(_ type: T.Type, _ method: HTTPMethod, _ url: String, timeout seconds: Double = 30) async throws -> T {
        let response = try await send(method, url, timeout: seconds)
        return try Coding.decode(type, from: Data(buffer: try await response.body.collect(upTo: 8 << 20)))
    }
}
