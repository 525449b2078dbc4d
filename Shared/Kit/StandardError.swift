import Glibc

/// The process's standard error, where its log goes.
public enum StandardError {
    /// Writes the text, as far as that is possible: a full disk must not end a component, so what cannot be written is dropped.
    /// (Foundation's `FileHandle.write` would trap.)
    public static func write(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }
}
