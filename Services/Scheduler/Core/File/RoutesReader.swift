import Contracts
import Kit

/// The `routes:` of a `slipway.yml`.
enum RoutesReader {
    static func read(_ top: Section, services: [ServiceSpec]) throws -> [RouteSpec] {
        var routes: [RouteSpec] = []
        for (index, item) in try top.list("routes", atMost: 60).enumerated() {
            let section = try Section(item, path: "routes[\(index)]", file: top.file, keys: ["host", "service", "tls"])
            if let tls = try section.text("tls"), tls != "none" {
                throw Problem(
                    .unsupported,
                    "\(top.file) \(section.place("tls")): 'tls: \(tls.prefix(20))' is not supported by this version of Slipway",
                    hint: "remove it, and end TLS in front of Slipway")
            }
            guard let text = try section.text("host"), let named = try section.text("service") else {
                throw section.problem(
                    "\(section.path): needs 'host' and 'service'", section.mark, hint: "for example {host: shop.example.org, service: web}")
            }
            let host = try section.locating(section.place("host")) { try Values.host(text, section.path) }
            guard !routes.contains(where: { $0.host == host }) else {
                throw section.problem("\(section.path): host '\(host)' has a route already", section.place("host"), hint: "remove one")
            }
            guard let service = services.first(where: { $0.name.text == named }) else {
                throw section.problem(
                    "\(section.path): there is no service \(Problem.quote(named))", section.place("service"),
                    hint: Nearest.hint(named, among: services.map(\.name.text)))
            }
            guard !service.ports.isEmpty else {
                throw section.problem(
                    "\(section.path): service '\(service.name)' has no port", section.place("service"),
                    hint: "add 'ports: {http: 8080}' to it")
            }
            routes.append(RouteSpec(host: host, service: service.name))
        }
        return routes
    }
}
