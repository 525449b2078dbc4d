import Foundation

/// A value behind a POSIX mutex.
///
/// Not `Synchronization.Mutex`: the thread sanitizer does not understand that one and reports races that are none. (The bus
/// client has the same few lines; a third user would make them a module.)
final class Locked<Value: Sendable>: @unchecked Sendable {
    // Safe to share: `value` is touched only inside `withLock`, with the mutex held, and `Value` is itself Sendable, so what a
    // closure returns may leave. The mutex has a fixed address until deinit, when nobody else can hold a reference.
    private var value: Value
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>

    init(_ value: Value) {
        self.value = value
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deinitialize(count: 1)
        mutex.deallocate()
    }

    /// The closure must be short, must not suspend, and must not call into other locks.
    func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value)
    }
}
