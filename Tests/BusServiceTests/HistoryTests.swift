import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("Two histories of one log", .serialized, .timeLimit(.minutes(1))) struct HistoryTests {
    private func publish(_ home: BusHome, _ count: Int) async throws {
        for value in 0..<count {
            let body = #"{"type":"test.noted","subject":"shop","data":{"n":\#(value)}}"#
            let answer = try await home.http("/v1/events", ["-H", "Content-Type: application/json", "-d", body])
            guard (200..<300).contains(answer.status) else { throw Failure("not published: \(answer)") }
        }
    }

    @Test("a backup that was restored and written on is refused to a component that has seen what came after the backup")
    func restored() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let (bus, copy) = ("\(home.config.home.path)/bus", "\(home.config.home.path)/copy")
        func closed() async throws {
            try await eventually("the bookkeeping is closed") { !FileManager.default.fileExists(atPath: "\(bus)/state.sqlite-wal") }
        }
        try await home.run { try await publish($0, 5) }
        try await closed()
        try FileManager.default.copyItem(atPath: bus, toPath: copy)
        try await home.run { home in
            try await publish(home, 5)
            // What it hears at its beginning is what it has seen.
            try await home.client(.git) { _ in }
        }
        // The log goes on: fine.
        try await home.run { home in
            try await home.client(.git) { _ in }
            try await publish(home, 5)
        }
        try await closed()
        try FileManager.default.removeItem(atPath: bus)
        try FileManager.default.moveItem(atPath: copy, toPath: bus)
        // More starts and more events than were seen: only what the events are tells them apart.
        for _ in 0..<3 { try await home.run { try await publish($0, 10) } }
        try await home.run { home in
            let client = try Boot.make(.git, home.config, home.logger).bus
            let running = Task { try await client.run() }
            defer { running.cancel() }
            try await eventually("it is refused, and says why") {
                client.lastError?.contains("does not extend") == true && client.lastError?.contains("is not what it was") == true
            }
            #expect(client.session == nil)
            // Who has seen nothing yet may come in.
            try await home.client(.scheduler) { _ in }
        }
    }
}
