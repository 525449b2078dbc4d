import BusClient
import Contracts

extension Desk {
    /// Hands every event that matches, in order, to `take` until it returns false. Throws when the bus cannot go on, or on cancellation.
    func follow(_ filters: [String], from: Position, _ take: (Envelope) async throws -> Bool) async throws {
        let subscription = try await boot.bus.subscribe(SubscriptionRequest(filters: filters, from: from))
        defer { subscription.cancel() }
        for try await delivery in subscription {
            for event in delivery.events {
                guard try await take(event) else { return }
            }
        }
    }
}
