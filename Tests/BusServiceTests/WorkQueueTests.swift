import Foundation
import Testing

@testable import BusService

@Suite("Work queues") struct WorkQueueTests {
    private let one = SubscriptionKey(peer: Data("one".utf8), handle: 1)
    private let two = SubscriptionKey(peer: Data("two".utf8), handle: 1)

    private func queue(_ change: (inout WorkQueue.Policy) -> Void = { _ in }) -> WorkQueue {
        var queue = WorkQueue(next: 10)
        change(&queue.policy)
        return queue
    }

    @Test("what is not acknowledged in time is due again, and the late acknowledgement is refused") func ackWait() {
        var queue = queue { $0.ackWait = 1000 }
        #expect(queue.deliver(3, to: one, now: 0) == 1)
        #expect(queue.tick(999).isEmpty && queue.nextReady() == nil)
        #expect(queue.tick(1000).isEmpty && queue.nextReady() == 3)
        #expect(queue.acknowledge(3, by: one) == .notYours)
        #expect(queue.deliver(3, to: two, now: 1000) == 2)
        #expect(queue.acknowledge(3, by: one) == .notYours)
        #expect(queue.acknowledge(3, by: two) == .settled)
        #expect(queue.floor == 9 && queue.items.isEmpty)
    }

    @Test("in progress begins the wait again") func inProgress() {
        var queue = queue { $0.ackWait = 1000 }
        queue.deliver(3, to: one, now: 0)
        #expect(queue.extend(3, by: two, now: 900) == .notYours)
        #expect(queue.extend(3, by: one, now: 900) == .again)
        _ = queue.tick(1800)
        #expect(queue.nextReady() == nil)
        _ = queue.tick(1900)
        #expect(queue.nextReady() == 3)
    }

    @Test("a refused event rests as long as was asked, or as the policy says, longer each time") func refused() {
        var queue = queue {
            $0.backoff = [100, 500]
            $0.maxDeliver = 0
        }
        var now: Int64 = 0
        for pause in [100, 500, 500] as [Int64] {
            queue.deliver(3, to: one, now: now)
            #expect(queue.refuse(3, by: one, delay: 0, now: now) == .again)
            _ = queue.tick(now + pause - 1)
            #expect(queue.nextReady() == nil)
            now += pause
            _ = queue.tick(now)
            #expect(queue.nextReady() == 3)
        }
        queue.deliver(3, to: one, now: now)
        #expect(queue.refuse(3, by: one, delay: 50, now: now) == .again)
        _ = queue.tick(now + 50)
        #expect(queue.nextReady() == 3)
    }

    @Test("delivered too often, or terminated: parked") func parked() {
        var queue = queue {
            $0.maxDeliver = 2
            $0.backoff = []
            $0.ackWait = 10
        }
        queue.deliver(3, to: one, now: 0)
        #expect(queue.refuse(3, by: one, delay: 0, now: 0) == .again)
        queue.deliver(3, to: one, now: 0)
        guard case .parked(2, _) = queue.refuse(3, by: one, delay: 0, now: 0) else {
            Issue.record("not parked")
            return
        }
        queue.deliver(4, to: one, now: 0)
        guard case .parked(1, _) = queue.terminate(4, by: one) else {
            Issue.record("not parked")
            return
        }
        queue.deliver(5, to: one, now: 0)
        #expect(queue.tick(10).isEmpty)
        queue.deliver(5, to: one, now: 10)
        #expect(queue.tick(20).map(\.seq) == [5])
        #expect(queue.floor == 9)
        queue.retry(5)
        #expect(queue.nextReady() == 5 && queue.deliver(5, to: two, now: 20) == 1)
    }

    @Test("a session that is gone leaves its work to the others; one that ends each of its workers is parked") func left() {
        var queue = queue { $0.maxDeliver = 2 }
        queue.deliver(3, to: one, now: 0)
        queue.deliver(4, to: two, now: 0)
        #expect(queue.left(one, orderly: false).isEmpty)
        #expect(queue.nextReady() == 3 && queue.unsettled == [3: 1, 4: 1])
        #expect(queue.deliver(3, to: two, now: 0) == 2)
        #expect(queue.left(two, orderly: false).map(\.seq) == [3])
        // Who says goodbye has not tried.
        #expect(queue.deliver(4, to: one, now: 0) == 2)
        #expect(queue.left(one, orderly: true).isEmpty)
        #expect(queue.unsettled == [4: 1])
    }

    @Test("a restart delivers again what was not settled, and counts on") func restart() {
        var before = queue()
        before.deliver(3, to: one, now: 0)
        before.deliver(7, to: one, now: 0)
        before.deliver(8, to: one, now: 0)
        #expect(before.acknowledge(7, by: one) == .settled)
        var after = WorkQueue(next: before.next, unsettled: CursorStore.unpack(CursorStore.pack(before.unsettled)))
        #expect(after.floor == 2 && after.nextReady() == 3)
        #expect(after.deliver(3, to: two, now: 0) == 2)
        #expect(after.nextReady() == 8)
        #expect(after.acknowledge(3, by: two) == .settled)
        #expect(after.floor == 7)
    }
}
