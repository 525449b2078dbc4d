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
            let environment = try request.environment(for: context)
            if let environment { try await desk.read { try OrderRules.known($0, app, environment) } }
            let beginning = try await find(try Wanted(request), in: environment, of: app)
            let told = try LastEventID.read(request) ?? 0
            let desk = desk
            return .following { pipe in
                var story = Story(beginning.subject, environment: environment)
                try await desk.follow(Story.filters, from: .seq(max(1, beginning.seq), stream: nil)) { event in
                    for line in story.take(event) where event.seq == 0 || event.seq > told {
                        if holder.sees(event.type.text, subject: event.subject) { try await pipe.send(id: event.seq, event: "line", line) }
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
        case release(Int)
        case order(EventID)
        case newest

        init(_ request: Request) throws {
            if let text = request.query("commit"), !text.isEmpty {
                let isHex = text.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }
                guard (4...64).contains(text.utf8.count), isHex else {
                    throw Problem(
                        .invalid, "commit \(Problem.quote(text)): expected 4 to 64 lower-case hexadecimal digits",
                        hint: "git rev-parse HEAD")
                }
                self = .commit(text)
            } else if let number = try request.release("release") {
                self = .release(number)
            } else if let text = request.query("order"), !text.isEmpty {
                self = .order(try EventID(text))
            } else {
                self = .newest
            }
        }
    }

    /// Looks again for a moment: what was pushed just now may be on its way here.
    private func find(_ wanted: Wanted, in environment: EnvName?, of app: AppName) async throws -> Beginning {
        let clock = ContinuousClock()
        // With nothing named there is less to wait for: most likely nothing has happened yet.
        let patience: Double = if case .newest = wanted { 1 } else { Self.patience }
        let deadline = clock.now + .seconds(patience)
        while true {
            if let found = try await desk.read({ try Self.look($0, wanted, environment, app) }) { return found }
            guard clock.now < deadline else { break }
            try await Task.sleep(for: .milliseconds(50))
        }
        switch wanted {
        case .commit(let text):
            throw Problem(.notFound, "no push to \(app) had the commit \(text)", hint: "git push slipway main; slipway releases \(app)")
        case .release(let number): throw Problem(.notFound, "\(app) has no release v\(number)", hint: "slipway releases \(app)")
        case .order(let id): throw Problem(.notFound, "no order \(id) concerns \(app)")
        case .newest:
            guard let environment else {
                throw Problem(.notFound, "nothing has happened to \(app) yet", hint: "git push slipway main")
            }
            throw Problem(
                .notFound, "nothing of \(app) has been deployed to \(environment) yet", hint: "slipway deploy \(app) --env \(environment)")
        }
    }

    static func look(_ state: APIState, _ wanted: Wanted, _ environment: EnvName?, _ app: AppName) throws -> Beginning? {
        func begin(_ row: OrderRow) -> Beginning {
            // An order that is still on its way will come after all that was taken so far.
            Beginning(subject: .order(app, row.id), seq: row.seq > 0 ? row.seq : state.position + 1)
        }
        func begin(_ row: PushRow) -> Beginning { Beginning(subject: .commit(app, row.commit), seq: row.seq) }
        /// The newest order, for that environment when one is named, and of these releases when some are.
        func order(_ releases: [Int]?) -> OrderRow? {
            state.orders.values.filter { row in
                row.app == app && (environment == nil || row.environment == environment)
                    && (releases.map { list in row.release.map { list.contains($0) } ?? false } ?? true)
            }.max { $0.at < $1.at }
        }
        switch wanted {
        case .order(let id):
            return state.orders[id.text].flatMap { $0.app == app ? begin($0) : nil }
        case .commit(let prefix):
            let found = state.pushes.under(app.text).filter { $0.commit.text.hasPrefix(prefix) }
            guard found.count <= 1 else {
                throw Problem(.invalid, "commit \(prefix) could be any of \(found.count)", hint: "give more digits")
            }
            guard let push = found.first else { return nil }
            // How it is in one environment is told by the last order for it there.
            let releases = state.releases.under(app.text).filter { $0.commit == push.commit }.map(\.number)
            if environment != nil, let order = order(releases) { return begin(order) }
            return begin(push)
        case .release(let number):
            guard let release = state.releases[Key.release(app, number)] else { return nil }
            if let newest = order([number]) { return begin(newest) }
            return state.pushes[Key.push(app, release.commit)].map(begin)
        case .newest:
            let push = state.pushes.under(app.text).max { $0.seq < $1.seq }
            let order = order(nil)
            guard let push else { return order.map(begin) }
            let run = state.runs.under(app.text).last { $0.commit == push.commit && $0.seq > push.seq }
            if environment != nil {
                // A push that is still on its way may lead there; one whose run is over has led there, or does not.
                if let order, order.seq == 0 || order.seq > push.seq || run?.finishedAt != nil { return begin(order) }
                return run?.finishedAt == nil ? begin(push) : nil
            }
            if let order, order.seq == 0 || order.seq > push.seq {
                // The orders that the push itself led to are part of its story: they were given when its run ended, not later.
                let isOwn = order.release != nil && run.map { $0.finishedAt.map { order.at <= $0 } ?? true } ?? false
                if !isOwn { return begin(order) }
            }
            return begin(push)
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
