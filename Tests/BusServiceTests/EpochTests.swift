import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Epochs: who may go on with the log") struct EpochTests {
    private static func hello(_ epoch: UInt64?, witness: String?) -> Frame {
        var hello = Hello(client: "test", version: "1")
        hello.epoch = epoch
        hello.witness = witness
        return Frame(.hello, body: (try? Coding.encode(hello)) ?? Data())
    }
    private static func welcome(_ frames: [Frame]) throws -> (epoch: UInt64, body: Welcome)? {
        try frames.first { $0.known == .welcome }.map { ($0.a, try Coding.decode(Welcome.self, from: $0.body)) }
    }

    @Test("a failover's epoch is above every one that restarts of the old bus can reach") func terms() {
        #expect(Epoch.nextTerm(after: 1) == 1 << 20)
        #expect(Epoch.nextTerm(after: (1 << 20) - 1) == 1 << 20)
        #expect(Epoch.nextTerm(after: 1 << 20) == 2 << 20)
        #expect(Epoch.nextTerm(after: .max) == 0)
        #expect(Epoch.term(5) == 0 && Epoch.term((1 << 20) + 7) == 1)
    }

    @Test("a bus that is shown a later epoch of its log refuses everything from then on, and acknowledges nothing that flew")
    func superseded()
        throws
    {
        var bench = Bench()
        bench.hello("p", "ada")
        let heard = bench.heard("p")
        let mine = try #require(try Self.welcome(heard))
        #expect(mine.epoch == 3)
        let later = Bench.witness.text(stream: mine.body.stream, epoch: 1 << 20)
        bench.publish("p", "ada", from: 1, ["one"])
        let taken = bench.router.takeBatch(bench.now)
        let batch = try #require(taken)
        bench.say("q", "bob", Self.hello(1 << 20, witness: later))
        #expect(bench.heard("q").map(\.status) == [410])
        #expect(bench.heard("p").map { [UInt16($0.command), $0.status] } == [[0x05, 410]])
        #expect(bench.others.contains { if case .superseded(let epoch) = $0 { epoch == 1 << 20 } else { false } })
        // As the broker thread does when the batch lands all the same.
        bench.router.abandon()
        #expect(batch.records.count > 0)
        bench.hello("p", "ada")
        bench.publish("p", "ada", from: 1, ["one"])
        #expect(bench.heard("p").map(\.status) == [410, 410])
        #expect(bench.router.takeBatch(bench.now) == nil)
    }

    @Test("an epoch that no bus of this log gave out stops nobody") func forged() throws {
        var bench = Bench()
        bench.hello("p", "ada")
        let heard = bench.heard("p")
        let mine = try #require(try Self.welcome(heard))
        let elsewhere = String(repeating: "a", count: 32)
        for witness in [
            nil, "", "zz", "00", mine.body.witness, Bench.witness.text(stream: elsewhere, epoch: 99),
            Witness(secretKey: "another key").text(stream: mine.body.stream, epoch: 99),
        ] {
            bench.say("q", "bob", Self.hello(99, witness: witness))
            #expect(try Self.welcome(bench.heard("q"))?.epoch == 3)
        }
        // Its own, and an earlier one, are no news.
        bench.say("q", "bob", Self.hello(3, witness: mine.body.witness))
        bench.say("q", "bob", Self.hello(2, witness: Bench.witness.text(stream: mine.body.stream, epoch: 2)))
        #expect(bench.heard("q").filter { $0.known == .welcome }.count == 2)
        bench.publish("p", "ada", from: 1, ["one"])
        #expect(bench.flush() > 0)
        #expect(bench.heard("p").contains { $0.known == .publishAck })
    }
}
