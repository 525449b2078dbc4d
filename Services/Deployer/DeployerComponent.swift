import BusClient
import Contracts
import HTTPKit
import Kit
import ServiceLifecycle
import Storage

/// Wires the deployer: the loop, the query that plans, its HTTP.
public enum DeployerComponent {
    public static func services(_ boot: Boot) async throws -> [any Service] {
        // NORMAL is enough: nobody outside was told "done"; a deployer that wakes up a moment earlier replays the same (promises.md 2.3).
        let store = try boot.openStore(durability: .normal) { _ in }
        let ingress = boot.config.ingressPort
        let loop = Loop(
            DeployerCore.self, boot: boot, store: store, perform: { _, _ in nil },
            reconcile: { _ in [.configured(ingressPort: ingress)] })
        boot.bus.serve("deployer", PlanHandler(loop: loop).routes)
        let server = HTTPServer(boot) { routes in
            EnvironmentRoutes(loop: loop).add(to: routes)
            DeploymentRoutes(loop: loop).add(to: routes)
        }
        return [loop, server]
    }
}
