import Contracts
import Foundation

/// A file that is either the old one or the new one, also after a power cut.
enum DurableFile {
    /// Writes beside it, syncs, renames over it, syncs the directory. Throws `Problem` that names the file.
    static func write(_ text: String, to path: String, mode: mode_t) throws {
        let draft = path + ".new"
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw failure(draft) }
        do {
            defer { close(descriptor) }
            let bytes = Array(text.utf8)
            var written = 0
            while written < bytes.count {
                let count = bytes.withUnsafeBytes {
                    Foundation.write(descriptor, $0.baseAddress?.advanced(by: written), bytes.count - written)
                }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw failure(draft) }
                written += count
            }
            guard fchmod(descriptor, mode) == 0, fsync(descriptor) == 0 else { throw failure(draft) }
        }
        guard rename(draft, path) == 0 else { throw failure(path) }
        let directory = open((path as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure(path) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw failure(path) }
    }

    private static func failure(_ path: String) -> Problem {
        let code = errno
        return Problem(
            code == ENOSPC || code == EDQUOT ? .storageFull : .failed, "\(path) cannot be written: \(String(cString: strerror(code)))")
    }
}
