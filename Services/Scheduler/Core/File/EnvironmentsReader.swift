import Contracts
import Kit

/// The `environments:` of a `slipway.yml`.
enum EnvironmentsReader {
    static func read(_ top: Section) throws -> [EnvironmentSpec] {
        guard let tree = top.tree("environments") else { return SlipwayFile.defaultEnvironments }
        let section = try Section(open: tree, path: "environments", file: top.file)
        guard !section.all.isEmpty else {
            throw section.problem(
                "environments: names none", section.mark, hint: "remove the key: 'production' is then fed by the default branch")
        }
        guard section.all.count <= 50 else { throw section.problem("environments: more than 50", section.mark) }
        let names = section.all.map(\.key)
        let specs = try section.all.map { entry in
            let name = try section.locating(entry.mark) { try EnvName(entry.key) }
            return EnvironmentSpec(name: name, from: try source(name, entry, names: names, file: top.file))
        }
        try checkChain(specs, section)
        return specs
    }

    private static func source(_ name: EnvName, _ entry: Tree.Entry, names: [String], file: String) throws -> EnvironmentSpec.Source {
        let section = try Section(
            entry.value, path: "environments.\(name)", file: file, keys: ["from", "runtime", "tag"],
            unsupported: [
                "keep": "remove it; this version keeps all releases",
                "checks": "remove it; put what must pass before a release into 'test'",
                "approval": "remove it; feed the environment from another one, it then takes a release only on request",
                "hosts": "remove it; this version runs on one host",
            ])
        if let runtime = try section.text("runtime") { try Runtime.check(runtime, section) }
        if let tag = try section.text("tag"), tag != "v{number}" {
            throw Problem(
                .unsupported, "\(file) \(section.place("tag")): a tag other than 'v{number}' is not supported by this version of Slipway",
                hint: "remove the line")
        }
        guard let from = try section.text("from", atMost: 255) else {
            throw section.problem(
                "\(section.path): 'from' is missing", entry.mark, hint: "'branch:main', 'branch:*', or the name of another environment")
        }
        if from.hasPrefix("branch:") {
            let branch = String(from.dropFirst(7))
            guard branch == "*" || (try? RefName("refs/heads/\(branch)")) != nil else {
                throw section.problem(
                    "\(section.name("from")): \(Problem.quote(branch)) is not a branch", section.place("from"),
                    hint: "'branch:main', or 'branch:*' for all; other patterns are not supported")
            }
            return .branch(branch)
        }
        guard names.contains(from), let other = try? EnvName(from) else {
            throw section.problem(
                "\(section.name("from")): there is no environment \(Problem.quote(from))", section.place("from"),
                hint: Nearest.to(from, among: names).map { "did you mean '\($0)'?" } ?? "'branch:\(from.prefix(40))' is a branch")
        }
        return .environment(other)
    }

    private static func checkChain(_ specs: [EnvironmentSpec], _ section: Section) throws {
        for spec in specs {
            var path = [spec.name]
            var at = spec
            while case .environment(let from) = at.from, let next = specs.first(where: { $0.name == from }) {
                path.append(from)
                guard from != spec.name else {
                    throw section.problem(
                        "environments feed each other in a circle: \(path.map(\.text).joined(separator: " → "))",
                        section.place(spec.name.text), hint: "feed one of them from a branch")
                }
                guard path.count <= specs.count + 1 else { break }
                at = next
            }
        }
    }
}
