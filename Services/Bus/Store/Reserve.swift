import Foundation

/// A file of zeros that is given up when the disk is full, so that the bookkeeping can still be written: a bus that starts on a
/// full disk serves its consumers all the same.
struct Reserve: Sendable {
    let path: String
    let bytes: Int

    /// `total`: the disk's size.
    init(directory: String, total: Int) {
        path = directory + "/reserve"
        bytes = min(8 << 20, total / 64) & ~4095
    }

    /// Makes it when it is not there and there is room for it; gives it up when there is none. Failing is no harm.
    func adjust(free: Int, isFull: Bool) {
        let exists = access(path, F_OK) == 0
        if exists, isFull, free < bytes {
            unlink(path)
        } else if !exists, !isFull, let file = try? DiskFile(path, create: true) {
            if (try? file.zero(from: 0, to: bytes)) == nil { unlink(path) }
        }
    }
}
