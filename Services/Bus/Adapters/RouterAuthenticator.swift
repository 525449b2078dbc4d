import Contracts
import HTTPKit

/// Whose a token is. The bus has no bus client: it asks `api` through its own router, and remembers the answer for two seconds.
///
/// While `api` is away an answer that was good is used for up to a minute (promise P13); the suite's own tokens (components, the
/// operator's) are known from the key files and always good.
final class RouterAuthenticator: Authenticator {
    private struct Known: Sendable {
        var principal: Principal?
        var at: Int64
    }
    private let broker: Broker
    private let robots: @Sendable () -> [String: String]
    private let known = Locked<[String: Known]>([:])

    /// `robots`: SHA-256 of a token to the component's name, or `admin`.
    init(_ broker: Broker, robots: @escaping @Sendable () -> [String: String]) {
        self.broker = broker
        self.robots = robots
    }

    func authenticate(hash: String) async throws -> Principal? {
        let now = Clock.monotonic()
        let remembered = known.withLock { $0[hash] }
        if let remembered, now - remembered.at < 2000 { return remembered.principal }
        let principal: Principal?
        do {
            principal = try await broker.call(Authenticate(hash: hash), milliseconds: 5000).principal
        } catch {
            if let remembered, remembered.principal != nil, now - remembered.at < 60_000 { return remembered.principal }
            guard let owner = robots()[hash] else {
                throw Problem(
                    .unavailable, "tokens cannot be checked now: \(error)", hint: "try again; 'slipway status' shows what is missing")
            }
            principal = Principal(name: owner == "admin" ? "admin" : "component:\(owner)", role: .admin)
        }
        known.withLock { known in
            // Bounded: wrong tokens must not fill the memory.
            if known.count >= 4096 { known.removeAll() }
            known[hash] = Known(principal: principal, at: now)
        }
        return principal
    }
}
