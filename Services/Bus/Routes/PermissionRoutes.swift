import Contracts
import Foundation
import HTTPKit
import Hummingbird

/// `/v1/permissions`: which keys there are, what each may do, and when it was last heard.
struct PermissionRoutes: Sendable {
    let broker: Broker

    func add(to routes: Routes) {
        routes.get("/v1/permissions", .role(.operator)) { _, context in
            guard context.principal?.app == nil else {
                throw Problem(.forbidden, "your token reaches one app only; permissions are of the suite")
            }
            return .data(try await broker.ask("bus.permissions"), type: "application/json")
        }
    }
}
