import BusClient
import Contracts
import HTTPKit
import Hummingbird
import Kit

/// What the routes share: the state to look at, the loop to hand orders to, the bus to follow.
struct Desk: Sendable {
    let boot: Boot
    let loop: Loop<APICore>
    let identity: Identity

    func read<T: Sendable>(_ body: @Sendable (APIState) throws -> T) async throws -> T { try await loop.read(body) }

    /// The app, when it exists and the holder's rights reach it; otherwise the one answer for both.
    func app(_ context: SlipwayContext) async throws -> AppRow {
        let name = try context.app()
        guard let row = try await read({ $0.apps[name.text] }) else { throw Problem.noApp(name.text) }
        return row
    }

    /// Hands an order to the core; returns the id under which it will be in the log. Durable when it returns.
    func order(_ notice: APINotice, by principal: Principal) async throws -> EventID {
        let request = EventID.fresh(boot.now())
        try await loop.submit(notice, actor: principal.name, id: request)
        // The core publishes the order first, so its id is the first that is derived from the request's.
        return EventID.derived(from: request, component: boot.component.rawValue, ordinal: 1)
    }

    /// The address under which this request's sender reaches the git component.
    func gitURL(_ request: Request) -> String {
        let authority = request.head.authority ?? ""
        let host = authority.hasPrefix("[") ? String(authority.prefix { $0 != "]" }) + "]" : String(authority.prefix { $0 != ":" })
        return "http://\(host.isEmpty ? boot.config.reach : host):\(boot.config.port(.git))"
    }
}

extension SlipwayContext {
    /// Who asks. Routes with a right other than `open` and `custom` always have one.
    func holder() throws -> Principal {
        guard let principal else { throw Problem.tokenNeeded }
        return principal
    }
}

extension Request {
    /// The query parameter as a name. Throws `Problem` when it breaks the name's rule; nil when it is not there or empty.
    func name<N: Name>(_ key: String, as type: N.Type) throws -> N? {
        guard let text = query(key), !text.isEmpty else { return nil }
        return try N(text)
    }

    /// The environment that is asked for. A token of one environment asks for that one also when it names none; another is out of reach.
    func environment(for context: SlipwayContext) throws -> EnvName? {
        let asked = try name("environment", as: EnvName.self)
        let holder = try context.holder()
        guard let own = holder.environment else { return asked }
        guard asked == nil || asked == own else { throw Problem.outOfReach(holder) }
        return own
    }

    /// `v3` or `3` as a release number.
    func release(_ key: String) throws -> Int? {
        guard let text = query(key), !text.isEmpty else { return nil }
        return try ReleaseNumber.parse(text)
    }

    /// Whether a switch such as `follow` is on: there with no value, `1` or `true`.
    func flag(_ key: String) -> Bool {
        guard let text = query(key) else { return false }
        return text.isEmpty || text == "1" || text == "true"
    }
}

enum ReleaseNumber {
    /// Throws `Problem` (`invalid`) when the text is not a release.
    static func parse(_ text: String) throws -> Int {
        guard let number = Int(text.hasPrefix("v") ? String(text.dropFirst()) : text), number > 0 else {
            throw Problem(
                .invalid, "release \(Problem.quote(text)): expected v and a number",
                hint: "for example v3; 'slipway releases APP' lists them")
        }
        return number
    }
}

/// Gives up after that many seconds with the problem. The work is cancelled then.
func withDeadline<T: Sendable>(_ seconds: Double, _ late: Problem, _ work: @escaping @Sendable () async throws -> T) async throws -> T {
    try await withThrowingTaskGroup(of: T.self) { group in
        group.addTask { try await work() }
        group.addTask {
            try await Task.sleep(for: .seconds(seconds))
            throw late
        }
        defer { group.cancelAll() }
        guard let first = try await group.next() else { throw late }
        return first
    }
}
