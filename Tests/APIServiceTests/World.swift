import Contracts
import Foundation
import Kit

@testable import APIService

/// A core fed by hand: events get the next number, the clock stands where the test puts it.
struct World {
    var state = APIState()
    var seq: UInt64 = 0
    var now = Timestamp(milliseconds: 1_795_000_000_000)
    var published: [Envelope] = []

    static let shop = must { try AppName("shop") }
    static let production = must { try EnvName("production") }
    static let web = must { try ServiceName("web") }
    static let host = must { try HostName("host1") }
    static let commit = must { try CommitID(String(repeating: "a", count: 40)) }
    static let main = must { try RefName("refs/heads/main") }
    static let digest = must { try Digest("sha256:" + String(repeating: "b", count: 64)) }

    static func id(_ text: String) -> EventID { EventID.derived(from: text) }

    @discardableResult
    mutating func event<E: Event>(_ event: E, id: String? = nil, actor: String? = nil, cause: EventID? = nil) throws -> EventID {
        seq += 1
        var envelope = Envelope(
            id: Self.id(id ?? "event-\(seq)"), source: "test@host1", type: E.type, subject: event.subject, time: now,
            data: try event.json(),
            cause: cause, actor: actor)
        envelope.sequence = Envelope.digits(seq)
        handle(.event(envelope), cause: envelope.id, actor: actor)
        return envelope.id
    }

    mutating func notice(_ notice: APINotice, actor: String? = "admin", id: String = "request") {
        handle(.notice(notice), cause: Self.id(id), actor: actor)
    }

    mutating func handle(_ input: Input<APINotice>, cause: EventID, actor: String?) {
        var step = Step<NoEffect>(now: now, host: Self.host, cause: cause, actor: actor, component: "api")
        APICore.handle(input, &state, &step)
        published += step.events
    }

    /// An app with a push and a release, deployed by a push.
    mutating func release(_ number: Int, commit: CommitID = Self.commit, pushedBy: String = "ann") throws {
        try event(RepositoryCreated(app: Self.shop, defaultBranch: "main"), actor: "admin")
        try event(
            PushReceived(
                app: Self.shop, ref: Self.main, commit: commit, previous: nil, isDefaultBranch: true, forced: false, title: "Sell shoes",
                author: "Ann <ann@example.org>", options: []), actor: pushedBy)
        try event(
            ReleaseCreated(
                app: Self.shop, number: number, ref: Self.main, commit: commit, run: number, title: "Sell shoes", bundle: Self.digest,
                config: ReleaseConfig(
                    services: [ServiceSpec(name: Self.web, run: "./web")], routes: [],
                    environments: [EnvironmentSpec(name: Self.production, from: .defaultBranch)])), actor: pushedBy)
    }

    func head(_ number: Int, release: Int, order: EventID, kind: DeploymentHead.Kind = .deploy, previous: Int? = nil) -> DeploymentHead {
        DeploymentHead(
            deployment: DeploymentID(app: Self.shop, environment: Self.production, number: number), kind: kind, release: release,
            commit: Self.commit, previous: previous, order: order)
    }
}

/// A value that the test itself writes correctly.
func must<T>(_ make: () throws -> T) -> T {
    do { return try make() } catch { preconditionFailure("the test is wrong: \(error)") }
}
