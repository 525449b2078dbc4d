import Contracts
import Foundation
import Kit
import Storage
import TestKit
import Testing

@testable import GitService

@Suite("git over HTTP", .timeLimit(.minutes(5))) struct ServiceTests {
    @Test("a clone, a fetch and a push work in every protocol version", arguments: [0, 1, 2]) func protocols(_ version: Int) async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            let pushed = try await h.git("-c", "protocol.version=\(version)", "push", h.url("shop"), "main", in: work)
            #expect(pushed.status == 0, "\(pushed)")
            let clone = "\(h.directory)/clone"
            let cloned = try await h.git("-c", "protocol.version=\(version)", "clone", "-q", h.url("shop", .viewer), clone)
            #expect(cloned.status == 0, "\(cloned)")
            #expect(try await h.head(clone) == h.head(work))
            #expect(try await h.git("fsck", "--full", in: clone).status == 0)
            try await h.commit(work, ["b.txt": "two\n"], "second")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            #expect(try await h.git("-c", "protocol.version=\(version)", "pull", "-q", in: clone).status == 0)
            #expect(try await h.head(clone) == h.head(work))
        }
    }

    @Test("a push of more than a megabyte, probe and chunks and all, comes back byte by byte") func large() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            let path = "\(work)/big.bin"
            var bytes = Data(count: 20 << 20)
            bytes.withUnsafeMutableBytes { buffer in
                for i in stride(from: 0, to: buffer.count, by: 8) {
                    buffer.storeBytes(of: UInt64.random(in: .min ... .max), toByteOffset: i, as: UInt64.self)
                }
            }
            try bytes.write(to: URL(fileURLWithPath: path))
            try await h.commit(work, [:], "big")
            #expect(try await h.git("push", h.url("shop"), "main", in: work).status == 0)
            try await h.git("clone", "-q", h.url("shop"), "\(h.directory)/clone")
            #expect(try Data(contentsOf: URL(fileURLWithPath: "\(h.directory)/clone/big.bin")) == bytes)
        }
    }

    @Test("many refs make a gzipped request, which works") func gzip() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            for i in 0..<60 {
                try await h.commit(work, ["n": "\(i)"], "c\(i)")
                try await h.git("tag", "t\(i)", in: work)
            }
            #expect(try await h.git("push", "-q", h.url("shop"), "main", "--tags", in: work).status == 0)
            for version in [0, 2] {
                let cloned = try await h.git(
                    "-c", "protocol.version=\(version)", "clone", "-q", h.url("shop"), "\(h.directory)/c\(version)")
                #expect(cloned.status == 0, "\(cloned)")
            }
            #expect(try await h.events().filter { $0.type == TagCreated.type }.count == 60)
        }
    }

    @Test("shallow and partial clones work") func shallow() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            for i in 0..<5 { try await h.commit(work, ["n": "\(i)"], "c\(i)") }
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            #expect(try await h.git("clone", "-q", "--depth=1", h.url("shop"), "\(h.directory)/s").status == 0)
            #expect(try await h.git("fetch", "-q", "--unshallow", in: "\(h.directory)/s").status == 0)
            #expect(try await h.git("rev-list", "--count", "HEAD", in: "\(h.directory)/s").output == "6\n")
            #expect(try await h.git("clone", "-q", "--filter=blob:none", h.url("shop"), "\(h.directory)/p").status == 0)
            #expect(try await h.git("log", "-p", in: "\(h.directory)/p").status == 0)
        }
    }

    @Test("without a token git is asked for one; a wrong one, a small one and a foreign one are refused with the reason") func rights()
        async throws
    {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let anonymous = try await h.git("ls-remote", h.url("shop", nil))
            #expect(anonymous.errors.contains("could not read Username"), "\(anonymous)")
            let wrong = try await h.git("ls-remote", "http://x:slp_wrong@\(h.address.dropFirst(7))/shop.git")
            #expect(wrong.errors.contains("Authentication failed"), "\(wrong)")
            let reader = try await h.git("push", h.url("shop", .viewer), "main:x", in: work)
            #expect(reader.status != 0)
            #expect(
                reader.errors.contains("remote: 'viewer' may read app 'shop' but not push to it: that needs the role developer"),
                "\(reader)")
            // One answer for what is missing and for what may not be seen.
            let foreign = try await h.git("ls-remote", h.url("shop", .developer, app: "other"))
            let missing = try await h.git("ls-remote", h.url("nothing", .developer, app: "other"))
            #expect(foreign.errors.contains("remote: app 'shop' does not exist, or your token does not reach it"), "\(foreign)")
            #expect(foreign.errors.replacing("shop", with: "nothing") == missing.errors)
        }
    }

    @Test("a push to an app that does not exist says how to make it; a name that is none says why") func missing() async throws {
        try await Harness.run { h in
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("newapp"), "main", in: work)
            #expect(push.status != 0)
            #expect(push.errors.contains("remote: app 'newapp' does not exist: slipway app create newapp"), "\(push)")
            for name in ["..", "%2e%2e", "-x", "Shop", "a%2fb", "%C3%A4", ".git"] {
                let answer = try await run([
                    "curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:\(h.token(.admin))",
                    "\(h.address)/\(name)/info/refs?service=git-upload-pack",
                ])
                #expect(["404", "422", "400"].contains(answer.output), "\(name): \(answer)")
            }
        }
    }

    @Test("dumb protocol and other files are not served") func dumb() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            for (path, code) in [
                ("shop.git/HEAD", "404"), ("shop.git/config", "404"), ("shop.git/objects/info/packs", "404"), ("shop.git/info/refs", "403"),
                ("shop.git/info/refs?service=git-upload-archive", "403"),
            ] {
                let answer = try await run([
                    "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:\(h.token(.admin))", "\(h.address)/\(path)",
                ])
                #expect(answer.output == code, "\(path)")
            }
            let post = try await run([
                "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:\(h.token(.admin))", "-d", "0000",
                "\(h.address)/shop.git/git-upload-pack",
            ])
            #expect(post.output == "415")
        }
    }

    @Test("a small request that unpacks to far more is cut off, and the service lives") func bomb() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let file = "\(h.directory)/bomb.gz"
            try await run(["sh", "-c", "head -c 300000000 /dev/zero | gzip -1 > \(file)"])
            let began = ContinuousClock.now
            _ = try await run([
                "curl", "-s", "-o", "/dev/null", "-m", "60", "-u", "x:\(h.token(.admin))", "-H",
                "Content-Type: application/x-git-upload-pack-request",
                "-H", "Content-Encoding: gzip", "--data-binary", "@\(file)", "\(h.address)/shop.git/git-upload-pack",
            ])
            #expect(ContinuousClock.now - began < .seconds(30))
            #expect(try await h.git("ls-remote", h.url("shop")).status == 0)
        }
    }

    @Test("more clones at once than git may run wait their turn, and all succeed") func queue() async throws {
        var config = GitConfig()
        config.processes = 2
        try await Harness.run(config: config) { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let url = h.url("shop")
            let done = try await withThrowingTaskGroup(of: Int32.self) { group in
                for i in 0..<24 { group.addTask { try await h.git("clone", "-q", url, "\(h.directory)/c\(i)").status } }
                return try await group.reduce(into: 0) { $0 += $1 == 0 ? 1 : 0 }
            }
            #expect(done == 24)
        }
    }

    @Test("a push over the limit is refused and leaves nothing") func limit() async throws {
        var config = GitConfig()
        config.maxPush = 100_000
        try await Harness.run(config: config) { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            try Data((0..<300_000).map { _ in UInt8.random(in: 0...255) }).write(to: URL(fileURLWithPath: "\(work)/big"))
            try await h.commit(work, [:], "big")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status != 0)
            #expect(push.errors.contains("pack exceeds maximum allowed size"), "\(push)")
            #expect(try await h.events().isEmpty)
            let left = try FileManager.default.subpathsOfDirectory(atPath: "\(h.repositories.path(repository.id))/objects")
            #expect(left.filter { $0.hasSuffix(".pack") || $0.contains("tmp_") }.isEmpty)
        }
    }

    @Test("nothing that is written into a repository is ever run, and its settings are set right") func noCode() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let path = h.repositories.path(repository.id)
            let marker = "\(h.directory)/marker"
            try FileManager.default.createDirectory(atPath: "\(path)/hooks", withIntermediateDirectories: true)
            for hook in ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive", "post-checkout"] {
                try Data("#!/bin/sh\ntouch \(marker)\n".utf8).write(to: URL(fileURLWithPath: "\(path)/hooks/\(hook)"))
                chmod("\(path)/hooks/\(hook)", 0o755)
            }
            let evil =
                "[core]\n\tfsmonitor = touch \(marker)\n\thooksPath = \(path)/hooks\n[uploadpack]\n\tpackObjectsHook = touch \(marker)\n[filter \"x\"]\n\tsmudge = touch \(marker)\n"
            try Data(evil.utf8).write(to: URL(fileURLWithPath: "\(path)/config"))
            let work = try await h.work("work", files: ["a": "b", ".gitattributes": "* filter=x\n"])
            #expect(try await h.git("push", h.url("shop"), "main", in: work).status == 0)
            #expect(try await h.git("clone", "-q", h.url("shop"), "\(h.directory)/clone").status == 0)
            _ = try await h.questions.checkouts.path(
                of: h.head(work), in: Objects(git: h.repositories.git, path: h.repositories.guardFiles(repository.id)))
            #expect(!FileManager.default.fileExists(atPath: marker))
            #expect(FileManager.default.contents(atPath: "\(path)/config") == Data(Repositories.configuration.utf8))
        }
    }
}

