import ArgumentParser
import Contracts
import Foundation
import Kit

/// `slipway bus promote`: makes the bus of this home, which stands by, the bus.
struct BusPromote: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "promote", abstract: "Make the bus of this home, which copies another's log, take that one's place.",
        discussion: "The old bus must be down. When it returns it is told, and stops. See docs/replica.md.")
    @Flag(help: "Also when the old bus still answers: what it acknowledges in this moment is left behind.")
    var force = false
    @OptionGroup var suite: SuiteOptions
    @OptionGroup var listing: ListingOptions

    mutating func run() async throws {
        let answer = try await suite.bus().json(.post, "/v1/bus/promote", body: .object(["force": .bool(force)]))
        if listing.json { return Terminal.out(try Coding.text(answer)) }
        Terminal.out("this bus takes over: epoch \(answer["epoch"]?.int ?? 0), with all events up to \(answer["last"]?.int ?? 0)")
    }
}
