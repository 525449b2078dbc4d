import Contracts
import Foundation

/// A text file out of a repository, read the same way whoever wrote it: UTF-8, with or without a byte order mark, any line ends.
enum TextFile {
    static func read(_ data: Data, file: String) throws -> String {
        guard data.count <= Tree.bytes else {
            throw Problem(.tooLarge, "\(file): \(data.count) bytes; at most \(Tree.bytes) are read", hint: "keep data out of \(file)")
        }
        let head = Array(data.prefix(2))
        guard head != [0xFF, 0xFE], head != [0xFE, 0xFF] else {
            throw Problem(.invalid, "\(file): is UTF-16; only UTF-8 is read", hint: "save it as UTF-8")
        }
        guard !data.contains(0) else {
            throw Problem(.invalid, "\(file): has a NUL byte, so it is not UTF-8 text", hint: "save it as UTF-8")
        }
        guard let text = String(validating: data, as: UTF8.self) else {
            throw Problem(.invalid, "\(file): is not valid UTF-8", hint: "save it as UTF-8")
        }
        let unmarked = text.unicodeScalars.first == "\u{FEFF}" ? String(text.unicodeScalars.dropFirst()) : text
        return String(unmarked.replacingOccurrences(of: "\r\n", with: "\n").replacingOccurrences(of: "\r", with: "\n"))
    }
}
