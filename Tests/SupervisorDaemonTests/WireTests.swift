import Foundation
import Testing

@testable import SupervisorDaemon

@Suite("XML-RPC") struct XMLRPCTests {
    private func call(_ parameters: String) -> [UInt8] {
        Array("<?xml version='1.0'?>\n<methodCall><methodName>a.b</methodName><params>\(parameters)</params></methodCall>".utf8)
    }

    private func text(_ value: Value) -> String {
        switch value {
        case .int(let number): "\(number)"
        case .boolean(let flag): "\(flag)"
        case .double(let number): "\(number)"
        case .string(let text): "'\(text)'"
        case .bytes(let bytes): "b\(bytes)"
        case .array(let items): "[" + items.map(text).joined(separator: ",") + "]"
        case .structure(let members): "{" + members.map { "\($0):\(text($1))" }.joined(separator: ",") + "}"
        default: "nil"
        }
    }

    @Test("values of all types are read") func values() throws {
        let parameters = """
            <param><value>bare &lt;&amp;&#65;&#x42;</value></param><param> <value><int> -5 </int></value> </param>
            <param><value><boolean>1</boolean></value></param><param><value><double>1.5e3</double></value></param>
            <param><value><string/></value></param><param><value/></param><param><value><![CDATA[<x>]]></value></param>
            <param><value><base64>aGk=\n</base64></value></param><!-- no --><param><value><nil/></value></param>
            <param><value><array><data><value><i4>1</i4></value><value>x</value></data></array></value></param>
            <param><value><struct><member><name>n</name><value><int>2</int></value></member></struct></value></param>
            """
        let read = try CallReader.read(call(parameters))
        #expect(
            read.parameters.map(text) == [
                "'bare <&AB'", "-5", "true", "1500.0", "''", "''", "'<x>'", "b[104, 105]", "nil", "[1,'x']", "{n:2}",
            ])
        #expect(try CallReader.read(Array("<methodCall><methodName>x</methodName></methodCall>".utf8)).parameters.isEmpty)
    }

    @Test("what is no call is refused, and nothing is expanded or fetched") func malformed() {
        var bodies = [
            "", "hello", "<methodCall>", "<methodCall></methodCall>", "<methodCall><methodName> </methodName></methodCall>",
            "<methodCall><methodName>a</methodName></methodCall>x", "<methodCall a='1'><methodName>a</methodName></methodCall>",
            "<?xml version='1.0' encoding='utf-16'?><methodCall><methodName>a</methodName></methodCall>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><methodCall><methodName>&b;</methodName></methodCall>",
        ].map { Array($0.utf8) }
        for value in [
            "<int>x</int>", "<int></int>", "<int>1.0</int>", "<int>9223372036854775808</int>", "<boolean>2</boolean>",
            "<double>nan</double>",
            "<base64>*</base64>", "<base64>aGk</base64>", "<nope>1</nope>", "<nil>1</nil>", "&b;", "a & b", "&#0;", "&#xD800;",
            "<int>1</int><int>2</int>", "x<int>1</int>",
            "<array><value>1</value></array>", "<struct><value>1</value></struct>", "<int>1", "<value>1</value>",
            String(repeating: "<array><data><value>", count: 70) + String(repeating: "</value></data></array>", count: 70),
        ] { bodies.append(call("<param><value>\(value)</value></param>")) }
        bodies.append(Array("<methodCall><methodName>a\u{0}</methodName></methodCall>".utf8) + [0xFF])
        for body in bodies {
            #expect(throws: CallReader.Malformed.self, "\(String(decoding: body, as: UTF8.self))") { try CallReader.read(body) }
        }
    }

    @Test("neither bytes that are cut nor bytes that are changed break the reader") func fuzz() {
        let whole = call(
            "<param><value><struct><member><name>n</name><value><array><data><value><int>2</int></value></data></array></value></member></struct></value></param>"
        )
        var random = SystemRandomNumberGenerator()
        for end in whole.indices { _ = try? CallReader.read(Array(whole[..<end])) }
        for _ in 0..<20_000 {
            var body = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                body[Int.random(in: body.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            _ = try? CallReader.read(body)
        }
    }

    @Test("what XML cannot carry is written as U+FFFD, and carriage returns survive") func writing() {
        let written = String(decoding: AnswerWriter.answer(.text([0x61, 0xFF, 0x00, 0x1B, 0x0D, 0x0A, 0x26, 0x3C, 0xC3])), as: UTF8.self)
        #expect(written.contains("<string>a\u{FFFD}\u{FFFD}\u{FFFD}&#13;\n&amp;&lt;\u{FFFD}</string>"), "\(written)")
        #expect(String(decoding: AnswerWriter.answer(.string("é\u{FFFF}x")), as: UTF8.self).contains("é\u{FFFD}x"))
        #expect(String(decoding: AnswerWriter.answer(.int(-7)), as: UTF8.self).contains("<int>-7</int>"))
    }

    @Test("base64 and SHA-1 agree with their documents") func codes() {
        for (plain, code) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            #expect(Base64.encode(Array(plain.utf8)) == Array(code.utf8) && Base64.decode(code.utf8) == Array(plain.utf8))
        }
        for wrong in ["Z", "Zg", "Zg=", "=", "Zg==Zg==", "Z*=="] { #expect(Base64.decode(wrong.utf8) == nil, "\(wrong)") }
        #expect(
            SHA1.hex("abc".utf8) == "a9993e364706816aba3e25717850c26c9cd0d89d"
                && SHA1.hex("".utf8) == "da39a3ee5e6b4b0d3255bfef95601890afd80709")
        #expect(SHA1.hex(String(repeating: "a", count: 1_000_000).utf8) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f")
    }

    @Test("spans of time are printed as Python prints them") func uptime() {
        #expect(
            [0, 59, 3661, 86_400, 180_000].map(ProcessInfo.uptime) == [
                "0:00:00", "0:00:59", "1:01:01", "1 day, 0:00:00", "2 days, 2:00:00",
            ])
    }
}

