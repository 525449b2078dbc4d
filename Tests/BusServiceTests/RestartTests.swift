import BusClient
import CSys
import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

/// What a supervisor does for the bus: holds its listening socket, and starts it with a copy.
final class HeldBus {
    private let config: SuiteConfig
    private let listener: Int32
    private var pid: Int32 = 0
    private var pidfd: Int32 = -1

    init(_ config: SuiteConfig) throws {
        self.config = config
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(config.busPort)).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard bound == 0, listen(listener, 64) == 0 else { throw Failure("cannot listen on \(config.busPort)") }
    }

    func start() throws {
        let program = "\(Platform.binaries)/slipway-bus"
        let line: [String] = [program, "--home", config.home.path, "--port-base", "\(config.portBase)", "--log-level", "error"]
        var arguments: [UnsafeMutablePointer<CChar>?] = line.map { strdup($0) } + [nil]
        let name = "LISTEN_PID="
        let variables: [String] = [
            "LISTEN_FDS=1", "LISTEN_FDNAMES=bus-zmq", "SWIFT_BACKTRACE=enable=no", name + String(repeating: " ", count: 11),
        ]
        var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { for text in arguments + environment { free(text) } }
        let descriptors: [Int32] = [0, 1, 2, listener]
        let result = arguments.withUnsafeMutableBufferPointer { arguments in
            environment.withUnsafeMutableBufferPointer { environment in
                descriptors.withUnsafeBufferPointer { descriptors in
                    var order = csys_spawn_order()
                    order.path = arguments[0].map { UnsafePointer($0) }
                    order.argv = UnsafePointer(arguments.baseAddress)
                    order.envp = UnsafePointer(environment.baseAddress)
                    order.listen_pid = environment[3].map { $0 + name.utf8.count }
                    order.descriptors = descriptors.baseAddress
                    order.descriptor_count = 4
                    order.umask = -1
                    return csys_spawn(&order)
                }
            }
        }
        guard result.pid > 0 else { throw Failure("slipway-bus does not start: \(result.error)") }
        (pid, pidfd) = (result.pid, result.pidfd)
    }

    /// The exit status, or minus the signal's number.
    func ended(within seconds: Double = 15) async throws -> Int32 {
        try await eventually("slipway-bus ends", within: seconds) { csys_pidfd_wait(pidfd, 0) == 1 }
        close(pidfd)
        var exit = csys_exit()
        guard csys_collect(pid, &exit) == 1 else { throw Failure("its end was not collected") }
        pid = 0
        return exit.by_signal ? -exit.status : exit.status
    }

    func send(_ signal: Int32) { kill(pid, signal) }

    deinit {
        if pid > 0 {
            kill(pid, SIGKILL)
            _ = csys_pidfd_wait(pidfd, 5000)
            var exit = csys_exit()
            _ = csys_collect(pid, &exit)
        }
        close(listener)
    }
}

