import BusClient
import Contracts
import Foundation
import Kit
import TestKit
import Testing

@testable import BusService

@Suite("Work queues through the client", .timeLimit(.minutes(2))) struct WorkTests {
    private func request(_ policy: WorkPolicy) -> SubscriptionRequest {
        SubscriptionRequest(consumer: "jobs", filters: ["run.**"], from: .first, mode: .group(policy))
    }

    @Test("each event is done once; what is refused comes again with its count; what cannot be read is parked with the reason")
    func shared() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let outbox = MemoryOutbox()
            for value in 0..<40 { outbox.add("run.finished", value) }
            outbox.state.withLock { state in
                state.last += 1
                state.entries.append(
                    OutboxEntry(number: state.last, topic: "run.finished", id: "no-envelope", payload: Data("nonsense".utf8)))
            }
            let request = request(WorkPolicy(maxDeliver: 3, backoff: [10]))
            let done = Locked<[Int64: Int]>([:])
            let again = Locked<Set<Int64>>([])
            try await home.client(.scheduler, outbox: outbox) { scheduler in
                scheduler.outboxChanged()
                try await home.client(.git) { one in
                    try await home.client(.git) { two in
                        try await withThrowingTaskGroup(of: Void.self) { tasks in
                            for client in [one, two] {
                                tasks.addTask {
                                    let work = try await client.subscribe(request)
                                    for try await delivery in work {
                                        for (event, count) in zip(delivery.events, delivery.deliveries) {
                                            let value = event.data["n"]?.int ?? -1
                                            if value == 7 {
                                                work.terminate(event.seq, why: "seven is wrong")
                                            } else if value % 10 == 3, count == 1 {
                                                work.nak(event.seq, why: "not yet")
                                            } else {
                                                if count > 1 { again.withLock { _ = $0.insert(value) } }
                                                if value % 4 == 0 { work.inProgress(event.seq) }
                                                done.withLock { $0[value, default: 0] += 1 }
                                                work.ack(event.seq)
                                            }
                                        }
                                    }
                                }
                            }
                            try await eventually("all is done") { done.withLock(\.count) == 39 }
                            try await eventually("two are parked, and nothing is left") {
                                let list = try await home.http("/v1/consumers").body
                                return list.contains(#""parked":2"#) && list.contains(#""unsettled":0"#)
                            }
                            tasks.cancelAll()
                        }
                    }
                }
            }
            #expect(done.withLock { $0.values.allSatisfy { $0 == 1 } })
            #expect(again.withLock { $0 } == [3, 13, 23, 33])
            let parked = try Coding.decode(
                [ParkedStatus].self, from: Data(try await home.http("/v1/consumers/parked?owner=git&consumer=jobs").body.utf8))
            #expect(parked.map(\.deliveries) == [1, 3])
            #expect(parked.first?.reason == "terminated by its consumer: seven is wrong")
            #expect(parked.last?.reason.hasPrefix("refused by its consumer: 'run.finished': ") == true, "\(parked)")
        }
    }

    @Test("a verdict on what another was given meanwhile counts for nothing, and is counted") func late() async throws {
        let home = try BusHome()
        defer { home.remove() }
        try await home.run { home in
            let outbox = MemoryOutbox()
            outbox.add("run.finished", 1)
            let request = request(WorkPolicy(ackWait: 100, maxDeliver: 0, backoff: [10]))
            try await home.client(.scheduler, outbox: outbox) { scheduler in
                scheduler.outboxChanged()
                try await home.client(.git) { slow in
                    try await home.client(.git) { quick in
                        let held = try await slow.subscribe(request)
                        let first = Locked<UInt64>(0)
                        let done = Locked(false)
                        try await withThrowingTaskGroup(of: Void.self) { tasks in
                            tasks.addTask {
                                // Takes, and says nothing, as one that was stopped.
                                for try await delivery in held {
                                    for event in delivery.events { first.withLock { $0 = event.seq } }
                                }
                            }
                            try await eventually("it is given out") { first.withLock { $0 } > 0 }
                            tasks.addTask {
                                let work = try await quick.subscribe(request)
                                for try await delivery in work {
                                    for event in delivery.events {
                                        work.ack(event.seq)
                                        done.withLock { $0 = true }
                                    }
                                }
                            }
                            try await eventually("the other has done it") {
                                try await home.http("/v1/consumers").body.contains(#""unsettled":0"#) && done.withLock { $0 }
                            }
                            held.ack(first.withLock { $0 })
                            try await eventually("the late one is told") { held.late == 1 }
                            tasks.cancelAll()
                        }
                    }
                }
            }
        }
    }

    @Test("what was held when the bus went comes again afterwards, and an old verdict on it is not sent") func restart() async throws {
        let home = try BusHome()
        defer { home.remove() }
        let outbox = MemoryOutbox()
        outbox.add("run.finished", 1)
        let publisher = try Boot.make(.scheduler, home.config, home.logger).bus
        publisher.setOutbox(outbox)
        let worker = try Boot.make(.git, home.config, home.logger).bus
        let counts = Locked<[Int]>([])
        let seq = Locked<UInt64>(0)
        let held = Locked<BusSubscription?>(nil)
        let request = request(WorkPolicy(maxDeliver: 5, backoff: [10]))
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await publisher.run() }
            tasks.addTask { try await worker.run() }
            tasks.addTask {
                let work = try await worker.subscribe(request)
                held.withLock { $0 = work }
                for try await delivery in work {
                    for (event, count) in zip(delivery.events, delivery.deliveries) {
                        seq.withLock { $0 = event.seq }
                        counts.withLock { $0.append(count) }
                        if count > 1 { work.ack(event.seq) }
                    }
                }
            }
            try await home.run { _ in try await eventually("it is given out") { counts.withLock { $0 == [1] } } }
            try await eventually("the session is over") { !worker.isConnected }
            let work = try #require(held.withLock { $0 })
            work.ack(seq.withLock { $0 })
            try await eventually("its verdict is not sent") { work.late == 1 }
            try await home.run { home in
                try await eventually("it is done") {
                    let list = try await home.http("/v1/consumers").body
                    return counts.withLock { $0 == [1, 2] } && list.contains(#""unsettled":0"#)
                }
            }
            tasks.cancelAll()
        }
    }
}
