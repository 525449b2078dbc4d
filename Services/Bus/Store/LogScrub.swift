import Foundation

/// Looks through the log while the bus runs, a little at a time, so that rot in what nobody reads is named before it is needed.
struct LogScrub: Sendable {
    /// The record to go on with: first number of its segment, and its offset there.
    private var segment: UInt64 = 0
    private var offset = SegmentHeader.length

    /// Checks the CRCs of about so many bytes. True when it came to the end of the log; it then begins anew.
    mutating func look(_ log: EventLog, bytes: Int = 1 << 20) -> Bool {
        guard let part = log.shared.withLock({ [segment] shared in shared.segments.first { $0.first >= segment } }) else {
            self = LogScrub()
            return true
        }
        if part.first != segment {
            segment = part.first
            offset = SegmentHeader.length
        }
        var seen = 0
        do {
            try LogReading.walk(part, from: &offset) { found, _, _ in
                guard seen < bytes else { return false }
                if case .record(let head) = found { seen += head.total }
                return true
            }
            guard offset >= part.end else { return false }
        } catch let suspicion as LogReading.Suspicion {
            // Once: what is found is named, and known from then on.
            if !part.isSuspect { try? log.examine(suspicion.segment) }
        } catch {
            // The device: whoever reads there is told.
        }
        segment = part.first + 1
        return false
    }
}
