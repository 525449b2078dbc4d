import BusClient
import Contracts
import HTTPKit
import Kit
import ServiceLifecycle
import Storage

/// Makes the objects of `api` and hands them to each other.
public enum APIComponent {
    /// Throws `Problem` when the store cannot be opened or a key file is damaged.
    public static func services(_ boot: Boot) async throws -> [any Service] {
        // Full: a person was told that a token is revoked, or an order accepted.
        let store = try boot.openStore(durability: .full)
        let loop = Loop(APICore.self, boot: boot, store: store, perform: { _, _ in nil })
        let identity = Identity(boot: boot, loop: loop)
        try await identity.importOperator()
        boot.bus.serve(
            "api",
            QueryRoutes().on(Authenticate.self) { query, _ in
                Authenticate.Reply(principal: try await identity.authenticate(hash: query.hash))
            })
        let desk = Desk(boot: boot, loop: loop, identity: identity)
        let server = HTTPServer(boot, authenticator: identity, front: identity.front) { routes in
            TokenRoutes(desk: desk).add(to: routes)
            AppRoutes(desk: desk).add(to: routes)
            OrderRoutes(desk: desk).add(to: routes)
            StoryRoutes(desk: desk).add(to: routes)
            EventRoutes(desk: desk).add(to: routes)
            LogRoutes(desk: desk).add(to: routes)
            StatusRoutes(desk: desk, caller: HTTPCaller(boot)).add(to: routes)
            ConsoleRoutes(desk: desk).add(to: routes)
        }
        return [loop, server]
    }
}
