import Contracts

/// The text of `haproxy.cfg`, and of the host map, as values.
///
/// There are more backends and servers than routes need: the spare ones wait in maintenance and are filled through the
/// runtime socket, so a reload is only needed when the pool itself must grow. The file also holds the table as it is now,
/// so that a HAProxy that starts anew serves the same.
struct HAProxyConfig: Sendable {
    var listen: String
    var port: Int
    /// The runtime socket's path.
    var socket: String
    /// The account the worker runs as when it is started by root; nil: it stays who it is.
    var account: String?

    static let mapName = "hosts.map"
    static let serverLimit = 16_384

    /// Backends and servers in each.
    struct Pool: Hashable, Sendable {
        var backends: Int
        var slots: Int

        /// Doubled from 32 × 16 until the table fits, with room for one rollout.
        init(for table: IngressTable) {
            let needed = table.size
            backends = 32
            slots = 16
            while backends < needed.backends { backends *= 2 }
            while slots < needed.slots { slots *= 2 }
        }
    }

    /// The whole file. Throws `Problem` (`configuration`) for paths that HAProxy cannot take, `too_large` for a table it cannot hold.
    func text(_ table: IngressTable, pool: Pool) throws -> String {
        // sun_path holds 108 bytes, and HAProxy binds under a longer temporary name first.
        guard socket.utf8.count <= 90, !socket.contains(where: { $0 == "'" || $0.isNewline }) else {
            throw Problem(
                .configuration, "the path \(Problem.quote(socket)) is too long for a socket, or has a quote in it",
                hint: "choose a shorter --home")
        }
        guard pool.backends * pool.slots <= Self.serverLimit else {
            throw Problem(.tooLarge, "\(pool.backends) routes with \(pool.slots) servers each are more than the ingress takes")
        }
        let structure = structure(pool)
        return
            """
            # Written by slipway-discovery at each change of a route; changes made by hand are lost.
            global
                description \(fingerprint(pool))
            \(structure)
            \(backends(table, pool))
            """
    }

    /// Names everything in the file that only a reload can change.
    func fingerprint(_ pool: Pool) -> String {
        // FNV-1a, 64 bits: it tells versions of our own text apart, nothing more.
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in (structure(pool) + "\(pool.backends)x\(pool.slots)").utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return "slipway-" + String(hash, radix: 16)
    }

    /// `a.localhost pool0`, a line a host.
    static func map(_ hosts: [String: Int]) -> String {
        hosts.sorted { $0.key < $1.key }.map { "\($0.key) pool\($0.value)\n" }.joined()
    }

    private var bind: String {
        guard let address = Address(listen) else { return "\(listen):\(port)" }
        return "\(address.isV6 ? "ipv6" : "ipv4")@\(address):\(port)"
    }

    private func structure(_ pool: Pool) -> String {
        """
            default-path config
            maxconn 4096
            no strict-limits
            stats socket 'unix@\(socket)' mode 600 level admin expose-fd listeners
            stats timeout 60s
            hard-stop-after 30m
        \(account.map { "    user \($0)\n    group \($0)\n" } ?? "")
        defaults
            mode http
            maxconn 4000
            balance roundrobin
            timeout connect 2s
            timeout queue 10s
            timeout client 5m
            timeout client-fin 10s
            timeout server 5m
            timeout tunnel 1h
            timeout http-request 10s
            timeout http-keep-alive 60s
            # A connection that was refused is tried elsewhere; so is a request whose connection the instance closed
            # without a byte of answer, if doing it twice is harmless (see disable-l7-retry below).
            retries 3
            retry-on conn-failure empty-response
            option redispatch 1
            http-reuse safe
            # On a reload a kept-alive client is told with its next answer, instead of being cut off while it asks.
            option idle-close-on-response
            option disable-h2-upgrade
            http-error status 400 content-type "text/plain; charset=utf-8" string "This is not a valid HTTP/1.1 request\\n"
            http-error status 502 content-type "text/plain; charset=utf-8" string "The app's instance broke the connection off: slipway logs APP\\n"
            http-error status 503 content-type "text/plain; charset=utf-8" string "No instance of this app is ready: slipway ps APP\\n"
            http-error status 504 content-type "text/plain; charset=utf-8" string "The app's instance did not answer in time: slipway logs APP\\n"

        frontend ingress
            bind \(bind)
            http-request return status 405 content-type "text/plain; charset=utf-8" string "CONNECT and TRACE are not served here\\n" hdr Allow "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" if { method CONNECT TRACE }
            http-request return status 400 content-type "text/plain; charset=utf-8" string "HTTP/2 is not served here\\n" if { method PRI }
            http-request return status 400 content-type "text/plain; charset=utf-8" string "OPTIONS * is not served here: name a path\\n" if { method OPTIONS } { url -m str * }
            # What a client says about where it comes from is dropped, in every spelling that an app might take for the
            # real header, also when it hides as a hop-by-hop header; then ours are set.
            acl upgrading req.hdr(connection) -m sub -i upgrade
            http-request del-header connection unless upgrading
            http-request set-header connection upgrade if upgrading
            http-request set-var(txn.host) req.hdr(host)
            http-request del-header ^(forwarded|proxy|via|client[-_.]ip|true[-_.]client[-_.]ip|x[-_.]client[-_.]ip|x[-_.]real[-_.]ip|x[-_.]original[-_.].*|x[-_.]rewrite[-_.]url|x[-_.]forwarded([-_.].*)?)$ -m reg
            http-request set-header x-forwarded-for %[src]
            http-request set-header x-forwarded-proto http
            http-request set-header x-forwarded-host %[var(txn.host)]
            http-request set-header x-real-ip %[src]
            http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE }
            # By way of a variable, because the file name in a use_backend line would not follow default-path.
            http-request set-var(txn.pool) req.hdr(host),field(1,:),lower,rtrim(.),map_str(\(Self.mapName),none)
            use_backend %[var(txn.pool)]
            default_backend nowhere

        backend nowhere
            http-request return status 404 content-type "text/plain; charset=utf-8" string "no app answers to this host name: slipway app list\\n"
        """
    }

    private func backends(_ table: IngressTable, _ pool: Pool) -> String {
        var text = ""
        for backend in 0..<pool.backends {
            text += "\nbackend pool\(backend)\n"
            for slot in 0..<pool.slots {
                // A server that is leaving is not for a HAProxy that starts now: it has no request there to finish.
                if let server = table.backends[backend]?.servers[slot], server.mode == .ready {
                    text += "    server s\(slot) \(Self.endpoint(server))\n"
                } else {
                    text += "    server s\(slot) 127.0.0.1:1 disabled\n"
                }
            }
        }
        return text
    }

    private static func endpoint(_ server: IngressTable.Server) -> String {
        server.address.contains(":") ? "ipv6@\(server.address):\(server.port)" : "\(server.address):\(server.port)"
    }
}
