import Contracts
import Foundation

/// Reads a `slipway.yml` into a `Pipeline`, every default filled in (docs/slipway.yml.md is its reference).
///
/// A key of the format that this version cannot honour is refused by name, never read and forgotten.
enum SlipwayFile {
    static let name = "slipway.yml"
    static let mostServices = 50
    /// Bytes of one command line.
    static let longestCommand = 8192
    static let defaultEnvironments: [EnvironmentSpec] =
        (try? EnvName("production")).map { [EnvironmentSpec(name: $0, from: .defaultBranch)] } ?? []

    static func read(_ data: Data, app: AppName) throws -> Pipeline {
        guard let root = try TreeParser.parse(data, file: name) else {
            throw Problem(.invalid, "\(name): is empty", hint: "it needs at least 'services:' (docs/slipway.yml.md)")
        }
        let top = try Section(
            root, path: "", file: name, keys: ["app", "build", "test", "services", "routes", "environments"],
            unsupported: [
                "schedules": "remove it; call what it ran from a cron of your own",
                "notify": "remove it; follow 'slipway events -f --json' instead",
            ])
        if let named = try top.text("app"), named != app.text {
            throw top.problem(
                "app: \(Problem.quote(named)), but this is the repository of '\(app)'", top.place("app"),
                hint: "write 'app: \(app)', or remove the line")
        }
        var pipeline = Pipeline(config: ReleaseConfig(services: [], routes: [], environments: []))
        pipeline.test = try top.texts("test", atMost: 100, bytes: longestCommand)
        try build(top, into: &pipeline)
        pipeline.config.services = try ServicesReader.read(top)
        pipeline.config.routes = try RoutesReader.read(top, services: pipeline.config.services)
        pipeline.config.environments = try EnvironmentsReader.read(top)
        return pipeline
    }

    private static func build(_ top: Section, into pipeline: inout Pipeline) throws {
        guard let tree = top.tree("build") else { return }
        let build = try Section(
            tree, path: "build", file: name, keys: ["run", "artifact"],
            unsupported: [
                "cache": "remove it; every build begins with a clean checkout",
                "image": "remove it; use build.run and build.artifact, this version runs bundles and not images",
            ])
        pipeline.build = try build.texts("run", atMost: 100, bytes: longestCommand)
        if let artifact = try build.text("artifact") {
            pipeline.artifact = try build.locating(build.place("artifact")) { try Values.path(artifact, "build.artifact") }
        }
    }
}
