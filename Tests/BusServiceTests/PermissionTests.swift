import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

@Suite("What an event may say") struct PayloadTests {
    private static let names = Names(["api", "git", "bus", "script", "supervisor@host2"])

    private static func may(_ name: String, _ payload: Data, subjects: [String]? = nil) -> Bool {
        var rights = Rights.parse(publish: ["**"], subscribe: [], call: [], serve: [], subjects: subjects).0
        rights.name = name
        rights.names = names
        return payload.withUnsafeBytes { rights.maySay($0) }
    }
    private static func may(_ name: String, _ payload: String, subjects: [String]? = nil) -> Bool {
        may(name, Data(payload.utf8), subjects: subjects)
    }

    @Test(
        "an event is from its publisher or from nobody that has a key",
        arguments: [
            ("git", #"{"source":"git@host1"}"#, true), ("git", #"{"source":"git"}"#, true), ("git", #"{"source":"github"}"#, true),
            ("git", #"{"source":"api@host1"}"#, false), ("git", #"{"source":"script"}"#, false), ("git", #"{"source":"/a/b"}"#, true),
            ("script", #"{"source":"supervisor@host2"}"#, false), ("script", #"{"source":"supervisor@host3"}"#, false),
            ("script", #"{"source":"my-program"}"#, true), ("supervisor@host2", #"{"source":"supervisor@host2"}"#, true),
            ("supervisor@host2", #"{"source":"supervisor@host1"}"#, false), ("supervisor@host2", #"{"source":"supervisor"}"#, false),
            // Spelled, placed and repeated in all the ways that some decoder reads as the member.
            ("script", #"{"source":"\u0067it@host1"}"#, false), ("script", #"{"\u0073ource":"git@host1"}"#, false),
            ("script", #"{"source":"script","source":"git"}"#, false), ("script", #"{"source":"git","source":"script"}"#, false),
            ("script", #" { "id" : "\\" , "data":{"source":"git","a":["}",{"b":"\""}]} , "source" : "git@x" } "#, false),
            ("script", #"{"data":{"source":"git"},"source":"script"}"#, true), ("script", #"{"a":"\"source\":\"git\"","b":1}"#, true),
            ("script", #"{"a":[1,2,[3,{"b":null}]],"n":-1.5e3,"t":true,"source":"git"}"#, false),
            ("script", #"{"source":17,"subject":null}"#, true), ("script", #"{"source":{"source":"git"}}"#, true),
            ("script", #"{"x":"\ud83d\ude00\\\"","source":"git"}"#, false), ("script", #"{"source":"git\/x"}"#, true),
            ("script", #"{"source":"git""#, false), ("script", "\u{FEFF}{\"source\":\"git\"}", false),
            // Opaque.
            ("script", "", true), ("script", "source: git", true), ("script", #"["source","git"]"#, true), ("script", "{", true),
            ("script", #"{"source"#, true), ("script", #"{"source":"#, true), ("script", #"{"a\"#, true), ("script", "{]", true),
        ] as [(String, String, Bool)])
    func source(_ name: String, _ payload: String, _ allowed: Bool) {
        #expect(Self.may(name, payload) == allowed, "\(name): \(payload)")
    }

    @Test("JSON in UTF-16 and UTF-32, which decoders guess, is read as well", arguments: [true, false]) func wide(isOwn: Bool) throws {
        let text = #"{"source":"\#(isOwn ? "script" : "git")@here"}"#
        let encodings: [String.Encoding] = [
            .utf16, .utf16LittleEndian, .utf16BigEndian, .utf32, .utf32LittleEndian, .utf32BigEndian,
        ]
        for encoding in encodings {
            let payload = try #require(text.data(using: encoding))
            #expect(Self.may("script", payload) == isOwn, "\(encoding)")
            #expect(!Self.may("script", payload, subjects: ["**"]))
        }
    }

    @Test(
        "with subject patterns an event has a subject, and every one of them lies inside",
        arguments: [
            (["shop/**"], #"{"subject":"shop/production"}"#, true), (["shop/**"], #"{"subject":"shop/production/web"}"#, true),
            (["shop/**"], #"{"subject":"shop"}"#, false), (["shop", "shop/*"], #"{"subject":"shop"}"#, true),
            (["shop/*"], #"{"subject":"shop/a/b"}"#, false), (["shop/*"], #"{"subject":"shop/"}"#, false),
            (["shop/**"], #"{"subject":"shop//"}"#, false), (["shop/**"], #"{"subject":"shopping/a"}"#, false),
            (["shop/**"], #"{"subject":"shop/a","subject":"git/a"}"#, false), (["shop/**"], #"{"subject":"shop\/a"}"#, true),
            (["shop/**"], #"{"subject":"shop\u002fa"}"#, true), (["*/production"], #"{"subject":"shop/production"}"#, true),
            (["*/production"], #"{"subject":"shop/staging"}"#, false), (["**"], #"{"subject":"x"}"#, true), (["**"], "{}", false),
            (["**"], #"{"subject":7}"#, false), (["**"], "plain", false), (["**"], #"{"subject":"x""#, false),
            ([], #"{"subject":"x"}"#, false),
            (["**"], #"{"subject":"x"} {"subject":"y"}"#, false),
        ] as [([String], String, Bool)])
    func subject(_ patterns: [String], _ payload: String, _ allowed: Bool) {
        #expect(Self.may("script", payload, subjects: patterns) == allowed, "\(patterns): \(payload)")
    }

    @Test("whatever is cut off or flipped in a payload, looking into it ends, and never reads beyond") func mangled() {
        let whole = Array(
            #"{"id":"1","\u0073ource":"git@\u0068ost","data":{"a":["\\\"",{"b":[1,{}]}]},"subject":"shop/\ud83d\ude00"}"#.utf8)
        var generator = Numbers(state: 7)
        for length in 0...whole.count { _ = Self.may("script", Data(whole[..<length]), subjects: ["shop/**"]) }
        for _ in 0..<20_000 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            _ = Self.may("script", Data(bytes), subjects: ["shop/**"])
        }
    }

    private struct Numbers: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state
        }
    }

    @Test("every JSON text that a decoder reads a foreign source from is refused") func agreesWithDecoders() throws {
        struct Event: Decodable { var source: String? }
        var generator = Numbers(state: 11)
        let pieces = ["\"", "\\", "{", "}", "[", "]", ",", ":", "source", "git", "\\u0067it", " ", "1", "null", "x", "\\\"", "\\\\"]
        var found = 0
        for _ in 0..<40_000 {
            var text = "{"
            for _ in 0..<Int.random(in: 0...3, using: &generator) {
                let words = (0..<Int.random(in: 1...4, using: &generator)).map { _ in pieces.randomElement(using: &generator) ?? "" }
                text += "\"\(words.joined())\":\"\(pieces.randomElement(using: &generator) ?? "")\","
            }
            text +=
                "\"\(Bool.random(using: &generator) ? "source" : "sourc\\u0065")\":\"\(Bool.random(using: &generator) ? "git" : "g\\u0069t@a")\"}"
            guard let source = (try? JSONDecoder().decode(Event.self, from: Data(text.utf8)))?.source, source.hasPrefix("git") else {
                continue
            }
            found += 1
            #expect(!Self.may("script", text), "\(text)")
        }
        #expect(found > 1000)
    }
}

@Suite("What a key may do") struct PermissionTests {
    private static func bench(_ change: (inout Rights) -> Void) -> Bench {
        var bench = Bench()
        var rights = bench.router.rights
        var ada = Rights.parse(publish: ["test.**"], subscribe: ["**"], call: ["*.*"], serve: []).0
        ada.name = "ada"
        ada.names = Names(["ada", "bob", "git"])
        change(&ada)
        rights["ada"] = ada
        bench.router.setRights(rights, now: bench.now)
        bench.hello("p", "ada")
        bench.flush()
        _ = bench.heard("p")
        return bench
    }
    private static func publications(_ payloads: [String]) -> Data {
        Publication.encode(payloads.enumerated().map { Publication(topic: "test.one", id: "i\($0)", payload: Data($1.utf8)) })
    }

    @Test("an event that claims another's source is refused by itself, on PUB and on EMIT, and told to the operator") func forged() {
        var bench = Self.bench { _ in }
        bench.hello("l", "bob")
        bench.subscribe("l", "bob", ["test.**"])
        bench.settle()
        _ = bench.heard("l")
        let payloads = [#"{"source":"ada"}"#, #"{"source":"git@here"}"#, #"{"source":"bob"}"#, "no JSON"]
        bench.say("p", "ada", Frame(.publish, a: 1, b: 4, body: Self.publications(payloads)))
        // Two of them, two refusals that are told, and that bob has joined.
        #expect(bench.flush() == 5)
        #expect(Bench.exceptions(bench.heard("p").first) == [2: 403, 3: 403])
        let records = (try? bench.log.read(from: 1, bytes: 1 << 20))?.filter { $0.topic == "bus.denied" } ?? []
        let told = records.map { String(decoding: $0.bytes, as: UTF8.self) }
        #expect(told.count == 2 && told[0].contains("test.one with source git@here"))
        bench.say("p", "ada", Frame(.emit, b: 2, body: Self.publications([payloads[0], payloads[1]])))
        #expect(bench.heard("p").map(\.status) == [403])
        _ = bench.heard("l")
        bench.say("p", "ada", Frame(.emit, b: 1, body: Self.publications([payloads[0]])))
        #expect(Bench.records(bench.heard("l")).count == 1)
    }

    @Test("a subject outside the key's patterns is refused") func subjects() {
        var bench = Self.bench { $0.subjects = [try? SubjectPattern("shop/**")].compactMap(\.self) }
        let payloads = [#"{"subject":"shop/a"}"#, #"{"subject":"blog/a"}"#, "{}", "no JSON"]
        bench.say("p", "ada", Frame(.publish, a: 1, b: 4, body: Self.publications(payloads)))
        bench.flush()
        #expect(Bench.exceptions(bench.heard("p").first) == [2: 403, 3: 403, 4: 403])
    }

    @Test("a key uses the durable names that it was given, and none when it may only read for the moment") func consumers() {
        var bench = Self.bench { $0.consumers = ["mine"] }
        bench.subscribe("p", "ada", handle: 1, consumer: "mine")
        bench.subscribe("p", "ada", handle: 2, consumer: "other")
        bench.subscribe("p", "ada", handle: 3)
        bench.settle()
        let answers = bench.heard("p")
        #expect(Set(answers.filter { $0.known == .subscribed }.map(\.handle)) == [1, 3])
        #expect(answers.filter { $0.known == .error }.map(\.handle) == [2])
        #expect(answers.first { $0.known == .error }?.status == 403)
        var rights = bench.router.rights
        rights["ada"]?.isEphemeralOnly = true
        bench.router.setRights(rights, now: bench.now)
        bench.pass(1)
        let ended = bench.heard("p").filter { $0.known == .error }
        #expect(ended.map(\.handle) == [1] && ended.map(\.status) == [403])
        bench.subscribe("p", "ada", handle: 4, consumer: "mine")
        #expect(bench.heard("p").map(\.status) == [403])
    }
}
