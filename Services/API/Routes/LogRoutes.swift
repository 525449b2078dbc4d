import BusClient
import Contracts
import HTTPKit
import Hummingbird
import Kit

/// `/v1/logs`: what instances and jobs write.
struct LogRoutes: Sendable {
    let desk: Desk

    /// Which instances or jobs.
    struct Choice: Sendable {
        var app: AppName
        var environment: EnvName?
        var service: ServiceName?
        var run: Int?

        func includes(_ origin: String) -> Bool {
            if let run {
                return (try? JobID(origin)).map { $0.app == app && $0.run == run } ?? false
            }
            guard let instance = try? InstanceID(origin), instance.app == app else { return false }
            return (environment == nil || instance.environment == environment) && (service == nil || instance.service == service)
        }
    }

    struct Line: Codable, Sendable {
        var origin: String
        var line: String
    }

    func add(to routes: Routes) {
        routes.get("/v1/logs", .role(.viewer)) { request, context in
            let holder = try context.holder()
            guard let app = try request.name("app", as: AppName.self) else {
                throw Problem(.malformed, "app is missing", hint: "/v1/logs?app=NAME")
            }
            guard holder.may(.viewer, app: app), try await desk.read({ $0.apps[app.text] != nil }) else { throw Problem.noApp(app.text) }
            let run = try request.query("run").map { text in
                guard let number = Int(text), number > 0 else { throw Problem(.malformed, "run=\(Problem.quote(text)): expected a number") }
                return number
            }
            var choice = Choice(
                app: app, environment: try request.name("environment", as: EnvName.self),
                service: try request.name("service", as: ServiceName.self),
                run: run)
            if let own = holder.environment {
                guard choice.environment == nil || choice.environment == own else { throw Problem.outOfReach(holder) }
                choice.environment = own
            }
            let asked = choice
            try await desk.read { state in
                if let environment = asked.environment { try OrderRules.known(state, app, environment) }
                if let service = asked.service { try OrderRules.known(state, app, service) }
                if let run, state.runs[Key.run(app, run)] == nil { throw Problem(.notFound, "\(app) has no run \(run)") }
            }
            let lines = try request.integer("lines", in: 0...2000, default: 100)
            let query = ReadLogs(app: app, environment: choice.environment, service: choice.service, run: run, lines: lines)
            if request.flag("follow") { return follow(query, choice) }
            return try .json(try await desk.boot.bus.call(query, timeout: 10))
        }
    }

    private func follow(_ query: ReadLogs, _ choice: Choice) -> Response {
        let desk = desk
        return .following { pipe in
            // Listening begins before the tail is read, so that no line falls between; what is in both is told once.
            let live = try await desk.boot.bus.subscribe(SubscriptionRequest(filters: ["log.**"], from: .new))
            defer { live.cancel() }
            func send(_ origin: String, _ lines: some Sequence<String>) async throws {
                for line in lines { try await pipe.send(event: "line", try Coding.text(Line(origin: origin, line: line))) }
            }
            var tails: [String: [String]] = [:]
            if query.lines > 0 {
                for log in try await desk.boot.bus.call(query, timeout: 10).logs {
                    tails[log.origin] = log.lines
                    try await send(log.origin, log.lines)
                }
            }
            for try await delivery in live {
                for event in delivery.events {
                    guard let lines = event.as(LogLines.self), choice.includes(lines.origin) else { continue }
                    let seen = tails.removeValue(forKey: lines.origin).map { Overlap.count($0, lines.lines) } ?? 0
                    try await send(lines.origin, lines.lines.dropFirst(seen))
                }
            }
        }
    }
}
