import Contracts
import Foundation
import Kit
import NIOCore
import TestKit
import Testing

@testable import GitService

private let old = String(repeating: "a", count: 40)
private let new = String(repeating: "b", count: 40)
private let none = String(repeating: "0", count: 40)

@Suite("the head of a push") struct PushHeadTests {
    static func request(options: [String]? = nil, refs: [String] = ["refs/heads/main"]) -> [UInt8] {
        var bytes: [UInt8] = []
        for (index, ref) in refs.enumerated() {
            let capabilities = index == 0 ? "\0 report-status-v2 side-band-64k\(options == nil ? "" : " push-options") agent=git/2.39" : ""
            bytes += PktLine.text("\(old) \(new) \(ref)\(capabilities)")
        }
        bytes += PktLine.flush
        if let options {
            for option in options { bytes += PktLine.text(option) }
            bytes += PktLine.flush
        }
        return bytes + Array("PACK0000garbage".utf8)
    }

    @Test("is read the same in whatever pieces it comes", arguments: [1, 3, 7, 100_000]) func pieces(_ size: Int) {
        var head = PushHead()
        var rest = Self.request(options: ["detach", "x=1"], refs: ["refs/heads/main", "refs/tags/v1"])[...]
        while !rest.isEmpty {
            head.take(rest.prefix(size))
            rest = rest.dropFirst(size)
        }
        #expect(head.isComplete)
        #expect(head.commands.map(\.ref) == ["refs/heads/main", "refs/tags/v1"])
        #expect(head.commands.first?.new == new)
        #expect(head.options == ["detach", "x=1"])
        #expect(head.hasSideBand && head.wantsReport)
    }

    @Test("the probe of four bytes is complete and empty") func probe() {
        var head = PushHead()
        head.take(PktLine.flush)
        #expect(head.isComplete && head.commands.isEmpty)
    }

    @Test("what is not git's framing is left to git", arguments: ["0003", "zzzz", "ffff", "000ahello\n0000", "0001"]) func noise(
        _ text: String
    ) {
        var head = PushHead()
        head.take(Array(text.utf8))
        #expect(head.isMalformed)
    }

    @Test("object ids may be written in capitals, and of an atomic push nothing is let through beside a hidden ref") func forms() {
        var head = PushHead()
        head.take(PktLine.text("\(none) \(new.uppercased()) refs/heads/main\0report-status side-band-64k") + PktLine.flush)
        #expect(head.isComplete && head.commands.first?.new == new)
        for (capabilities, refused) in [("report-status atomic", true), ("report-status", false)] {
            var head = PushHead()
            head.take(
                PktLine.text("\(none) \(new) refs/heads/main\0\(capabilities)") + PktLine.text("\(none) \(new) refs/foo/y") + PktLine.flush)
            #expect((head.refusal(options: 1, bytes: 1) != nil) == refused)
        }
    }

    @Test("shallow lines are no commands") func shallow() {
        var head = PushHead()
        head.take(PktLine.text("shallow \(old)") + Self.request())
        #expect(head.commands.count == 1 && head.isComplete)
    }

    @Test("a ref that no event can carry is refused in git's own terms, and so are too many options") func refusal() throws {
        var head = PushHead()
        head.take(Self.request(refs: ["refs/heads/" + String(repeating: "x", count: 300)]))
        let reason = try #require(head.refusal(options: 10, bytes: 100))
        #expect(reason.contains("at most 255 bytes"))
        let report = String(decoding: head.report(refusing: "no"), as: UTF8.self)
        #expect(report.contains("unpack ok\n") && report.contains("ng refs/heads/xxx") && report.hasSuffix("0000"))
        var many = PushHead()
        many.take(Self.request(options: ["a", "b", "c"]))
        #expect(many.refusal(options: 2, bytes: 100) == "more than 2 push options")
        #expect(many.refusal(options: 3, bytes: 2) == "push options of more than 2 bytes")
        #expect(many.refusal(options: 3, bytes: 3) == nil)
    }
}

@Suite("the answer to a push") struct AnswerBandTests {
    @Test("keeps only the last flush back", arguments: [1, 4, 5, 1000]) func held(_ size: Int) {
        var band = AnswerBand()
        let inner = PktLine.text("unpack ok\n") + PktLine.flush
        let whole = PktLine.band(2, Array("Resolving\n".utf8)) + PktLine.flush + PktLine.band(1, inner)
        var passed: [UInt8] = []
        var rest = (whole + PktLine.flush)[...]
        while !rest.isEmpty {
            passed += band.take(rest.prefix(size))
            rest = rest.dropFirst(size)
        }
        #expect(passed == whole)
        #expect(band.isHeld)
        #expect(band.finish() == PktLine.flush)
        #expect(band.finish() == [])
    }

    @Test("passes everything on when it is not what was expected") func broken() {
        var band = AnswerBand()
        #expect(band.take(Array("fatal: no".utf8)) == Array("fatal: no".utf8))
        #expect(!band.isHeld)
        #expect(band.finish() == [])
    }
}

