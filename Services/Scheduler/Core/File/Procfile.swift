import Contracts
import Foundation

/// A `Procfile`: one `name: command line` a line. `web` gets a port named `http`, other processes none.
enum Procfile {
    /// What `web` would listen on in a container; runtime `process` gives it a free port instead.
    static let port = 8080

    static func read(_ data: Data) throws -> Pipeline {
        let text = try TextFile.read(data, file: "Procfile")
        var services: [ServiceSpec] = []
        for (offset, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            guard !trimmed.isEmpty, !trimmed.hasPrefix("#") else { continue }
            let service = try service(trimmed, line: offset + 1)
            guard !services.contains(where: { $0.name == service.name }) else {
                throw Problem(.invalid, "Procfile line \(offset + 1): '\(service.name)' appears twice", hint: "remove one")
            }
            services.append(service)
        }
        guard !services.isEmpty else {
            throw Problem(.invalid, "Procfile: names no process", hint: "add a line such as 'web: python3 app.py'")
        }
        guard services.count <= SlipwayFile.mostServices else {
            throw Problem(.invalid, "Procfile: more than \(SlipwayFile.mostServices) processes")
        }
        return Pipeline(config: ReleaseConfig(services: services, routes: [], environments: SlipwayFile.defaultEnvironments))
    }

    private static func service(_ line: String, line number: Int) throws -> ServiceSpec {
        guard let colon = line.firstIndex(of: ":") else {
            throw Problem(.invalid, "Procfile line \(number): expected 'name: command'", hint: "for example 'web: python3 app.py'")
        }
        let label = line[..<colon].trimmingCharacters(in: .whitespaces)
        let command = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        guard label != "release" else {
            throw Problem(
                .unsupported, "Procfile line \(number): the 'release' process is not supported by this version of Slipway",
                hint: "remove the line; run such a step before you push, or when 'web' starts")
        }
        let name: ServiceName
        do {
            name = try ServiceName(label)
        } catch let problem as Problem {
            throw Problem(.invalid, "Procfile line \(number): \(problem.message)", hint: problem.hint)
        }
        guard !command.isEmpty else { throw Problem(.invalid, "Procfile line \(number): '\(name)' has no command") }
        guard command.utf8.count <= SlipwayFile.longestCommand else {
            throw Problem(.invalid, "Procfile line \(number): command is longer than \(SlipwayFile.longestCommand) bytes")
        }
        let ports = name.text == "web" ? [PortSpec(name: try ServiceName("http"), number: port)] : []
        return ServiceSpec(name: name, run: command, ports: ports, health: HealthSpec(check: ports.isEmpty ? .running : .tcp))
    }
}