@Suite("Restarting the bus behind a listening socket that somebody holds", .serialized, .timeLimit(.minutes(3))) struct RestartTests {
    @Test("drained, ended and killed under load: nothing is lost or doubled, and clients carry on by themselves") func restarts()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let bus = try HeldBus(home.config)
        try bus.start()
        let outbox = MemoryOutbox()
        let publisher = try Boot.make(.scheduler, home.config, home.logger).bus
        publisher.setOutbox(outbox)
        let reader = try Boot.make(.git, home.config, home.logger).bus
        reader.serve("git", concurrency: 4) { _, body, _ in body }
        let asker = try Boot.make(.api, home.config, home.logger).bus
        let seen = Locked<[Int64]>([])
        let answered = Locked(0)
        /// The longest wait for an acknowledgement since the last look, in milliseconds.
        let pause = Locked<Int64>(0)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for client in [publisher, reader, asker] { tasks.addTask { try await client.run() } }
            tasks.addTask {
                let subscription = try await reader.subscribe(SubscriptionRequest(consumer: "core", filters: ["run.**"], from: .cursor))
                for try await delivery in subscription {
                    seen.withLock { $0 += delivery.events.compactMap { $0.data["n"]?.int } }
                    subscription.ack(delivery.last)
                }
            }
            tasks.addTask {
                // One event at a time: what a single durable publish waits.
                var value = 0
                while !Task.isCancelled {
                    let began = Clock.monotonic()
                    outbox.add("run.finished", value)
                    publisher.outboxChanged()
                    value += 1
                    while outbox.state.withLock({ $0.settled < $0.last }), !Task.isCancelled {
                        try? await Task.sleep(for: .milliseconds(1))
                    }
                    pause.withLock { $0 = max($0, Clock.monotonic() - began) }
                }
            }
            tasks.addTask {
                while !Task.isCancelled {
                    let answer = try await asker.call("git.echo", Data("x".utf8), timeout: 30)
                    guard answer == Data("x".utf8) else { throw Failure("a query was answered wrongly") }
                    answered.withLock { $0 += 1 }
                    try? await Task.sleep(for: .milliseconds(5))
                }
            }
            /// Work goes on: events are acknowledged and seen, queries answered.
            func flows(_ after: String) async throws {
                let (settled, count, queries) = (outbox.state.withLock(\.settled), seen.withLock(\.count), answered.withLock { $0 })
                try await eventually("events and queries go on after \(after)") {
                    outbox.state.withLock(\.settled) > settled + 20 && seen.withLock(\.count) > count + 20
                        && answered.withLock { $0 } > queries + 3
                }
            }
            try await flows("the start")
            pause.withLock { $0 = 0 }
            var pauses: [String] = []
            for round in 0..<6 {
                let how = ["bus.drain", "SIGTERM", "SIGKILL"][round % 3]
                switch how {
                case "bus.drain": _ = try await asker.call("bus.drain", Data("{}".utf8), timeout: 10)
                case "SIGTERM": bus.send(SIGTERM)
                default: bus.send(SIGKILL)
                }
                let status = try await bus.ended()
                #expect(status == (how == "SIGKILL" ? -SIGKILL : 0), "\(how)")
                try bus.start()
                try await flows(how)
                let longest = pause.withLock { pause in
                    defer { pause = 0 }
                    return pause
                }
                pauses.append("\(how) \(longest) ms")
            }
            print("longest wait for an acknowledgement: \(pauses.joined(separator: ", "))")
            tasks.cancelAll()
        }
        let settled = outbox.state.withLock(\.settled)
        bus.send(SIGTERM)
        #expect(try await bus.ended() == 0)
        let (log, recovered) = try EventLog.open(EventLog.Settings(directory: home.config.home.directory(.bus) + "/log"), durable: nil)
        #expect(recovered.damage.isEmpty)
        var values: [Int64] = []
        var next: UInt64 = 1
        while next <= log.last {
            for stored in try log.read(from: next, bytes: 1 << 20) {
                next = stored.seq + 1
                guard stored.topic == "run.finished", let json = Selection.payload(of: stored) else { continue }
                values.append(try Coding.decode(Envelope.self, from: json).data["n"]?.int ?? -1)
            }
        }
        #expect(values == (0..<values.count).map { Int64($0) } && values.count >= Int(settled))
        // In order, and none twice: the reader's client leaves out what it had.
        let read = seen.withLock { $0 }
        #expect(read == (0..<read.count).map { Int64($0) })
    }

    @Test("draining is for those who were given it by name; what was under way is acknowledged before the goodbye") func drain() {
        var bench = Bench()
        bench.hello("p", "ada")
        bench.publish("p", "ada", from: 1, ["a"])
        _ = bench.heard("p")
        func drain() {
            bench.say(
                "p", "ada", Frame(.request, a: 1, b: 1000, body: RequestBody(method: "bus.drain", key: "", payload: Data()).encoded()))
        }
        // Its 'call' is bus.**, which is about asking.
        drain()
        #expect(bench.heard("p").map(\.status) == [403] && !bench.router.isDraining)
        bench.router.rights["ada"] = Rights.parse(publish: ["test.**"], subscribe: ["**"], call: ["bus.drain"], serve: []).0
        drain()
        #expect(bench.heard("p").map(\.status) == [200] && bench.router.isDraining)
        bench.flush()
        bench.router.sayGoodbye(bench.now)
        bench.pass(0)
        let last = bench.heard("p")
        #expect(last.map(\.known) == [.publishAck, .bye] && last.last?.status == 503)
    }
}
