import Contracts
import Foundation
import Testing

@Suite("Names cannot be built wrongly") struct NameTests {
    @Test("good app names are taken as they are", arguments: ["a", "shop", "shop-2", "a1-b2", String(repeating: "a", count: 40)])
    func good(_ text: String) throws {
        #expect(try AppName(text).text == text)
    }

    @Test(
        "bad app names are refused with the rule they break",
        arguments: [
            ("", "is empty"), ("shop;rm -rf", "found ';' at 5"), ("$(id)", "found '$' at 1"), ("`id`", "found '`' at 1"),
            ("a b", "found ' ' at 2"),
            ("a'b", "only a-z"), ("-rf", "must not start with '-'"), ("--help", "must not start with '-'"), ("a-", "must not end with '-'"),
            ("..", "found '.' at 1"), ("../x", "found '.' at 1"), ("a/../b", "found '/' at 2"), (".git", "found '.' at 1"),
            ("sh\u{43E}p", "not ASCII: U+043E at 3"), ("\u{FB01}", "not ASCII: U+FB01 at 1"), ("a\u{202E}b", "not ASCII: U+202E at 2"),
            ("a\u{0}b", "at 2"), ("v2", "'v2' is reserved"), ("api", "reserved"), ("Shop", "found 'S' at 1"),
            ("1shop", "must start with a letter"),
            (String(repeating: "a", count: 41), "longer than 40"), (String(repeating: "a", count: 1 << 20), "longer than 40"),
        ])
    func bad(_ text: String, _ rule: String) {
        #expect { try AppName(text) } throws: { error in
            guard let problem = error as? Problem else { return false }
            return problem.code == .invalidName && problem.status == 422 && problem.message.contains(rule)
                && problem.message.utf8.count < 700
        }
    }

    @Test(
        "refs follow git's rules",
        arguments: [
            ("refs/heads/main", true), ("refs/heads/a/b", true), ("refs/heads/$(touch${IFS}pwned)", true), ("refs/heads/;id", true),
            ("refs/heads/😀", true), ("refs/heads/caf\u{E9}", true), ("refs/heads/cafe\u{301}", false), ("refs/heads/\u{301}x", false),
            ("main", false), ("refs/heads/../x", false), ("refs/heads/a..b", false), ("refs/heads/a b", false),
            ("refs/heads/a.lock", false),
            ("refs/heads/.a", false), ("refs/heads/a@{1}", false), ("refs/heads/a\u{7F}", false), ("refs/heads/", false),
            ("refs/heads/" + String(repeating: "x", count: 250), false),
        ])
    func refs(_ text: String, _ good: Bool) { #expect(((try? RefName(text)) != nil) == good) }

    @Test(
        "digests are sha256 or sha512 in lower case",
        arguments: [
            ("sha256:" + String(repeating: "a", count: 64), true), ("sha512:" + String(repeating: "0", count: 128), true),
            ("sha256:" + String(repeating: "a", count: 63), false), ("sha256:" + String(repeating: "A", count: 64), false),
            ("md5:abc", false),
            ("sha256:../../../../etc/passwd", false),
        ])
    func digests(_ text: String, _ good: Bool) { #expect(((try? Digest(text)) != nil) == good) }

    @Test("ten thousand random strings are refused or survive a round trip, and none traps") func random() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<10_000 {
            let scalars = (0..<Int.random(in: 0...12, using: &generator)).compactMap { _ in
                Unicode.Scalar(UInt32.random(in: 0...0x2FF, using: &generator))
            }
            let text = String(String.UnicodeScalarView(scalars))
            for name in [try? AppName(text).text, try? EnvName(text).text, try? HostName(text).text] {
                if let name { #expect(name == text) }
            }
            if let id = try? InstanceID(text) { #expect(try InstanceID(id.text) == id) }
            _ = try? RefName(text)
            _ = Timestamp(text)
        }
    }

    @Test("ids of instances, jobs and deployments read back what they print") func identifiers() throws {
        for text in ["shop/production/web/3", "a/b/c/1"] { #expect(try InstanceID(text).text == text) }
        for text in ["shop/production/web/0", "shop/production/web/03", "shop/production/web", "shop//web/1", "shop/p/w/1/2"] {
            #expect(throws: Problem.self) { try InstanceID(text) }
        }
        #expect(try JobID("shop/run-12/build").run == 12)
        #expect(throws: Problem.self) { try JobID("shop/12/build") }
        #expect(try DeploymentID("shop/production/7").number == 7)
    }
}

@Suite("Timestamps") struct TimestampTests {
    @Test(
        "print and read RFC 3339",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (1_795_417_014_123, "2026-11-23T06:56:54.123Z"), (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"), (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ])
    func known(_ milliseconds: Int64, _ text: String) {
        #expect(Timestamp(milliseconds: milliseconds).description == text)
        #expect(Timestamp(text)?.milliseconds == milliseconds)
    }

    @Test("offsets and short fractions count") func offsets() {
        #expect(Timestamp("2026-11-23T08:56:54.1+02:00") == Timestamp("2026-11-23T06:56:54.100Z"))
        #expect(Timestamp("2026-11-23T06:56:54Z")?.milliseconds == 1_795_417_014_000)
    }

    @Test(
        "what is not RFC 3339 is refused",
        arguments: ["", "2026-11-23", "2026-11-23 06:56:54Z", "2026-13-23T06:56:54Z", "2026-11-23T06:56:54", "2026-11-23T06:56:54.Z", "x"])
    func bad(_ text: String) { #expect(Timestamp(text) == nil) }
}

@Suite("Problems") struct ProblemTests {
    @Test("outside text is shown inert and short") func quote() {
        #expect(Problem.quote("a\u{1B}[2Jb") == "'a\\u{001B}[2Jb'")
        #expect(Problem.quote("x\u{202E}y") == "'x\\u{202E}y'")
        #expect(Problem.quote(String(repeating: "é", count: 100)).count == 63)
    }

    @Test("a document that does not fit is named by its member") func decode() {
        func message(_ json: String) -> String {
            do {
                _ = try Coding.decode(Shape.self, from: Data(json.utf8))
                return ""
            } catch {
                return (error as? Problem)?.message ?? "?"
            }
        }
        #expect(message("{}") == "'inner' is missing")
        #expect(message(#"{"inner":{"count":"3"}}"#) == "'inner.count': expected a whole number")
        #expect(message("[") == "not valid JSON")
    }
}

private struct Shape: Decodable {
    struct Inner: Decodable { var count: Int }
    var inner: Inner
}
