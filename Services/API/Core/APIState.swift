import Contracts
import Kit

/// All that `api` knows: tokens and sessions, which it owns, and a read model of the log for the console and the CLI.
struct APIState: CoreState {
    /// By the token's hash, so that a lookup compares nothing secret character by character.
    var tokens = Table<TokenRow>()
    var sessions = Table<SessionRow>()
    /// `log`: the number of the last event taken. `operator`: whether that hash was imported.
    var marks = Table<String>()

    var apps = Table<AppRow>()
    var pushes = Table<PushRow>()
    var runs = Table<RunRow>()
    var releases = Table<ReleaseRow>()
    var orders = Table<OrderRow>()
    var deployments = Table<DeploymentRow>()
    var environments = Table<EnvironmentRow>()
    var instances = Table<InstanceRow>()
    var hosts = Table<HostRow>()
    var joined = Table<SessionOnBusRow>()

    init() {}

    mutating func tables(_ visit: inout some TableVisitor) throws {
        try visit.table("tokens", &tokens)
        try visit.table("sessions", &sessions)
        try visit.table("marks", &marks)
        try visit.table("apps", &apps)
        try visit.table("pushes", &pushes)
        try visit.table("runs", &runs)
        try visit.table("releases", &releases)
        try visit.table("orders", &orders)
        try visit.table("deployments", &deployments)
        try visit.table("environments", &environments)
        try visit.table("instances", &instances)
        try visit.table("hosts", &hosts)
        try visit.table("joined", &joined)
    }

    /// The number of the last event that was taken into the read model.
    var position: UInt64 { marks["log"].flatMap { UInt64($0) } ?? 0 }
}

/// Keys of the tables. Numbers are padded so that the order of keys is the order of numbers.
enum Key {
    static func release(_ app: AppName, _ number: Int) -> String { "\(app)/\(padded(number))" }
    static func run(_ app: AppName, _ number: Int) -> String { "\(app)/\(padded(number))" }
    static func push(_ app: AppName, _ commit: CommitID) -> String { "\(app)/\(commit)" }
    static func environment(_ app: AppName, _ name: EnvName) -> String { "\(app)/\(name)" }
    static func deployment(_ id: DeploymentID) -> String { "\(id.app)/\(id.environment)/\(padded(id.number))" }

    static func padded(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 9 - digits.count)) + digits
    }
}

extension Table {
    /// The rows whose key begins with this path, by key.
    func under(_ prefix: String) -> [Value] {
        keys.filter { $0.hasPrefix(prefix + "/") }.compactMap { self[$0] }
    }

    /// Forgets the first rows under the path, by key, until `limit` are left.
    mutating func keepLast(_ limit: Int, under prefix: String) {
        let found = keys.filter { $0.hasPrefix(prefix + "/") }
        for key in found.dropLast(limit) { self[key] = nil }
    }

    /// Forgets every row under the path.
    mutating func removeAll(under prefix: String) {
        for key in keys where key.hasPrefix(prefix + "/") { self[key] = nil }
    }
}
