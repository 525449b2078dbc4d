import Contracts
import Kit

/// Checks that what services need is there and that they can be started one after another.
enum Needs {
    static func check(_ services: [ServiceSpec], _ section: Section) throws {
        let names = services.map(\.name.text)
        let byName = Dictionary(uniqueKeysWithValues: services.map { ($0.name, $0) })
        for service in services {
            let place = section.place(service.name.text)
            for need in service.needs {
                guard let needed = byName[need] else {
                    throw section.problem(
                        "services.\(service.name).needs: there is no service \(Problem.quote(need.text))", place,
                        hint: Nearest.hint(need.text, among: names.filter { $0 != service.name.text }))
                }
                guard needed.instances > 0 else {
                    throw section.problem(
                        "services.\(service.name).needs: '\(need)' has 0 instances, so it is never ready", place,
                        hint: "give '\(need)' an instance")
                }
            }
            guard Set(service.needs).count == service.needs.count else {
                throw section.problem("services.\(service.name).needs: names a service twice", place)
            }
        }
        if let cycle = cycle(byName) {
            throw section.problem(
                "services need each other in a circle: \(cycle.map(\.text).joined(separator: " → "))",
                section.place(cycle.first?.text ?? ""),
                hint: "remove one of these needs")
        }
    }

    /// A circle, its first member repeated at its end; nil when there is none. Starts at the least name, so that the same file
    /// always gets the same answer.
    static func cycle(_ services: [ServiceName: ServiceSpec]) -> [ServiceName]? {
        var done: Set<ServiceName> = []
        func visit(_ name: ServiceName, _ path: [ServiceName]) -> [ServiceName]? {
            if let start = path.firstIndex(of: name) { return path[start...] + [name] }
            guard !done.contains(name) else { return nil }
            for need in services[name]?.needs ?? [] {
                if let found = visit(need, path + [name]) { return found }
            }
            done.insert(name)
            return nil
        }
        for name in services.keys.sorted(by: >) {
            if let found = visit(name, []) { return found }
        }
        return nil
    }
}
