import Contracts

/// What is answered when a request cannot be met, in the form of the OCI Distribution specification ("Error Codes").
struct OCIError: Error, Equatable, Sendable {
    /// The specification's list; clients look at nothing else.
    enum Code: String, Sendable {
        case blobUnknown = "BLOB_UNKNOWN"
        case uploadInvalid = "BLOB_UPLOAD_INVALID"
        case uploadUnknown = "BLOB_UPLOAD_UNKNOWN"
        case digestInvalid = "DIGEST_INVALID"
        case manifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
        case manifestInvalid = "MANIFEST_INVALID"
        case manifestUnknown = "MANIFEST_UNKNOWN"
        case nameInvalid = "NAME_INVALID"
        case nameUnknown = "NAME_UNKNOWN"
        case sizeInvalid = "SIZE_INVALID"
        case unauthorized = "UNAUTHORIZED"
        case denied = "DENIED"
        case unsupported = "UNSUPPORTED"
        case tooManyRequests = "TOOMANYREQUESTS"
    }

    var status: Int
    var code: Code
    var message: String
    /// For programs; free in form.
    var detail: JSON?
    /// Headers that the answer carries beside the usual ones.
    var headers: [String: String]

    init(_ status: Int, _ code: Code, _ message: String, detail: JSON? = nil, headers: [String: String] = [:]) {
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers
    }

    /// The body of the answer.
    var body: JSON {
        var entry: [String: JSON] = ["code": .string(code.rawValue), "message": .string(message)]
        if let detail { entry["detail"] = detail }
        return .object(["errors": .array([.object(entry)])])
    }

    /// What a problem of the suite is called here. The specification has no code for "the server failed"; `UNSUPPORTED` is what
    /// comes nearest, and the status says the rest.
    init(_ problem: Problem) {
        let code: Code =
            switch problem.code {
            case .unauthenticated: .unauthorized
            case .forbidden: .denied
            case .tooMany, .unavailable: .tooManyRequests
            case .tooLarge: .sizeInvalid
            case .invalidName: .nameInvalid
            case .notFound: .nameUnknown
            default: .unsupported
            }
        let status = problem.status == 422 ? 400 : problem.status
        self.init(status, code, problem.description)
    }
}

extension OCIError {
    static func nameInvalid(_ text: String, _ why: String) -> OCIError {
        OCIError(400, .nameInvalid, "repository name \(Problem.quote(text)): \(why)")
    }
    static func digestInvalid(_ text: String) -> OCIError {
        OCIError(400, .digestInvalid, "digest \(Problem.quote(text)): expected sha256: or sha512: and lower-case hexadecimal digits")
    }
    static func blobUnknown(_ digest: Digest) -> OCIError {
        OCIError(404, .blobUnknown, "blob unknown to this repository", detail: .object(["digest": .string(digest.text)]))
    }
    static func manifestUnknown(_ reference: String) -> OCIError {
        OCIError(
            404, .manifestUnknown, "manifest unknown to this repository",
            detail: .object(["reference": .string(String(reference.prefix(200)))]))
    }
    static func nameUnknown(_ name: RepositoryName) -> OCIError {
        OCIError(404, .nameUnknown, "repository \(name) is not known here")
    }
    static let uploadUnknown = OCIError(404, .uploadUnknown, "no such upload: it ended, expired or belongs to somebody else")
    static func manifestInvalid(_ why: String) -> OCIError { OCIError(400, .manifestInvalid, "manifest: \(why)") }
    static let unauthorized = OCIError(
        401, .unauthorized, "log in first: the password is a token made with 'slipway token create'",
        headers: ["WWW-Authenticate": "Basic realm=\"slipway\""])
    static func denied(_ action: Access.Action, _ name: RepositoryName) -> OCIError {
        OCIError(403, .denied, "this token may not \(action.rawValue) \(name)", detail: .object(["action": .string(action.rawValue)]))
    }
}
