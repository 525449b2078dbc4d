import Contracts
import GRDB
import HTTPKit
import HTTPTypes
import Hummingbird
import Logging

/// The OCI Distribution API (specification 1.1) under `/v2/`.
///
/// A repository's name has slashes, so the router of the framework cannot tell the routes apart: it brings everything here, and
/// `RegistryPath` reads the path from the right.
struct RegistryRoutes: Sendable {
    let store: RegistryStore
    let files: BlobFiles
    let desk: UploadDesk
    let config: RegistryConfig
    let metrics: Metrics
    let logger: Logger
    let now: @Sendable () -> Timestamp
    /// Wakes what sends the outbox to the bus.
    let changed: @Sendable () -> Void

    /// One request, with what was found out about it.
    struct Call: Sendable {
        var request: Request
        var principal: Principal
        var query: Parameters
        func header(_ name: String) -> String? { HTTPField.Name(name).flatMap { request.headers[$0] } }
    }

    func install(in routes: Routes) {
        for method in [HTTPRequest.Method.get, .head, .post, .put, .patch, .delete, .options, .trace] {
            for path in ["/v2", "/v2/**"] {
                routes.on(method, path, .custom) { request, context in
                    do {
                        return try await answer(request, context.principal)
                    } catch let error as OCIError {
                        return .registry(error)
                    } catch let error as DatabaseError where error.resultCode == .SQLITE_FULL {
                        throw Problem(
                            .storageFull, "the registry's disk is full", hint: "free space below its home directory and push again")
                    }
                }
            }
        }
    }

    private func answer(_ request: Request, _ principal: Principal?) async throws -> Response {
        guard let principal else { throw OCIError.unauthorized }
        let path = try RegistryPath(request.uri.path)
        let call = Call(request: request, principal: principal, query: try Parameters(request.uri.query))
        let method = request.method
        switch path {
        case .base:
            guard method == .get || method == .head else { throw notOffered(method, "GET, HEAD") }
            return try .registry(200, json: .object([:]))
        case .catalog:
            guard method == .get else { throw notOffered(method, "GET") }
            return try await catalog(call)
        case .tags(let name):
            guard method == .get else { throw notOffered(method, "GET") }
            return try await tags(of: try checked(name, call), call)
        case .referrers(let name, let digest):
            guard method == .get else { throw notOffered(method, "GET") }
            return try await referrers(to: digest, in: try checked(name, call), call)
        case .blob(let name, let digest):
            let name = try checked(name, call)
            switch method {
            case .get, .head: return try await readBlob(digest, in: name, call)
            case .delete: return try await deleteBlob(digest, in: name, call)
            default: throw notOffered(method, "GET, HEAD, DELETE")
            }
        case .manifest(let name, let reference):
            let name = try checked(name, call)
            switch method {
            case .get, .head: return try await readManifest(reference, in: name, call)
            case .put: return try await putManifest(reference, in: name, call)
            case .delete: return try await deleteManifest(reference, in: name, call)
            default: throw notOffered(method, "GET, HEAD, PUT, DELETE")
            }
        case .uploads(let name):
            guard method == .post else { throw notOffered(method, "POST") }
            return try await beginUpload(in: try checked(name, call), call)
        case .upload(let name, let id):
            let name = try checked(name, call)
            switch method {
            case .get: return try await uploadStatus(id, in: name, call)
            case .patch: return try await patchUpload(id, in: name, call)
            case .put: return try await finishUpload(id, in: name, call)
            case .delete: return try await cancelUpload(id, in: name, call)
            default: throw notOffered(method, "GET, PATCH, PUT, DELETE")
            }
        }
    }

    private func notOffered(_ method: HTTPRequest.Method, _ allowed: String) -> OCIError {
        OCIError(405, .unsupported, "\(method.rawValue) is not offered here", headers: ["Allow": allowed])
    }

    /// Clients hold host and name together to 255 bytes: a longer one could be pushed and then not be named.
    private func checked(_ name: RepositoryName, _ call: Call) throws(OCIError) -> RepositoryName {
        let host = call.request.head.authority?.utf8.count ?? 0
        guard name.text.utf8.count + host + 1 <= RepositoryName.limit else {
            throw .nameInvalid(name.text, "with the host's it is longer than \(RepositoryName.limit) bytes")
        }
        return name
    }

    /// For reading, what may not be seen answers as what is not there (`missing`). For writing, a refusal is the same whether the
    /// repository exists or not.
    func allow(_ action: Access.Action, _ name: RepositoryName, _ call: Call, missing: OCIError) throws(OCIError) {
        guard !Access.allows(call.principal, action, name) else { return }
        throw action == .pull ? missing : .denied(action, name)
    }
    func allow(_ action: Access.Action, _ name: RepositoryName, _ call: Call) throws(OCIError) {
        try allow(action, name, call, missing: .nameUnknown(name))
    }

    func change(_ call: Call) -> RegistryStore.Change { .init(actor: call.principal.name, now: now()) }
}
