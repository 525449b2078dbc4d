import Contracts

/// What a person may put on the log by hand: orders to the suite, and anything outside its own vocabulary. Never a fact of the
/// suite, because a fact has one publisher.
enum Publishing {
    static let largest = 256 << 10

    /// The subject to publish under. Throws `Problem` when the type, the subject or the shape is refused, or the rights do not reach.
    static func check(_ type: EventType, subject: String?, data: JSON, by holder: Principal) throws -> String? {
        if type.isSuiteFact {
            throw Problem(
                .forbidden, "'\(type)' is for the suite alone to say",
                hint: "publish an order such as deploy.requested, or a type of your own")
        }
        if let subject {
            let parts = subject.split(separator: "/", omittingEmptySubsequences: false)
            guard (1...255).contains(subject.utf8.count), subject.unicodeScalars.allSatisfy({ $0.value > 0x20 && $0.value != 0x7F }),
                parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
            else {
                throw Problem(.invalid, "subject \(Problem.quote(subject)): expected a path of at most 255 bytes, such as shop/production")
            }
        }
        let natural = try shape(type, data)
        if let natural, let subject, subject != natural {
            throw Problem(.invalid, "subject: this order's is \(natural)", hint: "leave it out")
        }
        let shown = subject ?? natural
        if let app = holder.app {
            // What the order says of itself counts, not what stands beside it.
            let path = shown?.split(separator: "/").first.map(String.init)
            guard path == app.text, data["app"].map({ $0.string == app.text }) ?? true,
                natural != nil || !EventType.suiteDomains.contains(type.domain)
            else { throw Problem.outOfReach(holder) }
            // The suite's inner orders run code or move traffic wherever they say; they are for operators of the whole suite.
            let inner = [InstanceRequested.type, JobRequested.type, RouteRequested.type, TagRequested.type]
            guard !inner.contains(type) else { throw Problem.outOfReach(holder) }
        }
        if let environment = holder.environment {
            guard data["environment"]?.string == environment.text else { throw Problem.outOfReach(holder) }
        }
        return shown
    }

    /// The subject of a known order. Throws `Problem` (`invalid`) when the data has not its shape.
    private static func shape(_ type: EventType, _ data: JSON) throws -> String? {
        func read<E: Event>(_ event: E.Type) throws -> String {
            do {
                return try Coding.decode(event, from: Coding.encode(data)).subject
            } catch let problem as Problem {
                throw Problem(.invalid, "data of \(type): \(problem.message)", hint: problem.hint ?? "docs/events.md lists its members")
            }
        }
        return switch type {
        case DeployRequested.type: try read(DeployRequested.self)
        case RollbackRequested.type: try read(RollbackRequested.self)
        case RepositoryRequested.type: try read(RepositoryRequested.self)
        case TagRequested.type: try read(TagRequested.self)
        case JobRequested.type: try read(JobRequested.self)
        case InstanceRequested.type: try read(InstanceRequested.self)
        case RouteRequested.type: try read(RouteRequested.self)
        default: nil
        }
    }

    /// Topic filters for a list of type prefixes: `deploy` is `deploy` itself and all below it. Throws `Problem` (`malformed`).
    static func filters(_ types: String?) throws -> [String] {
        guard let types, !types.isEmpty else { return ["**"] }
        var filters: [String] = []
        for part in types.split(separator: ",").map(String.init) {
            if part.contains("*") {
                let tokens = part.split(separator: ".", omittingEmptySubsequences: false)
                for (index, token) in tokens.enumerated() where token != "*" && !(token == "**" && index == tokens.count - 1) {
                    _ = try EventType(String(token))
                }
                filters.append(part)
            } else {
                let bare = part.hasSuffix(".") ? String(part.dropLast()) : part
                filters += [try EventType(bare).text, "\(bare).**"]
            }
        }
        guard (1...32).contains(filters.count) else { throw Problem(.malformed, "type: expected 1 to 16 types") }
        return filters
    }
}

extension Problem {
    static func outOfReach(_ holder: Principal) -> Problem {
        Problem(
            .forbidden,
            "'\(holder.name)' reaches \(holder.app.map { "app \($0)" } ?? "every app")\(holder.environment.map { ", environment \($0)" } ?? "") only"
        )
    }
}
