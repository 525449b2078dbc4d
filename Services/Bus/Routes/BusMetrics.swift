import Contracts
import Foundation
import HTTPKit
import Kit

/// The bus's part of `/metrics`, made anew for each scrape. What each number means is in docs/running.md.
struct BusMetrics: Sendable {
    let broker: Broker
    let metrics: Metrics

    /// When the broker is stopping, the numbers stay as they were.
    func collect() async {
        guard let reply = try? await broker.ask("bus.metrics"), let numbers = try? Coding.decode(Numbers.self, from: reply) else { return }
        count(numbers.counts)
        let gauges: [(String, Double)] = [
            ("epoch", Double(numbers.epoch)), ("first_event", Double(numbers.first)), ("last_event", Double(numbers.last)),
            ("sessions", Double(numbers.sessions)), ("clients", Double(numbers.clients)), ("subscriptions", Double(numbers.subscriptions)),
            ("waiting_events", Double(numbers.waitingEvents)), ("flying_events", Double(numbers.flyingEvents)),
            ("waiting_calls", Double(numbers.waitingCalls)), ("running_calls", Double(numbers.runningCalls)),
            ("full", numbers.isFull ? 1 : 0),
        ]
        for (name, value) in gauges { metrics.set("slipway_bus_\(name)", value) }
        consumers(numbers.consumers)
        log()
        process()
    }

    private func count(_ counts: Counts) {
        func total(_ name: String, _ value: UInt64, _ labels: [(String, String)] = []) {
            metrics.set(total: "slipway_bus_\(name)_total", Double(value), labels: labels)
        }
        total("events", counts.stored)
        total("event_bytes", counts.storedBytes)
        total("batches", counts.batches)
        metrics.set(total: "slipway_bus_flush_seconds_total", Double(counts.flushNanoseconds) / 1e9)
        total("duplicates", counts.duplicates)
        for (status, value) in counts.refused { total("refused", value, [("status", "\(status)")]) }
        total("denied", counts.denied)
        total("delivered", counts.delivered)
        total("redelivered", counts.redelivered)
        total("dropped", counts.dropped)
        total("parked", counts.parked)
        for (status, value) in counts.calls { total("calls", value, [("status", "\(status)")]) }
    }

    private func consumers(_ consumers: [ConsumerStatus]) {
        let names = ["slipway_bus_lag_events", "slipway_bus_unsettled_events", "slipway_bus_parked_events"]
        // A consumer that is gone must not keep its last number for ever.
        for name in names { metrics.remove(name) }
        for consumer in consumers where !consumer.consumer.isEmpty {
            for (name, value) in zip(names, [Double(consumer.lag), Double(consumer.unsettled), Double(consumer.parked)]) {
                metrics.set(name, value, labels: [("owner", consumer.owner), ("consumer", consumer.consumer)])
            }
        }
    }

    private func log() {
        let pieces = broker.log.pieces
        metrics.set("slipway_bus_log_segments", Double(pieces.count))
        metrics.set("slipway_bus_log_bytes", Double(pieces.reduce(0) { $0 + $1.bytes }))
        metrics.set("slipway_bus_damaged_ranges", Double(broker.log.damage.count))
        if let space = Disk.space(in: broker.log.settings.directory) {
            metrics.set("slipway_bus_disk_free_bytes", Double(space.free))
            metrics.set("slipway_bus_disk_bytes", Double(space.total))
        }
    }

    /// Descriptors are what connections are counted by: also those that have not said who they are.
    private func process() {
        if let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
            metrics.set("process_open_fds", Double(descriptors.count))
        }
        // Field 2 of /proc/self/statm (proc(5)): resident pages.
        if let fields = ProcFile.read("/proc/self/statm")?.split(separator: " "), fields.count > 1, let pages = Double(fields[1]) {
            metrics.set("process_resident_memory_bytes", pages * Double(sysconf(Int32(_SC_PAGESIZE))))
        }
    }
}
