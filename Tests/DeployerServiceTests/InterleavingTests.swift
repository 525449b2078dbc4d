// swift-format-ignore-file: NeverUseForceTry
// Fixed names in tests: a wrong one should stop them.

import Contracts
import Foundation
import Testing

@testable import DeployerService

/// A generator with a seed, so that a failure can be seen again.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        // SplitMix64.
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Swift Testing takes a backtrace of every error that is thrown, also inside JSON decoding, which makes a world slow (0.4 CPU
/// seconds). More of them: SLIPWAY_TEST_SEEDS=1000.
private let seeds = ProcessInfo.processInfo.environment["SLIPWAY_TEST_SEEDS"].flatMap { Int($0) } ?? 30

@Suite("whatever the order of events") struct InterleavingTests {
    static let configs = [
        Fixture.config([Fixture.service("web", instances: 2)], chain: Fixture.chain),
        Fixture.config([Fixture.service("web", needs: ["db"]), Fixture.service("db", port: false)], chain: Fixture.chain),
        Fixture.config(
            [Fixture.service("web"), Fixture.service("api", needs: ["web"])],
            routes: [RouteSpec(host: "api.example.org", service: try! ServiceName("api"))], chain: Fixture.chain),
    ]

    @Test("every order ends in exactly one way, routes lead to what is live, nothing else is left", arguments: 0..<seeds)
    func everyOrderEndsOnce(seed: Int) throws {
        var random = Seeded(state: UInt64(seed))
        var world = World()
        var orders: [EventID] = []
        // What the supervisor runs, and what is known to have been ready.
        var alive: Set<InstanceID> = []
        var ready: Set<InstanceID> = []
        var drains: [(EventID, RouteRequested)] = []
        var releases = 0
        var budget = 120

        func check(_ from: Int) {
            for envelope in world.log[from...] {
                if let route = envelope.as(RouteRequested.self) {
                    #expect(route.servers.allSatisfy { ready.contains($0.instance) }, "a route leads to what was never ready, seed \(seed)")
                }
                if let stop = envelope.as(InstanceRequested.self), stop.action == .stop {
                    let served = world.environment(stop.instance.environment)?.routes.values.contains {
                        $0.servers.contains { $0.instance == stop.instance }
                    }
                    #expect(served == false, "\(stop.instance) is stopped while a route leads to it, seed \(seed)")
                }
            }
        }

        func newOrder() {
            let environment = [World.staging, World.production, nil].randomElement(using: &random) ?? nil
            switch Int.random(in: 0..<6, using: &random) {
            case 0, 1:
                releases += 1
                world.release(releases, Self.configs.randomElement(using: &random)!)
                orders.append(world.deploy(releases, World.staging))
            case 2: orders.append(world.rollback(environment))
            case 3: orders.append(world.rollback(to: Int.random(in: 1...releases + 2, using: &random), environment))
            default:
                orders.append(
                    world.deploy(Bool.random(using: &random) ? nil : Int.random(in: 1...releases + 2, using: &random), environment))
            }
        }

        /// One thing happens. False when nothing can.
        func happen(faults: Bool) -> Bool {
            let start = world.log.count
            defer { check(start) }
            if faults, Int.random(in: 0..<12, using: &random) == 0, let id = alive.sorted().randomElement(using: &random) {
                if Bool.random(using: &random) {
                    // Orders to it that are on their way stay on their way.
                    world.deliver(
                        InstanceExited(
                            instance: id, host: World.host, expected: false, status: 139, signal: nil, reason: "crashed", tail: [],
                            restartIn: 1))
                } else {
                    world.deliver(InstanceUnready(instance: id, host: World.host, reason: "no answer"))
                }
                return true
            }
            if faults, Int.random(in: 0..<15, using: &random) == 0, let key = world.timers.keys.sorted().randomElement(using: &random) {
                world.fire(key)
                return true
            }
            if faults, Int.random(in: 0..<15, using: &random) == 0,
                let old = world.log.filter({ $0.source == "test@host1" }).randomElement(using: &random)
            {
                // News that come twice, late. News of instances are the state of their time, so only answers and orders are repeated.
                if [RouteChanged.type, RouteDrained.type, DeployRequested.type, RollbackRequested.type, ReleaseCreated.type].contains(
                    old.type)
                {
                    let rejected = world.ends(of: old.id) == ["rejected"]
                    if !rejected { world.deliver(old) }
                }
                return true
            }
            if !drains.isEmpty, Int.random(in: 0..<3, using: &random) == 0 {
                let (id, order) = drains.remove(at: Int.random(in: drains.indices, using: &random))
                world.drain(id, order)
                return true
            }
            // Supervisor and discovery each take their orders in turn, but neither waits for the other.
            let kinds = Set(world.orders.map(\.type)).sorted()
            guard let kind = kinds.randomElement(using: &random), let index = world.orders.firstIndex(where: { $0.type == kind }) else {
                if !drains.isEmpty {
                    let (id, order) = drains.removeFirst()
                    world.drain(id, order)
                    return true
                }
                return false
            }
            let envelope = world.orders[index]
            if let order = envelope.as(InstanceRequested.self) {
                world.orders.remove(at: index)
                if order.action == .stop {
                    alive.remove(order.instance)
                    world.exit(order.instance, expected: true)
                } else if faults, Int.random(in: 0..<8, using: &random) == 0 {
                    alive.insert(order.instance)
                    world.exit(order.instance, expected: false, reason: "exited with status 3")
                } else if faults, Int.random(in: 0..<10, using: &random) == 0 {
                    alive.insert(order.instance)
                    world.deliver(InstanceStarted(instance: order.instance, host: World.host, pid: 1))
                } else {
                    alive.insert(order.instance)
                    ready.insert(order.instance)
                    world.ready(order.instance, release: order.spec?.release ?? 0)
                }
            } else if let route = envelope.as(RouteRequested.self) {
                drains.append((envelope.id, route))
                let position = world.orders.firstIndex { $0.type == RouteRequested.type }
                #expect(position == index)
                world.answerRoute(drain: false)
            }
            return true
        }

        newOrder()
        while budget > 0 {
            budget -= 1
            if Int.random(in: 0..<10, using: &random) == 0 { newOrder() }
            if !happen(faults: true), budget > 0 { newOrder() }
        }
        // Calm: all that is on its way arrives, then deadlines pass, until nothing is left.
        for _ in 0..<10_000 {
            if happen(faults: false) { continue }
            guard let key = world.timers.keys.sorted().first else { break }
            world.fire(key)
        }

        for order in orders { #expect(world.ends(of: order).count == 1, "order \(order) ended \(world.ends(of: order)), seed \(seed)") }
        #expect(world.state.leaving.isEmpty, "seed \(seed)")
        var expected: Set<InstanceID> = []
        for environment in world.state.environments.values {
            #expect(environment.rollout == nil && environment.waiting == nil)
            let live = environment.live.map { world.state.instances(of: environment, generation: $0.generation).map(\.id) } ?? []
            expected.formUnion(live)
            for route in environment.routes.values {
                #expect(route.servers.allSatisfy { live.contains($0.instance) }, "a route leads to another generation, seed \(seed)")
            }
            if let live = environment.live, let release = world.state.release(environment.app, live.release) {
                #expect(
                    environment.routes.count
                        == Hosts.of(release.config, app: environment.app, environment: environment.name, chain: Fixture.chain).count)
            }
        }
        #expect(alive == expected, "left running: \(alive.symmetricDifference(expected).map(\.text).sorted()), seed \(seed)")
        #expect(Set(world.state.instances.keys) == Set(expected.map(\.text)), "seed \(seed)")
    }
}
