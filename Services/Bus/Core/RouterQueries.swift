import Contracts
import Foundation
import Wire

/// The queries that the bus answers itself.
extension Router {
    /// The reply as JSON. Throws `Problem`, and `DecodingError` when the request cannot be read.
    mutating func ownAnswer(_ call: Call, _ now: Int64) throws -> Data {
        switch call.method {
        case "bus.consumers": return try Coding.encode(consumers())
        case "bus.lookup": return try lookup(call)
        default:
            throw Problem(
                .notFound, "the bus does not answer \(Problem.quote(call.method))", hint: "known: bus.consumers, bus.lookup")
        }
    }

    /// The number of the caller's own event with that id.
    private func lookup(_ call: Call) throws -> Data {
        struct Asked: Decodable { var id: String }
        struct Answer: Encodable { var seq: UInt64 }
        let id = try Coding.decode(Asked.self, from: call.payload).id
        guard let seq = recent.seq(RecentIDs.Key(call.name, id)) else {
            throw Problem(.notFound, "no event of '\(call.name)' with the id \(Problem.quote(id)) is remembered")
        }
        return try Coding.encode(Answer(seq: seq))
    }
}
