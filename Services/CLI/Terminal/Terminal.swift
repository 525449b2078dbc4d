import Foundation
import Kit
import Story

/// Where people read. Colour and progress only on a terminal; NO_COLOR is respected; text from outside cannot move the cursor.
enum Terminal {
    enum Tone: String {
        case good = "32"
        case busy = "33"
        case bad = "31"
        case quiet = "2"
        case strong = "1"
    }

    static let isTerminal = isatty(1) == 1
    static let isErrorTerminal = isatty(2) == 1
    private static let hasColour: Bool = {
        let environment = ProcessInfo.processInfo.environment
        return isTerminal && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }()

    static func out(_ text: String) { write(1, text + "\n") }
    static func err(_ text: String) { write(2, text + "\n") }

    /// A line that the next one replaces; nothing where standard error is no terminal.
    static func progress(_ text: String) {
        guard isErrorTerminal else { return }
        write(2, "\r\u{1B}[2K\(text)")
    }
    static func endProgress() {
        guard isErrorTerminal else { return }
        write(2, "\r\u{1B}[2K")
    }

    static func paint(_ text: String, _ tone: Tone) -> String { hasColour ? "\u{1B}[\(tone.rawValue)m\(text)\u{1B}[0m" : text }

    /// Text from outside in one line, its control characters shown instead of obeyed.
    static func inert(_ text: String, limit: Int = 4000) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { Inert.line(String($0), limit: limit) }.joined(separator: " ")
    }

    /// Columns of equal width, two spaces apart. The first row is the head.
    static func table(_ head: [String], _ rows: [[String]]) {
        var widths = head.map(width)
        for row in rows {
            for (index, cell) in row.enumerated() where index < widths.count { widths[index] = max(widths[index], width(cell)) }
        }
        func line(_ cells: [String]) -> String {
            var text = ""
            for (index, cell) in cells.enumerated() {
                text += cell
                if index < cells.count - 1 { text += String(repeating: " ", count: widths[index] - width(cell) + 2) }
            }
            return text
        }
        out(paint(line(head), .quiet))
        for row in rows { out(line(row)) }
    }

    /// Characters that are seen: colours take no room.
    private static func width(_ text: String) -> Int {
        var count = 0
        var isEscape = false
        for scalar in text.unicodeScalars {
            if scalar == "\u{1B}" {
                isEscape = true
            } else if isEscape {
                if scalar == "m" { isEscape = false }
            } else {
                count += 1
            }
        }
        return count
    }

    private static func write(_ descriptor: Int32, _ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR || errno == EAGAIN { continue }
            // The reader has gone: there is nobody left to tell.
            guard count > 0 else {
                let code = errno
                if code == EPIPE { exit(0) }
                if descriptor == 1 { StandardError.write("slipway: cannot write the output: \(String(cString: strerror(code)))\n") }
                exit(1)
            }
            bytes = bytes.dropFirst(count)
        }
    }
}
