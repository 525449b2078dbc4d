import CSys
import Glibc

/// Somebody who waits for descriptors.
protocol Watcher: AnyObject {
    /// `events`: 1 it can be read or has hung up, 2 it can be written or has failed.
    func ready(_ fd: Int32, _ events: Int32)
}

/// The one loop: descriptors, timers, and what is put off until the current work is done. Nothing polls; with nothing to do it sleeps.
final class Poller {
    private let epoll: Int32
    private var watchers: [Int32: any Watcher] = [:]
    private var timers: [Timer] = []
    private var actions: [Int: () -> Void] = [:]
    private var nextTimer = 1
    private var later: [() -> Void] = []
    var isRunning = true

    private struct Timer {
        var at: Int
        var id: Int
        func isBefore(_ other: Timer) -> Bool { (at, id) < (other.at, other.id) }
    }

    init() throws {
        epoll = csys_epoll_create()
        guard epoll >= 0 else { throw Complaint("epoll: \(reason())") }
    }
    deinit { close(epoll) }

    func watch(_ fd: Int32, _ events: Int32, _ watcher: any Watcher) {
        watchers[fd] = watcher
        if csys_epoll_add(epoll, fd, events) != 0, errno == EEXIST { csys_epoll_change(epoll, fd, events) }
    }

    func change(_ fd: Int32, _ events: Int32) { csys_epoll_change(epoll, fd, events) }

    /// Those that were given up in this round: their number may be another one's by now, and an event that lies there the old one's.
    private var dropped: Set<Int32> = []

    func forget(_ fd: Int32) {
        dropped.insert(fd)
        guard watchers.removeValue(forKey: fd) != nil else { return }
        csys_epoll_remove(epoll, fd)
    }

    /// Does it after the current event, before the loop sleeps.
    func soon(_ action: @escaping () -> Void) { later.append(action) }

    /// Does it in so many milliseconds; the number is for `cancel`.
    @discardableResult
    func after(_ milliseconds: Int, _ action: @escaping () -> Void) -> Int {
        let timer = Timer(at: Clock.monotonic() + max(0, milliseconds), id: nextTimer)
        nextTimer += 1
        actions[timer.id] = action
        timers.append(timer)
        var at = timers.count - 1
        while at > 0, timers[at].isBefore(timers[(at - 1) / 2]) {
            timers.swapAt(at, (at - 1) / 2)
            at = (at - 1) / 2
        }
        return timer.id
    }

    func cancel(_ timer: Int?) {
        guard let timer, actions.removeValue(forKey: timer) != nil else { return }
        // Cancelled ones are passed over when they come; when most are, the rest moves together.
        if timers.count > 64, actions.count * 4 < timers.count {
            timers = timers.filter { actions[$0.id] != nil }.sorted { $0.isBefore($1) }
        }
    }

    private func popTimer() {
        timers.swapAt(0, timers.count - 1)
        timers.removeLast()
        var at = 0
        while true {
            var least = at
            for child in [2 * at + 1, 2 * at + 2] where child < timers.count && timers[child].isBefore(timers[least]) { least = child }
            if least == at { return }
            timers.swapAt(at, least)
            at = least
        }
    }

    /// Until `isRunning` is false.
    func run() {
        withUnsafeTemporaryAllocation(of: csys_ready.self, capacity: 256) { ready in
            while true {
                runDue()
                guard isRunning else { return }
                dropped.removeAll(keepingCapacity: true)
                let count = csys_epoll_wait(epoll, ready.baseAddress, 256, pause)
                for index in 0..<max(0, Int(count)) {
                    // An earlier one in this round may have ended it.
                    guard !dropped.contains(ready[index].fd), let watcher = watchers[ready[index].fd] else { continue }
                    watcher.ready(ready[index].fd, ready[index].events)
                    runLater()
                }
            }
        }
    }

    private var pause: Int32 {
        while let first = timers.first, actions[first.id] == nil { popTimer() }
        guard let first = timers.first else { return -1 }
        return Int32(clamping: max(0, first.at - Clock.monotonic()))
    }

    private func runDue() {
        runLater()
        let now = Clock.monotonic()
        while let first = timers.first, first.at <= now {
            popTimer()
            actions.removeValue(forKey: first.id)?()
            runLater()
        }
    }

    private func runLater() {
        // What they put off in turn is done, too: an end that leads to a start does not wait for the next event.
        while !later.isEmpty {
            let now = later
            later = []
            for action in now { action() }
        }
    }
}
