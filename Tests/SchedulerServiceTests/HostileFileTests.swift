import Contracts
import Foundation
import Testing

@testable import SchedulerService

/// A generator with a seed (SplitMix64), so that a failure can be seen again.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite("a file that means harm", .timeLimit(.minutes(1))) struct HostileFileTests {
    /// Seconds that reading takes.
    private func time(_ body: () -> String) -> (String, Double) {
        let clock = ContinuousClock()
        var answer = ""
        let spent = clock.measure { answer = body() }
        return (answer, Double(spent.components.seconds) + Double(spent.components.attoseconds) / 1e18)
    }

    @Test("by aliases that double is refused in no time") func bomb() {
        var text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
        for (last, next) in zip("abcdef", "bcdefg") {
            text += "\(next): &\(next) [" + Array(repeating: "*\(last)", count: 9).joined(separator: ",") + "]\n"
        }
        let (answer, seconds) = time { refusal(text) }
        #expect(answer.hasPrefix("slipway.yml: more than 10000 nodes after aliases (line "), "\(answer)")
        #expect(seconds < 20)
    }

    @Test(
        "by aliases in a key is refused before anything is hashed",
        arguments: ["? *g\n: x", "{*g : x}", "[*g]: x", "{[*g, *g]: x}", "? [*g]\n: x", "{? *g : x}", "- ? *g", "*g : x"])
    func bombInKey(key: String) {
        var text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
        let names = (0..<30).map { "n\($0)" }
        var last = "a"
        for name in names {
            text += "\(name): &\(name) [" + Array(repeating: "*\(last)", count: 9).joined(separator: ",") + "]\n"
            last = name
        }
        text += "g: &g [*\(last)]\nz:\n  " + key.replacingOccurrences(of: "\n", with: "\n  ") + "\n"
        let (answer, seconds) = time { refusal(text) }
        #expect(answer.contains("a key"), "\(answer)")
        #expect(seconds < 20)
    }

    @Test("by depth is refused with the line") func depth() {
        for text in [
            String(repeating: "[", count: 200_000), String(repeating: "{a: ", count: 50_000),
            "x:\n" + String(repeating: "- ", count: 100_000) + "a",
            String(repeating: "? ", count: 100_000), "x: " + String(repeating: "[", count: 40) + String(repeating: "]", count: 40),
        ] {
            let (answer, seconds) = time { refusal(text) }
            #expect(answer.hasPrefix("slipway.yml: nested deeper than 32 (line "), "\(text.prefix(10)): \(answer)")
            #expect(seconds < 20)
        }
        var indented = ""
        for level in 0..<600 { indented += String(repeating: " ", count: level) + "a:\n" }
        #expect(refusal(indented).hasPrefix("slipway.yml: nested deeper than 32 (line "))
    }

    @Test("by size or encoding is refused by name") func encoding() {
        #expect(
            refusal(Data(repeating: 0x23, count: 300_000))
                == "slipway.yml: 300000 bytes; at most 262144 are read (keep data out of slipway.yml)")
        #expect(refusal("a: b".data(using: .utf16)!).hasPrefix("slipway.yml: is UTF-16"))
        #expect(refusal(Data([0x61, 0x00, 0x62])).contains("NUL"))
        #expect(refusal(Data([0x61, 0x3A, 0x20, 0xFF, 0xFE, 0x80])).contains("not valid UTF-8"))
        #expect(refusal("").contains("is empty"))
        #expect(refusal("# only this\n").contains("is empty"))
        #expect(refusal("--- {}\n--- {}\n").contains("another document"))
        #expect(refusal("services: {web: {run: \"\u{7}\"}}") != "accepted")
    }

    @Test("of random bytes and random cuts never stops the reader") func random() {
        var generator = Seeded(state: 2)
        let good = Array(staged.utf8)
        for _ in 0..<2_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let at = Int.random(in: bytes.indices, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: at)
                case 2: bytes.insert(contentsOf: "[]{}:,&*!|>'\"%@`#- \n\t?".utf8.shuffled(using: &generator).prefix(3), at: at)
                default: bytes.removeSubrange(at..<min(bytes.count, at + 10))
                }
                if bytes.isEmpty { bytes = [0x61] }
            }
            _ = refusal(Data(bytes))
        }
    }

    @Test("which only looks like harm is read") func harmless() throws {
        let text = """
            test:
              - |
                if [ -f x ]; then echo "${HOST}: [up]"; fi
                case $x in *) echo {;; esac
              - "echo '[[[[[[[[[' && ls *.c"
            services:
              web: {run: "./a & wait; echo *"}
            """
        #expect(try read(text).test.count == 2)
    }
}

@Suite("a Procfile") struct ProcfileTests {
    private func refusal(_ text: String) -> String {
        do {
            _ = try Pipeline.read(.procfile(Data(text.utf8)), app: World.app)
            return "accepted"
        } catch { return "\(error)" }
    }

    @Test("refuses what is wrong with the line") func wrong() {
        #expect(
            refusal("web: ./x\nrelease: ./migrate\n").hasPrefix(
                "Procfile line 2: the 'release' process is not supported by this version of Slipway"))
        #expect(refusal("web ./x") == "Procfile line 1: expected 'name: command' (for example 'web: python3 app.py')")
        #expect(refusal("web: a\nweb: b") == "Procfile line 2: 'web' appears twice (remove one)")
        #expect(refusal("web:") == "Procfile line 1: 'web' has no command")
        #expect(refusal("my_worker: x").hasPrefix("Procfile line 1: service name 'my_worker': only a-z, 0-9 and '-'"))
        #expect(refusal("# nothing\n") == "Procfile: names no process (add a line such as 'web: python3 app.py')")
        #expect(refusal("\u{FEFF}web: ./x --a:b\r\n") == "accepted")
    }
}
