import Contracts

/// How long a stream that broke is worth coming back to. A component that is started again is away for a moment; a suite that
/// was stopped does not come back.
struct Outage {
    /// Seconds that the api may be away.
    static let patience = 60.0

    let client: Client
    private var began = false
    private var lostAt: ContinuousClock.Instant?

    init(_ client: Client) { self.client = client }

    /// The stream is open.
    mutating func opened() { began = true }
    /// Something came.
    mutating func heard() { lostAt = nil }

    /// Returns when it is worth trying again; otherwise throws the problem.
    mutating func endure(_ problem: Problem) throws {
        guard problem.code == .unavailable, began, !client.isLocal || KeeperRecord.load(client.home)?.isAlive == true else { throw problem }
        let since = lostAt ?? .now
        lostAt = since
        guard ContinuousClock.now - since < .seconds(Self.patience) else { throw problem }
    }
}
