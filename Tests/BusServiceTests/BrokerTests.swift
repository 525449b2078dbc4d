import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("The running bus", .serialized, .timeLimit(.minutes(3))) struct BrokerTests {
    @Test("events of an outbox are stored once and in order, followed, and followed on after restarts of the bus") func outbox()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        // The client lives through three buses.
        let client = try Boot.make(.scheduler, home.config, home.logger).bus
        client.setOutbox(outbox)
        let seen = Locked<[String]>([])
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await client.run() }
            tasks.addTask {
                let subscription = try await client.subscribe(SubscriptionRequest(consumer: "core", filters: ["run.**"], from: .cursor))
                for try await delivery in subscription {
                    seen.withLock { $0 += delivery.events.map(\.id.text) }
                    subscription.ack(delivery.last)
                }
            }
            for round in 0..<3 {
                try await home.run { _ in
                    for value in 0..<200 { _ = outbox.add("run.finished", round * 200 + value) }
                    client.outboxChanged()
                    try await eventually("everything is acknowledged") { outbox.state.withLock { $0.settled == $0.last } }
                    try await eventually("everything is delivered") { seen.withLock(\.count) == (round + 1) * 200 }
                }
            }
            tasks.cancelAll()
        }
        let ids = seen.withLock { $0 }
        #expect(Set(ids).count == 600)
        #expect(outbox.state.withLock(\.refused).isEmpty)
        // What is in the log is what was sent, once, in order.
        try await home.run { home in
            let (status, body) = try await home.http("/v1/events?type=run&limit=1000")
            #expect(status == 200)
            let events = try Coding.decode([Envelope].self, from: Data(body.utf8))
            #expect(events.map(\.id.text) == ids)
            #expect(events.compactMap { $0.data["n"]?.int } == (0..<600).map { Int64($0) })
            let consumers = try await home.http("/v1/consumers").body
            #expect(consumers.contains(#""consumer":"core""#) && consumers.contains(#""owner":"scheduler""#))
        }
    }

    @Test("an outbox that sends everything again stores nothing again") func resend() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        for value in 0..<50 { outbox.add("run.finished", value) }
        let entries = outbox.state.withLock(\.entries)
        for _ in 0..<3 {
            try await home.run { home in
                try await home.client(.scheduler, outbox: outbox) { client in
                    client.outboxChanged()
                    try await eventually("acknowledged") { outbox.state.withLock(\.entries.isEmpty) }
                }
                let events = try Coding.decode([Envelope].self, from: Data(try await home.http("/v1/events?type=run&limit=1000").body.utf8))
                #expect(events.count == 50)
            }
            outbox.state.withLock { $0.entries = entries }
        }
    }

    @Test("queries are answered, live events arrive, and nobody serving is said plainly") func queries() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            try await home.client(.git) { git in
                git.serve("git", concurrency: 4) { method, body, caller in
                    method == "git.large" ? Data(repeating: 0x61, count: 3 << 20) : Data("\(method) \(caller) ".utf8) + body
                }
                try await home.client(.scheduler) { scheduler in
                    let answer = try await scheduler.call("git.echo", Data("hello".utf8), timeout: 5)
                    #expect(String(decoding: answer, as: UTF8.self) == "git.echo scheduler hello")
                    // Longer than one message may be: it comes in parts.
                    #expect(try await scheduler.call("git.large", Data(), timeout: 5).count == 3 << 20)
                    await #expect(throws: Problem.self) { try await scheduler.call("api.nothing", Data(), timeout: 1) }
                    await #expect(throws: Problem.self) { try await scheduler.call("supervisor.logs", Data(), timeout: 1) }
                }
            }
            try await home.client(.supervisor) { supervisor in
                try await home.client(.api) { api in
                    let subscription = try await api.subscribe(SubscriptionRequest(consumer: "", filters: ["log.**"], from: .new))
                    supervisor.emit(LogLines(origin: "shop/run-1/build", lines: ["compiling"]), source: "supervisor@here")
                    for try await delivery in subscription where !delivery.events.isEmpty {
                        #expect(delivery.last == 0)
                        #expect(delivery.events.first?.as(LogLines.self)?.lines == ["compiling"])
                        break
                    }
                }
            }
        }
    }

    @Test("HTTP publishes, reads and follows; wrong shapes are refused with a sentence") func http() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            func post(_ json: String) async throws -> (status: Int, body: String) {
                try await home.http("/v1/events", ["-H", "Content-Type: application/json", "-d", json])
            }
            let one = try await post(#"{"type":"deploy.requested","subject":"shop/production","data":{"app":"shop"}}"#)
            #expect(one.status == 202, "\(one.body)")
            let answer = try Coding.decode(JSON.self, from: Data(one.body.utf8))
            let seq = try #require(answer["seq"]?.int)
            let id = try #require(answer["id"]?.string)
            // The same id again is the same event.
            let again = try await post(#"{"id":"\#(id)","type":"deploy.requested","subject":"shop","data":{}}"#)
            #expect(again.status == 202 && again.body.contains(#""duplicate":true"#) && again.body.contains(#""seq":\#(seq)"#))
            let list = try await post(#"[{"type":"test.a","subject":"x","data":1},{"type":"test.b","subject":"x/y","data":2}]"#)
            #expect(list.status == 202 && list.body.hasPrefix("["))
            for (json, status, sentence) in [
                ("{", 400, "not valid JSON"), ("3", 422, "an event is a JSON object"), ("[]", 422, "expected 1 to 1000 events, found 0"),
                (#"{"subject":"x","data":1}"#, 422, "'type' is missing"), (#"{"type":"a.b","data":1}"#, 422, "'subject' is missing"),
                (#"{"type":"a.b","subject":"x"}"#, 422, "'data' is missing"),
                (#"{"type":"A B","subject":"x","data":1}"#, 422, "event type 'A B'"),
                (#"{"type":"a.b","subject":"../x","data":1}"#, 422, "'subject'"),
                (#"{"type":"a.b","subject":"x","data":1,"time":"noon"}"#, 422, "RFC 3339"),
                (#"{"type":"a.b","subject":"x","data":1,"source":"git@here"}"#, 403, "a component of the suite or has a key"),
                (#"{"type":7,"subject":"x","data":1}"#, 422, "'type' must be text"),
            ] {
                let refused = try await post(json)
                #expect(refused.status == status && refused.body.contains(sentence), "\(json): \(refused)")
            }
            let read = try await home.http("/v1/events?since=\(seq)&type=test&subject=x/y")
            let events = try Coding.decode([Envelope].self, from: Data(read.body.utf8))
            #expect(events.map(\.type.text) == ["test.b"] && events[0].seq == UInt64(seq) + 2 && events[0].actor == "admin")
            let ahead = try await home.http("/v1/events?since=99999")
            #expect(ahead.status == 400 && ahead.body.contains("head is "))
            let follow = try await TestKit.run(
                [
                    "curl", "-sS", "-N", "-m", "2", "-H", "Authorization: Bearer \(try home.operatorToken)", "-H", "Last-Event-ID: \(seq)",
                    "http://127.0.0.1:\(home.config.port(.bus))/v1/events/stream",
                ])
            #expect(follow.output.contains("id: \(seq + 1)\ndata: {") && !follow.output.contains("id: \(seq)\n"))
            let lost = try await home.http("/v1/events/stream", ["-H", "Last-Event-ID: 99999"])
            #expect(lost.status == 400 && lost.body.contains("head is "))
            let open = try await TestKit.run(["curl", "-sS", "http://127.0.0.1:\(home.config.port(.bus))/v1/events"])
            #expect(open.output.contains(#""status":401"#))
        }
    }

    @Test("what rots while the bus runs is named over HTTP and never skipped; what comes before it is answered") func rot() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            for number in 1...6 {
                let sent = try await home.http(
                    "/v1/events",
                    ["-H", "Content-Type: application/json", "-d", #"{"type":"test.rot","subject":"x","data":"number-\#(number)"}"#])
                #expect(sent.status == 202)
            }
            let log = home.config.home.directory(.bus) + "/log/" + SegmentHeader.fileName(1)
            let bytes = try Data(contentsOf: URL(fileURLWithPath: log))
            let place = try #require(bytes.range(of: Data("number-4".utf8)))
            try DiskFile(log).write(Data("NUMBER".utf8), at: place.lowerBound)
            let whole = try await home.http("/v1/events?type=test", ["-D", "/dev/stderr"])
            #expect(whole.status == 200 && whole.body.contains("number-3") && !whole.body.contains("number-5"))
            let found = try Coding.decode([Envelope].self, from: Data(whole.body.utf8))
            let bad = try #require(found.last?.seq) + 1
            for path in ["/v1/events?since=\(bad)", "/v1/events?since=\(bad)&type=other", "/v1/events/stream?since=\(bad)"] {
                let refused = try await home.http(path)
                #expect(refused.status == 500 && refused.body.contains("since=\(bad + 1)"), "\(path): \(refused)")
            }
            let header = try await TestKit.run(
                [
                    "curl", "-sS", "-D", "-", "-o", "/dev/null", "-H", "Authorization: Bearer \(try home.operatorToken)",
                    "http://127.0.0.1:\(home.config.port(.bus))/v1/events?type=test",
                ])
            #expect(header.output.lowercased().contains("slipway-next: \(bad)"))
            // The stream ends before it, with a position from which the next attempt is told.
            let stream = try await home.http("/v1/events/stream?since=1&type=nothing")
            #expect(stream.status == 200 && stream.body.contains("\nid: \(bad - 1)\n\n"), "\(stream)")
            let again = try await home.http("/v1/events/stream", ["-H", "Last-Event-ID: \(bad - 1)"])
            #expect(again.status == 500 && again.body.contains("\(bad)"))
            let after = try await home.http("/v1/events?since=\(bad + 1)&type=test")
            #expect(after.status == 200 && after.body.contains("number-6"))
        }
    }

    @Test("a key that is replaced while the bus runs ends the sessions of the old one") func replacedKey() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let path = "\(home.config.home.keys)/script.json"
            func make() throws {
                let key = try Keyring.create("script", publish: ["deploy.*"], subscribe: ["**"], call: [], serve: [], home.config)
                try Files.write(try Coding.encode(key), to: path, mode: 0o600)
            }
            try make()
            let old = try Background(
                ["/usr/bin/python3", "\(Platform.root)/Tests/Conformance/wire.py", path, "follow", "--since", "1", "--timeout", "30"])
            try await eventually("it follows") { old.text.contains("component.joined") }
            let others = try Keyring.clients(home.config).filter { $0.name != "script" }
            try Files.write(try Coding.encode(others), to: Keyring.clientsFile(home.config), mode: 0o600)
            try make()
            let new = try await home.wire("script", "hello")
            #expect(new.status == 0, "\(new)")
            try await eventually("the old session has ended") { !old.isRunning }
        }
    }

    @Test("a Python client written from docs/wire.md publishes, follows and asks; a key made while the bus runs works at once")
    func python() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let key = try Keyring.create(
                "script", publish: ["deploy.*"], subscribe: ["**"], call: ["git.*", "bus.*"], serve: [], home.config)
            try Files.write(try Coding.encode(key), to: "\(home.config.home.keys)/script.json", mode: 0o600)
            let published = try await home.wire("script", "publish", "deploy.requested", "shop", #"{"app":"shop"}"#)
            #expect(published.status == 0 && published.output.contains("\"seq\": "), "\(published)")
            let refused = try await home.wire("script", "publish", "git.push.received", "shop", "{}")
            #expect(refused.status == 1 && refused.errors.contains("may not publish git.push.received"), "\(refused)")
            let followed = try await home.wire(
                "script", "follow", "--type", "deploy", "--since", "1", "--until", "deploy.requested", "--timeout", "20")
            #expect(followed.status == 0 && followed.output.contains(#""producer": "script""#), "\(followed)")
            try await home.client(.git) { git in
                git.serve("git", concurrency: 1) { _, body, caller in Data(#"{"caller":"\#(caller)"}"#.utf8) }
                try await eventually("git serves") {
                    let asked = try await home.wire("script", "call", "git.file", "{}")
                    return asked.status == 0 && asked.output.contains(#""caller": "script""#)
                }
            }
            let forbidden = try await home.wire("script", "call", "api.authenticate", "{}")
            #expect(forbidden.status == 1 && forbidden.errors.contains("may not call"), "\(forbidden)")
        }
    }

    @Test("a listening socket that was handed over is used, and an open stream does not hold up the end") func handedOver() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(home.config.busPort)).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        #expect(bound == 0 && listen(listener, 64) == 0)
        let config = BusConfig(
            logDirectory: home.config.home.directory(.bus) + "/log", listen: "127.0.0.1", port: home.config.busPort, host: "here",
            descriptor: listener)
        let settings = home.config
        let keys = try KeyTable(path: Keyring.clientsFile(settings)) { try Keyring.clients(settings) }
        let store = CursorStore(
            store: try .init(path: home.config.home.path + "/own.sqlite", durability: .normal, migrations: CursorStore.migrations))
        let broker = try await Broker.start(
            config, secretKey: try Keyring.load("bus", settings).secretKey, keys: keys, store: store, logger: home.logger
        ) { _ in }
        let answer = try await home.client(.api) { client in try await client.call("bus.consumers", Data(), timeout: 5) }
        #expect(String(decoding: answer, as: UTF8.self) == "[]")
        broker.stop()
        try await broker.run()

        let after = try BusHome()
        defer { after.remove() }
        let stopping = try await after.run { home in
            let stream = try Background(
                [
                    "curl", "-sS", "-N", "-m", "60", "-H", "Authorization: Bearer \(try home.operatorToken)",
                    "http://127.0.0.1:\(home.config.port(.bus))/v1/events/stream?since=1",
                ])
            try await eventually("the stream is open") { stream.text.contains(": open") }
            let metrics = try await home.http("/metrics").body
            #expect(metrics.contains("slipway_bus_epoch 1"))
            return Clock.monotonic()
        }
        #expect(Clock.monotonic() - stopping < 5000)
    }

    @Test("a key that the bus does not know gets no session, and the port that is taken is named") func refused() async throws {
        let home = try BusHome()
        let other = try BusHome()
        defer {
            home.remove()
            other.remove()
        }
        try await home.run { home in
            var stranger = try Keyring.load("git", other.config)
            stranger.serverKey = try Keyring.load("git", home.config).serverKey
            stranger.endpoint = home.config.busEndpoint
            try Files.write(try Coding.encode(stranger), to: "\(home.config.home.keys)/stranger.json", mode: 0o600)
            let refused = try await home.wire("stranger", "hello")
            #expect(refused.status == 1 && refused.errors.contains("the bus refuses this key"), "\(refused)")
            let config = BusConfig(
                logDirectory: home.config.home.path + "/second", listen: "127.0.0.1", port: home.config.busPort, host: "here")
            let keys = try KeyTable(path: "") { [] }
            let store = CursorStore(
                store: try .init(path: home.config.home.path + "/second.sqlite", durability: .normal, migrations: CursorStore.migrations))
            let problem = await #expect(throws: Problem.self) {
                try await Broker.start(
                    config, secretKey: try Keyring.load("bus", home.config).secretKey, keys: keys, store: store, logger: home.logger
                ) { _ in }
            }
            #expect(
                problem?.code == .configuration
                    && problem?.message == "port \(home.config.busPort) on 127.0.0.1 is taken by another program")
        }
    }
}

@Suite("kill -9 of the bus", .timeLimit(.minutes(5))) struct KillTests {
    @Test("a bus that has no descriptor left refuses for now, and stores everything in the end") func descriptors() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        let client = try Boot.make(.scheduler, home.config, home.logger).bus
        client.setOutbox(outbox)
        let bus = try BusProcess(home.config, descriptors: 80)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await client.run() }
            guard await client.connected(within: 20) else { throw Failure("no session with the bus") }
            // Strangers that say nothing, and come again when they are turned away.
            tasks.addTask {
                var idle: [Int32] = []
                let until = Clock.monotonic() + 6000
                while Clock.monotonic() < until, !Task.isCancelled {
                    for descriptor in idle { close(descriptor) }
                    idle = (0..<160).map { Ports.connect($0 % 2 == 0 ? home.config.busPort : home.config.port(.bus)) }
                    try? await Task.sleep(for: .milliseconds(1500))
                }
                for descriptor in idle { close(descriptor) }
            }
            try await Task.sleep(for: .milliseconds(300))
            // Enough for the next segment.
            for value in 0..<120 { outbox.add("run.finished", value, bytes: 60_000) }
            client.outboxChanged()
            try await eventually("everything is stored", within: 60) { outbox.state.withLock { $0.settled == $0.last } }
            tasks.cancelAll()
        }
        #expect(outbox.state.withLock(\.refused).isEmpty)
        #expect(try await bus.end(SIGTERM) == 0)
        let (log, recovered) = try EventLog.open(EventLog.Settings(directory: home.config.home.directory(.bus) + "/log"), durable: nil)
        #expect(recovered.damage.isEmpty && log.last >= 120)
        #expect(try TestLog.readAll(log).count == Int(log.last))
    }

    @Test("a group's work survives kill -9 of the bus: all is done, and what nobody takes is parked and stays so") func group() async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let key = try Keyring.create(
            "script", publish: ["test.**"], subscribe: ["**"], call: ["bus.**"], serve: [], home.config)
        try Files.write(try Coding.encode(key), to: "\(home.config.home.keys)/script.json", mode: 0o600)
        var bus = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        for number in 1...12 {
            let sent = try await home.http(
                "/v1/events", ["-H", "Content-Type: application/json", "-d", #"{"type":"test.job","subject":"x","data":\#(number)}"#])
            #expect(sent.status == 202)
        }
        func member(_ arguments: String...) throws -> Background {
            try Background(
                ["/usr/bin/python3", "\(Platform.root)/Tests/Conformance/wire.py", "\(home.config.home.keys)/script.json", "work", "jobs"]
                    + arguments)
        }
        // Each is refused once first; in the middle the bus is killed.
        let one = try member("--type", "test", "--since", "1", "--nak", "2", "--count", "12", "--timeout", "40")
        try await eventually("some are done") { one.text.contains(#""done": true"#) }
        _ = try await bus.end(SIGKILL)
        bus = try BusProcess(home.config)
        let finished = try await one.finish(within: 45)
        #expect(finished.status == 0, "\(finished)")
        let done = finished.output.split(separator: "\n").filter { $0.contains(#""done": true"#) }
        #expect(Set(done.compactMap { $0.split(separator: "\"data\": ").last?.prefix { $0.isNumber }.description }).count == 12)
        // What was settled in the last moments before the kill came again, perhaps after the twelfth.
        _ = try await home.wire("script", "work", "jobs", "--type", "test", "--timeout", "1")
        try await eventually("the queue is empty") {
            try await home.http("/v1/consumers").body.contains(#""unsettled":0"#)
        }
        // One that is refused for good.
        let sent = try await home.http(
            "/v1/events", ["-H", "Content-Type: application/json", "-d", #"{"type":"test.job","subject":"x","data":13}"#])
        #expect(sent.status == 202)
        let two = try await home.wire("script", "work", "jobs", "--type", "test", "--nak", "99", "--max", "3", "--timeout", "3")
        #expect(two.output.contains(#""deliveries": 3"#) && !two.output.contains(#""deliveries": 4"#), "\(two)")
        try await eventually("it is parked") { try await home.http("/v1/consumers").body.contains(#""parked":1"#) }
        let told = try await home.http("/v1/events?type=bus.message.parked")
        #expect(told.body.contains(#""consumer":"jobs""#))
        try await Task.sleep(for: .milliseconds(300))
        _ = try await bus.end(SIGKILL)
        bus = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        let list = try await home.http("/v1/consumers/parked?owner=script")
        #expect(list.status == 200 && list.body.contains(#""deliveries":3"#), "\(list)")
        let parked = try Coding.decode([ParkedStatus].self, from: Data(list.body.utf8))
        let seq = try #require(parked.first?.seq)
        let which = #"{"owner":"script","consumer":"jobs","seq":\#(seq)}"#
        let retried = try await home.http("/v1/consumers/parked/retry", ["-H", "Content-Type: application/json", "-d", which])
        #expect(retried.status == 200, "\(retried)")
        let three = try await home.wire("script", "work", "jobs", "--type", "test", "--count", "1", "--timeout", "20")
        #expect(three.status == 0 && three.output.contains(#""data": 13"#), "\(three)")
        let gone = try await home.http("/v1/consumers/parked/drop", ["-H", "Content-Type: application/json", "-d", which])
        #expect(gone.status == 404)
        #expect(try await bus.end(SIGTERM) == 0)
    }

    @Test("told to end in the moment in which it begins to take events, it ends in order") func earlyEnd() async throws {
        let home = try BusHome()
        defer { home.remove() }
        for round in 0..<20 {
            let bus = try BusProcess(home.config)
            let deadline = Clock.monotonic() + 20_000
            // It listens before its services run: as soon as can be, and in the milliseconds in which they begin to.
            while !Ports.answers(home.config.busPort), Clock.monotonic() < deadline { usleep(100) }
            usleep(UInt32(round % 10) * 1500)
            let status = try await bus.end(SIGTERM)
            #expect(status == 0, "round \(round): status \(status)")
        }
    }

    @Test("no acknowledged event is lost or doubled, whenever the bus is killed") func kill() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        let client = try Boot.make(.scheduler, home.config, home.logger).bus
        client.setOutbox(outbox)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await client.run() }
            tasks.addTask {
                var value = 0
                while !Task.isCancelled, value < 100_000 {
                    for _ in 0..<20 {
                        outbox.add("run.finished", value)
                        value += 1
                    }
                    client.outboxChanged()
                    try? await Task.sleep(for: .milliseconds(5))
                }
            }
            for round in 0..<8 {
                let bus = try BusProcess(home.config)
                let before = outbox.state.withLock(\.settled)
                try await eventually("the bus takes events after kill \(round)") { outbox.state.withLock(\.settled) > before }
                try await Task.sleep(for: .milliseconds(Int.random(in: 20...250)))
                _ = try await bus.end(SIGKILL)
            }
            let bus = try BusProcess(home.config)
            let target = outbox.state.withLock(\.last)
            try await eventually("the rest is taken", within: 60) { outbox.state.withLock(\.settled) >= target }
            tasks.cancelAll()
            let status = try await bus.end(SIGTERM)
            #expect(status == 0, "status \(status)")
        }
        let settled = outbox.state.withLock(\.settled)
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
        // In order, each once, and at least all that were acknowledged.
        #expect(values == (0..<values.count).map { Int64($0) })
        #expect(values.count >= Int(settled))
        #expect(settled > 500)
    }
}