@Suite("HTTP of the remote interface") struct HTTPReaderTests {
    private func read(_ text: String, piece: Int = .max) throws -> [HTTPRequest] {
        var reader = HTTPReader()
        var requests: [HTTPRequest] = []
        let bytes = Array(text.utf8)
        for start in stride(from: 0, to: bytes.count, by: min(piece, bytes.count)) {
            bytes[start..<min(start + min(piece, bytes.count), bytes.count)].withUnsafeBytes { reader.append($0) }
            while case .request(let request) = try reader.next() { requests.append(request) }
        }
        return requests
    }

    @Test("requests are found wherever the stream is cut") func pieces() throws {
        let text =
            "POST /RPC2?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET /log%74ail/a%3Ab HTTP/1.0\r\n\r\n"
            + "POST http://h/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX:  y \r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
        for piece in [1, 2, 3, 7, 1000] {
            let requests = try read(text, piece: piece)
            #expect(requests.map(\.path) == ["/RPC2", "/logtail/a:b", "/x"], "pieces of \(piece)")
            #expect(requests.map { String(decoding: $0.body, as: UTF8.self) } == ["hello", "", "abcde"])
            #expect(requests.map(\.wantsToClose) == [false, true, false] && requests[2].headers["x"] == "y")
        }
    }

