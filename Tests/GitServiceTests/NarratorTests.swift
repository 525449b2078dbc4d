import Contracts
import Foundation
import Kit
import Storage
import TestKit
import Testing

@testable import GitService

@Suite("the story on a push", .timeLimit(.minutes(5))) struct NarratorTests {
    @Test("is told line by line until it ends, and the push has succeeded") func story() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { tale in
                tale = { push in
                    func envelope<E: Event>(_ event: E) throws -> Envelope {
                        Envelope(
                            id: EventID(UUID()), source: "t@h", type: E.type, subject: event.subject, time: nil, data: try event.json())
                    }
                    return [
                        try envelope(RunStarted(app: push.app, run: 1, ref: push.ref, commit: push.commit, jobs: [])),
                        try envelope(
                            RunFinished(
                                app: push.app, run: 1, ref: push.ref, commit: push.commit, outcome: .rejected,
                                reason: "no \u{1B}[31mslipway.yml\u{7}")),
                    ]
                }
            }
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            let lines = push.errors.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
            #expect(lines.contains("remote: run 1: \(try await h.head(work).short) on main"), "\(push)")
            #expect(lines.contains("remote: rejected: no slipway.yml\\u{7}; nothing was deployed"), "\(push)")
        }
    }

    @Test("a bus that is away costs one line and no time") func away() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            #expect(
                push.errors.contains(
                    "remote: the push is safe. The bus is away: it is deployed when the bus is back; to follow it: slipway wait shop"),
                "\(push)")
        }
    }

    @Test("no news ends the waiting with how to follow") func patience() async throws {
        var config = GitConfig()
        config.storyPatience = 0.3
        config.heartbeat = 0.1
        try await Harness.run(config: config) { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { $0 = { _ in [] } }
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            #expect(push.errors.contains("To follow it: slipway wait shop"), "\(push)")
        }
    }

    @Test("a client that hangs up while it waits changes nothing") func hangUp() async throws {
        var config = GitConfig()
        config.heartbeat = 0.1
        try await Harness.run(config: config) { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { $0 = { _ in [] } }
            let work = try await h.work("work")
            let push = try Background(["git", "push", h.url("shop"), "main"], in: work)
            while try await h.events().isEmpty { try await Task.sleep(for: .milliseconds(20)) }
            push.send(signal: SIGKILL)
            h.box.tale.withLock { $0 = nil }
            try await h.commit(work, ["b": "2"], "second")
            #expect(try await h.git("push", "-q", h.url("shop"), "main", in: work).status == 0)
            #expect(try await h.events().count == 2)
        }
    }
}
