import Contracts

/// One entry of a tar archive, as far as the suite lets one be.
struct TarEntry: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        case directory
        case file(size: Int64, executable: Bool)
        case link(target: String)
    }
    /// Relative, without `.`, `..` or empty parts, no slash at the end.
    var path: String
    var kind: Kind
}

/// The ustar format with pax headers (POSIX.1-2017, *pax*): 512-byte blocks, written and read by the suite alone and by git.
enum Tar {
    static let block = 512

    // MARK: Writing

    /// The header blocks of an entry. The same entry always gives the same bytes: no time, no owner, two modes.
    static func header(_ entry: TarEntry) -> [UInt8] {
        var extra = ""
        let name = entry.kind == .directory ? entry.path + "/" : entry.path
        if name.utf8.count > 100 { extra += record("path", name) }
        var target = ""
        var size: Int64 = 0
        var mode = 0o644
        var type = UInt8(ascii: "0")
        switch entry.kind {
        case .directory:
            type = UInt8(ascii: "5")
            mode = 0o755
        case .file(let bytes, let executable):
            size = bytes
            if executable { mode = 0o755 }
        case .link(let to):
            type = UInt8(ascii: "2")
            target = to
            mode = 0o777
        }
        if target.utf8.count > 100 { extra += record("linkpath", target) }
        if size >= 1 << 33 { extra += record("size", "\(size)") }
        let own = ustar(name, mode: mode, size: size >= 1 << 33 ? 0 : size, type: type, target: target)
        guard !extra.isEmpty else { return own }
        let body = Array(extra.utf8)
        return ustar("pax", mode: 0o644, size: Int64(body.count), type: UInt8(ascii: "x"), target: "") + body + padding(Int64(body.count))
            + own
    }

    /// Zeros up to the next block.
    static func padding(_ size: Int64) -> [UInt8] { [UInt8](repeating: 0, count: Int((512 - size % 512) % 512)) }
    static let end = [UInt8](repeating: 0, count: 1024)

    private static func record(_ key: String, _ value: String) -> String {
        // "LENGTH key=value\n", where the length counts its own digits.
        let rest = key.utf8.count + value.utf8.count + 3
        var length = rest + 1
        while length != rest + String(length).utf8.count { length = rest + String(length).utf8.count }
        return "\(length) \(key)=\(value)\n"
    }

