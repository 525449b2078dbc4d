// swift-format-ignore-file: NeverUseForceTry
// Names written in this file are known to be good; a wrong one should end the test run.

import Contracts
import Foundation
import Kit
import Storage

@testable import SupervisorService

/// Values that the tests of this module share.
enum Samples {
    static let host = try! HostName("here")
    static let app = try! AppName("shop")
    static let instance = try! InstanceID("shop/production/web/1")
    static let job = try! JobID("shop/run-3/build")
    static let commit = try! CommitID(String(repeating: "a", count: 40))
    static let bundle = try! Digest("sha256:" + String(repeating: "b", count: 64))

    static func spec(
        run: String = "exec ./server", ports: Bool = true, health: HealthSpec = HealthSpec(), stop: StopSpec = StopSpec(),
        limits: LimitSpec = LimitSpec()
    ) -> InstanceSpec {
        InstanceSpec(
            release: 7, commit: commit, bundle: bundle,
            service: ServiceSpec(
                name: instance.service, run: run, ports: ports ? [PortSpec(name: try! ServiceName("http"), number: 8080)] : [],
                health: health, stop: stop, limits: limits),
            environment: ["LOG": "info", "SLIPWAY_APP": "forged"])
    }

    static func start(_ spec: InstanceSpec = spec(), host: HostName = host) -> InstanceRequested {
        InstanceRequested(instance: instance, host: host, action: .start, spec: spec)
    }
    static var stop: InstanceRequested { InstanceRequested(instance: instance, host: host, action: .stop) }
    static func jobOrder(steps: [String] = ["make"], bundle: String? = "dist", timeout: Double = 60) -> JobRequested {
        JobRequested(job: job, host: host, commit: commit, steps: steps, environment: [:], timeout: timeout, bundle: bundle)
    }
}

/// The core with its state: what one loop would do, without one.
struct World {
    var state = SupervisorState()
    var now = Timestamp(milliseconds: 1_800_000_000_000)

    mutating func take(_ event: some Event) throws -> Step<SupervisorEffect> {
        handle(
            .event(
                Envelope(
                    id: EventID(UUID()), source: "deployer@here", type: type(of: event).type, subject: event.subject, time: now,
                    data: try event.json())))
    }
    mutating func take(_ notice: SupervisorNotice) -> Step<SupervisorEffect> { handle(.notice(notice)) }
    mutating func timer(_ key: String) -> Step<SupervisorEffect> { handle(.timer(key)) }

    private mutating func handle(_ input: Input<SupervisorNotice>) -> Step<SupervisorEffect> {
        var step = Step<SupervisorEffect>(now: now, host: Samples.host, cause: EventID(UUID()), actor: nil, component: "supervisor")
        SupervisorCore.handle(input, &state, &step)
        return step
    }
}

/// A directory that every user can reach, removed at the end.
final class Scratch: Sendable {
    let path: String
    init() {
        path = "/tmp/slipway-supervisor-\(UInt64.random(in: 0...UInt64.max))"
        mkdir(path, 0o711)
        chmod(path, 0o711)
    }
    deinit {
        Trash.remove(path)
        Cgroups(home: path, isRoot: geteuid() == 0).removeEmpty()
    }
    func write(_ text: String, to name: String, mode: mode_t = 0o644) throws {
        let file = "\(path)/\(name)"
        try FileManager.default.createDirectory(
            atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        chmod(file, mode)
    }
    func text(_ name: String) -> String { ProcFile.read("\(path)/\(name)") ?? "" }
}

/// Waits for what another task or process does.
func eventually(within seconds: Double = 10, _ condition: () async throws -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
        if try await condition() { return true }
        try await Task.sleep(for: .milliseconds(10))
    }
    return try await condition()
}
