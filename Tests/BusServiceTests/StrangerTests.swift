import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("Strangers at the door", .serialized, .timeLimit(.minutes(3))) struct StrangerTests {
    @Test("beyond the limit nobody more is taken until half are gone; those who are known do not count") func counting() {
        var strangers = Strangers(most: 4)
        for descriptor: Int32 in 10..<15 { strangers.accepted(descriptor) }
        #expect(strangers.step(known: 2) == nil)
        #expect(strangers.step(known: 1) == .rest && !strangers.isListening)
        #expect(strangers.step(known: 1) == nil)
        strangers.gone(10)
        strangers.gone(10)
        #expect(strangers.step(known: 1) == nil)
        strangers.keep { $0 > 11 }
        #expect(strangers.open.count == 3 && strangers.step(known: 1) == .listen && strangers.isListening)
    }

    /// What hostile or lost programs say first (ZMTP 1.0, 2.0 and 3.1 greetings: rfc.zeromq.org/spec/13, /15, /23).
    private static let words: [[UInt8]] = [
        [],
        // ZMTP 1.0: an empty identity.
        [0x01, 0x00],
        // ZMTP 2.0: signature, revision, socket type DEALER, identity.
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 0x01, 0x05, 0x00, 0x00],
        // Half a signature.
        [0xFF, 0, 0, 0],
        // ZMTP 3.1 with the NULL mechanism, and a READY.
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("NULL".utf8) + [UInt8](repeating: 0, count: 48) + [0x04, 0x06, 0x05]
            + Array("READY".utf8),
        // CURVE, and then nothing; and then a HELLO that is too short.
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("CURVE".utf8) + [UInt8](repeating: 0, count: 47),
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("CURVE".utf8) + [UInt8](repeating: 0, count: 47) + [0x04, 0x06, 0x05]
            + Array("HELLO".utf8),
        // A frame of 2^63 bytes.
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("CURVE".utf8) + [UInt8](repeating: 0, count: 47) + [
            0x02, 0x80, 0, 0, 0, 0, 0, 0, 0,
        ],
        Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), [UInt8](repeating: 0x41, count: 4000),
        (0..<200).map { UInt8(truncatingIfNeeded: $0 &* 37) },
    ]

    /// Connects and says one of them; connections that were not taken give -1.
    private static func knock(_ port: Int, _ number: Int) -> Int32 {
        let descriptor = Ports.connect(port)
        let words = words[number % words.count]
        if !words.isEmpty {
            _ = words.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) }
        }
        return descriptor
    }

    @Test("500 strangers with old greetings, half handshakes and garbage: traffic goes on, newcomers get in, descriptors are bounded")
    func strangers() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        // Half of what it may have is for strangers.
        let bus = try BusProcess(home.config, descriptors: 400)
        try await eventually("HTTP listens") { Ports.answers(home.config.port(.bus)) }
        let pid = bus.pid
        let most = Locked(0)
        let longest = Locked<Int64>(0)
        try await home.client(.scheduler, outbox: outbox) { publisher in
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask {
                    var value = 0
                    while !Task.isCancelled {
                        let began = Clock.monotonic()
                        outbox.add("run.finished", value)
                        publisher.outboxChanged()
                        value += 1
                        while outbox.state.withLock({ $0.settled < $0.last }), !Task.isCancelled {
                            try? await Task.sleep(for: .milliseconds(1))
                        }
                        longest.withLock { $0 = max($0, Clock.monotonic() - began) }
                    }
                }
                try await eventually("events flow") { outbox.state.withLock(\.settled) > 10 }
                let session = publisher.session
                var idle: [Int32] = []
                for wave in 0..<3 {
                    for number in 0..<500 {
                        idle.append(Self.knock(home.config.busPort, number))
                        if number % 50 == 0 { most.withLock { $0 = max($0, BusProcess.descriptors(of: pid)) } }
                    }
                    most.withLock { $0 = max($0, BusProcess.descriptors(of: pid)) }
                    let settled = outbox.state.withLock(\.settled)
                    try await eventually("events flow beside wave \(wave)") { outbox.state.withLock(\.settled) > settled + 20 }
                    // Somebody who comes only now.
                    try await home.client(.git) { git in #expect(git.isConnected) }
                    for descriptor in idle { close(descriptor) }
                    idle = []
                }
                // Never lost by it.
                #expect(publisher.session?.epoch == session?.epoch && publisher.isConnected)
                try await eventually("their descriptors are given back") { BusProcess.descriptors(of: pid) < 80 }
                tasks.cancelAll()
            }
        }
        print("descriptors of the bus: \(most.withLock { $0 }) at most; longest wait for an acknowledgement: \(longest.withLock { $0 }) ms")
        #expect(most.withLock { $0 } < 340)
        #expect(outbox.state.withLock(\.refused).isEmpty)
        #expect(try await bus.end(SIGTERM) == 0)
    }
}
