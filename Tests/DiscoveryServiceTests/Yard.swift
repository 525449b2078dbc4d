import Contracts
import Foundation
import Kit
import Logging
import TestKit

@testable import DiscoveryService

/// A real HAProxy with the real adapters around the real core, in a directory of its own; only loop and bus are played.
actor Yard {
    nonisolated let directory: String
    nonisolated let port: Int
    private(set) var desk = Desk()
    private nonisolated let world: World
    private var haproxy: Background?
    private var servers: [Background] = []

    init() throws {
        directory = "/tmp/slipway-yard-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        port = try Self.ports()
        let ingress = Ingress(
            config: HAProxyConfig(listen: "127.0.0.1", port: port, socket: "\(directory)/haproxy.sock", account: HAProxyProgram.account),
            directory: directory, logger: Logger(label: "yard"))
        world = World(
            zone: CurrentZone(Zone(CatalogueState(), nameServer: nil)), ingress: ingress, logger: Logger(label: "yard"),
            now: { Timestamp.now() })
    }

    /// Writes the files and starts HAProxy as the supervisor does.
    func start() async throws {
        world.attach { await self.desk.state }
        try await world.reconcile(desk.state)
        try await startHAProxy()
    }

    func startHAProxy() async throws {
        haproxy = try Background([HAProxyProgram.path() ?? "haproxy", "-W", "-db", "-f", "\(directory)/haproxy.cfg"])
        let socket = HAProxySocket(path: "\(directory)/haproxy.sock")
        try await eventually(within: 10, "HAProxy's answer") { try !socket.ask("show info").isEmpty }
    }

    /// Kills master and worker at once.
    func killHAProxy() async throws {
        guard let haproxy, haproxy.isRunning else { return }
        let children = (try? String(contentsOfFile: "/proc/\(haproxy.pid)/task/\(haproxy.pid)/children", encoding: .utf8)) ?? ""
        haproxy.send(signal: SIGKILL)
        for child in children.split(separator: " ").compactMap({ Int32($0) }) { kill(child, SIGKILL) }
        _ = try await haproxy.finish(within: 5)
    }

    /// Starts a small server that answers its name.
    @discardableResult
    func server(_ name: String, port: Int) async throws -> Background {
        let server = try await Scripts.backend(name, port: port)
        servers.append(server)
        return server
    }

    /// Runs the body in a yard of its own and leaves no process and no file behind, however it ends.
    static func open(_ body: (Yard) async throws -> Void) async throws {
        let yard = try Yard()
        let result: Result<Void, any Error>
        do {
            try await yard.start()
            result = .success(try await body(yard))
        } catch {
            // What HAProxy said, and whether it still runs, is what one wants to know then.
            result = .failure(TestFailure("\(error); \(await yard.haproxyStory)"))
        }
        await yard.stop()
        try result.get()
    }

    private var haproxyStory: String {
        "HAProxy \(haproxy?.isRunning == true ? "runs" : "has ended"): \(haproxy?.text.suffix(1500) ?? "")"
    }

    private func stop() async {
        for server in servers { server.send(signal: SIGKILL) }
        try? await killHAProxy()
        try? FileManager.default.removeItem(atPath: directory)
    }

    nonisolated func ask(_ line: String) throws -> String { try HAProxySocket(path: "\(directory)/haproxy.sock").ask(line) }
    nonisolated func watch() async { await world.watch() }

    /// Takes an event and does what follows from it, until `route.drained` where it is an order. Returns seconds until `route.changed`.
    @discardableResult
    func take(_ event: some Event) async throws -> Double {
        let start = ContinuousClock.now
        var changed = 0.0
        desk.now = .now()
        try desk.take(event)
        while !desk.effects.isEmpty {
            let effect = desk.effects.removeFirst()
            if let notice = try await world.perform(effect) {
                if case .led = notice { changed = Double((ContinuousClock.now - start) / .microseconds(1)) / 1e6 }
                try desk.take(notice)
            }
        }
        return changed
    }

    func forget() { desk.published = [] }
}

/// Small real servers and clients, in Python's standard library.
enum Scripts {
    /// `PORT NAME`: answers its name; `/slow` after 0.3 s, `/headers` with what it was sent. On TERM it ends at once.
    static let backend = """
        import http.server, socketserver, sys, time
        name = sys.argv[2].encode()
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == "/slow": time.sleep(0.3)
                body = str(self.headers).encode() if self.path == "/headers" else name
                self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
            do_GET = do_POST = answer
            def log_message(self, *arguments): pass
        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 256
        Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
        """
    /// `PORT HOST SECONDS`: kept-alive GETs, new connections, POSTs and slow requests side by side; prints `SENT FAILED` and the faults.
    static let load = """
        import http.client, sys, threading, time
        port, host, end = int(sys.argv[1]), sys.argv[2], time.time() + float(sys.argv[3])
        sent, faults, lock = [0], [], threading.Lock()
        def run(method, path, keep, pause):
            connection = None
            while time.time() < end:
                fault = None
                try:
                    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request(method, path, body=b"x" if method == "POST" else None, headers={"Host": host})
                    answer = connection.getresponse(); body = answer.read()
                    if answer.status != 200: fault = "%s %s: %d %r" % (method, path, answer.status, body[:60])
                except Exception as error:
                    fault = "%s %s: %r" % (method, path, error); connection = None
                if not keep and connection: connection.close(); connection = None
                with lock:
                    sent[0] += 1
                    if fault: faults.append(fault)
                time.sleep(pause)
        kinds = [("GET", "/", True, .01)] * 3 + [("GET", "/", False, .01)] * 3 + [("POST", "/", True, .02)] * 2 + [("POST", "/", False, .02)] * 2 + [("GET", "/slow", True, .01)] * 3
        threads = [threading.Thread(target=run, args=kind) for kind in kinds]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sent[0], len(faults)); print("\\n".join(sorted(set(faults))[:10]))
        """

    static func backend(_ name: String, port: Int) async throws -> Background {
        let process = try Background(["python3", "-c", backend, "\(port)", name])
        try await eventually(within: 20, "a server on \(port)") {
            let answer = try await run(["curl", "-s", "http://127.0.0.1:\(port)/"])
            return answer.output == name
        }
        return process
    }
}

extension Yard {
    /// The first of `count` ports in a row that nobody listens on, below those the system gives to outgoing connections.
    static func ports(_ count: Int = 1) throws -> Int {
        for _ in 0..<200 {
            let first = Int.random(in: 10_000..<30_000)
            if (first..<first + count).allSatisfy(Ports.isFree) { return first }
        }
        throw TestFailure("no \(count) free ports in a row")
    }
}
