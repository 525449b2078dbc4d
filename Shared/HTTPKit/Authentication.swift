import BusClient
import Contracts
import Foundation
import HTTPTypes
import Kit
import Synchronization

/// Asks `api` on the bus, and remembers the answer for two seconds: so long may a revoked token still work.
///
/// While the bus is away an answer that was good is used for up to a minute (promise P13).
public final class BusAuthenticator: Authenticator {
    private struct Known {
        var principal: Principal?
        var at: ContinuousClock.Instant
    }
    private let bus: BusClient
    private let cache = Mutex<[String: Known]>([:])

    public init(_ bus: BusClient) { self.bus = bus }

    public func authenticate(hash: String) async throws -> Principal? {
        let now = ContinuousClock.now
        let known = cache.withLock { $0[hash] }
        if let known, now - known.at < .seconds(2) { return known.principal }
        do {
            let principal = try await bus.call(Authenticate(hash: hash), timeout: 5).principal
            cache.withLock { cache in
                // Bounded: wrong tokens must not fill the memory.
                if cache.count >= 4096 { cache.removeAll() }
                cache[hash] = Known(principal: principal, at: now)
            }
            return principal
        } catch {
            if let known, known.principal != nil, now - known.at < .seconds(60) { return known.principal }
            throw Problem(.unavailable, "tokens cannot be checked now: \(error)", hint: "try again; 'slipway status' shows what is missing")
        }
    }
}

/// What a request shows as its credential.
enum Credential: Equatable {
    case none
    case token(String)
    case malformed

    init(_ fields: HTTPFields) {
        guard let header = fields[.authorization] else {
            self = .none
            return
        }
        let parts = header.split(separator: " ", maxSplits: 1)
        guard parts.count == 2 else {
            self = .malformed
            return
        }
        switch parts[0].lowercased() {
        case "bearer": self = .token(String(parts[1]))
        case "basic":
            // RFC 7617: the token is the password; the user name is for people.
            guard let data = Data(base64Encoded: String(parts[1])), let text = String(data: data, encoding: .utf8),
                let colon = text.firstIndex(of: ":")
            else {
                self = .malformed
                return
            }
            self = .token(String(text[text.index(after: colon)...]))
        default: self = .malformed
        }
    }
}
