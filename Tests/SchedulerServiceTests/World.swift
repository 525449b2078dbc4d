// swift-format-ignore-file: NeverUseForceTry
// Fixed names in tests: a wrong one should stop them.

import Contracts
import Foundation
import Kit

@testable import SchedulerService

/// The scheduler's core in a world without clocks: a git that knows commits, a supervisor that does what a test says.
struct World {
    var state = SchedulerState()
    var log: [Envelope] = []
    var questions: [SchedulerEffect] = []
    var jobs: [JobRequested] = []
    var timers: [String: Double] = [:]
    let now = Timestamp(milliseconds: 1_700_000_000_000)
    private var count = 0

    static let app = try! AppName("shop")
    static let host = try! HostName("host1")
    static let bundle = try! Digest("sha256:" + String(repeating: "a", count: 64))

    static func commit(_ number: Int) -> CommitID {
        let digits = String(number, radix: 16)
        return try! CommitID(String(repeating: "0", count: 40 - digits.count) + digits)
    }

    mutating func freshID() -> EventID {
        count += 1
        return EventID.derived(from: "world/\(count)")
    }

    mutating func take(_ input: Input<SchedulerNotice>, cause: EventID? = nil, actor: String? = nil) {
        var step = Step<SchedulerEffect>(now: now, host: Self.host, cause: cause ?? freshID(), actor: actor, component: "scheduler")
        SchedulerCore.handle(input, &state, &step)
        for wake in step.wakes { timers[wake.key] = wake.seconds }
        questions += step.effects.map(\.effect)
        for envelope in step.events {
            log.append(envelope)
            if let job = envelope.as(JobRequested.self) { jobs.append(job) }
        }
    }

    @discardableResult
    mutating func deliver<E: Event>(_ event: E, actor: String? = "ada") -> EventID {
        let envelope = Envelope(
            id: freshID(), source: "test@host1", type: E.type, subject: event.subject, time: now, data: try! event.json(), actor: actor)
        log.append(envelope)
        take(.event(envelope), cause: envelope.id, actor: actor)
        return envelope.id
    }

    @discardableResult
    mutating func push(_ commit: Int, branch: String = "main", isDefault: Bool = true) -> EventID {
        deliver(
            PushReceived(
                app: Self.app, ref: try! RefName("refs/heads/\(branch)"), commit: Self.commit(commit), previous: nil,
                isDefaultBranch: isDefault, forced: false, title: "change \(commit)", author: "Ada", options: []))
    }

    /// Git answers the oldest question about a file.
    mutating func file(_ file: ConfigFile) {
        guard let index = questions.firstIndex(where: { if case .readConfig = $0 { true } else { false } }),
            case .readConfig(let app, let run, _) = questions.remove(at: index)
        else { return }
        take(.notice(.config(app: app, run: run, file)))
    }
    mutating func file(_ yaml: String) { file(.slipway(Data(yaml.utf8))) }

    mutating func resolve(_ commit: Int?, ref: String? = nil, problem: Problem? = nil) {
        guard let index = questions.firstIndex(where: { if case .resolve = $0 { true } else { false } }),
            case .resolve(let order, _, _) = questions.remove(at: index)
        else { return }
        take(
            .notice(
                .resolved(order: order, commit: commit.map(Self.commit), ref: ref.map { try! RefName($0) }, title: "", problem: problem)))
    }

    /// The supervisor ends the oldest job.
    mutating func finish(_ outcome: JobFinished.Outcome = .succeeded, step: String? = nil, status: Int? = nil, reason: String? = nil) {
        guard !jobs.isEmpty else { return }
        let job = jobs.removeFirst()
        deliver(JobStarted(job: job.job, host: Self.host))
        let made = outcome == .succeeded && job.bundle != nil
        deliver(
            JobFinished(
                job: job.job, host: Self.host, outcome: outcome, failedStep: step, status: status, reason: reason,
                bundle: made ? Self.bundle : nil, bundleSize: made ? 1 : nil, seconds: 1))
    }

    /// Everything goes well until nothing is left to do.
    mutating func settle(_ yaml: String) {
        while true {
            if questions.contains(where: { if case .readConfig = $0 { true } else { false } }) {
                file(yaml)
            } else if !jobs.isEmpty {
                finish()
            } else {
                return
            }
        }
    }

    func events<E: Event>(_ type: E.Type) -> [E] { log.compactMap { $0.as(type) } }
    var ends: [RunFinished] { events(RunFinished.self) }
    /// Types of what the scheduler published, in order.
    var told: [String] { log.filter { $0.source == "scheduler@host1" }.map(\.type.text) }
}

let plain = "services: {web: {run: ./server, ports: {http: 8080}}}\n"
let staged = """
    test: make test
    build: {run: make dist, artifact: dist/}
    services:
      web: {run: ./server, ports: {http: 8080}}
    environments:
      dev: {from: "branch:*"}
      staging: {from: "branch:main"}
      production: {from: staging}
    """
