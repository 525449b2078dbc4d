import ArgumentParser
import Contracts
import Foundation

/// Follows a story to its end, through restarts of the api: it is replayed from the log, and what was told is not told again.
struct StoryFollower {
    let client: Client
    let app: String
    let query: [(String, String?)]
    /// Print the ending as JSON instead of the lines.
    var json = false
    /// Seconds until this gives up; nil: as long as it takes.
    var timeout: Double?

    /// Prints the story. Throws `ExitCode.failure` after saying why when the end is not live.
    func follow() async throws {
        let end = try await ending()
        if json { Terminal.out(try Coding.text(end)) }
        guard end["outcome"]?.string == "live" else {
            let reason = end["reason"]?.string ?? "it did not become live"
            if !json { Failure.say(Problem(.failed, "\(app): \(reason)")) }
            throw ExitCode(1)
        }
    }

    private func ending() async throws -> JSON {
        guard let timeout else { return try await read() }
        return try await withThrowingTaskGroup(of: JSON.self) { group in
            group.addTask { try await read() }
            group.addTask {
                try await Task.sleep(for: .seconds(timeout))
                throw Problem(.timeout, "\(app): not at its end after \(Int(timeout)) s", hint: "slipway wait \(app)")
            }
            defer { group.cancelAll() }
            guard let first = try await group.next() else { throw Problem(.failed, "nothing was told") }
            return first
        }
    }

    private func read() async throws -> JSON {
        var last: String?
        var outage = Outage(client)
        while true {
            do {
                var end: JSON?
                let stream = try await client.events("/v1/apps/\(Client.escaped(app))/story", query, lastEventID: last)
                outage.opened()
                _ = try await stream.each { message in
                    outage.heard()
                    if let id = message.id { last = id }
                    switch message.event {
                    case "line": if !json { Terminal.out(Terminal.inert(message.data)) }
                    case "end": end = try Coding.decode(JSON.self, from: Data(message.data.utf8))
                    default: break
                    }
                    return end == nil
                }
                if let end { return end }
            } catch let problem as Problem {
                try outage.endure(problem)
            }
            try await Task.sleep(for: .milliseconds(300))
        }
    }
}