@Suite("what a push tells", .timeLimit(.minutes(5))) struct EventTests {
    @Test("a branch and an annotated tag are told once each, with who, what and options") func push() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            let commit = try await h.head(work)
            try await h.git("tag", "-a", "v1", "-m", "one", in: work)
            let pushed = try await h.git("push", "-o", "detach", "-o", "x=1", h.url("shop"), "main", "v1", in: work)
            #expect(pushed.status == 0, "\(pushed)")
            #expect(pushed.errors.contains("remote: not waiting; to follow it: slipway wait shop \(commit.short)"), "\(pushed)")
            let events = try await h.events()
            #expect(events.map(\.type) == [PushReceived.type, TagCreated.type])
            #expect(events.allSatisfy { $0.actor == "developer" && $0.source == "git@host1" && $0.subject == "shop" })
            let push = try #require(try events.first?.decode(PushReceived.self))
            #expect(
                push
                    == PushReceived(
                        app: repository.app, ref: try RefName("refs/heads/main"), commit: commit, previous: nil, isDefaultBranch: true,
                        forced: false,
                        title: "first", author: "Ada <ada@example.org>", options: ["detach", "x=1"]))
            #expect(try events.last?.decode(TagCreated.self) == TagCreated(app: repository.app, tag: "v1", commit: commit))
        }
    }

    @Test("force, another branch and a deletion are told as what they are; what git refuses is not told") func kinds() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            try await h.git("push", "-q", h.url("shop"), "main", "main:side", in: work)
            let first = try await h.head(work)
            try await h.git("commit", "-q", "--amend", "-m", "other", in: work)
            #expect(try await h.git("push", "-q", h.url("shop"), "main", in: work).status != 0)
            #expect(try await h.git("push", "-q", "-f", h.url("shop"), "main", in: work).status == 0)
            #expect(try await h.git("push", "-q", h.url("shop"), ":side", in: work).status == 0)
            #expect(try await h.git("push", "-q", h.url("shop"), ":main", in: work).status != 0)
            let notes = try await h.git("push", h.url("shop"), "main:refs/notes/x", in: work)
            #expect(notes.errors.contains("deny updating a hidden ref"), "\(notes)")
            let long = try await h.git("push", h.url("shop"), "main:refs/heads/" + String(repeating: "x/", count: 130) + "y", in: work)
            #expect(long.errors.contains("at most 255 bytes"), "\(long)")
            let events = try await h.events()
            #expect(events.map(\.type) == [PushReceived.type, PushReceived.type, PushReceived.type, RefDeleted.type])
            let forced = try events[2].decode(PushReceived.self)
            #expect(forced.forced && forced.previous == first && forced.isDefaultBranch)
            #expect(try !events[1].decode(PushReceived.self).isDefaultBranch)
            #expect(try events[3].decode(RefDeleted.self).previous == first)
            #expect(Set(events.map(\.id)).count == 4)
        }
    }

    @Test("a first push of another branch makes it the default") func master() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work", branch: "master")
            try await h.git("push", "-q", h.url("shop"), "master", in: work)
            #expect(h.repositories.head(repository.id) == "master")
            #expect(try await h.events().first?.decode(PushReceived.self).isDefaultBranch == true)
            try await h.git("clone", "-q", h.url("shop"), "\(h.directory)/clone")
            #expect(try await h.head("\(h.directory)/clone") == h.head(work))
        }
    }

    @Test("a ref that moved before a crash is told at the next start, once, with who pushed it") func reconcile() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            let commit = try await h.head(work)
            // What a process that died leaves: the push written down and the ref moved, nothing told.
            try await h.records.begin(
                PendingPush(id: EventID(UUID()), actor: "ann", cause: nil, options: ["x"], refs: ["refs/heads/main": commit.text]),
                in: repository.id)
            #expect(try await h.git("push", "-q", h.repositories.path(repository.id), "main", in: work).status == 0)
            for _ in 0..<3 { await h.orders.reconcile([repository]) }
            let events = try await h.events()
            #expect(events.count == 1)
            #expect(events.first?.actor == "ann")
            #expect(try events.first?.decode(PushReceived.self).options == ["x"])
        }
    }

    @Test("a git that outlives its service and moves the ref late is told too, with who pushed") func late() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            let commit = try await h.head(work)
            try await h.records.begin(
                PendingPush(id: EventID(UUID()), actor: "ann", cause: nil, options: [], refs: ["refs/heads/main": commit.text]),
                in: repository.id)
            await h.orders.reconcile([repository])
            #expect(try await h.events().isEmpty)
            try await h.git("push", "-q", h.repositories.path(repository.id), "main", in: work)
            for _ in 0..<2 { await h.orders.reconcile([repository]) }
            #expect(try await h.events().map(\.actor) == ["ann"])
            #expect(try await h.records.announced(repository.id).pending == nil)
        }
    }

    @Test("twenty pushes at once to one repository are all told, one event each") func together() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            let url = h.url("shop")
            let done = try await withThrowingTaskGroup(of: Int32.self) { group in
                for i in 0..<20 { group.addTask { try await h.git("push", "-q", url, "main:b\(i)", in: work).status } }
                var done = 0
                for try await status in group where status == 0 { done += 1 }
                return done
            }
            #expect(done == 20)
            #expect(Set(try await h.events().map { try $0.decode(PushReceived.self).ref.text }).count == 20)
        }
    }

    @Test("a client that goes away in the middle of a push holds up nobody") func lost() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            var noise = ""
            var random = SystemRandomNumberGenerator()
            for _ in 0..<200_000 { noise += String(random.next(), radix: 36) }
            try await h.commit(work, ["noise": noise], "much")
            // Half a push, then the connection is reset.
            let script = """
                import base64, socket, struct, subprocess, sys, time
                from urllib.parse import urlsplit
                u = urlsplit(sys.argv[1]); new = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
                line = ("0" * 40 + " " + new + " refs/heads/lost\\0report-status side-band-64k agent=x").encode()
                pack = subprocess.run(["git", "pack-objects", "--stdout", "--revs", "-q"], input=new.encode(), stdout=subprocess.PIPE).stdout
                body = b"%04x" % (len(line) + 4) + line + b"0000" + pack
                s = socket.create_connection((u.hostname, u.port))
                key = base64.b64encode(f"{u.username}:{u.password}".encode()).decode()
                s.sendall((f"POST {u.path}/git-receive-pack HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nAuthorization: Basic {key}\\r\\n"
                    f"Content-Type: application/x-git-receive-pack-request\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n").encode())
                s.sendall(body[:len(body) // 2]); time.sleep(0.3)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
                """
            for _ in 0..<5 {
                let gone = try await run(["/usr/bin/python3", "-c", script, h.url("shop")], in: work, within: 30)
                #expect(gone.status == 0, "\(gone)")
            }
            let pushed = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(pushed.status == 0, "\(pushed)")
            #expect(try await h.events().map(\.type) == [PushReceived.type])
        }
    }

    @Test("a title of megabytes, and one of a single character made of as much, are cut and told") func longTitles() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            for (index, title) in [String(repeating: "t", count: 17 << 20), "e" + String(repeating: "\u{301}", count: 700_000)].enumerated()
            {
                try Data(title.utf8).write(to: URL(fileURLWithPath: "\(h.directory)/message"))
                try await h.git("commit", "-q", "--allow-empty", "-F", "\(h.directory)/message", in: work)
                let pushed = try await h.git("push", "-q", h.url("shop"), "main", in: work)
                #expect(pushed.status == 0 && !pushed.errors.contains("cannot be announced"), "\(pushed)")
                let told = try await h.events().map { try $0.decode(PushReceived.self).title }
                #expect(told.count == index + 1 && told[index].utf8.count <= 800, "\(told.map(\.utf8.count))")
            }
        }
    }

    @Test("an ordered tag is made and told once; the same again changes nothing, another commit is refused") func tag() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let first = try await h.head(work)
            try await h.commit(work, ["b": "c"], "second")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let context = EffectContext(id: EventID(UUID()), attempt: 1, cause: EventID(UUID()), actor: "ann")
            for (commit, _) in [(first, 1), (first, 2), (try await h.head(work), 3)] {
                let order = TagRequested(app: repository.app, tag: "v1", commit: commit, message: "Release v1\n\nby Slipway")
                _ = try await h.orders.perform(
                    .tag(id: repository.id, order: order, time: Timestamp(milliseconds: 1_700_000_000_000)), context)
            }
            // A name that git cannot give beside another holds up nobody.
            try await h.git("push", "-q", h.url("shop"), "main:refs/tags/v7/x", in: work)
            let seventh = TagRequested(app: repository.app, tag: "v7", commit: first, message: "m")
            let refused = try await h.orders.perform(.tag(id: repository.id, order: seventh, time: Timestamp(milliseconds: 0)), context)
            #expect(refused == .tagRefused(seventh, reason: "the name is taken by 'refs/tags/v7/x'"))
            let tags = try await h.events().filter { $0.type == TagCreated.type && !$0.id.text.isEmpty }.filter {
                try $0.decode(TagCreated.self).tag == "v1"
            }
            #expect(tags.count == 1)
            #expect(tags.first?.actor == "ann" && tags.first?.cause == context.cause)
            #expect(try tags.first?.decode(TagCreated.self).commit == first)
            try await h.git("clone", "-q", h.url("shop"), "\(h.directory)/clone")
            #expect(try await h.git("cat-file", "-t", "v1", in: "\(h.directory)/clone").output == "tag\n")
            #expect(try await h.git("tag", "-n9", in: "\(h.directory)/clone").output.contains("Release v1"))
            // It stays what it is; a tag of one's own does not.
            for refspec in [":refs/tags/v1", "+main:refs/tags/v1"] {
                let refused = try await h.git("push", h.url("shop"), refspec, in: work)
                #expect(refused.status != 0 && refused.errors.contains("the tag of a release"), "\(refused)")
            }
            #expect(try await h.git("push", h.url("shop"), "main:refs/tags/mine", in: work).status == 0)
            #expect(try await h.git("push", h.url("shop"), ":refs/tags/mine", in: work).status == 0)
            #expect(try await h.git("ls-remote", h.url("shop"), "refs/tags/v1^{}", in: work).output.contains(first.text))
        }
    }
}

