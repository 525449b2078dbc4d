import CSys
import Contracts
import Foundation
import Testing
import Wire

@Suite("EB/1 codec") struct CodecTests {
    @Test("a frame survives its own bytes") func frame() throws {
        let frame = Frame(.publish, flags: 0x00FF, status: 507, handle: 7, a: .max, b: 1 << 40, body: Data("body".utf8))
        let bytes = frame.encoded()
        #expect(bytes.count == Frame.headerLength + 4)
        #expect(Array(bytes.prefix(4)) == [0x45, 0x42, 1, 0x10])
        #expect(try Frame(bytes) == frame)
        // A slice whose indices do not begin at 0 reads the same.
        #expect(try Frame((Data([1, 2, 3]) + bytes).dropFirst(3)) == frame)
    }

    @Test("a message cut anywhere inside its header is refused") func cutFrame() {
        let bytes = Frame(.ping, a: 1).encoded()
        for length in 0..<Frame.headerLength {
            #expect(throws: WireError.self) { try Frame(bytes.prefix(length)) }
        }
    }

    @Test("packed events survive, and a body cut anywhere is refused") func publications() throws {
        let events = [
            Publication(topic: "deploy.requested", id: "1", payload: Data("{}".utf8)),
            Publication(topic: "log.lines", id: "ä", payload: Data()),
        ]
        let body = Publication.encode(events)
        #expect(try Publication.decode(body, count: 2) == events)
        for length in 0..<body.count {
            #expect(throws: WireError.self) { try Publication.decode(body.prefix(length), count: 2) }
        }
        #expect(throws: WireError.self) { try Publication.decode(body, count: 1) }
        #expect(throws: WireError.self) { try Publication.decode(body, count: 3) }
        #expect(throws: WireError.self) { try Publication.decode(body, count: .max) }
    }