    @Test(
        "what could be read in two ways, or is too much, is refused",
        arguments: [
            ("\u{1}\r\n\r\n", 400), ("GET\r\n\r\n", 400), ("GET / HTTP/2.0\r\n\r\n", 505), ("GET / FTP\r\n\r\n", 400),
            ("GET x HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400), ("GET / HTTP/1.1\r\nA : x\r\n\r\n", 400), ("GET / HTTP/1.1\nA: x\r\n\r\n", 400),
            ("GET /%00 HTTP/1.1\r\n\r\n", 400), ("GET /%zz HTTP/1.1\r\n\r\n", 400), ("POST / HTTP/1.1\r\n\r\n", 411),
            ("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400), ("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 9000000000000000000\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
            ("GET / HTTP/1.1\r\n" + String(repeating: "A: x\r\n", count: 101) + "\r\n", 431),
            ("GET /" + String(repeating: "x", count: 40_000), 431),
        ]) func refused(text: String, status: Int)
    {
        do {
            let requests = try read(text)
            Issue.record("it was read: \(requests)")
        } catch { #expect((error as? HTTPReader.Refusal)?.status == status, "\(error)") }
    }
}

@Suite("what processes say") struct OutputTests {
    @Test("a listener's words lead from state to state, however they are cut") func listener() {
        func states(_ said: [String], busy: Bool) -> [String] {
            var listener = ListenerState()
            var seen: [String] = []
            func hear(_ text: String) {
                for news in Array(text.utf8).withUnsafeBytes({ listener.hear($0) }) {
                    switch news {
                    case .became(let state, _): seen.append(state.rawValue)
                    case .done: seen.append("done")
                    case .rejected(let why): seen.append("rejected \(why)")
                    case .misspoke: seen.append("misspoke")
                    }
                }
            }
            hear("READY\n")
            if busy { _ = listener.give(PoolEvent(event: Event(type: .tick5, payload: []), poolSerial: 0)) }
            for text in said { hear(text) }
            return Array(seen.dropFirst())
        }
        #expect(states(["RESULT 2\nOK"], busy: true) == ["done", "ACKNOWLEDGED"])
        #expect(states(["RES", "ULT 2", "\nO", "K", "REA", "DY\n"], busy: true) == ["done", "ACKNOWLEDGED", "READY"])
        #expect(states(["RESULT 4\nFAILREADY\n"], busy: true) == ["rejected FAIL", "ACKNOWLEDGED", "READY"])
        #expect(states(["RESULT 0\n"], busy: true) == ["rejected ", "ACKNOWLEDGED"])
        for wrong in ["hello\n", "RESULT x\n", "RESULT -1\n", "RESULT 99999999\n", String(repeating: "x", count: 1100)] {
            #expect(states([wrong, "READY\n"], busy: true) == ["misspoke", "UNKNOWN"], "\(wrong.prefix(20))")
        }
        #expect(states(["x"], busy: false) == ["UNKNOWN"])
    }

    @Test("what stands between the marks is taken out, wherever the output is cut") func capture() {
        let text = "a<!--XSUPERVISOR:BEGIN-->hello<!--XSUPERVISOR:END-->b<!--XSUPERVISOR:BEGIN-->0123456789<!--XSUPERVISOR:END--><!--X"
        for piece in 1...text.utf8.count {
            var capture = Capture(most: 8)
            var plain: [UInt8] = []
            var captured: [String] = []
            let bytes = Array(text.utf8)
            for start in stride(from: 0, to: bytes.count, by: piece) {
                for found in bytes[start..<min(start + piece, bytes.count)].withUnsafeBytes({ capture.take($0) }) {
                    switch found {
                    case .plain(let bytes): plain += bytes
                    case .captured(let bytes): captured.append(String(decoding: bytes, as: UTF8.self))
                    }
                }
            }
            plain += capture.rest() ?? []
            #expect(String(decoding: plain, as: UTF8.self) == "ab<!--X" && captured == ["hello", "23456789"], "pieces of \(piece)")
        }
    }

    @Test("colours go, the rest stays") func colours() {
        let text = "\u{1B}[1;31mred\u{1B}[0m \u{1B}plain\u{1B}[2K."
        #expect(Array(text.utf8).withUnsafeBytes { String(decoding: ANSI.stripped($0), as: UTF8.self) } == "red \u{1B}plain.")
    }

    @Test("abstract events stand for those below them") func types() {
        #expect(
            EventType.processState.includes(.running) && EventType.event.includes(.tick60) && !EventType.processState.includes(.groupAdded))
        #expect(EventType.tick.includes(.tick5) && !EventType.tick5.includes(.tick) && EventType.group.includes(.groupAdded))
        let event = PoolEvent(event: Event(type: .remote, payload: Array("type:é\nx".utf8), serial: 3), poolSerial: 1)
        #expect(
            String(decoding: event.encoded(identifier: "id", pool: "p"), as: UTF8.self)
                == "ver:3.0 server:id serial:3 pool:p poolserial:1 eventname:REMOTE_COMMUNICATION len:9\ntype:é\nx")
    }
}

@Suite("log files") struct LogFileTests {
    private func append(_ file: LogFile, _ text: String) { Array(text.utf8).withUnsafeBytes { file.append($0) } }

