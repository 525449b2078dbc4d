/// Receive-pack's answer on its way to the client, with the last flush held back.
///
/// The client reads until that flush; as long as it has not come, side-band packets can be added, and the push tells what
/// happens to it.
struct AnswerBand: Sendable {
    private var buffer: [UInt8] = []
    private var held = false
    /// Not what was expected: everything is passed on as it is, and nothing may be added.
    private(set) var isBroken = false

    init() {}

    /// Bytes from git; returns what the client may have now: whole packets only.
    mutating func take(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        buffer.append(contentsOf: bytes)
        guard !isBroken else { return drain() }
        var passed: [UInt8] = []
        var at = 0
        while buffer.count - at >= 4 {
            guard let length = PktLine.length(buffer[at..<at + 4]) else {
                isBroken = true
                break
            }
            let size = max(length, 4)
            guard buffer.count - at >= size else { break }
            if held {
                passed += PktLine.flush
                held = false
            }
            if length == 0 {
                held = true
            } else {
                passed += buffer[at..<at + size]
            }
            at += size
        }
        buffer.removeFirst(at)
        return isBroken ? passed + drain() : passed
    }

    private mutating func drain() -> [UInt8] {
        defer {
            buffer = []
            held = false
        }
        return (held ? PktLine.flush : []) + buffer
    }

    /// Whether packets may be added now: git's answer is whole and its flush is held.
    var isHeld: Bool { held && buffer.isEmpty && !isBroken }

    /// What is left for the client at the very end.
    mutating func finish() -> [UInt8] { drain() }
}
