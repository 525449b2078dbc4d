import CSys
import Contracts
import Crypto
import Foundation

/// Puts the entries of an archive into a directory that nothing else uses yet. No path leaves it and no symbolic link is
/// followed: the kernel sees to that (openat2), whatever the archive's reader may have missed.
struct TreeWriter {
    private let root: Int32
    private let owner: UInt32?
    private var file: Int32 = -1

    /// `owner`: who gets everything; nil: nobody but the user of this process.
    init(_ directory: String, owner: UInt32?) throws {
        root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard root >= 0 else { throw Problem(.failed, "cannot open \(directory): \(Spawn.message(errno))") }
        self.owner = owner
    }

    mutating func close() {
        finishFile()
        Glibc.close(root)
    }

    mutating func take(_ piece: Tar.Reader.Piece) throws {
        switch piece {
        case .bytes(let bytes): try write(bytes)
        case .entry(let entry):
            finishFile()
            let parts = entry.path.split(separator: "/").map(String.init)
            guard let name = parts.last else { return }
            let parent = try directory(parts.dropLast().map { $0 })
            defer { if parent != root { Glibc.close(parent) } }
            switch entry.kind {
            case .directory: Glibc.close(try directory(parts))
            case .file(_, let executable):
                file = csys_open_beneath(parent, name, O_WRONLY | O_CREAT | O_EXCL, executable ? 0o755 : 0o644)
                guard file >= 0 else { throw failure(entry.path, errno) }
                // The mask of this process must not decide what the archive says.
                fchmod(file, executable ? 0o755 : 0o644)
                try give(file, entry.path)
            case .link(let target):
                guard symlinkat(target, parent, name) == 0 else { throw failure(entry.path, errno) }
                if let owner, fchownat(parent, name, owner, owner, AT_SYMLINK_NOFOLLOW) != 0 { throw failure(entry.path, errno) }
            }
        }
    }

    private mutating func finishFile() {
        if file >= 0 { Glibc.close(file) }
        file = -1
    }

    /// Opens a directory below the root, making what is missing.
    private func directory(_ parts: [String]) throws -> Int32 {
        guard !parts.isEmpty else { return root }
        let path = parts.joined(separator: "/")
        let known = csys_open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0)
        if known >= 0 { return known }
        guard errno == ENOENT, let name = parts.last else { throw failure(path, errno) }
        let parent = try directory(parts.dropLast().map { $0 })
        defer { if parent != root { Glibc.close(parent) } }
        guard mkdirat(parent, name, 0o755) == 0 || errno == EEXIST else { throw failure(path, errno) }
        let made = csys_open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0)
        guard made >= 0 else { throw failure(path, errno) }
        fchmod(made, 0o755)
        do { try give(made, path) } catch {
            Glibc.close(made)
            throw error
        }
        return made
    }

    private func give(_ descriptor: Int32, _ path: String) throws {
        if let owner, fchown(descriptor, owner, owner) != 0 { throw failure(path, errno) }
    }

    private func write(_ bytes: ArraySlice<UInt8>) throws {
        try bytes.withUnsafeBytes { raw in
            var written = 0
            while written < raw.count {
                let count = Glibc.write(file, raw.baseAddress?.advanced(by: written), raw.count - written)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw Problem(errno == ENOSPC ? .storageFull : .failed, "cannot unpack: \(Spawn.message(errno))") }
                written += count
            }
        }
    }

    private func failure(_ path: String, _ error: Int32) -> Problem {
        switch error {
        case EEXIST: Problem(.invalid, "refused: \(Problem.quote(path)) is there twice")
        case ELOOP, EXDEV, ENOTDIR: Problem(.invalid, "refused: \(Problem.quote(path)) goes through a link or a file")
        case ENOSPC: Problem(.storageFull, "cannot unpack \(Problem.quote(path)): the disk is full")
        default: Problem(.failed, "cannot unpack \(Problem.quote(path)): \(Spawn.message(error))")
        }
    }
}

/// Packs a directory that pushed code has written into a tar file whose bytes depend on nothing but names and contents.
struct TreePacker {
    /// Who must own each file: a hard link to a stranger's file would otherwise be read with this process's rights.
    let owner: UInt32?
    let limits: ArchiveLimits

    struct Packed: Sendable {
        var digest: Contracts.Digest
        var size: Int64
    }

    /// `inside` is a path below `checkout`; neither it nor anything below is reached through a symbolic link. A `.git`
    /// directory at the top is left out. Throws `Problem` that says what cannot be part of a bundle.
    func pack(_ inside: String, of checkout: String, to file: String) throws -> Packed {
        let root = open(checkout, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard root >= 0 else { throw Problem(.failed, "cannot open \(checkout): \(Spawn.message(errno))") }
        defer { close(root) }
        let parts = inside.split(separator: "/").filter { $0 != "." }
        guard !inside.hasPrefix("/"), !parts.contains("..") else {
            throw Problem(.invalid, "the bundle's path \(Problem.quote(inside)) leaves the checkout")
        }
        let path = parts.joined(separator: "/")
        let top = path.isEmpty ? dup(root) : csys_open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0)
        guard top >= 0 else {
            throw Problem(
                .notFound, "the build left no directory \(Problem.quote(inside)): \(Spawn.message(errno).lowercased())",
                hint: "'artifact' in slipway.yml names the directory that the build makes")
        }
        defer { close(top) }
        let output = try Output(file)
        defer { output.close() }
        var entries = 0
        try walk(top, "", &entries, output)
        try output.write(Tar.end)
        return try output.finish()
    }

