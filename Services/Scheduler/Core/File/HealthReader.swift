import Contracts

/// `services.NAME.health`.
enum HealthReader {
    static func read(_ service: Section, hasPorts: Bool) throws -> HealthSpec {
        var health = HealthSpec(check: hasPorts ? .tcp : .running)
        guard let tree = service.tree("health") else { return health }
        let section = try Section(
            tree, path: service.name("health"), file: service.file, keys: ["http", "tcp", "interval", "timeout", "healthy", "grace"],
            unsupported: ["exec": "use 'http' or 'tcp'"])
        guard !(section.has("http") && section.has("tcp")) else {
            throw section.problem("\(section.path): has both 'http' and 'tcp'", section.place("tcp"), hint: "keep one")
        }
        if section.has("http") || section.has("tcp"), !hasPorts {
            throw section.problem("\(section.path): the service has no port to check", section.mark, hint: "add 'ports: {http: 8080}'")
        }
        if let path = try section.text("http", atMost: 1024) {
            health.check = .http(path: try section.locating(section.place("http")) { try checked(path, section.name("http")) })
        }
        if let tree = section.tree("tcp"), !tree.isNull {
            guard case .scalar("true", plain: true) = tree.kind else {
                throw section.problem(
                    "\(section.name("tcp")): expected 'true', found \(tree.words)", tree.mark, hint: "it checks the first port")
            }
        }
        health.interval = try section.duration("interval") ?? health.interval
        health.timeout = try section.duration("timeout") ?? health.timeout
        health.healthy = try section.whole("healthy", 1...100) ?? health.healthy
        health.grace = try section.duration("grace") ?? health.grace
        // A process without a port counts as ready after `healthy` intervals, one with a check after that many checks.
        let intervals = health.check == .running ? health.healthy : health.healthy - 1
        let least = Double(intervals) * health.interval
        guard least < health.grace else {
            throw section.problem(
                "\(section.path): \(health.healthy) checks at this interval take \(seconds(least)), longer than the grace of \(seconds(health.grace)): it could never become ready",
                section.mark, hint: "lengthen 'grace', or shorten 'interval'")
        }
        return health
    }

    private static func seconds(_ value: Double) -> String { value == value.rounded() ? "\(Int(value))s" : "\(value)s" }

    /// A path on the instance itself and nothing that leads elsewhere.
    private static func checked(_ path: String, _ key: String) throws -> String {
        guard path.hasPrefix("/"), !path.hasPrefix("//"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), !path.contains("\\"),
            !path.contains("#")
        else {
            throw Problem(.invalid, "\(key): \(Problem.quote(path)) is not a path on the instance itself", hint: "for example /healthz")
        }
        return path
    }
}
