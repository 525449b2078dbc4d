import Contracts
import Kit

/// The `services:` of a `slipway.yml`.
enum ServicesReader {
    static func read(_ top: Section) throws -> [ServiceSpec] {
        guard let tree = top.tree("services") else {
            throw top.problem(
                "'services' is missing: there is nothing to run", top.mark,
                hint: "add for example: services: {web: {run: ./server, ports: {http: 8080}}}")
        }
        let section = try Section(open: tree, path: "services", file: top.file)
        guard !section.all.isEmpty else { throw section.problem("services: names none", section.mark) }
        guard section.all.count <= SlipwayFile.mostServices else {
            throw section.problem("services: more than \(SlipwayFile.mostServices)", section.mark)
        }
        let services = try section.all.map { entry in
            let name = try section.locating(entry.mark) { try ServiceName(entry.key) }
            return try service(name, entry.value, file: top.file)
        }
        try Needs.check(services, section)
        return services
    }

    private static func service(_ name: ServiceName, _ tree: Tree, file: String) throws -> ServiceSpec {
        let section = try Section(
            tree, path: "services.\(name)", file: file,
            keys: ["run", "ports", "instances", "needs", "health", "stop", "limits", "env", "rollout", "runtime"],
            unsupported: [
                "image": "use 'run'; this version runs bundles and not images",
                "volumes": "remove it; keep data outside the app, for example in a database that Slipway does not deploy",
                "deploy": "remove it; run such a step at the beginning of 'run'",
                "schedule": "remove it",
            ])
        guard let run = try section.text("run", atMost: SlipwayFile.longestCommand) else {
            throw section.problem(
                "services.\(name): 'run' is missing", section.mark,
                hint: "the command line that starts it, such as 'run: ./server --port $PORT'")
        }
        guard !run.unicodeScalars.contains("\0") else { throw section.problem("services.\(name).run: has a NUL", section.place("run")) }
        try rollout(section)
        if let runtime = try section.text("runtime") { try Runtime.check(runtime, section) }
        var spec = ServiceSpec(name: name, run: run)
        spec.ports = try ports(section)
        // An ingress route takes no more than 128.
        spec.instances = try section.whole("instances", spec.ports.isEmpty ? 0...1000 : 0...128) ?? 1
        spec.needs = try section.list("needs", atMost: SlipwayFile.mostServices).map { item in
            let text = try section.text(item, section.name("needs"), atMost: 64)
            return try section.locating(item.mark, "needs") { try ServiceName(text) }
        }
        spec.health = try HealthReader.read(section, hasPorts: !spec.ports.isEmpty)
        spec.stop = try stop(section)
        spec.limits = try limits(section)
        spec.environment = try environment(section)
        return spec
    }

    private static func ports(_ service: Section) throws -> [PortSpec] {
        guard let tree = service.tree("ports") else { return [] }
        let section = try Section(open: tree, path: service.name("ports"), file: service.file)
        guard section.all.count <= 20 else { throw section.problem("\(section.path): more than 20", section.mark) }
        var ports: [PortSpec] = []
        for entry in section.all {
            let name = try section.locating(entry.mark, nil) { try ServiceName(entry.key) }
            guard let number = try section.whole(entry.key, 1...65535) else { continue }
            if let other = ports.first(where: { $0.number == number }) {
                throw section.problem(
                    "\(section.path): '\(entry.key)' and '\(other.name)' (\(section.place(other.name.text))) have the same port \(number)",
                    entry.mark,
                    hint: "give each a number of its own")
            }
            ports.append(PortSpec(name: name, number: number))
        }
        return ports
    }

    private static func stop(_ service: Section) throws -> StopSpec {
        var stop = StopSpec()
        guard let tree = service.tree("stop") else { return stop }
        let section = try Section(tree, path: service.name("stop"), file: service.file, keys: ["signal", "timeout"])
        if let text = try section.text("signal") {
            let signals = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"]
            let bare = text.hasPrefix("SIG") ? String(text.dropFirst(3)) : text
            guard signals.contains(bare) else {
                throw section.problem(
                    "\(section.name("signal")): unknown signal \(Problem.quote(text))", section.place("signal"),
                    hint: Nearest.hint(bare, among: signals))
            }
            stop.signal = bare
        }
        stop.timeout = try section.duration("timeout") ?? stop.timeout
        return stop
    }

