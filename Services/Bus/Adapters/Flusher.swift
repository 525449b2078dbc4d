import Foundation

/// Writes one batch at a time to the device: on a thread of its own, while the broker thread goes on, or on the caller's.
final class Flusher: Sendable {
    private struct Slot: Sendable {
        var batch: Batch?
        var stopping = false
    }
    private let slot = Locked(Slot())
    private let work = DispatchSemaphore(value: 0)
    private let finished = DispatchSemaphore(value: 0)
    private let log: EventLog
    private let failed: @Sendable (any Error) -> Void

    /// `done` and `failed` are called on the thread that writes. After `failed` nothing is written any more.
    init(_ log: EventLog, done: @escaping @Sendable (FlushResult) -> Void, failed: @escaping @Sendable (any Error) -> Void) {
        self.log = log
        self.failed = failed
        let thread = Thread { [self] in
            while true {
                work.wait()
                let (batch, stopping) = slot.withLock { slot -> (Batch?, Bool) in
                    defer { slot.batch = nil }
                    return (slot.batch, slot.stopping)
                }
                if let batch {
                    guard let result = write(batch) else { break }
                    done(result)
                }
                if stopping { break }
            }
            finished.signal()
        }
        thread.name = "bus-flush"
        thread.start()
    }

    /// The one before must be done.
    func submit(_ batch: Batch) {
        slot.withLock { $0.batch = batch }
        work.signal()
    }

    /// Writes on the caller's thread. Nil when that failed. The one before must be done.
    func write(_ batch: consuming Batch) -> FlushResult? {
        do { return try log.append(batch, time: Clock.wall()) } catch {
            failed(error)
            return nil
        }
    }

    /// Returns when the thread has ended.
    func stop() {
        slot.withLock { $0.stopping = true }
        work.signal()
        finished.wait()
    }
}

/// The two clocks of the bus.
enum Clock {
    /// Milliseconds of the clock that nobody can set.
    static func monotonic() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
    /// Nanoseconds since 1970.
    static func wall() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(max(0, time.tv_sec)) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
