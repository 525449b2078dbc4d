import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("Calls") struct CallTests {
    private func bench(_ change: (inout Router.Settings) -> Void = { _ in }) -> Bench {
        var bench = Bench(change: change)
        // The same rights under the names of two hosts.
        for host in ["one", "two"] { bench.router.rights["bob@\(host)"] = bench.router.rights["bob"] }
        bench.hello("c", "ada")
        bench.hello("w", "bob")
        _ = bench.heard("c")
        _ = bench.heard("w")
        return bench
    }
    private func serve(
        _ bench: inout Bench, _ peer: String = "w", _ user: String = "bob", credit: UInt64 = 2, handle: UInt32 = 9,
        body: String = #"{"service":"echo"}"#
    ) {
        bench.say(peer, user, Frame(.serve, handle: handle, a: credit, body: Data(body.utf8)))
    }
    private func ask(
        _ bench: inout Bench, _ number: UInt64, _ method: String = "echo.say", key: String = "", within: UInt64 = 1000, wait: UInt32 = 0,
        peer: String = "c"
    ) {
        let body = RequestBody(method: method, key: key, payload: Data("?".utf8)).encoded()
        bench.say(peer, "ada", Frame(.request, handle: wait, a: number, b: within, body: body))
    }
    private func reply(_ bench: inout Bench, _ call: Frame, _ text: String = "!", peer: String = "w", user: String = "bob") {
        bench.say(peer, user, Frame(.reply, status: 200, a: call.a, body: Data(text.utf8)))
    }

    @Test("a call goes to the worker and its reply to the caller, each under its own number") func roundTrip() throws {
        var bench = bench()
        serve(&bench)
        ask(&bench, 77, key: "k")
        let call = try #require(bench.heard("w").first)
        let body = try CallBody(call.body)
        #expect(call.known == .call && call.handle == 9 && body.method == "echo.say" && body.payload == Data("?".utf8))
        #expect(body.about.contains(#""caller":"ada""#) && body.about.contains(#""key":"k""#))
        #expect(call.b == 1000)
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0, body: Data("1".utf8)))
        bench.say("w", "bob", Frame(.reply, status: 200, a: call.a, b: 1, body: Data("2".utf8)))
        let answers = bench.heard("c")
        #expect(answers.map(\.known) == [.part, .reply] && answers.map(\.a) == [77, 77] && answers[1].status == 200)
        #expect(answers.map(\.b) == [0, 1])
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
        #expect(bench.router.calls.isEmpty && bench.router.pools.isEmpty && bench.router.callBytes == 0)
    }

    @Test("who is willing to wait is answered by the worker that comes, or told 503 when none has come") func patience() throws {
        var bench = bench()
        ask(&bench, 1, wait: 300)
        ask(&bench, 2, wait: 100)
        ask(&bench, 3, "echo@two.say", wait: 300)
        #expect(bench.heard("c").isEmpty)
        bench.pass(100)
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[503, 2]])
        serve(&bench)
        let call = try #require(bench.heard("w").first)
        reply(&bench, call)
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[200, 1]])
        // Another instance does.
        bench.pass(200)
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[503, 3]])
        // One whose patience is longer than its time runs out of that.
        ask(&bench, 4, "nobody.here", within: 50, wait: 500)
        bench.pass(50)
        #expect(bench.heard("c").map(\.status) == [504])
        #expect(bench.router.calls.isEmpty)
    }

    @Test("a worker gets no more at once than it asked for") func credit() {
        var bench = bench()
        serve(&bench, credit: 1)
        ask(&bench, 1)
        ask(&bench, 2)
        let calls = bench.heard("w")
        #expect(calls.count == 1)
        reply(&bench, calls[0])
        #expect(bench.heard("w").count == 1)
    }

    @Test("several sessions take calls in turn, the one that has rested longest first, and only while they have room") func turns() {
        var bench = bench()
        bench.hello("v", "bob@one")
        bench.hello("u", "bob@two")
        serve(&bench, credit: 1)
        serve(&bench, "v", "bob@one", credit: 2)
        serve(&bench, "u", "bob@two", credit: 2)
        for peer in ["w", "v", "u"] { _ = bench.heard(peer) }
        var order: [String] = []
        for number in 1...5 {
            ask(&bench, UInt64(number))
            for peer in ["w", "v", "u"] where !bench.heard(peer).isEmpty { order.append(peer) }
        }
        #expect(order == ["w", "v", "u", "v", "u"])
        ask(&bench, 6)
        for peer in ["w", "v", "u"] { #expect(bench.heard(peer).isEmpty) }
    }

    @Test("an address with an instance reaches that one alone, and is told 503 when it is not there") func instances() throws {
        var bench = bench()
        bench.hello("v", "bob@one")
        bench.hello("u", "bob@two")
        _ = (bench.heard("v"), bench.heard("u"))
        serve(&bench)
        serve(&bench, "v", "bob@one")
        for number in 1...3 { ask(&bench, UInt64(number), "echo@one.say") }
        #expect(bench.heard("w").isEmpty)
        let calls = bench.heard("v")
        #expect(calls.count == 2)
        // What waits for that one does not hold up the others; the service hears its method as always.
        ask(&bench, 4)
        let other = try #require(bench.heard("w").first)
        #expect(try CallBody(other.body).method == "echo.say" && CallBody(calls[0].body).method == "echo.say")
        reply(&bench, calls[0], peer: "v", user: "bob@one")
        #expect(bench.heard("v").count == 1)
        #expect(bench.heard("c").map(\.a) == [1])
        ask(&bench, 5, "echo@two.say")
        #expect(bench.heard("c").map(\.status) == [503])
        // A key without an instance stands for the bus's own host.
        ask(&bench, 6, "echo@here.say")
        #expect(bench.heard("w").count == 1)
        // One that serves only as an instance takes nothing else.
        bench.say("w", "bob", Frame(.unsubscribe, handle: 9))
        bench.say("v", "bob@one", Frame(.unsubscribe, handle: 9))
        _ = bench.heard("c")
        serve(&bench, "u", "bob@two", body: #"{"service":"echo@two"}"#)
        ask(&bench, 7)
        #expect(bench.heard("c").map(\.status) == [503])
        ask(&bench, 8, "echo@two.say")
        #expect(bench.heard("u").map(\.known) == [.call])
    }

    @Test("nobody serves as an instance that its key is not", arguments: ["echo@two", "echo@one@one", "echo@", "@one", "echo.say", ""])
    func foreignInstance(service: String) {
        var bench = bench()
        bench.hello("v", "bob@one")
        _ = bench.heard("v")
        serve(&bench, "v", "bob@one", body: #"{"service":"\#(service)"}"#)
        #expect(bench.heard("v").map(\.status) == [service == "echo@two" ? 403 : 400])
        #expect(bench.router.pools.isEmpty)
    }

    @Test("a lost worker's call of an idempotent method goes to the next one, or waits for it; at most three times") func idempotent()
        throws
    {
        var bench = bench()
        bench.hello("v", "bob@one")
        _ = bench.heard("v")
        serve(&bench, body: #"{"service":"echo","idempotent":["say"]}"#)
        ask(&bench, 1, within: 5000)
        ask(&bench, 2, "echo.once", within: 5000)
        #expect(bench.heard("w").count == 2)
        serve(&bench, "v", "bob@one", body: #"{"service":"echo","idempotent":["echo.say"]}"#)
        bench.router.unreachable(Data("w".utf8), now: bench.now)
        bench.pass(0)
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[502, 2]])
        let second = try #require(bench.heard("v").first)
        #expect(try CallBody(second.body).payload == Data("?".utf8))
        bench.router.unreachable(Data("v".utf8), now: bench.now)
        bench.pass(500)
        #expect(bench.heard("c").isEmpty)
        // It comes back.
        bench.hello("x", "bob")
        _ = bench.heard("x")
        serve(&bench, "x", body: #"{"service":"echo","idempotent":["*"]}"#)
        let third = try #require(bench.heard("x").first)
        #expect(third.b == 4500)
        bench.router.unreachable(Data("x".utf8), now: bench.now)
        bench.pass(0)
        let answer = bench.heard("c")
        #expect(answer.map(\.status) == [502] && answer[0].flags == 1)
        #expect(bench.router.calls.isEmpty && bench.router.callBytes == 0)
    }

    @Test("a reply that has begun is not begun again elsewhere") func begunReply() throws {
        var bench = bench()
        serve(&bench, body: #"{"service":"echo","idempotent":["*"]}"#)
        ask(&bench, 1)
        let call = try #require(bench.heard("w").first)
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0, body: Data("1".utf8)))
        bench.router.unreachable(Data("w".utf8), now: bench.now)
        bench.pass(0)
        #expect(bench.heard("c").map(\.status) == [0, 502])
    }

    @Test("no returning worker within the deadline: 504") func notBack() {
        var bench = bench()
        serve(&bench, body: #"{"service":"echo","idempotent":["*"]}"#)
        ask(&bench, 1, within: 300)
        bench.router.unreachable(Data("w".utf8), now: bench.now)
        bench.pass(299)
        #expect(bench.heard("c").isEmpty)
        bench.pass(1)
        #expect(bench.heard("c").map(\.status) == [504])
    }

    @Test("asked again under the same key, a call goes on and answers the one who asked last") func sameKey() throws {
        var bench = bench()
        serve(&bench)
        ask(&bench, 1, key: "k")
        let call = try #require(bench.heard("w").first)
        // Over a new connection, before the bus has given up the old one.
        bench.hello("d", "ada")
        _ = bench.heard("d")
        ask(&bench, 9, key: "k", within: 3000, peer: "d")
        #expect(bench.heard("w").isEmpty)
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[409, 1]])
        bench.router.unreachable(Data("c".utf8), now: bench.now)
        bench.pass(1500)
        #expect(bench.heard("w").isEmpty)
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0, body: Data("1".utf8)))
        #expect(bench.heard("d").map(\.a) == [9])
        // Not once the reply has begun, and not for another method.
        ask(&bench, 10, key: "k", peer: "d")
        let refused = bench.heard("d")
        #expect(refused.map(\.status) == [409] && refused[0].known == .error && refused[0].a == 10 && refused[0].b == 0x31)
        reply(&bench, call)
        #expect(bench.heard("d").map { [UInt64($0.status), $0.a] } == [[200, 9]])
        ask(&bench, 11, key: "k", peer: "d")
        ask(&bench, 12, "echo.other", key: "k", peer: "d")
        #expect(bench.heard("d").map(\.status) == [409])
        #expect(bench.heard("w").count == 1)
    }

    @Test("the caller that gives up, or is gone, has its call stopped") func callerGone() throws {
        var bench = bench()
        serve(&bench, credit: 1)
        ask(&bench, 1)
        ask(&bench, 2)
        ask(&bench, 3)
        let call = try #require(bench.heard("w").first)
        bench.say("c", "ada", Frame(.cancel, a: 2))
        bench.say("c", "ada", Frame(.cancel, a: 1))
        let told = bench.heard("w")
        #expect(told.map(\.known) == [.cancel, .call] && told[0].a == call.a)
        #expect(bench.heard("c").isEmpty)
        reply(&bench, call)
        #expect(bench.heard("c").isEmpty)
        bench.say("c", "ada", Frame(.bye))
        #expect(bench.heard("w").map(\.known) == [.cancel])
        #expect(bench.router.calls.isEmpty && bench.router.callBytes == 0)
    }

    @Test("the worker that gives a call up ends it with 502, and takes the next") func workerCancels() throws {
        var bench = bench()
        serve(&bench, credit: 1, body: #"{"service":"echo","idempotent":["*"]}"#)
        ask(&bench, 1)
        ask(&bench, 2)
        let call = try #require(bench.heard("w").first)
        bench.say("w", "bob", Frame(.cancel, a: call.a))
        let answer = bench.heard("c")
        #expect(answer.map(\.status) == [502] && answer[0].flags == 1)
        #expect(bench.heard("w").map(\.known) == [.call])
    }

    @Test("parts go out in order; a part out of turn, and a reply without end, fail the call") func parts() throws {
        var bench = bench()
        serve(&bench)
        ask(&bench, 1)
        let call = try #require(bench.heard("w").first)
        bench.say("w", "bob", Frame(.part, a: call.a, b: 0))
        bench.say("w", "bob", Frame(.part, a: call.a, b: 2))
        let answer = bench.heard("c")
        #expect(answer.map(\.known) == [.part, .reply] && answer[1].status == 502 && answer[1].flags == 1)
        #expect(bench.heard("w").map(\.status) == [0, 400])
        ask(&bench, 2, within: 600_000)
        let endless = try #require(bench.heard("w").first)
        let piece = Data(count: Limits.payload)
        for index in 0..<65 { bench.say("w", "bob", Frame(.part, a: endless.a, b: UInt64(index), body: piece)) }
        #expect(bench.heard("c").filter { $0.known == .reply }.map(\.status) == [502])
        #expect(bench.heard("w").map(\.status).contains(413))
        #expect(bench.router.calls.isEmpty)
    }

    @Test("what waits is bounded in number and in bytes: 429") func limits() {
        var bench = bench {
            $0.waitingCalls = 3
            $0.callBytes = 40
        }
        serve(&bench, credit: 1)
        for number in 1...5 { ask(&bench, UInt64(number)) }
        #expect(bench.heard("c").map { [UInt64($0.status), $0.a] } == [[429, 5]])
        let large = RequestBody(method: "echo.say", key: "", payload: Data(count: 41)).encoded()
        bench.say("w", "bob", Frame(.unsubscribe, handle: 9))
        _ = bench.heard("c")
        serve(&bench)
        bench.say("c", "ada", Frame(.request, a: 6, b: 1000, body: large))
        #expect(bench.heard("c").map(\.status) == [429])
        #expect(bench.router.callBytes == 0)
    }

    @Test("a request that is none, has no time, is too large or has a number in use is refused by name") func refusals() {
        var bench = bench()
        serve(&bench)
        ask(&bench, 1, within: 0)
        ask(&bench, 2, "@x.say")
        ask(&bench, 3, "echo.say")
        ask(&bench, 3, "echo.say")
        ask(&bench, 4, "echo." + String(repeating: "x", count: 200))
        bench.say(
            "c", "ada",
            Frame(.request, a: 5, b: 10, body: RequestBody(method: "echo.say", key: "", payload: Data(count: Limits.payload + 1)).encoded())
        )
        let answers = bench.heard("c")
        #expect(answers.map(\.status) == [400, 400, 409, 413, 413])
        #expect(answers.allSatisfy { $0.known == .error && $0.b == 0x31 })
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

    @Test("what finished calls leave behind is forgotten") func tidy() {
        var bench = bench()
        serve(&bench)
        for number in 1...5000 {
            ask(&bench, UInt64(number), within: 600_000)
            for call in bench.heard("w") { reply(&bench, call) }
            if number % 100 == 0 { bench.pass(1) }
        }
        #expect(bench.router.calls.isEmpty)
        bench.pass(0)
        #expect(bench.router.nextDeadline == nil || bench.router.callTimes.count < 2000)
    }
}
