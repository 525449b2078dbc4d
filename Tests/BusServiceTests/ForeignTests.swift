import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

/// Programs that are not ours: the client written from docs/wire.md, and the examples for users, against the real bus.
@Suite("Foreign programs", .timeLimit(.minutes(3))) struct ForeignTests {
    private static let python = "/usr/bin/python3"
    private static let wire = "\(Platform.root)/Tests/Conformance/wire.py"
    private static func example(_ name: String) -> String { "\(Platform.root)/docs/examples/\(name).py" }

    /// The path of a new key file.
    private static func key(
        _ name: String, _ home: BusHome, publish: [String] = ["test.**", "job.*", "shop.*"], call: [String] = ["*.*"],
        serve: [String] = ["echo", "weather"]
    ) throws -> String {
        let key = try Keyring.create(name, publish: publish, subscribe: ["**"], call: call, serve: serve, home.config)
        let path = "\(home.config.home.keys)/\(name).json"
        try Files.write(try Coding.encode(key), to: path, mode: 0o600)
        return path
    }
    private static func numbers(_ text: String, _ member: String = "data") -> [Int64] {
        text.split(separator: "\n").compactMap { line in
            try? Coding.decode(JSON.self, from: Data(line.utf8))[member]?.int
        }
    }

    @Test("whoever has no key, a wrong one, or another's routing id gets no answer, and nobody else notices") func strangers() async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let finished = try await TestKit.run(
                [
                    Self.python, "\(Platform.root)/Tests/Conformance/strangers.py", try Self.key("resident", home),
                    try Self.key("squatter", home),
                ], within: 60)
            #expect(finished.status == 0, "\(finished)")
            try await eventually("the operator is told of the unknown key") {
                try await home.http("/v1/events?type=bus.denied").body.contains("clients.json")
            }
        }
    }

    @Test("a durable consumer in Python goes on after a kill -9 of the bus, and after its own end, where it was") func durable()
        async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let key = try Self.key("script", home)
        func publish(_ numbers: ClosedRange<Int>) async throws {
            for number in numbers {
                let sent = try await home.wire("script", "publish", "test.one", "shop", "\(number)")
                #expect(sent.status == 0, "\(sent)")
            }
        }
        let first = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        let reader = try Background([Self.python, Self.wire, key, "consume", "mine", "--type", "test", "--count", "6", "--timeout", "60"])
        try await publish(1...3)
        try await eventually("three are read") { Self.numbers(reader.text).contains(3) }
        _ = try await first.end(SIGKILL)
        let second = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        try await publish(4...6)
        try await eventually("the rest is read") { !reader.isRunning }
        // Acknowledged just before the kill, an event may come twice; none may be missing or out of order.
        let read = Self.numbers(reader.text)
        #expect(Set(read).isSuperset(of: 1...5) && read == read.sorted(), "\(read)")
        try await publish(7...7)
        let rest = try await home.wire("script", "consume", "mine", "--type", "test", "--timeout", "3")
        #expect(Self.numbers(rest.output).last == 7 && Self.numbers(rest.output).first ?? 0 > 5, "\(rest)")
        _ = try await second.end(SIGTERM)
    }

    @Test("a service in Python answers calls, in parts") func served() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let server = try Background(
                [Self.python, Self.wire, try Self.key("server", home), "serve", "echo", "--count", "1", "--timeout", "60"])
            _ = try Self.key("caller", home)
            var answer: Finished?
            try await eventually("somebody serves") {
                answer = try await home.wire("caller", "call", "echo.this", #"{"a":[1,2]}"#)
                return answer?.status == 0
            }
            let reply = try Coding.decode(JSON.self, from: Data(try #require(answer).output.utf8))
            #expect(reply["said"]?["a"] == .array([.int(1), .int(2)]) && reply["caller"]?.string == "caller", "\(reply)")
            try await eventually("the server has ended") { !server.isRunning }
        }
    }

    @Test("the examples for users publish many, read each once across restarts, share work, and ask and serve") func examples() async throws
    {
        let home = try BusHome()
        defer { home.remove() }
        let key = try Self.key("script", home)
        func run(_ name: String, _ arguments: String...) async throws -> Finished {
            try await TestKit.run([Self.python, Self.example(name), key] + arguments, within: 90)
        }
        let first = try BusProcess(home.config)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        let one = try await run("publish", "shop.sold", "shop/production", #"{"item":7}"#)
        #expect(one.status == 0 && one.output.contains("is event "), "\(one)")
        // More than a window, and more than one that goes through while the bus is killed and started again.
        let many = try Background([Self.python, Self.example("publish"), key, "test.many", "shop", "{}", "20000"])
        let reader = try Background([Self.python, Self.example("follow"), key, "mailer", "test.**", "20"])
        try await eventually("some are read") { reader.text.utf8.count > 20_000 }
        _ = try await first.end(SIGKILL)
        let second = try BusProcess(home.config)
        try await eventually("all are published", within: 90) { !many.isRunning }
        #expect(many.text.contains("20000 events are stored"), "\(many.text.suffix(500))")
        try await eventually("all are read", within: 90) { !reader.isRunning }
        let read = reader.text.split(separator: "\n").compactMap {
            try? Coding.decode(JSON.self, from: Data($0.utf8))["data"]?["number"]?.int
        }
        // Those that were read and not acknowledged when the bus died come again; none is missing, none is late.
        #expect(Set(read) == Set(1...20_000), "\(Set(read).count)")
        #expect(read.count < 20_000 + 600, "\(read.count)")
        let refused = try await run("publish", "git.push.received", "shop", "{}")
        #expect(refused.status == 1 && refused.errors.contains("403"), "\(refused)")

        for fail in 0...1 { #expect(try await run("publish", "job.new", "shop", #"{"fail":\#(fail)}"#).status == 0) }
        let worked = try await run("worker", "packers", "job.*", "4")
        let lines = worked.output.split(separator: "\n")
        #expect(lines.count == 3 && lines.count { $0.contains("done") } == 2 && worked.output.contains("done, delivery 2"), "\(worked)")

        let server = try Background([Self.python, Self.example("weather"), key, "serve", "60"])
        try await eventually("the weather is told") {
            let asked = try await run("weather", "ask", "Porto")
            return asked.status == 0 && asked.output.contains("'asked_by': 'script'")
        }
        server.send(signal: SIGTERM)
        _ = try await second.end(SIGTERM)
    }
}
