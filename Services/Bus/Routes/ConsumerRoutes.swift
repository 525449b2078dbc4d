import Contracts
import HTTPKit

/// `/v1/consumers`: who reads the log, how far they have come, and how far behind they are.
struct ConsumerRoutes: Sendable {
    let broker: Broker

    func add(to routes: Routes) {
        routes.get("/v1/consumers", .role(.viewer)) { _, context in
            guard context.principal?.app == nil else {
                throw Problem(.forbidden, "your token reaches one app only; consumers are of the suite")
            }
            let consumers = try await broker.consumers()
            return try .json(consumers)
        }
    }
}
