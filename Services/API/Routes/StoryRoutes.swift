import Contracts
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit
import Story

/// `/v1/apps/:app/story`: what happens to a push, an order or a release, in lines, replayed from the log and followed to its end.
struct StoryRoutes: Sendable {
    let desk: Desk
    /// Seconds that a push or order has to show up in the read model.
    static let patience = 5.0

    /// Where a story begins.
    struct Beginning: Sendable {
        var subject: Story.Subject
        var seq: UInt64
    }

    struct End: Codable, Sendable {
        /// `live`, `failed`, or `ended`: superseded, or nothing to deploy.
        var outcome: String
        var reason: String?
        var url: String?

        init(_ ending: Story.Ending) {
            switch ending {
            case .live(let url):
                outcome = "live"
                self.url = url
            case .failed(let reason):
                outcome = "failed"
                self.reason = reason
            case .ended(let reason):
                outcome = "ended"
                self.reason = reason
            }
        }
    }

    func add(to routes: Routes) {
        routes.get("/v1/apps/:app/story", .app(.viewer)) { request, context in
            let app = try await desk.app(context).name
            let holder = try context.holder()
            let wanted = try Wanted(request, context)
            let beginning = try await find(wanted, of: app)
            let told = try LastEventID.read(request) ?? 0
            let desk = desk
            return .following { pipe in
                var story = Story(beginning.subject)
                try await desk.follow(Story.filters, from: .seq(max(1, beginning.seq), stream: nil)) { event in
                    let lines = story.take(event)
                    // Another environment's part of the story moves it on, but is not shown.
                    guard holder.sees(event.type.text, subject: event.subject) || story.ending != nil else { return true }
                    for line in lines where event.seq == 0 || event.seq > told {
                        try await pipe.send(id: event.seq, event: "line", line)
                    }
                    guard let ending = story.ending else { return true }
                    try await pipe.send(id: event.seq, event: "end", try Coding.text(End(ending)))
                    return false
                }
            }
        }
    }

    /// What the request asks for; nothing: the newest thing that happened to the app.
    enum Wanted: Sendable {
        case commit(String)
        case release(Int, EnvName?)
        case order(EventID)
        case newest(EnvName?)

        init(_ request: Request, _ context: SlipwayContext) throws {
            let environment = try request.environment(for: context)
            if let text = request.query("commit"), !text.isEmpty {
                let isHex = text.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }
                guard (4...64).contains(text.utf8.count), isHex else {
                    throw Problem(
                        .invalid, "commit \(Problem.quote(text)): expected 4 to 64 lower-case hexadecimal digits",
                        hint: "git rev-parse HEAD")
                }
                self = .commit(text)
            } else if let number = try request.release("release") {
                self = .release(number, environment)
            } else if let text = request.query("order"), !text.isEmpty {
                self = .order(try EventID(text))
            } else {
                self = .newest(environment)
            }
        }
    }

    /// Looks again for a moment: what was pushed just now may be on its way here.
    private func find(_ wanted: Wanted, of app: AppName) async throws -> Beginning {
        let clock = ContinuousClock()
        // With nothing named there is less to wait for: most likely nothing has happened yet.
        let patience: Double = if case .newest = wanted { 1 } else { Self.patience }
        let deadline = clock.now + .seconds(patience)
        while true {
            if let found = try await desk.read({ try Self.look($0, wanted, app) }) { return found }
            guard clock.now < deadline else { break }
            try await Task.sleep(for: .milliseconds(50))
        }
        switch wanted {
        case .commit(let text):
            throw Problem(.notFound, "no push to \(app) had the commit \(text)", hint: "git push slipway main; slipway releases \(app)")
        case .release(let number, _): throw Problem(.notFound, "\(app) has no release v\(number)", hint: "slipway releases \(app)")
        case .order(let id): throw Problem(.notFound, "no order \(id) concerns \(app)")
        case .newest: throw Problem(.notFound, "nothing has happened to \(app) yet", hint: "git push slipway main")
        }
    }

    static func look(_ state: APIState, _ wanted: Wanted, _ app: AppName) throws -> Beginning? {
        func begin(_ row: OrderRow) -> Beginning {
            // An order that is still on its way will come after all that was taken so far.
            Beginning(subject: .order(app, row.id), seq: row.seq > 0 ? row.seq : state.position + 1)
        }
        switch wanted {
        case .order(let id):
            return state.orders[id.text].flatMap { $0.app == app ? begin($0) : nil }
        case .commit(let prefix):
            let found = state.pushes.under(app.text).filter { $0.commit.text.hasPrefix(prefix) }
            guard found.count <= 1 else {
                throw Problem(.invalid, "commit \(prefix) could be any of \(found.count)", hint: "give more digits")
            }
            return found.first.map { Beginning(subject: .commit(app, $0.commit), seq: $0.seq) }
        case .release(let number, let environment):
            guard let release = state.releases[Key.release(app, number)] else { return nil }
            let orders = state.orders.values.filter {
                $0.app == app && $0.release == number && (environment == nil || $0.environment == environment)
            }
            if let newest = orders.max(by: { $0.at < $1.at }) { return begin(newest) }
            return state.pushes[Key.push(app, release.commit)].map { Beginning(subject: .commit(app, $0.commit), seq: $0.seq) }
        case .newest(let environment):
            let push = state.pushes.under(app.text).max { $0.seq < $1.seq }
            let orders = state.orders.values.filter { $0.app == app && (environment == nil || $0.environment == environment) }
            let order = orders.max { $0.at < $1.at }
            guard let push else { return order.map(begin) }
            if let order, order.seq == 0 || order.seq > push.seq {
                // The orders that the push itself led to are part of its story: they were given when its run ended, not later.
                let run = state.runs.under(app.text).last { $0.commit == push.commit && $0.seq > push.seq }
                let isOwn = environment == nil && order.release != nil && run.map { $0.finishedAt.map { order.at <= $0 } ?? true } ?? false
                if !isOwn { return begin(order) }
            }
            return Beginning(subject: .commit(app, push.commit), seq: push.seq)
        }
    }
}

enum LastEventID {
    /// The number that a reconnecting client has seen last. Throws `Problem` (`malformed`) when it is none.
    static func read(_ request: Request) throws -> UInt64? {
        guard let name = HTTPField.Name("Last-Event-ID"), let text = request.headers[name], !text.isEmpty else { return nil }
        guard let seq = UInt64(text) else {
            throw Problem(.malformed, "Last-Event-ID \(Problem.quote(text)): expected the number of an event")
        }
        return seq
    }
}