@Suite("the story on a push", .timeLimit(.minutes(5))) struct NarratorTests {
    @Test("is told line by line until it ends, and the push has succeeded") func story() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { tale in
                tale = { push in
                    func envelope<E: Event>(_ event: E) throws -> Envelope {
                        Envelope(
                            id: EventID(UUID()), source: "t@h", type: E.type, subject: event.subject, time: nil, data: try event.json())
                    }
                    return [
                        try envelope(RunStarted(app: push.app, run: 1, ref: push.ref, commit: push.commit, jobs: [])),
                        try envelope(
                            RunFinished(
                                app: push.app, run: 1, ref: push.ref, commit: push.commit, outcome: .rejected,
                                reason: "no \u{1B}[31mslipway.yml\u{7}")),
                    ]
                }
            }
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            let lines = push.errors.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
            #expect(lines.contains("remote: run 1: \(try await h.head(work).short) on main"), "\(push)")
            #expect(lines.contains("remote: rejected: no slipway.yml\\u{7}; nothing was deployed"), "\(push)")
        }
    }

    @Test("a bus that is away costs one line and no time") func away() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            #expect(
                push.errors.contains(
                    "remote: the push is safe. The bus is away: it is deployed when the bus is back; to follow it: slipway wait shop"),
                "\(push)")
        }
    }

    @Test("no news ends the waiting with how to follow") func patience() async throws {
        var config = GitConfig()
        config.storyPatience = 0.3
        config.heartbeat = 0.1
        try await Harness.run(config: config) { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { $0 = { _ in [] } }
            let work = try await h.work("work")
            let push = try await h.git("push", h.url("shop"), "main", in: work)
            #expect(push.status == 0)
            #expect(push.errors.contains("To follow it: slipway wait shop"), "\(push)")
        }
    }

    @Test("a client that hangs up while it waits changes nothing") func hangUp() async throws {
        var config = GitConfig()
        config.heartbeat = 0.1
        try await Harness.run(config: config) { h in
            _ = try await h.repository("shop")
            h.box.tale.withLock { $0 = { _ in [] } }
            let work = try await h.work("work")
            let push = try Background(["git", "push", h.url("shop"), "main"], in: work)
            while try await h.events().isEmpty { try await Task.sleep(for: .milliseconds(20)) }
            push.send(signal: SIGKILL)
            h.box.tale.withLock { $0 = nil }
            try await h.commit(work, ["b": "2"], "second")
            #expect(try await h.git("push", "-q", h.url("shop"), "main", in: work).status == 0)
            #expect(try await h.events().count == 2)
        }
    }
}

