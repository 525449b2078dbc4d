import Contracts
import Foundation
import Kit

/// An event as somebody sends it over HTTP, made whole and checked.
struct EventDraft: Sendable {
    let publication: PendingPublication

    /// `type`, `subject` and `data` are required; `id`, `source` and `time` are filled in. Throws `Problem` (422) that names the member.
    ///
    /// `names`: those who may not be claimed as the source.
    init(_ json: JSON, by principal: Principal, host: HostName, names: Names, now: Timestamp) throws {
        guard case .object(var members) = json else { throw Problem(.invalid, "an event is a JSON object") }
        func text(_ name: String, required: Bool = false) throws -> String? {
            guard let value = members[name], value != .null else {
                if required { throw Problem(.invalid, "'\(name)' is missing", hint: "an event needs 'type', 'subject' and 'data'") }
                return nil
            }
            guard let text = value.string else { throw Problem(.invalid, "'\(name)' must be text") }
            return text
        }
        let version = try text("specversion") ?? "1.0"
        guard version == "1.0" else { throw Problem(.invalid, "specversion \(Problem.quote(version)): only 1.0 is known") }
        let type = try EventType(try text("type", required: true) ?? "")
        let subject = try text("subject", required: true) ?? ""
        try Self.check(subject: subject)
        guard let data = members["data"], data != .null else {
            throw Problem(.invalid, "'data' is missing", hint: "an event needs 'type', 'subject' and 'data'")
        }
        let id = try text("id") ?? EventID.fresh(now).text
        guard (1...255).contains(id.utf8.count), id.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else {
            throw Problem(.invalid, "'id': 1 to 255 bytes without spaces and control characters", hint: "leave it out, and one is made")
        }
        // Components of the suite speak for themselves, in UUIDs; so does everybody whose events they must be able to read.
        _ = try EventID(id)
        let source = try text("source") ?? "http@\(host)"
        let own = principal.name.hasPrefix("component:") ? String(principal.name.dropFirst("component:".count)) : ""
        if names.isAnother(source, than: own) {
            throw Problem(
                .forbidden, "'source' \(Problem.quote(source)) is a component of the suite or has a key, and this token is not its own",
                hint: "leave 'source' out")
        }
        guard (1...255).contains(source.utf8.count) else { throw Problem(.invalid, "'source': 1 to 255 bytes") }
        if let time = try text("time"), Timestamp(time) == nil { throw Problem(.invalid, "'time' \(Problem.quote(time)) is not RFC 3339") }
        if let cause = try text("cause") { _ = try EventID(cause) }
        members["specversion"] = .string("1.0")
        members["id"] = .string(id.lowercased())
        members["source"] = .string(source)
        members["time"] = members["time"] ?? .string(now.description)
        members["datacontenttype"] = members["datacontenttype"] ?? .string("application/json")
        // Who asked is known from the token, and the number from the log; neither is the sender's to say.
        members["actor"] = .string(principal.name)
        members["sequence"] = nil
        members["producer"] = nil
        publication = PendingPublication(topic: type.text, id: id.lowercased(), payload: try Coding.encode(JSON.object(members)))
    }

    /// A path such as `shop/production`: no empty or dotted part, nothing that does not print.
    private static func check(subject: String) throws {
        let parts = subject.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...512).contains(subject.utf8.count),
            subject.unicodeScalars.allSatisfy({ $0.value > 0x20 && !(0x7F...0x9F).contains($0.value) }),
            parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
        else {
            throw Problem(
                .invalid, "'subject' \(Problem.quote(subject)): expected a path of 1 to 512 bytes", hint: "such as 'shop/production'")
        }
    }
}
