import Contracts
import Foundation

/// What a commit asks for: the commands of its run, and the configuration of the release that it may become.
struct Pipeline: Codable, Hashable, Sendable {
    /// Command lines; empty: no test job.
    var test: [String] = []
    /// Command lines; may be empty, the bundle is then the checkout itself.
    var build: [String] = []
    /// What becomes the bundle: a path in the checkout, `.` for all of it.
    var artifact = "."
    var config: ReleaseConfig

    /// Reads the file that the commit has. Throws a `Problem` that names line, column and key.
    static func read(_ file: ConfigFile, app: AppName) throws -> Pipeline {
        switch file {
        case .slipway(let data): try SlipwayFile.read(data, app: app)
        case .procfile(let data): try Procfile.read(data)
        case .none:
            throw Problem(
                .notFound, "no slipway.yml and no Procfile at this commit",
                hint: "add a Procfile with a line such as 'web: python3 app.py', or a slipway.yml (docs/slipway.yml.md)")
        case .unreadable(let problem): throw problem
        }
    }
}

/// What was found at a commit.
enum ConfigFile: Codable, Hashable, Sendable {
    case slipway(Data)
    case procfile(Data)
    case none
    /// It cannot be had, now or later.
    case unreadable(Problem)
}

extension [EnvironmentSpec] {
    /// The environments that a push to the branch feeds, in the file's order.
    func fed(by branch: String?, isDefault: Bool) -> [EnvName] {
        guard let branch else { return [] }
        return filter { spec in
            switch spec.from {
            case .branch(let wanted): wanted == "*" || wanted == branch
            case .defaultBranch: isDefault
            case .environment: false
            }
        }.map(\.name)
    }
}