    private static func limits(_ service: Section) throws -> LimitSpec {
        var limits = LimitSpec()
        guard let tree = service.tree("limits") else { return limits }
        let section = try Section(tree, path: service.name("limits"), file: service.file, keys: ["memory", "cpu", "files", "processes"])
        if let text = try section.text("memory") {
            limits.memory = try section.locating(section.place("memory")) {
                try Values.size(text, section.name("memory"), atLeast: 4 << 20)
            }
        }
        if let tree = section.tree("cpu") {
            guard case .scalar(let text, plain: true) = tree.kind, let cores = Values.decimal(text), (0.01...1024).contains(cores) else {
                throw section.problem(
                    "\(section.name("cpu")): number of cores 0.01–1024, found \(tree.words)", tree.mark, hint: "for example 0.5")
            }
            limits.cpu = cores
        }
        limits.files = try section.whole("files", 16...1_048_576)
        limits.processes = try section.whole("processes", 1...100_000) ?? limits.processes
        return limits
    }

    private static func environment(_ service: Section) throws -> [String: String] {
        guard let tree = service.tree("env") else { return [:] }
        let section = try Section(open: tree, path: service.name("env"), file: service.file)
        guard section.all.count <= 200 else { throw section.problem("\(section.path): more than 200 variables", section.mark) }
        var variables: [String: String] = [:]
        for entry in section.all {
            guard case .scalar(let value, _) = entry.value.kind, !entry.value.isNull else {
                throw section.problem(
                    "\(section.name(entry.key)): expected text, found \(entry.value.words)", entry.value.mark,
                    hint: "write \"\" for an empty value")
            }
            try section.locating(entry.mark) {
                try Values.variable(entry.key, section.path)
                try Values.setting(value, of: entry.key, section.path)
            }
            variables[entry.key] = value
        }
        return variables
    }

    /// Rolling is the one strategy there is: all new instances beside the old ones, then the switch.
    private static func rollout(_ service: Section) throws {
        guard let tree = service.tree("rollout") else { return }
        let section = try Section(
            tree, path: service.name("rollout"), file: service.file, keys: ["strategy", "max_unavailable"],
            unsupported: ["max_surge": "remove it; this version starts all new instances beside the old ones"])
        if let strategy = try section.text("strategy"), strategy != "rolling" {
            let others = ["blue-green", "canary", "recreate"]
            guard others.contains(strategy) else {
                throw section.problem(
                    "\(section.name("strategy")): unknown strategy \(Problem.quote(strategy))", section.place("strategy"),
                    hint: Nearest.hint(strategy, among: others + ["rolling"]))
            }
            throw Problem(
                .unsupported,
                "\(service.file) \(section.place("strategy")): strategy '\(strategy)' is not supported by this version of Slipway",
                hint: "write 'rolling', or remove 'rollout'")
        }
        if let text = try section.text("max_unavailable"), text != "0" {
            throw Problem(
                .unsupported,
                "\(service.file) \(section.place("max_unavailable")): '\(section.name("max_unavailable"))' other than 0 is not supported by this version of Slipway",
                hint: "remove it; the old instances serve until all new ones do")
        }
    }
}

/// `runtime:`: `process` is the one there is.
enum Runtime {
    static func check(_ text: String, _ section: Section) throws {
        guard text != "process" else { return }
        guard ["docker", "swarm"].contains(text) else {
            throw section.problem(
                "\(section.name("runtime")): unknown runtime \(Problem.quote(text))", section.place("runtime"),
                hint: Nearest.hint(text, among: ["process", "docker", "swarm"]))
        }
        throw Problem(
            .unsupported, "\(section.file) \(section.place("runtime")): runtime '\(text)' is not supported by this version of Slipway",
            hint: "write 'process', or remove the line")
    }
}
