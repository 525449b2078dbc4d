import Contracts
import Foundation
import NIOCore
import Testing

@testable import SupervisorService

@Suite("archives") struct TarTests {
    private func entries(_ bytes: [UInt8], piece: Int = 100, limits: ArchiveLimits = SupervisorConfig.archive) throws -> [TarEntry: [UInt8]]
    {
        var reader = Tar.Reader(limits: limits)
        var found: [TarEntry: [UInt8]] = [:]
        var last: TarEntry?
        for start in stride(from: 0, to: bytes.count, by: piece) {
            try reader.feed(bytes[start..<min(start + piece, bytes.count)]) { piece in
                switch piece {
                case .entry(let entry):
                    found[entry] = []
                    last = entry
                case .bytes(let bytes): if let last { found[last]? += bytes }
                }
            }
        }
        try reader.finish()
        return found
    }

    private func archive(_ entry: TarEntry, _ body: [UInt8] = []) -> [UInt8] {
        Tar.header(entry) + body + Tar.padding(Int64(body.count)) + Tar.end
    }

    @Test("what is written is read again, also long names and in any pieces", arguments: [1, 7, 512, 100_000]) func roundTrip(piece: Int)
        throws
    {
        let long = String(repeating: "directory/", count: 30) + "file"
        let body = [UInt8](repeating: 7, count: 1300)
        let first = TarEntry(path: long, kind: .file(size: 1300, executable: true))
        let second = TarEntry(path: "a/link", kind: .link(target: "../b"))
        let bytes = Tar.header(first) + body + Tar.padding(1300) + Tar.header(second) + Tar.end
        let found = try entries(bytes, piece: piece)
        #expect(found == [first: body, second: []])
    }

    /// Headers by hand, for what our own writer refuses to make.
    private func header(_ name: String, type: Character, target: String = "", mode: Int = 0o644, size: Int64 = 0) -> [UInt8] {
        var bytes = Tar.header(TarEntry(path: "x", kind: .file(size: size, executable: false)))
        for (index, byte) in Array(name.utf8).enumerated() { bytes[index] = byte }
        for (index, byte) in Array(target.utf8).enumerated() { bytes[157 + index] = byte }
        for (index, byte) in Array(("000" + String(mode, radix: 8)).suffix(7).utf8).enumerated() { bytes[100 + index] = byte }
        bytes[156] = type.asciiValue!
        let sum = bytes.enumerated().reduce(0) { $0 + Int((148..<156).contains($1.offset) ? 0x20 : $1.element) }
        for (index, byte) in Array(("00000" + String(sum, radix: 8)).suffix(6).utf8).enumerated() { bytes[148 + index] = byte }
        return bytes
    }

    @Test("what would leave the archive, or is more than files, directories and links, is refused and named")
    func hostile() {
        let cases: [([UInt8], String)] = [
            (header("../x", type: "0"), "'../x' leaves the archive"),
            (header("a/../../x", type: "0"), "leaves the archive"),
            (header("/etc/x", type: "0"), "is absolute"),
            (header("a", type: "1", target: "/etc/passwd"), "is a hard link"),
            (header("a", type: "2", target: "/etc"), "is a link that leaves it, to '/etc'"),
            (header("a/b", type: "2", target: "../../x"), "is a link that leaves it"),
            (header("a", type: "2", target: ".") + header("a/x", type: "0"), "goes through a symbolic link"),
            (header("a", type: "3"), "is a device"),
            (header("a", type: "4"), "is a device"),
            (header("a", type: "6"), "is a named pipe"),
            (header("a", type: "0", mode: 0o4755), "is set-user-id"),
            (header("a\nb", type: "0"), "has a control character in its path"),
            (header("a", type: "S"), "is of the unknown kind"),
        ]
        for (bytes, words) in cases {
            let problem = #expect(throws: Problem.self) { try entries(bytes + Tar.end) }
            #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "") should say \(words)")
        }
    }

    @Test("budgets end an archive early") func budgets() {
        var many: [UInt8] = []
        for number in 0..<4 { many += Tar.header(TarEntry(path: "d\(number)", kind: .directory)) }
        let limits = ArchiveLimits(entries: 3, bytes: 1000, path: 100)
        #expect(throws: Problem(.tooLarge, "refused: more than 3 entries")) { try entries(many + Tar.end, limits: limits) }
        let sparse = Tar.header(TarEntry(path: "big", kind: .file(size: 1 << 40, executable: false)))
        #expect(throws: Problem(.tooLarge, "refused: more than 1000 bytes unpacked")) { try entries(sparse, limits: limits) }
    }

