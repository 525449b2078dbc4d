import Contracts
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Kit
import Logging
import NIOCore
import NIOExtras
import NIOPosix
import ServiceLifecycle
import Synchronization

/// How errors are worded. `.problem` is RFC 9457; the registry has its own.
public struct ErrorStyle: Sendable {
    let answer: @Sendable (Problem, Request) -> Response
    public init(_ answer: @escaping @Sendable (Problem, Request) -> Response) { self.answer = answer }
    public static let problem = ErrorStyle { problem, _ in .problem(problem) }
}

/// Looks at a request before its route does: may find out who asks by other means than a token, such as a session cookie.
public typealias Front = @Sendable (Request, inout SlipwayContext) async throws -> Void

/// The limits of every listener.
public enum ListenerLimits {
    public static let headerBytes = 32 << 10
    public static let headerFields = 100
    public static let idle: TimeAmount = .seconds(60)
    public static let connections = 4096
    /// Connections at once: the other half of the descriptors is for files and for the bus.
    static var mostConnections: Int { min(connections, max(16, Descriptors.limit / 2)) }
}

/// A component's HTTP: its routes, the four that all have, limits, problems, and a listener that may be inherited.
///
/// When LISTEN_FDS (sd_listen_fds(3)) hands over a descriptor named after the component, that one is used and nothing is
/// bound: a new version takes over without a refused connection. On shutdown requests in flight are finished.
public struct HTTPServer: Service {
    private let boot: Boot
    private let port: Int
    private let responder: RouterResponder<SlipwayContext>
    private let errors: ErrorStyle
    private let metrics: Metrics
    private let hosts: Set<String>
    private let bound: (@Sendable (Int) -> Void)?
    private let front: Front?

    /// `hosts`: names by which this listener is asked beside addresses and `localhost`; requests to others get 421, because a
    /// web page can make its own name lead here (DNS rebinding). `bound` is told the port once it listens, `refused` of every
    /// request that was answered 403.
    public init(
        _ boot: Boot, port: Int? = nil, authenticator: (any Authenticator)? = nil, errors: ErrorStyle = .problem, hosts: Set<String> = [],
        bound: (@Sendable (Int) -> Void)? = nil, front: Front? = nil,
        refused: (@Sendable (Principal, Request, Problem) -> Void)? = nil, routes: (Routes) -> Void
    ) {
        self.boot = boot
        self.port = port ?? boot.config.port(boot.component)
        self.errors = errors
        self.hosts = hosts
        self.bound = bound
        self.front = front
        let metrics = Metrics()
        self.metrics = metrics
        let box = RouterBox()
        let list = Routes(
            router: box, gate: Gate(authenticator: authenticator ?? BusAuthenticator(boot.bus)), metrics: metrics, refused: refused)
        Self.standard(list, boot)
        routes(list)
        responder = box.router.buildResponder()
    }

    private static func standard(_ routes: Routes, _ boot: Boot) {
        let started = boot.now()
        routes.get("/health", .open) { _, _ in try .json(["status": "alive"]) }
        routes.get("/ready", .open) { _, _ in
            var reasons = boot.health.reasons
            if boot.component != .bus, !boot.bus.isConnected { reasons.append("bus: \(boot.bus.lastError ?? "not connected")") }
            guard reasons.isEmpty else {
                throw Problem(
                    .unavailable, "\(boot.component.rawValue) is not ready: \(reasons.joined(separator: "; "))", hint: "see slipway doctor")
            }
            return try .json(["status": "ready"])
        }
        routes.get("/version", .open) { _, _ in
            struct Answer: Encodable {
                var component: String
                var version: String
                var commit: String
                var contracts: [String: Int]
            }
            return try .json(
                Answer(component: boot.component.rawValue, version: Version.text, commit: Version.commit, contracts: Version.contracts))
        }
        let metrics = routes.metrics
        routes.get("/metrics", .open) { _, _ in
            metrics.set("slipway_up_seconds", boot.now().seconds(since: started))
            metrics.set("slipway_ready", boot.health.reasons.isEmpty ? 1 : 0)
            return .data(Data(await metrics.collected().utf8), type: "text/plain; version=0.0.4; charset=utf-8")
        }
    }