@Suite("what moved") struct RefChangeTests {
    @Test("is told in the order of the names; what stayed is not") func order() throws {
        let changes = RefChanges.between(
            announced: ["refs/heads/a": old, "refs/heads/gone": old, "refs/tags/t": old],
            now: ["refs/heads/a": new, "refs/tags/t": old, "refs/heads/b": new])
        #expect(
            changes == [
                RefChange(ref: try RefName("refs/heads/a"), old: old, new: new),
                RefChange(ref: try RefName("refs/heads/b"), old: nil, new: new),
                RefChange(ref: try RefName("refs/heads/gone"), old: old, new: nil),
            ])
    }

    @Test("HEAD follows a first push of another branch, and only then") func head() {
        #expect(RefChanges.head(now: "main", branches: ["master"]) == "master")
        #expect(RefChanges.head(now: "main", branches: ["z", "develop"]) == "develop")
        #expect(RefChanges.head(now: "main", branches: ["main", "master"]) == "main")
        #expect(RefChanges.head(now: "main", branches: []) == "main")
    }

    @Test("a push explains only what it asked for") func explains() throws {
        let push = PendingPush(
            id: EventID(UUID()), actor: "ann", cause: nil, options: [], refs: ["refs/heads/a": new, "refs/heads/d": none])
        #expect(push.explains(RefChange(ref: try RefName("refs/heads/a"), old: nil, new: new)))
        #expect(!push.explains(RefChange(ref: try RefName("refs/heads/a"), old: nil, new: old)))
        #expect(push.explains(RefChange(ref: try RefName("refs/heads/d"), old: old, new: nil)))
        #expect(!push.explains(RefChange(ref: try RefName("refs/heads/x"), old: nil, new: new)))
    }
}

