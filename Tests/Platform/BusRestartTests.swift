import Contracts
import Foundation
import TestKit
import Testing

extension PlatformTests {
    @Suite("restarting the bus under its supervisor", .serialized, .timeLimit(.minutes(5))) struct BusRestartTests {
        @Test("its port takes connections throughout, it is started again at once, and the log goes on without a gap") func port()
            async throws
        {
            try await Platform.run { platform in
                for (round, signal) in [SIGKILL, SIGTERM, SIGKILL, SIGTERM].enumerated() {
                    let old = try #require(platform.pids(of: .bus).first)
                    let before = try await platform.lastSeq()
                    kill(old, signal)
                    var refused = 0
                    let deadline = ContinuousClock.now + .seconds(20)
                    while !platform.pids(of: .bus).contains(where: { $0 != old }), ContinuousClock.now < deadline {
                        if !Ports.answers(platform.busPort) { refused += 1 }
                        try await Task.sleep(for: .milliseconds(5))
                    }
                    #expect(refused == 0, "round \(round), signal \(signal)")
                    try await platform.ready()
                    let published = try await platform.ask(
                        .bus, "/v1/events", method: "POST", json: #"{"type":"test.restart","subject":"x","data":\#(round)}"#)
                    #expect(published.status == 202, "\(published)")
                    #expect(try await platform.lastSeq() > before)
                }
                // One that the bus outlives has no socket to give; the next bus gets a new one, and the one after that the same.
                try await platform.kill9(.supervisor)
                try await platform.ready()
                for _ in 0..<2 {
                    try await platform.kill9(.bus)
                    try await platform.ready()
                }
                let pid = try #require(platform.pids(of: .bus).first)
                let environment = try String(contentsOfFile: "/proc/\(pid)/environ", encoding: .utf8)
                #expect(environment.contains("LISTEN_FDNAMES=bus-zmq") && environment.contains("LISTEN_PID=\(pid)\0"))
                let events = try await platform.events()
                #expect(events.map(\.seq) == Array(1...UInt64(events.count)), "the log has a gap")
                #expect(events.filter { $0.type.text == "test.restart" }.count == 4)
            }
        }
    }
}