    public func run() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let child = HTTP1Channel(
            responder: { request, writer, channel in try await respond(request, writer, channel) },
            configuration: .init(
                idleTimeout: ListenerLimits.idle,
                httpDecoderConfiguration: .init(
                    maxHeaderFieldSize: ListenerLimits.headerBytes, maxHeaderListSize: ListenerLimits.headerBytes,
                    maxHeaderFieldCount: ListenerLimits.headerFields)))
        let quiescing = ServerQuiescingHelper(group: group)
        let logger = boot.logger
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(quiescing.makeServerChannelHandler(channel: channel))
                }
            }
        let listener: NIOAsyncChannel<HTTP1Channel.Value, Never>
        do {
            if let descriptor = try InheritedSockets.descriptor(named: boot.component.rawValue) {
                listener = try await bootstrap.bind(descriptor, cleanupExistingSocketFile: false) {
                    child.setup(channel: $0, logger: logger)
                }
            } else {
                listener = try await bootstrap.bind(host: boot.config.listen, port: port) { child.setup(channel: $0, logger: logger) }
            }
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw Problem(
                .configuration, "port \(port) on \(boot.config.listen) is taken by another program",
                hint: "stop that program ('ss -ltnp sport = :\(port)' shows it), or start the suite with another --port-base")
        } catch let error as IOError where error.errnoCode == EACCES {
            throw Problem(.configuration, "port \(port) needs root", hint: "choose a --port-base above 1024")
        }
        bound?(listener.channel.localAddress?.port ?? port)
        try await withGracefulShutdownHandler {
            try await withThrowingDiscardingTaskGroup { connections in
                let places = Places(ListenerLimits.mostConnections)
                try await listener.executeThenClose { inbound in
                    for try await connection in inbound {
                        let isServed = places.take()
                        connections.addTask {
                            if isServed {
                                await child.handle(value: connection, logger: logger)
                                places.free()
                            } else {
                                // Closed through its own channel, as NIO demands of whoever took a connection.
                                try? await connection.executeThenClose { _, _ in }
                            }
                        }
                    }
                }
            }
        } onGracefulShutdown: {
            quiescing.initiateShutdown(promise: nil)
        }
    }

    private func respond(_ request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel) async throws {
        let started = ContinuousClock.now
        var response: Response
        do {
            try checkHost(request)
            var context = SlipwayContext(source: .init(channel: channel, logger: boot.logger))
            try await front?(request, &context)
            // RFC 9110, section 10.1.1: the client waits for this before it sends a large body.
            if request.headers[.expect]?.lowercased() == "100-continue" {
                try await writer.writeInformationalHead(HTTPResponse(status: .continue))
            }
            response = try await responder.respond(to: request, context: context)
            // Hummingbird's router answers what it does not know with an empty body of its own.
            if response.status == .notFound, response.headers[.contentType] == nil, request.method != .head {
                response = errors.answer(Problem(.notFound, "nothing is here"), request)
            }
        } catch {
            response = answer(to: error, request)
        }
        if response.status == .unauthorized, Self.isScript(request) {
            // A browser would open a password box of its own over the page that asks for the token.
            response.headers[.wwwAuthenticate] = "Bearer realm=\"slipway\""
        }
        response.headers[.server] = "slipway"
        response.headers[.xContentTypeOptions] = "nosniff"
        metrics.add("slipway_http_requests_total", labels: [("status", "\(response.status.code)")])
        metrics.add("slipway_http_request_seconds_total", (ContinuousClock.now - started) / .seconds(1))
        let head = HTTPResponse(status: response.status, headerFields: response.headers)
        if request.method == .head {
            try await writer.writeHead(head).finish(nil)
        } else {
            try await writer.writeResponse(response)
        }
    }

    /// Whether a page's script asks (Fetch Metadata, Sec-Fetch-Mode), not a person's address bar, git or curl.
    private static func isScript(_ request: Request) -> Bool {
        guard let name = HTTPField.Name("Sec-Fetch-Mode"), let mode = request.headers[name] else { return false }
        return mode != "navigate"
    }

    /// The last resort: whatever a handler throws becomes an answer that tells no path, no SQL and no secret.
    private func answer(to error: any Error, _ request: Request) -> Response {
        if let problem = error as? Problem { return errors.answer(problem, request) }
        if let error = error as? any HTTPResponseError {
            switch error.status {
            case .notFound: return errors.answer(Problem(.notFound, "nothing is here"), request)
            case .methodNotAllowed:
                return errors.answer(Problem(.methodNotAllowed, "\(request.method.rawValue) is not offered here"), request)
            case .contentTooLarge: return errors.answer(Problem(.tooLarge, "the body is too large"), request)
            default: return errors.answer(Problem(.malformed, "the request was refused (\(error.status.code))"), request)
            }
        }
        if error is CancellationError {
            return errors.answer(Problem(.unavailable, "the component is stopping", hint: "try again"), request)
        }
        let correlation = EventID.fresh().text
        boot.logger.error(
            "a request failed unexpectedly",
            metadata: ["path": "\(request.uri.path)", "error": "\(error)", "correlation": "\(correlation)"])
        return errors.answer(
            Problem(.failed, "something failed inside \(boot.component.rawValue)", hint: "its log has the cause under \(correlation)"),
            request)
    }

    private func checkHost(_ request: Request) throws {
        guard let authority = request.head.authority, !authority.isEmpty else { throw Problem(.malformed, "the Host header is missing") }
        let host: Substring
        if authority.hasPrefix("[") {
            host = authority.dropFirst().prefix { $0 != "]" }
        } else {
            host = authority.prefix { $0 != ":" }
        }
        let name = host.lowercased()
        let isAddress = (try? SocketAddress(ipAddress: name, port: 0)) != nil
        guard isAddress || name == "localhost" || name.hasSuffix(".localhost") || name == boot.config.host.text || hosts.contains(name)
        else {
            throw Problem(
                .misdirected, "this listener does not serve the host \(Problem.quote(name))", hint: "ask it as localhost or by its address")
        }
    }
}