@Suite("what may be asked") struct GrammarTests {
    @Test("paths that leave the tree are refused", arguments: ["", "/etc/passwd", "../x", "a/../b", "./a", "a//b", "a/", "a\nb", "a\0b"])
    func badPath(_ path: String) { #expect(throws: Problem.self) { try Grammar.path(path) } }

    @Test("plain paths are not") func path() throws { #expect(try Grammar.path("a/slipway.yml") == "a/slipway.yml") }

    @Test(
        "revisions that are more than a name are refused",
        arguments: ["--upload-pack=x", "-n", "main^", "main~1", "a..b", "HEAD:x", "@{1}", "a b", "x\n"])
    func badRevision(_ text: String) { #expect(throws: Problem.self) { try Grammar.candidates(text) } }

    @Test("a name is a branch first, then a tag, then a commit") func candidates() throws {
        #expect(try Grammar.candidates("abcd").map(\.name) == ["refs/heads/abcd", "refs/tags/abcd", "abcd"])
        #expect(try Grammar.candidates("v1").map(\.name) == ["refs/heads/v1", "refs/tags/v1"])
    }

    @Test("a protocol version that is not one is not handed on") func version() {
        #expect(Grammar.protocolVersion("version=2") == "version=2")
        for bad in ["", "version=2;id", "VERSION=2", "a b", "x\n", String(repeating: "v", count: 65)] {
            #expect(Grammar.protocolVersion(bad) == nil)
        }
    }

    @Test("a link may not climb out of its tree") func links() {
        #expect(Checkouts.staysInside("a/b", "../c"))
        #expect(Checkouts.staysInside("a", "b/c"))
        #expect(!Checkouts.staysInside("a", "../c"))
        // Where b is a link, its .. is another place than it looks.
        #expect(!Checkouts.staysInside("a", "b/../c"))
        #expect(!Checkouts.staysInside("d/l", "../d/e/d/e/../../../../etc/passwd"))
        #expect(!Checkouts.staysInside("a/b", "../../c"))
        #expect(!Checkouts.staysInside("a", "/etc"))
    }
}

@Suite("git's environment") struct EnvironmentTests {
    @Test("is made from nothing and reads no file of anybody") func environment() {
        let all = GitEnvironment.variables(home: "/e", settings: [("gc.auto", "0")], protocolVersion: "version=2")
        #expect(all["GIT_CONFIG_NOSYSTEM"] == "1" && all["GIT_CONFIG_GLOBAL"] == "/dev/null" && all["HOME"] == "/e")
        #expect(all["GIT_CONFIG_COUNT"] == "1" && all["GIT_CONFIG_KEY_0"] == "gc.auto" && all["GIT_CONFIG_VALUE_0"] == "0")
        #expect(all["GIT_PROTOCOL"] == "version=2")
        #expect(all["LD_PRELOAD"] == nil)
    }

    @Test("names from outside never begin an argument") func arguments() throws {
        let commit = try CommitID(old)
        #expect(GitCommand.archive("/r", commit).arguments == ["--git-dir=/r", "archive", "--format=tar", old])
        #expect(GitCommand.uploadPack("/r", idle: 300).arguments == ["upload-pack", "--strict", "--timeout=300", "--stateless-rpc", "/r"])
        #expect(
            GitCommand.createRef("/r", try RefName("refs/tags/v1"), commit).arguments == [
                "--git-dir=/r", "update-ref", "refs/tags/v1", old, none,
            ])
    }
}

@Suite("the core of git") struct GitCoreTests {
    private func step(_ event: some Event, _ state: inout GitCore.State) throws -> Step<GitCore.Effect> {
        let id = EventID(UUID())
        var step = Step<GitCore.Effect>(
            now: Timestamp(milliseconds: 1000), host: try HostName("host1"), cause: id, actor: "ann", component: "git")
        let envelope = Envelope(
            id: id, source: "api@host1", type: type(of: event).type, subject: event.subject, time: nil, data: try event.json(), actor: "ann"
        )
        GitCore.handle(.event(envelope), &state, &step)
        return step
    }
    private func notice(_ notice: GitCore.Notice, _ state: inout GitCore.State) throws -> Step<GitCore.Effect> {
        var step = Step<GitCore.Effect>(
            now: Timestamp(milliseconds: 2000), host: try HostName("host1"), cause: EventID(UUID()), actor: nil, component: "git")
        GitCore.handle(.notice(notice), &state, &step)
        return step
    }

    @Test("makes a repository once, and says so to whoever asks again") func create() throws {
        var state = GitCore.State()
        let app = try AppName("shop")
        let first = try step(RepositoryRequested(app: app, action: .create), &state)
        #expect(first.effects.map(\.effect) == [.create(id: 1, app: app)] && first.events.isEmpty)
        #expect(try step(RepositoryRequested(app: app, action: .create), &state).effects.isEmpty)
        let made = try notice(.created(id: 1, app: app), &state)
        #expect(made.events.map(\.type) == [RepositoryCreated.type])
        #expect(made.events.first?.cause == first.cause && made.events.first?.actor == "ann")
        #expect(try notice(.created(id: 1, app: app), &state).events.isEmpty)
        #expect(try step(RepositoryRequested(app: app, action: .create), &state).events.map(\.type) == [RepositoryCreated.type])
    }

    @Test("a name that was given back gets a new directory") func delete() throws {
        var state = GitCore.State()
        let app = try AppName("shop")
        _ = try step(RepositoryRequested(app: app, action: .create), &state)
        let gone = try step(RepositoryRequested(app: app, action: .delete), &state)
        #expect(gone.effects.map(\.effect) == [.delete(id: 1)] && gone.events.map(\.type) == [RepositoryDeleted.type])
        #expect(try notice(.created(id: 1, app: app), &state).effects.map(\.effect) == [.delete(id: 1)])
        #expect(try step(RepositoryRequested(app: app, action: .create), &state).effects.map(\.effect) == [.create(id: 2, app: app)])
        #expect(
            try step(RepositoryRequested(app: try AppName("none"), action: .delete), &state).events.map(\.type) == [RepositoryRejected.type]
        )
    }

    @Test("a tag is ordered only by a name that is one") func tag() throws {
        var state = GitCore.State()
        let app = try AppName("shop")
        _ = try step(RepositoryRequested(app: app, action: .create), &state)
        let commit = try CommitID(old)
        #expect(try step(TagRequested(app: app, tag: "v1", commit: commit, message: "m"), &state).effects.count == 1)
        for bad in ["-d", "a..b", "a b", ""] {
            #expect(try step(TagRequested(app: app, tag: bad, commit: commit, message: "m"), &state).effects.isEmpty)
        }
    }
}

@Suite("waiting for a turn") struct TurnstileTests {
    @Test("the place is given on, the queue is limited and so is the wait") func turns() async throws {
        let turnstile = Turnstile(1, waiting: 1, what: "test")
        let first = try await turnstile.enter(within: 1)
        await #expect(throws: Problem.self) { try await turnstile.enter(within: 0.05) }
        async let second = turnstile.enter(within: 60)
        try await eventually(within: 20, "one that waits") { turnstile.length == 1 }
        await #expect(throws: Problem.self) { try await turnstile.enter(within: 60) }
        first.leave()
        first.leave()
        let place = try await second
        await #expect(throws: Problem.self) { try await turnstile.enter(within: 0.05) }
        withExtendedLifetime(place) {}
    }
}

@Suite("gzipped requests") struct InflaterTests {
    @Test("are unpacked in pieces, also far beyond their size") func inflate() throws {
        // gzip of 1,000,000 zero bytes, made by the system's own gzip.
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "head -c 1000000 /dev/zero | gzip -9"]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let packed = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(packed.count < 2000)
        let inflater = try Inflater()
        var total = 0
        for start in stride(from: 0, to: packed.count, by: 100) {
            inflater.feed(ByteBuffer(bytes: packed[start..<min(start + 100, packed.count)]))
            while let piece = try inflater.next() {
                #expect(piece.readableBytes <= 128 << 10)
                total += piece.readableBytes
            }
        }
        #expect(total == 1_000_000 && inflater.isFinished)
    }

    @Test("what is not gzip is refused") func garbage() throws {
        let inflater = try Inflater()
        inflater.feed(ByteBuffer(string: "this is no gzip at all"))
        #expect(throws: Problem.self) { try inflater.next() }
    }
}
