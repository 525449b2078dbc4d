import Contracts
import Foundation
import NIOCore

/// Questions to one repository.
struct Objects: Sendable {
    let git: Git
    let path: String

    struct Found: Sendable, Hashable {
        var id: CommitID
        var kind: String
        var size: Int64
    }

    /// What each name stands for, nil where there is nothing. Names must not hold line breaks; all callers check theirs.
    func look(_ names: [String]) async throws -> [Found?] {
        guard !names.isEmpty else { return [] }
        let output = try await git.check(.look(path), input: Data(names.map { $0 + "\n" }.joined().utf8))
        let lines = output.text.split(separator: "\n", omittingEmptySubsequences: false).prefix(names.count)
        return lines.map { line in
            // The answer for what is missing repeats the name, which may hold spaces: only the exact form counts.
            let parts = line.split(separator: " ", omittingEmptySubsequences: false)
            guard parts.count == 3, let id = try? CommitID(String(parts[0])), let size = Int64(parts[2]) else { return nil }
            return Found(id: id, kind: String(parts[1]), size: size)
        }
    }

    func refs() async throws -> [String: String] {
        var refs: [String: String] = [:]
        let bytes = try await git.check(.refs(path), limit: 256 << 20).bytes
        for line in bytes.split(separator: 0x0A) {
            // A name that is not UTF-8 cannot come in by a push; an administrator's is left alone.
            guard let text = String(validating: line, as: UTF8.self), let space = text.firstIndex(of: " ") else { continue }
            refs[String(text[text.index(after: space)...])] = String(text[..<space])
        }
        return refs
    }

    struct Description: Sendable, Hashable {
        var title: String
        var author: String
    }

    /// First line of the message and author of each commit.
    func describe(_ commits: [CommitID]) async throws -> [CommitID: Description] {
        var all: [CommitID: Description] = [:]
        // Bounded, because the ids stand in the argument list.
        for start in stride(from: 0, to: commits.count, by: 500) {
            let part = Array(commits[start..<min(start + 500, commits.count)])
            do {
                for (id, description) in try await described(part) { all[id] = description }
            } catch let problem as Problem where problem.code == .tooLarge {
                // One of them has a title of megabytes. It must not keep the others, or itself, from being announced.
                for commit in part { all[commit] = try? await described([commit])[commit] }
            }
        }
        return all
    }

    private func described(_ commits: [CommitID]) async throws -> [CommitID: Description] {
        var all: [CommitID: Description] = [:]
        for entry in try await git.check(.describe(path, commits)).bytes.split(separator: 0) {
            let lines = entry.split(separator: 0x0A, omittingEmptySubsequences: false)
            guard lines.count >= 3, let id = try? CommitID(String(decoding: lines[0], as: UTF8.self)) else { continue }
            all[id] = Description(title: Self.cut(lines[1]), author: Self.cut(lines[2]))
        }
        return all
    }

    /// At most 200 scalars: a single character may be made of a million of them.
    static func cut(_ bytes: some Collection<UInt8>) -> String {
        String(String.UnicodeScalarView(String(decoding: bytes.prefix(2000), as: UTF8.self).unicodeScalars.prefix(200)))
    }

    func isAncestor(_ old: CommitID, of new: CommitID) async throws -> Bool {
        try await git.run(.isAncestor(path, old, of: new)).status == 0
    }

    /// Throws `Problem`: `not_found` when it is not a commit here, `too_large` when its tree is beyond the budget.
    func checkBudget(_ commit: CommitID) async throws {
        guard try await look([commit.text]).first??.kind == "commit" else { throw Problem(.notFound, "there is no commit \(commit.short)") }
        var files = 0
        var bytes: Int64 = 0
        var record: [UInt8] = []
        let config = git.config
        let status = try await git.stream(.list(path, commit), idle: config.commandTimeout, input: { nil }) { chunk in
            for byte in chunk.readableBytesView {
                if byte != 0 {
                    // `100644 blob ID    SIZE<tab>PATH`: what is behind the tab does not matter here.
                    if record.count < 200 { record.append(byte) }
                    continue
                }
                files += 1
                let head = record.prefix { $0 != 0x09 }.split(separator: 0x20)
                if head.count == 4 { bytes += Int64(String(decoding: head[3], as: UTF8.self)) ?? 0 }
                record.removeAll(keepingCapacity: true)
            }
            guard files <= config.maxFiles else {
                throw Problem(.tooLarge, "the tree of \(commit.short) has more than \(config.maxFiles) files and directories")
            }
            guard bytes <= config.maxTreeBytes else {
                throw Problem(.tooLarge, "the tree of \(commit.short) has more than \(config.maxTreeBytes) bytes")
            }
        }
        guard status == 0 else { throw Problem(.failed, "the tree of \(commit.short) cannot be read") }
    }
}