    private static func ustar(_ name: String, mode: Int, size: Int64, type: UInt8, target: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: block)
        func put(_ text: String, at offset: Int, limit: Int) {
            for (index, byte) in text.utf8.prefix(limit).enumerated() { bytes[offset + index] = byte }
        }
        func octal(_ value: Int64, at offset: Int, digits: Int) {
            let text = String(value, radix: 8)
            put(String(repeating: "0", count: max(0, digits - text.utf8.count)) + text, at: offset, limit: digits)
        }
        put(name, at: 0, limit: 100)
        octal(Int64(mode), at: 100, digits: 7)
        octal(0, at: 108, digits: 7)
        octal(0, at: 116, digits: 7)
        octal(size, at: 124, digits: 11)
        octal(0, at: 136, digits: 11)
        put("        ", at: 148, limit: 8)
        bytes[156] = type
        put(target, at: 157, limit: 100)
        put("ustar", at: 257, limit: 5)
        put("00", at: 263, limit: 2)
        octal(0, at: 329, digits: 7)
        octal(0, at: 337, digits: 7)
        let sum = bytes.reduce(0) { $0 + Int($1) }
        octal(Int64(sum), at: 148, digits: 6)
        bytes[154] = 0
        bytes[155] = 0x20
        return bytes
    }

    // MARK: Reading

    /// Reads one archive, piece by piece, and hands out checked entries and their bytes.
    struct Reader {
        private let limits: ArchiveLimits
        private var buffer: [UInt8] = []
        private var at = 0
        private var count = 0
        private var total: Int64 = 0
        private var left: Int64 = 0
        private var pad = 0
        private var header: [UInt8]?
        private var pax: [String: String] = [:]
        private var pending: (kind: UInt8, size: Int64)?
        private var links: Set<String> = []
        private(set) var isComplete = false

        init(limits: ArchiveLimits) { self.limits = limits }

        enum Piece {
            case entry(TarEntry)
            case bytes(ArraySlice<UInt8>)
        }

        /// Takes the next bytes. Calls `handle` for each entry and each piece of the last entry's content. Throws `Problem`
        /// that names the entry and the rule it breaks.
        mutating func feed(_ bytes: some Collection<UInt8>, _ handle: (Piece) throws -> Void) throws {
            // What follows the end of the archive is nothing to us, however much it is.
            guard !isComplete else { return }
            buffer.removeFirst(at)
            at = 0
            buffer += bytes
            while !isComplete {
                if left > 0, pending == nil {
                    guard at < buffer.count else { return }
                    let end = at + Int(min(left, Int64(buffer.count - at)))
                    try handle(.bytes(buffer[at..<end]))
                    left -= Int64(end - at)
                    at = end
                } else if pad > 0, pending == nil {
                    let skip = min(pad, buffer.count - at)
                    guard skip > 0 else { return }
                    at += skip
                    pad -= skip
                } else if let (kind, size) = pending {
                    guard buffer.count - at >= Int(size) + Tar.padding(size).count else { return }
                    try extended(kind, buffer[at..<at + Int(size)])
                    at += Int(size) + Tar.padding(size).count
                    pending = nil
                } else {
                    guard buffer.count - at >= Tar.block else { return }
                    let header = Array(buffer[at..<at + Tar.block])
                    at += Tar.block
                    if let entry = try entry(header) { try handle(.entry(entry)) }
                }
            }
        }

        /// To be called at the end of the input.
        func finish() throws {
            guard isComplete || (left == 0 && pending == nil && at == buffer.count && count > 0) else {
                throw Problem(.malformed, "refused: the archive ends in the middle")
            }
        }

        private mutating func entry(_ header: [UInt8]) throws -> TarEntry? {
            if header.allSatisfy({ $0 == 0 }) {
                isComplete = true
                return nil
            }
            let given = try number(header, 148, 8, "checksum")
            let sum = header.enumerated().reduce(Int64(0)) { $0 + Int64((148..<156).contains($1.offset) ? 0x20 : $1.element) }
            guard given == sum else { throw Problem(.malformed, "refused: entry \(count + 1) has a wrong checksum") }
            let type = header[156]
            var size = try number(header, 124, 12, "size")
            if type == UInt8(ascii: "x") || type == UInt8(ascii: "g") || type == UInt8(ascii: "L") || type == UInt8(ascii: "K") {
                guard size <= 65536 else { throw Problem(.malformed, "refused: a header of \(size) bytes before entry \(count + 1)") }
                pending = (type, size)
                return nil
            }
            count += 1
            var path = text(header, 0, 100)
            let prefix = text(header, 345, 155)
            if Array(header[257..<262]) == Array("ustar".utf8), !prefix.isEmpty { path = prefix + "/" + path }
            path = pax["path"] ?? path
            let target = pax["linkpath"] ?? text(header, 157, 100)
            if let long = pax["size"] {
                guard let value = Int64(long), value >= 0 else { throw refuse(path, "has a size that is no number") }
                size = value
            }
            if let sparse = pax.keys.first(where: { $0.hasPrefix("GNU.sparse") }) { throw refuse(path, "is a sparse file (\(sparse))") }
            pax = [:]
            guard count <= limits.entries else { throw Problem(.tooLarge, "refused: more than \(limits.entries) entries") }
            let mode = try number(header, 100, 8, "mode")
            guard let clean = try clean(path) else { return nil }
            if links.contains(where: { clean == $0 || clean.hasPrefix($0 + "/") }) { throw refuse(path, "goes through a symbolic link") }
            switch type {
            case 0, UInt8(ascii: "0"), UInt8(ascii: "7"):
                guard mode & 0o6000 == 0 else { throw refuse(path, "is set-user-id or set-group-id") }
                guard size <= limits.bytes - total else { throw Problem(.tooLarge, "refused: more than \(limits.bytes) bytes unpacked") }
                total += size
                left = size
                pad = Tar.padding(size).count
                return TarEntry(path: clean, kind: .file(size: size, executable: mode & 0o111 != 0))
            case UInt8(ascii: "5"):
                return TarEntry(path: clean, kind: .directory)
            case UInt8(ascii: "2"):
                guard Tar.stays(target, from: clean) else { throw refuse(path, "is a link that leaves it, to \(Problem.quote(target))") }
                links.insert(clean)
                return TarEntry(path: clean, kind: .link(target: target))
            case UInt8(ascii: "1"): throw refuse(path, "is a hard link")
            case UInt8(ascii: "3"), UInt8(ascii: "4"): throw refuse(path, "is a device")
            case UInt8(ascii: "6"): throw refuse(path, "is a named pipe")
            default: throw refuse(path, "is of the unknown kind \(type)")
            }
        }

        private mutating func extended(_ kind: UInt8, _ body: ArraySlice<UInt8>) throws {
            if kind == UInt8(ascii: "L") || kind == UInt8(ascii: "K") {
                pax[kind == UInt8(ascii: "L") ? "path" : "linkpath"] = String(decoding: body.prefix { $0 != 0 }, as: UTF8.self)
                return
            }
            var rest = body
            while !rest.isEmpty {
                guard let space = rest.firstIndex(of: 0x20),
                    let length = Int(String(decoding: rest[rest.startIndex..<space], as: UTF8.self)),
                    length > space - rest.startIndex + 1, length <= rest.count, rest[rest.startIndex + length - 1] == 0x0A,
                    let equals = rest[space..<rest.startIndex + length].firstIndex(of: 0x3D)
                else { throw Problem(.malformed, "refused: a pax header before entry \(count + 1) is not readable") }
                let key = String(decoding: rest[(space + 1)..<equals], as: UTF8.self)
                let value = String(decoding: rest[(equals + 1)..<(rest.startIndex + length - 1)], as: UTF8.self)
                // A global header of git says which commit this is; one that would rename every entry is nothing we know.
                if kind == UInt8(ascii: "x") {
                    pax[key] = value
                } else if ["path", "linkpath", "size"].contains(key) {
                    throw Problem(.malformed, "refused: a global pax header sets '\(key)'")
                }
                rest = rest[(rest.startIndex + length)...]
            }
        }

        /// The path without `.` and a slash at the end; nil for the archive's own root. Throws when it leaves the archive.
        private func clean(_ path: String) throws -> String? {
            guard path.utf8.count <= limits.path else { throw refuse(path, "has a path of more than \(limits.path) bytes") }
            guard !path.hasPrefix("/") else { throw refuse(path, "is absolute") }
            guard !path.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) else {
                throw refuse(path, "has a control character in its path")
            }
            let parts = path.split(separator: "/").filter { $0 != "." }
            guard !parts.contains("..") else { throw refuse(path, "leaves the archive") }
            return parts.isEmpty ? nil : parts.joined(separator: "/")
        }

        private func refuse(_ path: String, _ why: String) -> Problem {
            Problem(.invalid, "refused: entry \(count) \(Problem.quote(path)) \(why)")
        }

        private func text(_ header: [UInt8], _ from: Int, _ length: Int) -> String {
            String(decoding: header[from..<from + length].prefix { $0 != 0 }, as: UTF8.self)
        }
        private func number(_ header: [UInt8], _ from: Int, _ length: Int, _ what: String) throws -> Int64 {
            let digits = header[from..<from + length].filter { $0 != 0 && $0 != 0x20 }
            guard let value = digits.isEmpty ? 0 : Int64(String(decoding: digits, as: UTF8.self), radix: 8), value >= 0 else {
                throw Problem(.malformed, "refused: entry \(count + 1) has a \(what) that is no number")
            }
            return value
        }
    }

    /// Whether a link at `path` that names `target` stays inside the archive, whatever other links there are: it may climb at its
    /// beginning only, through directories that are real. Behind another link `..` would be another place.
    static func stays(_ target: String, from path: String) -> Bool {
        guard !target.isEmpty, !target.hasPrefix("/"), !target.utf8.contains(0) else { return false }
        let parts = target.split(separator: "/").filter { $0 != "." }
        let climbs = parts.prefix { $0 == ".." }.count
        return climbs <= path.split(separator: "/").count - 1 && !parts.dropFirst(climbs).contains("..")
    }
}
