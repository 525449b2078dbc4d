import Contracts
import HTTPKit
import Kit
import ServiceLifecycle

/// Wires the catalogue, DNS and the ingress together.
public enum DiscoveryComponent {
    /// The services that make up the component. Throws `Problem` when its state cannot be opened.
    public static func services(_ boot: Boot) async throws -> [any Service] {
        let store = try boot.openStore(durability: .normal)
        let config = boot.config
        let wildcard = config.listen == "0.0.0.0" || config.listen == "::"
        let zone = CurrentZone(Zone(CatalogueState(), nameServer: wildcard ? nil : Address(config.listen)))
        let ingress = Ingress(
            config: HAProxyConfig(
                listen: config.listen, port: config.ingressPort, socket: "\(config.home.run)/haproxy.sock", account: HAProxyProgram.account),
            directory: boot.directory, logger: boot.logger)
        let world = World(zone: zone, ingress: ingress, logger: boot.logger, now: { boot.now() })
        let loop = Loop(
            Catalogue.self, boot: boot, store: store,
            perform: { effect, _ in try await world.perform(effect) },
            reconcile: { state in
                try await world.reconcile(state)
                return []
            })
        world.attach { try await loop.read { $0 } }
        let counters = DNSCounters()
        let dns = DNSServer(address: config.listen, port: config.dnsPort, zone: zone, counters: counters, logger: boot.logger)
        var services: [any Service] = [loop, IngressWatch(world: world), dns]
        let http = HTTPServer(boot) { routes in
            CatalogueAPI(loop: loop).add(to: routes)
            services.append(DNSMeter(counters: counters, metrics: routes.metrics))
        }
        return services + [http]
    }
}