    @Test("a log is moved away at its limit, byte for byte, and the oldest goes") func rotation() throws {
        let place = try Place()
        defer { place.remove() }
        let file = try LogFile("\(place.directory)/x.log", maxBytes: 10, backups: 2)
        for number in 0..<6 { append(file, "line\(number)\n") }
        append(file, String(repeating: "z", count: 25))
        let kept = place.read("x.log.2") + place.read("x.log.1") + place.read("x.log")
        #expect(kept == String(repeating: "z", count: 25) && !FileManager.default.fileExists(atPath: "\(place.directory)/x.log.3"))
        let plain = try LogFile("\(place.directory)/y.log", maxBytes: 10, backups: 12)
        var whole = ""
        for number in 0..<12 {
            append(plain, "line\(number)\n")
            whole += "line\(number)\n"
        }
        let names = (1...11).reversed().map { "y.log.\($0)" } + ["y.log"]
        #expect(names.map(place.read).joined() == whole)
        #expect(names.allSatisfy { place.read($0).utf8.count <= 10 && place.read($0).hasSuffix("\n") })
        let single = try LogFile("\(place.directory)/z.log", maxBytes: 10, backups: 0)
        append(single, "0123456789abc")
        #expect(place.read("z.log") == "abc" && !FileManager.default.fileExists(atPath: "\(place.directory)/z.log.1"))
    }

    @Test("a log that was moved is made anew with reopen; clearing begins it anew") func reopen() throws {
        let place = try Place()
        defer { place.remove() }
        let path = "\(place.directory)/x.log"
        let file = try LogFile(path, maxBytes: 0, backups: 0)
        append(file, "one")
        rename(path, path + ".old")
        append(file, "two")
        file.reopen()
        append(file, "three")
        #expect(place.read("x.log.old") == "onetwo" && place.read("x.log") == "three")
        try file.clear()
        append(file, "four")
        #expect(place.read("x.log") == "four" && file.size == 4)
    }

    @Test("slices are those of supervisord") func slices() throws {
        let place = try Place()
        defer { place.remove() }
        let path = try place.write("x.log", "0123456789")
        func read(_ offset: Int, _ length: Int) -> String {
            do { return String(decoding: try LogSlice.read(path, offset: offset, length: length), as: UTF8.self) } catch {
                return "\(error)"
            }
        }
        #expect(
            read(0, 0) == "0123456789" && read(-4, 0) == "6789" && read(-40, 0) == "0123456789" && read(2, 3) == "234" && read(8, 9) == "89"
        )
        #expect(
            read(99, 10) == "" && read(99, 0) == "" && read(-4, 2) == "badArguments" && read(1, -1) == "badArguments"
                && read(0, Int.max) == "0123456789")
        func tail(_ offset: Int, _ length: Int) throws -> String {
            let (data, end, overflow) = try LogSlice.tail(path, offset: offset, length: length)
            return "\(String(decoding: data, as: UTF8.self)) \(end) \(overflow)"
        }
        #expect(
            try tail(0, 4) == "6789 10 true" && tail(0, 100) == "0123456789 10 false" && tail(10, 5) == " 10 false"
                && tail(99, 5) == " 10 false")
        #expect(try tail(8, 5) == "56789 10 false" && tail(Int.max, Int.max) == " 10 false" && tail(-5, -5) == " 10 true")
    }
}