@Suite("what is read of a repository", .timeLimit(.minutes(5))) struct QuestionTests {
    @Test("files, revisions and what is missing") func questions() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work", files: ["slipway.yml": "app: shop\n", "dir/x": "y"])
            try await h.git("tag", "-a", "v1", "-m", "m", in: work)
            try await h.git("push", "-q", h.url("shop"), "main", "v1", in: work)
            let commit = try await h.head(work)
            func file(_ path: String) async throws -> Data? {
                try await h.questions.file(ReadFile(app: repository.app, commit: commit, path: path)).content
            }
            #expect(try await file("slipway.yml") == Data("app: shop\n".utf8))
            #expect(try await file("dir/x") == Data("y".utf8))
            #expect(try await file("none") == nil)
            #expect(try await file("dir") == nil)
            await #expect(throws: Problem.self) { try await file("../x") }
            await #expect(throws: Problem.self) {
                try await h.questions.file(ReadFile(app: repository.app, commit: CommitID(String(repeating: "1", count: 40)), path: "x"))
            }
            for revision in ["main", "v1", "HEAD", "refs/heads/main", commit.text, commit.short] {
                let reply = try await h.questions.resolve(ResolveRevision(app: repository.app, revision: revision))
                #expect(reply.commit == commit && reply.title == "first", "\(revision)")
            }
            #expect(try await h.questions.resolve(ResolveRevision(app: repository.app, revision: "main")).ref?.text == "refs/heads/main")
            #expect(try await h.questions.resolve(ResolveRevision(app: repository.app, revision: "nothing")).commit == nil)
            await #expect(throws: Problem.self) { try await h.questions.resolve(ResolveRevision(app: repository.app, revision: "--all")) }
        }
    }

    @Test("a checkout is exactly the tree, read-only, and the same directory for the same tree") func checkout() async throws {
        try await Harness.run { h in
            let repository = try await h.repository("shop")
            let work = try await h.work(
                "work",
                files: [
                    "a.txt": "one\r\n$Id$\n", "sub/run.sh": "#!/bin/sh\n",
                    ".gitattributes": "a.txt text eol=lf ident export-subst\nsub export-ignore\n",
                ])
            chmod("\(work)/sub/run.sh", 0o755)
            try FileManager.default.createSymbolicLink(atPath: "\(work)/sub/link", withDestinationPath: "../a.txt")
            try await h.commit(work, [:], "modes")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let objects = Objects(git: h.repositories.git, path: h.repositories.path(repository.id))
            let commit = try await h.head(work)
            let first = try await h.questions.checkouts.path(of: commit, in: objects)
            let again = try await h.questions.checkouts.path(of: commit, in: objects)
            #expect(first.path == again.path)
            let files = try FileManager.default.subpathsOfDirectory(atPath: first.path).sorted()
            #expect(files == [".gitattributes", "a.txt", "sub", "sub/link", "sub/run.sh"])
            for (name, mode) in [("a.txt", 0o444), ("sub/run.sh", 0o555), ("sub", 0o555)] {
                #expect(try FileManager.default.attributesOfItem(atPath: "\(first.path)/\(name)")[.posixPermissions] as? Int == mode)
            }
            let hash = try await run(["git", "hash-object", "--no-filters", "\(first.path)/a.txt"]).output
            #expect(try await h.git("rev-parse", "\(commit):a.txt", in: work).output == hash)
        }
    }

    @Test("a link that leaves the tree is refused, and so is a tree beyond the budget") func refused() async throws {
        var config = GitConfig()
        config.maxFiles = 3
        try await Harness.run(config: config) { h in
            let repository = try await h.repository("shop")
            let work = try await h.work("work")
            try FileManager.default.createSymbolicLink(atPath: "\(work)/out", withDestinationPath: "../../etc/passwd")
            try await h.commit(work, [:], "link")
            let link = try await h.head(work)
            try await h.commit(work, ["1": "", "2": "", "3": ""], "many")
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let objects = Objects(git: h.repositories.git, path: h.repositories.path(repository.id))
            await #expect(throws: Problem(.invalid, "'out' is a link that leaves the tree", hint: "remove the link and commit again")) {
                try await h.questions.checkouts.path(of: link, in: objects)
            }
            let many = try await h.head(work)
            await #expect(throws: Problem(.tooLarge, "the tree of \(many.short) has more than 3 files and directories")) {
                try await h.questions.checkouts.path(of: many, in: objects)
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(h.boot.directory)/tmp").isEmpty)
        }
    }

    @Test("an archive is exactly the tree, whatever its attributes say, and for programs of the suite only") func archive() async throws {
        try await Harness.run { h in
            _ = try await h.repository("shop")
            let work = try await h.work(
                "work", files: ["a": "$Format:%H$\n", "hidden": "x", ".gitattributes": "a export-subst\nhidden export-ignore\n"])
            try await h.git("push", "-q", h.url("shop"), "main", in: work)
            let commit = try await h.head(work)
            let url = "\(h.address)/internal/shop/archive/\(commit).tar"
            let refused = try await run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:\(h.token(.admin))", url])
            #expect(refused.output == "403")
            let tar = "\(h.directory)/a.tar"
            let got = try await run(["curl", "-s", "-o", tar, "-w", "%{http_code}", "-u", "x:\(h.component)", url])
            #expect(got.output == "200")
            #expect(try await run(["tar", "-tf", tar]).output.split(separator: "\n").sorted() == [".gitattributes", "a", "hidden"])
            #expect(try await run(["tar", "-xOf", tar, "a"]).output == "$Format:%H$\n")
            let list = try await run(["curl", "-s", "-u", "x:\(h.token(.viewer))", "\(h.address)/v1/repositories"])
            #expect(list.output.contains("\"app\":\"shop\"") && list.output.contains("\"defaultBranch\":\"main\""))
        }
    }
}
