import Contracts
import Foundation
import Kit
import Storage
import TestKit
import Testing

@testable import GitService

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