    @Test("verdicts survive; other lengths and unknown verbs are refused") func verdicts() throws {
        let list = [Verdict(.ack, 1), Verdict(.nak, .max, delay: 5000), Verdict(.inProgress, 3), Verdict(.terminate, 4)]
        let body = Verdict.encode(list)
        #expect(body.count == 64)
        #expect(try Verdict.decode(body) == list)
        let told = [Verdict(.nak, 7, text: "no ü here"), Verdict(.terminate, 8, text: String(repeating: "ü", count: 900))]
        let words = Verdict.encode(told)
        #expect(try Verdict.decode(words) == told && told[1].text.utf8.count <= 1000)
        #expect(throws: WireError.self) { try Verdict.decode(words.dropLast()) }
        var long = Data(Verdict.encode([Verdict(.nak, 7)]))
        long.replaceSubrange(10..<12, with: [0x03, 0xE9])
        #expect(throws: WireError.self) { try Verdict.decode(long + Data(repeating: 0x61, count: 1001)) }
        for wrong in [Data(), body.dropLast(), Data(count: 16)] { #expect(throws: WireError.self) { try Verdict.decode(Data(wrong)) } }
    }

    @Test("exceptions survive") func exceptions() throws {
        let list = [PublishException(number: 3, status: 208), PublishException(number: .max, status: 507)]
        #expect(try PublishException.decode(PublishException.encode(list)) == list)
        #expect(throws: WireError.self) { try PublishException.decode(Data(count: 13)) }
    }

    @Test("records survive, alone and packed, at every padding", arguments: 0..<16) func records(extra: Int) throws {
        let record = Record(
            seq: 9, time: 1_700_000_000_000_000_000, flags: 1, topic: "git.push.received", producer: "git", id: "id",
            payload: Data(repeating: 0x61, count: extra))
        var bytes = Data()
        record.encode(into: &bytes)
        #expect(bytes.count == record.encodedLength)
        #expect(bytes.count % 8 == 0)
        record.encode(into: &bytes)
        #expect(try Record.decodeAll(bytes) == [record, record])
    }

    @Test("a flipped bit anywhere in a record is noticed") func flipped() {
        var bytes = Data()
        Record(seq: 1, time: 2, topic: "a.b", producer: "p", id: "i", payload: Data("12345".utf8)).encode(into: &bytes)
        let length = 8 + 24 + 3 + 1 + 1 + 5
        for bit in 0..<length * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: WireError.self) { try Record.decodeAll(damaged) }
        }
    }

    @Test("CRC32C gives the values of RFC 3720, B.4") func crc() {
        #expect(CRC32C.checksum(Data("123456789".utf8)) == 0xE306_9283)
        #expect(CRC32C.checksum(Data(count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.checksum(Data(repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(CRC32C.checksum(Data(0..<32)) == 0x46DD_794E)
        #expect(CRC32C.checksum(Data()) == 0)
        // With and without the processor's instruction.
        for count in 0..<100 {
            let bytes = Data((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37) })
            #expect(bytes.withUnsafeBytes { csys_crc32c_portable($0.baseAddress, $0.count) } == CRC32C.checksum(bytes))
        }
    }

    @Test("control bodies are read with no more than a small client says") func lenient() throws {
        let hello = try JSONDecoder().decode(Hello.self, from: Data(#"{"client":"x","later":1}"#.utf8))
        #expect(hello.min == 1 && hello.max == 1 && hello.heartbeat_ms == 1000 && hello.outbox == nil)
        let subscription = try JSONDecoder().decode(SubscribeBody.self, from: Data(#"{"filters":["**"]}"#.utf8))
        #expect(subscription.consumer == "" && subscription.from == nil && subscription.credit_msgs == 256)
    }

    @Test(
        "positions are written as the protocol says",
        arguments: [
            (Position.cursor, #""cursor""#), (.first, #""first""#), (.new, #""new""#), (.seq(7, stream: nil), #"{"seq":7}"#),
            (.seq(7, stream: "ab"), #"{"seq":7,"stream":"ab"}"#), (.time("2026-11-23T00:00:00Z"), #"{"time":"2026-11-23T00:00:00Z"}"#),
        ]) func positions(position: Position, text: String) throws
    {
        #expect(try Coding.text(position) == text)
        #expect(try JSONDecoder().decode(Position.self, from: Data(text.utf8)) == position)
    }

    @Test("a REQ and a CALL survive, and a length that lies is refused") func requests() throws {
        let request = RequestBody(method: "git.file", key: "k", payload: Data("{}".utf8))
        #expect(try RequestBody(request.encoded()) == request)
        let call = CallBody(method: "git.file", about: #"{"caller":"api"}"#, payload: Data())
        #expect(try CallBody(call.encoded()) == call)
        #expect(throws: WireError.self) { try RequestBody(Data([0, 9, 1])) }
        #expect(throws: WireError.self) { try RequestBody(Data([0, 1, 0xFF, 0, 0])) }
    }
}

@Suite("Random bytes") struct FuzzTests {
    /// The same numbers in every run: a failure can be repeated.
    struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    @Test("100 000 random and half-right messages end in a value or an error, never in a trap", .timeLimit(.minutes(5)))
    func fuzz() {
        var random = Generator(state: 2026)
        var seed = Data()
        Record(seq: 5, time: 6, topic: "a.b.c", producer: "prod", id: "identity", payload: Data("payload".utf8)).encode(into: &seed)
        let good = [
            Frame(.publish, a: 1, b: 1, body: Publication.encode([Publication(topic: "a.b", id: "i", payload: Data("{}".utf8))])).encoded(),
            seed, RequestBody(method: "a.b", key: "k", payload: Data()).encoded(), Data(#"{"filters":["a.*"],"from":{"seq":3}}"#.utf8),
        ]
        for round in 0..<100_000 {
            var data: Data
            if round % 2 == 0 {
                data = Data((0..<Int.random(in: 0...80, using: &random)).map { _ in UInt8.random(in: .min ... .max, using: &random) })
            } else {
                data = good[Int.random(in: 0..<good.count, using: &random)]
                for _ in 0..<Int.random(in: 1...4, using: &random) where !data.isEmpty {
                    data[Int.random(in: 0..<data.count, using: &random)] = UInt8.random(in: .min ... .max, using: &random)
                }
                if Bool.random(using: &random) { data = Data(data.prefix(Int.random(in: 0...data.count, using: &random))) }
            }
            if let frame = try? Frame(data) { _ = try? Publication.decode(frame.body, count: frame.b) }
            _ = try? Record.decodeAll(data)
            _ = try? Publication.decode(data, count: UInt64(round % 5))
            _ = try? PublishException.decode(data)
            _ = try? RequestBody(data)
            _ = try? CallBody(data)
            if round % 8 == 0 {
                _ = try? JSONDecoder().decode(SubscribeBody.self, from: data)
                _ = try? Filter(String(decoding: data, as: UTF8.self))
            }
        }
    }
}

@Suite("Topic filters") struct FilterTests {
    @Test(
        "match as the protocol says",
        arguments: [
            ("git.push", "git.push", true), ("git.push", "git.push.received", false), ("git.*", "git.push", true),
            ("git.*", "git.push.received", false),
            ("git.**", "git.push.received", true), ("git.**", "git", false), ("**", "a", true), ("*", "a.b", false),
            ("*.push.*", "git.push.received", true),
        ]) func matching(filter: String, topic: String, expected: Bool) throws
    {
        #expect(try Filter(filter).matches(topic) == expected)
    }

    @Test(
        "contain one another as permissions need",
        arguments: [
            ("**", "**", true), ("**", "git.*", true), ("git.**", "git.**", true), ("git.**", "git.push.*", true), ("git.**", "**", false),
            ("git.*", "git.**", false), ("git.*", "git.push", true), ("git.*", "git.*", true), ("git.push", "git.*", false),
            ("*.push", "git.push", true),
            ("git.**", "git", false), ("*", "**", false), ("git.*", "git.push.received", false),
        ]) func containing(outer: String, inner: String, expected: Bool) throws
    {
        #expect(try Filter(outer).contains(Filter(inner)) == expected)
    }

    @Test("what no topic can be is no filter", arguments: ["", ".", "a..b", "A", "a.**.b", "a b", "a.b.c.d.e.f.g.h.i", "ä", "a.*b"])
    func malformed(text: String) { #expect(throws: WireError.self) { try Filter(text) } }
}
