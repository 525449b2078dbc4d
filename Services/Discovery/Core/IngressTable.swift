import Contracts

/// What the ingress should serve: a value that follows from the state, and from which HAProxy is brought into line.
struct IngressTable: Hashable, Sendable {
    struct Server: Hashable, Sendable {
        enum Mode: Hashable, Sendable {
            case ready
            /// Takes no new requests, finishes those it has.
            case drain
            /// Takes none.
            case out
        }
        var address: String
        var port: Int
        var mode: Mode
        /// With the generation and moment at which it left.
        var leaving: Slot.Leaving?
    }
    struct Backend: Hashable, Sendable {
        var route: String
        /// By slot.
        var servers: [Int: Server]
    }

    /// The generation of the state it was made from.
    var version = 0
    /// Backend by host name.
    var hosts: [String: Int] = [:]
    /// By number.
    var backends: [Int: Backend] = [:]

    /// How many backends and slots there must be at least.
    var size: (backends: Int, slots: Int) {
        ((backends.keys.max() ?? -1) + 1, (backends.values.flatMap(\.servers.keys).max() ?? -1) + 1)
    }
}

extension IngressTable {
    init(_ state: CatalogueState) {
        version = state.generation
        for route in state.routes.values {
            for host in route.hosts { hosts[host] = route.backend }
            let serving = route.serving
            // An instance that fails its check may still answer some; with no better one left it goes on. A dead one never does.
            let anyUp = serving.contains { $0.up && !$0.dead }
            var servers: [Int: Server] = [:]
            for slot in route.slots {
                let mode: Server.Mode =
                    slot.dead ? .out : slot.leaving != nil ? .drain : slot.up || !anyUp ? .ready : .out
                servers[slot.index] = Server(
                    address: Address(slot.server.address)?.description ?? slot.server.address, port: slot.server.port, mode: mode,
                    leaving: slot.leaving)
            }
            backends[route.backend] = Backend(route: route.key, servers: servers)
        }
    }
}