/// How many connections may be served at once.
final class Places: Sendable {
    private let left: Mutex<Int>
    init(_ count: Int) { left = Mutex(count) }

    /// False: none is left.
    func take() -> Bool {
        left.withLock { left in
            guard left > 0 else { return false }
            left -= 1
            return true
        }
    }
    func free() { left.withLock { $0 += 1 } }
}

extension ResponseWriter {
    /// Sends head and body of a response.
    consuming func writeResponse(_ response: Response) async throws {
        var head = HTTPResponse(status: response.status, headerFields: response.headers)
        if let length = response.body.contentLength, head.headerFields[.contentLength] == nil {
            head.headerFields[.contentLength] = "\(length)"
        }
        let body = try await writeHead(head)
        try await response.body.write(body)
    }
}

/// Descriptors handed over by whoever started this process, as sd_listen_fds(3) describes.
public enum InheritedSockets {
    /// The descriptor with that name in LISTEN_FDNAMES; nil when there is none for this process.
    public static func descriptor(named name: String, environment: [String: String] = ProcessInfo.processInfo.environment)
        throws -> CInt?
    {
        guard let pid = environment["LISTEN_PID"], Int32(pid) == getpid(),
            let count = environment["LISTEN_FDS"].flatMap({ Int(String($0)) }),
            count > 0, count < 64, let names = environment["LISTEN_FDNAMES"]
        else { return nil }
        guard let index = names.split(separator: ":", omittingEmptySubsequences: false).prefix(count).firstIndex(of: name[...]) else {
            return nil
        }
        let descriptor = CInt(3 + index)
        var info = stat()
        guard fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFSOCK else {
            throw Problem(
                .configuration, "LISTEN_FDS names descriptor \(descriptor) as '\(name)', but it is no socket",
                hint: "start the component without LISTEN_FDS, or hand over a listening socket")
        }
        return descriptor
    }
}
