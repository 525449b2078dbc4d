/// Text from outside, made harmless for a terminal.
///
/// A build can write whatever it likes; what reaches a developer's terminal through a push must not move the cursor,
/// change the title or hide text. Colours and the like are dropped, every other control character is shown escaped.
public enum Inert {
    /// One line without control characters, at most `limit` characters.
    public static func line(_ text: String, limit: Int = 500) -> String {
        var shown = String.UnicodeScalarView()
        var count = 0
        var scalars = Substring(lastOverwrite(text)).unicodeScalars
        while let scalar = scalars.popFirst() {
            guard count < limit else {
                shown.append("…")
                break
            }
            if scalar == "\u{1B}", scalars.first == "[" || scalars.first == "(" {
                skipSequence(&scalars)
                continue
            }
            if scalar == "\t" {
                shown.append(contentsOf: "    ".unicodeScalars)
                count += 4
            } else if isControl(scalar) {
                shown.append(contentsOf: "\\u{\(String(scalar.value, radix: 16, uppercase: true))}".unicodeScalars)
                count += 6
            } else {
                shown.append(scalar)
                count += 1
            }
        }
        return String(shown)
    }

    /// Progress bars redraw a line with carriage returns; a terminal would show what follows the last one.
    private static func lastOverwrite(_ text: String) -> String {
        let parts = text.unicodeScalars.split(separator: "\r", omittingEmptySubsequences: true)
        return parts.last.map { String(String.UnicodeScalarView($0)) } ?? ""
    }

    /// ECMA-48, section 5.4: parameters and intermediates end at a byte of 0x40–0x7E.
    private static func skipSequence(_ scalars: inout Substring.UnicodeScalarView) {
        let opener = scalars.popFirst()
        guard opener == "[" else {
            _ = scalars.popFirst()
            return
        }
        var length = 0
        while let next = scalars.first, length < 64, next.value >= 0x20, next.value <= 0x7E {
            scalars.removeFirst()
            length += 1
            if next.value >= 0x40 { return }
        }
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7F...0x9F, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF, 0xFFF9...0xFFFB, 0xE0000...0xE007F: true
        default: false
        }
    }
}
