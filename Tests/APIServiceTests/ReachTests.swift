import Contracts
import Testing

@testable import APIService

@Suite("What a scoped token may publish") struct ReachTests {
    static func check(_ type: EventType, _ subject: String?, _ data: [String: JSON], app: String? = "shop") throws -> String? {
        try Publishing.check(
            type, subject: subject, data: .object(data), by: Principal(name: "ada", role: .operator, app: try app.map { try AppName($0) }))
    }

    @Test("an order is judged by what it says itself, not by the subject or a member beside it") func inner() throws {
        let stop: [String: JSON] = ["instance": .string("victim/production/web/1"), "host": .string("h"), "action": .string("stop")]
        #expect(throws: Problem.self) { try Self.check("instance.requested", "shop/x", stop) }
        #expect(throws: Problem.self) { try Self.check("instance.requested", nil, stop.merging(["app": .string("shop")]) { $1 }) }
        let own: [String: JSON] = ["instance": .string("shop/production/web/1"), "host": .string("h"), "action": .string("stop")]
        #expect(throws: Problem.self, "inner orders are for operators of the whole suite") {
            try Self.check("instance.requested", nil, own)
        }
        #expect(try Self.check("instance.requested", nil, own, app: nil) == "shop/production/web/1")
        #expect(throws: Problem.self) { try Self.check("deploy.requested", "shop", ["app": .string("bank")]) }
        #expect(try Self.check("deploy.requested", nil, ["app": .string("shop"), "release": .int(1)]) == "shop")
    }

    @Test("facts of the suite are refused to everybody, types of one's own are not") func facts() throws {
        #expect(throws: Problem.self) { try Self.check("git.push.received", "shop", [:], app: nil) }
        #expect(try Self.check("chat.message", "shop/hello", [:]) == "shop/hello")
        #expect(throws: Problem.self) { try Self.check("chat.message", "bank/hello", [:]) }
    }
}
