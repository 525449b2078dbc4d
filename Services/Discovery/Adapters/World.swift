import Contracts
import Foundation
import Kit
import Logging
import ServiceLifecycle
import Synchronization

/// Does what the catalogue decides: swaps the zone, leads routes, waits for drains.
final class World: Sendable {
    let zone: CurrentZone
    private let ingress: Ingress
    private let logger: Logger
    private let now: @Sendable () -> Timestamp
    /// Set once, right after the loop is made: the loop needs this object, and this object the loop's state.
    private let state = Mutex<(@Sendable () async throws -> CatalogueState)?>(nil)

    /// Seconds that a leaving server has to finish its requests.
    static let drainTime = 30.0

    init(zone: CurrentZone, ingress: Ingress, logger: Logger, now: @escaping @Sendable () -> Timestamp) {
        self.zone = zone
        self.ingress = ingress
        self.logger = logger
        self.now = now
    }

    func attach(_ read: @escaping @Sendable () async throws -> CatalogueState) { state.withLock { $0 = read } }

    private func current() async throws -> CatalogueState {
        guard let read = state.withLock({ $0 }) else { throw Problem(.unavailable, "the catalogue is not loaded yet") }
        return try await read()
    }

    func perform(_ effect: DiscoveryEffect) async throws -> DiscoveryNotice? {
        switch effect {
        case .zone:
            zone.replace(Zone(try await current(), nameServer: zone.nameServer))
            return nil
        case .lead(let route, let generation):
            return .led(route: route, generation: generation, ingress: try await lead() == .served)
        case .drain(let route, let generation):
            return .drained(route: route, generation: generation, late: try await drain(route, generation))
        }
    }

    /// At start: DNS answers before the log is read on, and the files are there for the supervisor to start HAProxy with.
    func reconcile(_ state: CatalogueState) async throws {
        zone.replace(Zone(state, nameServer: zone.nameServer))
        do {
            if try await ingress.serve(IngressTable(state)) == .notInstalled {
                logger.notice(
                    "HAProxy is not installed: instances are reachable on their own ports only",
                    metadata: ["mend": "apt-get install haproxy"])
            }
        } catch let problem as Problem where problem.code == .unavailable {
            // It is started when its file is there; the watch looks for it.
            logger.info("the ingress is not there yet", metadata: ["reason": "\(problem.message)"])
        }
    }

    /// HAProxy may just be starting: looked for closely at first, then left to the loop's growing pauses.
    private func lead() async throws -> Ingress.Outcome {
        let end = ContinuousClock.now + .seconds(3)
        while true {
            do {
                return try await ingress.serve(IngressTable(try await current()))
            } catch let problem as Problem where problem.code == .unavailable && ContinuousClock.now < end {
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    /// Requests that were left when the time was over; 0 as a rule.
    private func drain(_ route: String, _ generation: Int) async throws -> Int {
        var quiet = 0
        while true {
            let table = IngressTable(try await current())
            guard let (backend, content) = table.backends.first(where: { $0.value.route == route }) else { return 0 }
            let leaving = content.servers.filter { ($0.value.leaving?.generation ?? .max) <= generation }
            guard let since = leaving.values.compactMap({ $0.leaving?.since }).max() else { return 0 }
            let slots = Set(leaving.keys)
            let over = now().seconds(since: since) >= Self.drainTime
            let requests: Int
            do {
                requests = try await ingress.requests(backend, slots: slots)
            } catch  where over {
                return 0
            }
            // Twice in a row: a request may have chosen its server just before the server was told to drain.
            quiet = requests == 0 ? quiet + 1 : 0
            if quiet >= 2 || over {
                try await ingress.retire(table, backend: backend, slots: slots)
                return requests
            }
            try await Task.sleep(for: .milliseconds(25))
        }
    }

    /// Serves the table to a HAProxy that has come or was restarted.
    func watch() async {
        guard await ingress.isUnknownWorker() else { return }
        do {
            _ = try await ingress.serve(IngressTable(try await current()))
            logger.info("the ingress serves the table")
        } catch {
            logger.warning("the ingress does not serve the table yet", metadata: ["error": "\(error)"])
        }
    }
}

/// Looks once a second whether HAProxy has come or was restarted: its file has the table, but may be older by one change.
struct IngressWatch: Service {
    let world: World

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                await world.watch()
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }
}
