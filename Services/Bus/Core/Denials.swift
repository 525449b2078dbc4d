import Contracts
import Wire

/// Which refusals have been told: a client that asks the same again and again must not fill the log of anybody.
struct Denials: Sendable {
    private struct What: Hashable {
        var user: String
        var command: String
        var what: String
    }
    static let interval: Int64 = 60_000
    /// In one interval, of all clients together.
    static let most = 60

    private var told: [What: Int64] = [:]

    /// Whether this one is to be told now.
    mutating func isNew(_ user: String, _ command: String, _ what: String, _ now: Int64) -> Bool {
        let key = What(user: user, command: command, what: what)
        if told[key] != nil || told.count >= Self.most { return false }
        told[key] = now
        return true
    }

    mutating func tick(_ now: Int64) {
        guard !told.isEmpty else { return }
        told = told.filter { now - $0.value < Self.interval }
    }
}

extension Router {
    mutating func deny(_ user: String, _ command: Command, _ what: String, _ now: Int64) { deny(user, command.name, what, now) }

    /// Notes a refusal for the operator: a line, and an event. At most once a minute for the same key and thing. `command` is EB/1's,
    /// or the method and path of a request over HTTP.
    mutating func deny(_ user: String, _ command: String, _ what: String, _ now: Int64) {
        counts.denied += 1
        let what = String(what.prefix(200))
        guard denials.isNew(user, command, what, now) else { return }
        let name = user.isEmpty ? "unknown" : user
        effects.append(.note(.notice, "'\(name)' was refused: \(command) \(Problem.quote(what))"))
        announce(BusDenied(key: name, command: command, what: what))
    }
}
