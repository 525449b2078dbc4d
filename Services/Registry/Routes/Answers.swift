import Contracts
import Foundation
import HTTPKit
import HTTPTypes
import Hummingbird
import NIOCore

/// How the registry words its answers.
extension Response {
    /// An answer with the headers that all of them carry; empty unless there is a body.
    static func registry(_ status: Int, _ headers: [(String, String)] = [], body: ResponseBody = ResponseBody()) -> Response {
        var fields: HTTPFields = [:]
        for (key, value) in [("Docker-Distribution-Api-Version", "registry/2.0")] + headers {
            if let name = HTTPField.Name(key) { fields[name] = value }
        }
        return Response(status: .init(code: status), headers: fields, body: body)
    }

    static func registry(
        _ status: Int, _ headers: [(String, String)] = [], json: JSON, type: String = "application/json"
    ) throws -> Response {
        registry(status, [("Content-Type", type)] + headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: try Coding.encode(json))))
    }

    static func registry(_ error: OCIError) -> Response {
        let headers = error.headers.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        return (try? registry(error.status, headers, json: error.body)) ?? registry(error.status, headers)
    }
}

extension RegistryRoutes {
    /// Errors that arise outside our handlers (no such route, a wrong token, a failure): under `/v2` in the specification's form,
    /// elsewhere (`/health`, `/ready`) as every component words them.
    static let errors = ErrorStyle { problem, request in
        guard request.uri.path == "/v2" || request.uri.path.hasPrefix("/v2/") else { return .problem(problem) }
        var error = OCIError(problem)
        // Only Basic is offered: a client that saw Bearer would look for a token server, which there is not.
        if error.status == 401 { error.headers = OCIError.unauthorized.headers }
        if error.status == 503 || error.status == 429 { error.headers["Retry-After"] = "1" }
        return .registry(error)
    }
}
