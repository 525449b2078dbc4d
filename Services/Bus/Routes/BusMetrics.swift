import HTTPKit
import Kit
import ServiceLifecycle

/// Keeps the numbers of `/metrics` up to date.
struct BusMetrics: Service {
    let broker: Broker
    let metrics: Metrics

    func run() async throws {
        metrics.set("slipway_bus_epoch", Double(broker.log.epoch))
        var lagAt: Int64 = 0
        for await last in broker.follow().cancelOnGracefulShutdown() {
            metrics.set("slipway_bus_last_event", Double(last))
            guard Clock.monotonic() - lagAt >= 1000, let consumers = try? await broker.consumers() else { continue }
            lagAt = Clock.monotonic()
            metrics.set("slipway_bus_subscriptions", Double(consumers.count { $0.connected }))
            for consumer in consumers where !consumer.consumer.isEmpty {
                metrics.set(
                    "slipway_bus_lag_events", Double(consumer.lag), labels: [("owner", consumer.owner), ("consumer", consumer.consumer)])
            }
        }
        // The bus was drained: it is the broker's end that ends the others, in their order.
        try await gracefulShutdown()
    }
}
