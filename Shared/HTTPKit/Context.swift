import Contracts
import Hummingbird
import Logging
import NIOCore

/// What a handler knows of its request beside the request itself.
public struct SlipwayContext: RequestContext {
    public var coreContext: CoreRequestContextStorage
    public let channel: any Channel
    /// Who asks; nil when nobody was authenticated.
    public var principal: Principal?

    public init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// Bytes of a body that is collected whole.
    public var maxUploadSize: Int { 1 << 20 }
    /// The address of the peer, without port.
    public var peer: String { channel.remoteAddress?.ipAddress ?? "local" }

    /// The named path parameter, percent-decoded. Throws `Problem` (`malformed`) when it is missing.
    public func parameter(_ name: String) throws -> String {
        guard let text = parameters.get(name) else { throw Problem(.malformed, "the path lacks '\(name)'") }
        return text
    }
    /// The app named in the path. Not a name at all answers as missing does.
    public func app() throws -> AppName {
        let text = try parameter("app")
        do { return try AppName(text) } catch { throw Problem.noApp(text) }
    }
}

extension Problem {
    /// One answer for an app that does not exist and for one that may not be seen.
    public static func noApp(_ text: String) -> Problem {
        Problem(
            .notFound, "app \(Problem.quote(text)) does not exist, or your token does not reach it",
            hint: "slipway app list shows what it reaches")
    }
}

/// The right that a route asks for.
public enum Right: Sendable, Hashable {
    /// Anybody, also without a token.
    case open
    /// At least this role.
    case role(Role)
    /// At least this role on the app in the path parameter `app`.
    case app(Role)
    /// A program of the suite itself.
    case component
    /// The handler decides; a wrong token is refused all the same.
    case custom
}

/// Finds out whose a token is.
public protocol Authenticator: Sendable {
    /// Nil: nobody's. Throws `Problem` (`unavailable`) when that cannot be told now.
    func authenticate(hash: String) async throws -> Principal?
}
