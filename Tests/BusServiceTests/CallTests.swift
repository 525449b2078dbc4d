import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Calls") struct CallTests {
    private func bench() -> Bench {
        var bench = Bench()
        bench.hello("c", "ada")
        bench.hello("w", "bob")
        _ = bench.heard("c")
        _ = bench.heard("w")
        return bench
    }
    private func serve(_ bench: inout Bench, _ peer: String = "w", credit: UInt64 = 2) {
        bench.say(peer, "bob", Frame(.serve, handle: 9, a: credit, body: Data(#"{"service":"echo"}"#.utf8)))
    }
    private func ask(_ bench: inout Bench, _ number: UInt64, _ method: String = "echo.say", within: UInt64 = 1000) {
        bench.say(
            "c", "ada",
            Frame(.request, a: number, b: within, body: RequestBody(method: method, key: "k", payload: Data("?".utf8)).encoded()))
    }

    @Test("a call goes to the worker and its reply to the caller, each under its own number") func roundTrip() throws {
        var bench = bench()
        serve(&bench)
        ask(&bench, 77)
        let call = try #require(bench.heard("w").first)
        let body = try CallBody(call.body)
        #expect(call.known == .call && call.handle == 9 && body.method == "echo.say" && body.payload == Data("?".utf8))
        #expect(body.about.contains(#""caller":"ada""#))
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0, body: Data("1".utf8)))
        bench.say("w", "bob", Frame(.reply, status: 200, a: call.a, b: 1, body: Data("2".utf8)))
        let answers = bench.heard("c")
        #expect(answers.map(\.known) == [.part, .reply] && answers.map(\.a) == [77, 77] && answers[1].status == 200)
        // A second reply goes nowhere.
        bench.say("w", "bob", Frame(.reply, status: 200, a: call.a))
        #expect(bench.heard("c").isEmpty)
    }

    @Test("nobody serves: 503; too late: 504 and CANCEL; the worker is gone: 502, which may have run") func failures() {
        var bench = bench()
        ask(&bench, 1)
        #expect(bench.heard("c").map(\.status) == [503])
        serve(&bench)
        ask(&bench, 2, within: 100)
        bench.pass(101)
        #expect(bench.heard("c").map(\.status) == [504])
        #expect(bench.heard("w").map(\.known) == [.call, .cancel])
        ask(&bench, 3)
        bench.router.unreachable(Data("w".utf8), now: bench.now)
        bench.pass(0)
        let answer = bench.heard("c")
        #expect(answer.map(\.status) == [502] && answer.first?.flags == 1)
        #expect(bench.router.calls.isEmpty && bench.router.workers.isEmpty)
    }

    @Test("a worker gets no more at once than it asked for") func credit() {
        var bench = bench()
        serve(&bench, credit: 1)
        ask(&bench, 1)
        ask(&bench, 2)
        let calls = bench.heard("w")
        #expect(calls.count == 1)
        bench.say("w", "bob", Frame(.reply, status: 200, a: calls[0].a))
        #expect(bench.heard("w").count == 1)
    }

    @Test("a client that is no worker cannot answer, and a call nobody may make is refused") func forged() {
        var bench = bench()
        serve(&bench)
        ask(&bench, 1)
        bench.say("c", "ada", Frame(.reply, status: 200, a: 1, body: Data("forged".utf8)))
        #expect(bench.heard("c").isEmpty)
        bench.hello("e", "eve")
        _ = bench.heard("e")
        bench.say("e", "eve", Frame(.request, a: 1, b: 100, body: RequestBody(method: "echo.say", key: "", payload: Data()).encoded()))
        #expect(bench.heard("e").map(\.status) == [403])
        bench.say("c", "ada", Frame(.serve, handle: 1, a: 1, body: Data(#"{"service":"git"}"#.utf8)))
        #expect(bench.heard("c").map(\.status) == [403])
    }
}
