/// A running copy of a service: `shop/production/web/3`. The number is never reused within its service and environment.
public struct InstanceID: Name {
    public let app: AppName
    public let environment: EnvName
    public let service: ServiceName
    public let number: Int

    public init(app: AppName, environment: EnvName, service: ServiceName, number: Int) {
        self.app = app
        self.environment = environment
        self.service = service
        self.number = number
    }
    public init(_ text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 4, let number = Int(parts[3]), number > 0, String(number) == parts[3] else {
            throw Problem(.invalidName, "instance \(Problem.quote(text)): expected APP/ENVIRONMENT/SERVICE/NUMBER")
        }
        self.init(app: try AppName(parts[0]), environment: try EnvName(parts[1]), service: try ServiceName(parts[2]), number: number)
    }
    public var text: String { "\(app)/\(environment)/\(service)/\(number)" }
    /// The same with dots, for file names.
    public var fileName: String { "\(app).\(environment).\(service).\(number)" }
}

/// A job of a run: `shop/run-12/build`.
public struct JobID: Name {
    public let app: AppName
    public let run: Int
    public let name: ServiceName

    public init(app: AppName, run: Int, name: ServiceName) {
        self.app = app
        self.run = run
        self.name = name
    }
    public init(_ text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, parts[1].hasPrefix("run-"), let run = Int(parts[1].dropFirst(4)), run > 0 else {
            throw Problem(.invalidName, "job \(Problem.quote(text)): expected APP/run-NUMBER/NAME")
        }
        self.init(app: try AppName(parts[0]), run: run, name: try ServiceName(parts[2]))
    }
    public var text: String { "\(app)/run-\(run)/\(name)" }
    public var fileName: String { "\(app).run-\(run).\(name)" }
}

/// A deployment: `shop/production/7`, numbered within its environment.
public struct DeploymentID: Name {
    public let app: AppName
    public let environment: EnvName
    public let number: Int

    public init(app: AppName, environment: EnvName, number: Int) {
        self.app = app
        self.environment = environment
        self.number = number
    }
    public init(_ text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, let number = Int(parts[2]), number > 0 else {
            throw Problem(.invalidName, "deployment \(Problem.quote(text)): expected APP/ENVIRONMENT/NUMBER")
        }
        self.init(app: try AppName(parts[0]), environment: try EnvName(parts[1]), number: number)
    }
    public var text: String { "\(app)/\(environment)/\(number)" }
}