    @Test("a size that no sum can hold ends the archive, not the supervisor") func enormous() {
        let first = Array(archive(TarEntry(path: "a", kind: .file(size: 1, executable: false)), [1]).prefix(1024))
        let record = Array("28 size=\(Int64.max)\n".utf8)
        var bytes: [UInt8] = first
        bytes += header("x", type: "x", size: Int64(record.count))
        bytes += record
        bytes += Tar.padding(Int64(record.count))
        bytes += Tar.header(TarEntry(path: "b", kind: .file(size: 0, executable: false)))
        #expect { try entries(bytes) } throws: { ($0 as? Problem)?.code == .tooLarge }
    }

    @Test("an archive that breaks off, or is damaged, is refused") func damaged() {
        let whole = archive(TarEntry(path: "a", kind: .file(size: 700, executable: false)), [UInt8](repeating: 1, count: 700))
        #expect(throws: Problem.self) { try entries(Array(whole.prefix(900))) }
        var flipped = whole
        flipped[3] ^= 1
        #expect(throws: Problem.self) { try entries(flipped) }
    }

    @Test("any bytes at all are refused or read, and never crash") func random() {
        for _ in 0..<200 {
            let bytes = (0..<1536).map { _ in UInt8.random(in: 0...255) }
            _ = try? entries(bytes)
        }
    }

    @Test("the same files give the same bundle, whatever their times, order and modes") func deterministic() async throws {
        let scratch = Scratch()
        for (name, order) in [("one", ["b/x", "a"]), ("two", ["a", "b/x"])] {
            for file in order { try scratch.write("content of \(file)", to: "\(name)/\(file)", mode: name == "one" ? 0o640 : 0o600) }
            try scratch.write("#!/bin/sh\n", to: "\(name)/run", mode: 0o700)
            symlink("b/x", "\(scratch.path)/\(name)/link")
        }
        try scratch.write("not part of it", to: "two/.git/HEAD")
        let packer = TreePacker(owner: nil, limits: SupervisorConfig.archive)
        let one = try packer.pack(".", of: "\(scratch.path)/one", to: "\(scratch.path)/one.tar")
        let two = try packer.pack("", of: "\(scratch.path)/two", to: "\(scratch.path)/two.tar")
        #expect(one.digest == two.digest && one.size == two.size)

        mkdir("\(scratch.path)/out", 0o755)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(scratch.path)/one.tar"))
        try await Archive.unpack(to: "\(scratch.path)/out", owner: nil) { take in try take(ByteBuffer(bytes: bytes)) }
        #expect(scratch.text("out/b/x") == "content of b/x" && scratch.text("out/link") == "content of b/x")
        #expect(access("\(scratch.path)/out/run", X_OK) == 0)
    }

    @Test("a bundle cannot carry what lies outside the checkout") func leaks() throws {
        let scratch = Scratch()
        try scratch.write("secret", to: "keys/bus.json", mode: 0o600)
        try scratch.write("x", to: "src/app")
        let packer = TreePacker(owner: nil, limits: SupervisorConfig.archive)
        symlink("../keys", "\(scratch.path)/src/dist")
        #expect(throws: Problem.self) { try packer.pack("dist", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
        #expect(throws: Problem.self) { try packer.pack(".", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
        #expect(throws: Problem.self) { try packer.pack("../keys", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
        #expect(throws: Problem.self) { try packer.pack("absent", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
        unlink("\(scratch.path)/src/dist")
        // A hard link to a file of somebody else would be read with our rights.
        let mine = TreePacker(owner: 61_184, limits: SupervisorConfig.archive)
        #expect(throws: Problem.self) { try mine.pack(".", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
        mkfifo("\(scratch.path)/src/pipe", 0o600)
        #expect(throws: Problem.self) { try packer.pack(".", of: "\(scratch.path)/src", to: "\(scratch.path)/t") }
    }

    @Test("a name that is there twice is refused by the extractor") func twice() async {
        let scratch = Scratch()
        let file = Tar.header(TarEntry(path: "a", kind: .file(size: 0, executable: false)))
        let problem = await #expect(throws: Problem.self) {
            try await Archive.unpack(to: scratch.path, owner: nil) { take in try take(ByteBuffer(bytes: file + file + Tar.end)) }
        }
        #expect(problem?.message == "refused: 'a' is there twice")
    }
}
