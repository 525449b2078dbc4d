import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("Queries over the running bus", .timeLimit(.minutes(2))) struct QueryTests {
    @Test("a caller that goes away stops its handler; a service that is not there yet is waited for") func cancel() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let (begun, ended) = (Locked(0), Locked(0))
            try await home.client(.scheduler) { scheduler in
                // Nobody serves it yet.
                let early = Task { try await scheduler.call("git.echo", Data("early".utf8), timeout: 10) }
                try await home.client(.git) { git in
                    git.serve("git", concurrency: 4) { method, body, _ in
                        guard method == "git.slow" else { return body }
                        begun.withLock { $0 += 1 }
                        defer { ended.withLock { $0 += 1 } }
                        try await Task.sleep(for: .seconds(60))
                        return Data()
                    }
                    let answered = try await early.value
                    #expect(answered == Data("early".utf8))
                    let call = Task { try await scheduler.call("git.slow", Data(), timeout: 60) }
                    try await eventually("the handler runs") { begun.withLock { $0 == 1 } }
                    call.cancel()
                    try await eventually("the handler was cancelled") { ended.withLock { $0 == 1 } }
                    // Over its deadline: the same.
                    await #expect(throws: Problem.self) { try await scheduler.call("git.slow", Data(), timeout: 0.2) }
                    try await eventually("the handler was cancelled") { ended.withLock { $0 == 2 } }
                    // The instance on this host, and one that is not there.
                    let here = home.config.host.text
                    #expect(try await scheduler.call("git.echo", instance: here, Data("x".utf8), timeout: 5) == Data("x".utf8))
                    let away = await #expect(throws: Problem.self) {
                        try await scheduler.call("git.echo", instance: "elsewhere", Data(), timeout: 0.5)
                    }
                    #expect(away?.code == .timeout || away?.code == .unavailable)
                }
            }
        }
    }

    @Test("a query whose service is killed and started again is answered all the same") func lost() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            try await home.client(.scheduler) { scheduler in
                let begun = Locked(0)
                let first = try Boot.make(.git, home.config, home.logger).bus
                first.serve("git", concurrency: 1) { _, _, _ in
                    begun.withLock { $0 += 1 }
                    try await Task.sleep(for: .seconds(60))
                    return Data()
                }
                let running = Task { try await first.run() }
                let answer = Task { try await scheduler.call("git.echo", Data("once".utf8), timeout: 20) }
                try await eventually("it is being worked on") { begun.withLock { $0 == 1 } }
                running.cancel()
                _ = await running.result
                try await home.client(.git) { git in
                    git.serve("git", concurrency: 1) { _, body, _ in body }
                    let answered = try await answer.value
                    #expect(answered == Data("once".utf8))
                }
            }
        }
    }
}
