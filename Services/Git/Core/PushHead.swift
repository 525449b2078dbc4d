import Contracts

/// What stands before the pack in a push: the commands, the capabilities and the push options.
///
/// Only read, never changed: git gets the same bytes and decides for itself. We need to know which refs the client wants to
/// move (for the actor of their events) and its options (git hands those to hooks only, and there are none).
struct PushHead: Sendable, Equatable {
    struct Command: Sendable, Hashable {
        var old: String
        var new: String
        /// Nil when the name is not UTF-8.
        var ref: String?
        var isDeletion: Bool { new.utf8.allSatisfy { $0 == 0x30 } }
    }

    private(set) var commands: [Command] = []
    private(set) var capabilities: Set<String> = []
    private(set) var options: [String] = []
    /// True when all of it was read.
    private(set) var isComplete = false
    /// True when it is not what git sends: git will say so itself.
    private(set) var isMalformed = false

    private var readingOptions = false
    private var buffer: [UInt8] = []

    var hasSideBand: Bool { capabilities.contains("side-band-64k") }
    var wantsReport: Bool { capabilities.contains("report-status") || capabilities.contains("report-status-v2") }
    /// Whether more bytes are wanted.
    var isOpen: Bool { !isComplete && !isMalformed }

    init() {}

    /// Takes the next bytes of the request; those after the head are ignored.
    mutating func take(_ bytes: some Sequence<UInt8>) {
        guard isOpen else { return }
        buffer.append(contentsOf: bytes)
        var at = 0
        while isOpen, buffer.count - at >= 4 {
            guard let length = PktLine.length(buffer[at..<at + 4]) else {
                isMalformed = true
                break
            }
            if length < 4 {
                at += 4
                marker(length)
                continue
            }
            guard buffer.count - at >= length else { break }
            line(Array(buffer[at + 4..<at + length]))
            at += length
        }
        buffer.removeFirst(at)
        if !isOpen { buffer = [] }
    }

    private mutating func marker(_ kind: Int) {
        guard kind == 0 else {
            isMalformed = true
            return
        }
        if !readingOptions, !commands.isEmpty, capabilities.contains("push-options") {
            readingOptions = true
        } else {
            isComplete = true
        }
    }

    private mutating func line(_ payload: [UInt8]) {
        var text = payload[...]
        if text.last == 0x0A { text = text.dropLast() }
        if readingOptions {
            options.append(String(decoding: text, as: UTF8.self))
            return
        }
        if text.starts(with: "shallow ".utf8) { return }
        if commands.isEmpty, let zero = text.firstIndex(of: 0) {
            let list = String(decoding: text[(zero + 1)...], as: UTF8.self)
            capabilities = Set(list.split(separator: " ").map(String.init))
            text = text[..<zero]
        }
        let parts = text.split(separator: 0x20, maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, Self.isObject(parts[0]), Self.isObject(parts[1]) else {
            isMalformed = true
            return
        }
        commands.append(
            Command(
                old: String(decoding: parts[0], as: UTF8.self).lowercased(), new: String(decoding: parts[1], as: UTF8.self).lowercased(),
                ref: String(validating: parts[2], as: UTF8.self)))
    }

    private static func isObject(_ text: ArraySlice<UInt8>) -> Bool {
        (text.count == 40 || text.count == 64)
            && text.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) || ($0 >= 0x41 && $0 <= 0x46) }
    }
}

extension PushHead {
    /// Why the push as a whole is refused before git sees it; nil: git decides.
    ///
    /// A ref whose name no event can carry would be accepted in silence otherwise.
    func refusal(options limit: Int, bytes: Int) -> String? {
        if options.count > limit { return "more than \(limit) push options" }
        if options.reduce(0, { $0 + $1.utf8.count }) > bytes { return "push options of more than \(bytes) bytes" }
        for command in commands where !command.isDeletion {
            guard let ref = command.ref else { return "a ref name is not UTF-8" }
            do { _ = try RefName(ref) } catch { return (error as? Problem)?.message ?? "a ref name is not valid" }
        }
        // git refuses a hidden ref by itself and lets the rest through, also when all or none were asked for.
        let hidden = commands.first { $0.ref.map { !$0.hasPrefix("refs/heads/") && !$0.hasPrefix("refs/tags/") } ?? false }
        if let hidden, capabilities.contains("atomic") {
            return "\(Problem.quote(hidden.ref ?? "")): only branches and tags can be pushed, and all or none were asked for"
        }
        return nil
    }

    /// The answer that refuses every command with this reason, in the client's own terms (report-status).
    func report(refusing reason: String) -> [UInt8] {
        guard wantsReport else { return hasSideBand ? PktLine.band(3, Array("\(reason)\n".utf8)) + PktLine.flush : [] }
        var report = PktLine.text("unpack ok\n")
        for command in commands { report += PktLine.text("ng \(command.ref ?? "?") \(reason)\n") }
        report += PktLine.flush
        guard hasSideBand else { return report }
        var answer: [UInt8] = []
        var rest = report[...]
        while !rest.isEmpty {
            answer += PktLine.band(1, rest.prefix(8000))
            rest = rest.dropFirst(8000)
        }
        return answer + PktLine.flush
    }
}
