import Contracts
import Foundation
import Kit
import Storage
import TestKit
import Testing

@testable import GitService

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
