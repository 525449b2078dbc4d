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
