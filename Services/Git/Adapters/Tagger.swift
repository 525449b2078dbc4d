import Contracts
import Foundation

/// Makes the annotated tag that an order asks for.
struct Tagger: Sendable {
    let objects: Objects

    enum Outcome: Sendable, Equatable { case made, wasThere, refused(String) }

    /// The text of a tag object (git's "mktag" input).
    static func text(_ order: TagRequested, time: Timestamp) -> String {
        let message = order.message.unicodeScalars.filter { $0 == "\n" || ($0.value >= 0x20 && $0.value != 0x7F) }
        let body = String(String.UnicodeScalarView(message)).prefix(10_000)
        return """
            object \(order.commit)
            type commit
            tag \(order.tag)
            tagger Slipway <slipway@localhost> \(time.milliseconds / 1000) +0000

            \(body.isEmpty ? "\(order.tag)" : String(body))

            """
    }

    func make(_ order: TagRequested, time: Timestamp) async throws -> Outcome {
        let ref = try RefName("refs/tags/\(order.tag)")
        let found = try await objects.look(["\(ref)^{commit}", "\(order.commit)^{commit}"])
        if let there = found.first ?? nil {
            return there.id == order.commit
                ? .wasThere : .refused("tag '\(order.tag)' is on \(there.id.short), ordered for \(order.commit.short)")
        }
        // git keeps a ref's name as a path: where there is a tag 'v2/x' there can be no 'v2'.
        let below = try await objects.git.check(.anyBelow(objects.path, ref.text)).text.trimmingCharacters(in: .whitespacesAndNewlines)
        if !below.isEmpty { return .refused("the name is taken by \(Problem.quote(below))") }
        guard let commit = found.last ?? nil, commit.id == order.commit else { return .refused("there is no commit \(order.commit.short)") }
        let made = try await objects.git.check(.makeTag(objects.path), input: Data(Self.text(order, time: time).utf8))
        let object = try CommitID(made.text.trimmingCharacters(in: .whitespacesAndNewlines))
        try await objects.git.check(.createRef(objects.path, ref, object))
        return .made
    }
}
