import HTTPKit
import ServiceLifecycle
import Synchronization

/// What became of DNS questions, counted on the event loops.
final class DNSCounters: Sendable {
    let udp = Atomic<Int>(0)
    let tcp = Atomic<Int>(0)
    let silent = Atomic<Int>(0)
    let turnedAway = Atomic<Int>(0)
}

/// Carries the counts over to /metrics once a second, so that answering a question takes no lock for it.
struct DNSMeter: Service {
    let counters: DNSCounters
    let metrics: Metrics

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                metrics.add("slipway_dns_queries_total", take(counters.udp), labels: [("transport", "udp")])
                metrics.add("slipway_dns_queries_total", take(counters.tcp), labels: [("transport", "tcp")])
                metrics.add("slipway_dns_unanswered_total", take(counters.silent))
                metrics.add("slipway_dns_connections_refused_total", take(counters.turnedAway))
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func take(_ counter: borrowing Atomic<Int>) -> Double { Double(counter.exchange(0, ordering: .relaxed)) }
}
