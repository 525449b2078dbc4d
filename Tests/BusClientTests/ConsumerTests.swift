import Contracts
import Foundation
import Testing
import Wire

@testable import BusClient

@Suite("a subscription between two sessions") struct ConsumerTests {
    private func answer(_ cursor: UInt64, last: UInt64) throws -> Frame {
        let body = SubscribedBody(stream: "5", first: 1, last: last, pending: last - cursor)
        return Frame(.subscribed, handle: 1, a: cursor, b: 1, body: try Coding.encode(body))
    }

    private func events(_ range: ClosedRange<UInt64>) -> Frame {
        var body = Data()
        for seq in range {
            Record(seq: seq, time: 1, topic: "test.one", producer: "ada", id: "\(seq)", payload: Data("{}".utf8)).encode(into: &body)
        }
        return Frame(.events, handle: 1, a: range.lowerBound, b: range.upperBound, body: body)
    }

    @Test("a bus whose cursor is behind is acknowledged no more than it has sent again") func behind() throws {
        let mailbox = Mailbox()
        var consumer = Consumer(
            .init(
                handle: 1, request: SubscriptionRequest(consumer: "core", filters: ["**"], from: .cursor), mailbox: mailbox,
                answered: Answer()))
        #expect(try consumer.subscribed(answer(0, last: 40)) == nil)
        _ = consumer.arrived(events(1...40))
        _ = mailbox.acknowledge(40)
        #expect(consumer.acknowledge()?.a == 40)
        // The bus was killed before it had written that down.
        consumer.closed()
        let configuration = BusClientConfiguration(
            endpoint: "tcp://127.0.0.1:1", serverKey: "", publicKey: "", secretKey: "", clientName: "test", version: "1")
        let welcome = Welcome(session: "2-1", stream: "5", first: 1, last: 41, you: "ada")
        _ = try consumer.subscribe(configuration, welcome, nil)
        #expect(try consumer.subscribed(answer(31, last: 41))?.a == 31)
        #expect(consumer.acknowledge() == nil && consumer.acknowledgeSilence() == nil)
        _ = consumer.arrived(events(32...35))
        #expect(consumer.acknowledge()?.a == 35)
        _ = consumer.arrived(events(36...41))
        #expect(consumer.acknowledge()?.a == 40)
    }
}