    private func walk(_ directory: Int32, _ prefix: String, _ entries: inout Int, _ output: Output) throws {
        for name in try names(directory) where !(prefix.isEmpty && name == ".git") {
            let path = prefix.isEmpty ? name : "\(prefix)/\(name)"
            entries += 1
            guard entries <= limits.entries else { throw Problem(.tooLarge, "a bundle holds at most \(limits.entries) entries") }
            guard path.utf8.count <= limits.path, !path.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) else {
                throw Problem(.invalid, "\(Problem.quote(path)) cannot be part of a bundle: its path is too long or has control characters")
            }
            var stat = stat()
            guard fstatat(directory, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 else { throw failure(path) }
            switch stat.st_mode & S_IFMT {
            case S_IFDIR:
                let below = csys_open_beneath(directory, name, O_RDONLY | O_DIRECTORY, 0)
                guard below >= 0 else { throw failure(path) }
                defer { close(below) }
                try output.write(Tar.header(TarEntry(path: path, kind: .directory)))
                try walk(below, path, &entries, output)
            case S_IFLNK:
                var buffer = [CChar](repeating: 0, count: 4096)
                let length = readlinkat(directory, name, &buffer, buffer.count - 1)
                guard length > 0 else { throw failure(path) }
                let target = String(decoding: buffer[0..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
                guard Tar.stays(target, from: path) else {
                    throw Problem(.invalid, "\(Problem.quote(path)) is a link to \(Problem.quote(target)), which is not part of the bundle")
                }
                try output.write(Tar.header(TarEntry(path: path, kind: .link(target: target))))
            case S_IFREG: try pack(file: name, in: directory, path, output)
            default: throw Problem(.invalid, "\(Problem.quote(path)) cannot be part of a bundle: it is no file, directory or link")
            }
        }
    }

    private func pack(file name: String, in directory: Int32, _ path: String, _ output: Output) throws {
        let descriptor = csys_open_beneath(directory, name, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else { throw failure(path) }
        defer { close(descriptor) }
        var stat = stat()
        guard fstat(descriptor, &stat) == 0, stat.st_mode & S_IFMT == S_IFREG, owner.map({ stat.st_uid == $0 }) ?? true else {
            throw Problem(.invalid, "\(Problem.quote(path)) cannot be part of a bundle: it is not a file of the app's own")
        }
        let size = Int64(stat.st_size)
        guard output.size + size <= limits.bytes else { throw Problem(.tooLarge, "a bundle holds at most \(limits.bytes) bytes") }
        try output.write(Tar.header(TarEntry(path: path, kind: .file(size: size, executable: stat.st_mode & 0o111 != 0))))
        var buffer = [UInt8](repeating: 0, count: 1 << 17)
        var left = size
        while left > 0 {
            let count = read(descriptor, &buffer, Int(min(left, Int64(buffer.count))))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Problem(.failed, "\(Problem.quote(path)) changed while it was packed") }
            try output.write(buffer[0..<count])
            left -= Int64(count)
        }
        try output.write(Tar.padding(size))
    }

    /// In the order of their bytes, so that the same files give the same archive.
    private func names(_ directory: Int32) throws -> [String] {
        let copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0, let stream = fdopendir(copy) else { throw Problem(.failed, "cannot list a directory: \(Spawn.message(errno))") }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(validatingCString: $0) }
            }
            guard let name else { throw Problem(.invalid, "a file's name is not UTF-8, so it cannot be part of a bundle") }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    private func failure(_ path: String) -> Problem { Problem(.failed, "cannot pack \(Problem.quote(path)): \(Spawn.message(errno))") }

    /// A file that is hashed while it is written.
    private final class Output {
        private let descriptor: Int32
        private var hash = SHA256()
        private(set) var size: Int64 = 0
        private var waiting: [UInt8] = []

        init(_ path: String) throws {
            descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { throw Problem(.failed, "cannot write \(path): \(Spawn.message(errno))") }
        }
        func close() { Glibc.close(descriptor) }
        func write(_ bytes: some Collection<UInt8>) throws {
            waiting += bytes
            size += Int64(bytes.count)
            if waiting.count > 1 << 18 { try flush() }
        }
        func finish() throws -> Packed {
            try flush()
            let hex = hash.finalize().map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
            return Packed(digest: try Contracts.Digest("sha256:" + hex), size: size)
        }
        private func flush() throws {
            waiting.withUnsafeBytes { hash.update(bufferPointer: $0) }
            try waiting.withUnsafeBytes { raw in
                var written = 0
                while written < raw.count {
                    let count = Glibc.write(descriptor, raw.baseAddress?.advanced(by: written), raw.count - written)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { throw Problem(.storageFull, "cannot write the bundle: \(Spawn.message(errno))") }
                    written += count
                }
            }
            waiting.removeAll(keepingCapacity: true)
        }
    }
}
