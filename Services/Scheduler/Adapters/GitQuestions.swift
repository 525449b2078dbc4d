import BusClient
import Contracts
import Foundation
import Kit

/// Asks `git` what the core wants to know. A `git` that is being restarted makes these throw: the loop then asks again.
struct GitQuestions: Sendable {
    let bus: BusClient
    /// Seconds for one question.
    static let deadline = 10.0

    func perform(_ effect: SchedulerEffect) async throws -> SchedulerNotice {
        switch effect {
        case .readConfig(let app, let run, let commit):
            return .config(app: app, run: run, try await config(app, commit))
        case .resolve(let order, let app, let revision):
            do {
                let reply = try await bus.call(ResolveRevision(app: app, revision: revision), timeout: Self.deadline)
                return .resolved(order: order, commit: reply.commit, ref: reply.ref, title: reply.title, problem: nil)
            } catch let problem as Problem where Self.isFinal(problem) {
                return .resolved(order: order, commit: nil, ref: nil, title: "", problem: problem)
            }
        }
    }

    /// `slipway.yml`, else the `Procfile`, else neither.
    private func config(_ app: AppName, _ commit: CommitID) async throws -> ConfigFile {
        do {
            if let data = try await file("slipway.yml", app, commit) { return .slipway(data) }
            if let data = try await file("Procfile", app, commit) { return .procfile(data) }
            return .none
        } catch let problem as Problem where Self.isFinal(problem) {
            return .unreadable(problem)
        }
    }

    private func file(_ path: String, _ app: AppName, _ commit: CommitID) async throws -> Data? {
        let content = try await bus.call(ReadFile(app: app, commit: commit, path: path), timeout: Self.deadline).content
        if let content, content.count > Tree.bytes {
            // Said here, so that a large file does not travel through the journal only to be refused.
            throw Problem(.tooLarge, "\(path): \(content.count) bytes; at most \(Tree.bytes) are read", hint: "keep data out of \(path)")
        }
        return content
    }

    /// Whether asking again could only get the same answer.
    static func isFinal(_ problem: Problem) -> Bool {
        let final: [Problem.Code] = [.notFound, .gone, .invalid, .invalidName, .malformed, .tooLarge, .unsupported, .forbidden]
        return final.contains(problem.code)
    }
}
