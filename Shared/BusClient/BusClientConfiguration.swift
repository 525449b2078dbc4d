import CZeroMQ
import Contracts
import Foundation
import Wire

/// What a client needs to join the bus. Keys are Z85 text of 40 characters (ZeroMQ RFC 32).
public struct BusClientConfiguration: Sendable {
    /// Such as `tcp://127.0.0.1:7710`.
    public var endpoint: String
    /// Where else the bus may be, such as on the host of its replica; tried in turn while no session is open. All have the same key.
    public var alternatives: [String] = []
    /// The bus's public key.
    public var serverKey: String
    public var publicKey: String
    public var secretKey: String
    /// Name and version of the program, for people; the bus goes by the key.
    public var clientName: String
    public var version: String
    /// Milliseconds without a message after which a PING is sent; the bus allows three of them.
    public var heartbeat = 1000
    /// Events and bytes that the bus may send to one subscription before its consumer has taken them.
    public var creditMessages = 1024
    public var creditBytes = 4 << 20
    /// A file in which the client keeps, over restarts of the program, how much of the log it has seen. Nil: only while it runs.
    public var memoryFile: String?

    public init(endpoint: String, serverKey: String, publicKey: String, secretKey: String, clientName: String, version: String) {
        self.endpoint = endpoint
        self.serverKey = serverKey
        self.publicKey = publicKey
        self.secretKey = secretKey
        self.clientName = clientName
        self.version = version
    }

    /// Throws `Problem` (`configuration`) when a key is not a key.
    func check() throws {
        for (name, key) in [("serverKey", serverKey), ("publicKey", publicKey), ("secretKey", secretKey)] {
            var decoded = [UInt8](repeating: 0, count: 32)
            guard key.utf8.count == 40, zmq_z85_decode(&decoded, key) != nil else {
                throw Problem(
                    .configuration, "the bus key file: '\(name)' is not a Z85 key of 40 characters",
                    hint: "make the key anew with 'slipway key create'")
            }
        }
    }
}

/// Where a subscription begins.
public typealias Position = Wire.Position

/// A number of the outbox that the bus did not store as new, and the status that says why.
public typealias PublishException = Wire.PublishException

/// One event that waits to be published.
public struct OutboxEntry: Sendable, Hashable {
    /// The outbox's own number: ascending in the order of publishing, from 1, never given twice.
    public var number: UInt64
    public var topic: String
    public var id: String
    /// CloudEvents JSON, at most 1 MiB.
    public var payload: Data
    public init(number: UInt64, topic: String, id: String, payload: Data) {
        self.number = number
        self.topic = topic
        self.id = id
        self.payload = payload
    }
}

/// A component's outbox, as the client drains it. All calls come from one task, one after another.
public protocol OutboxSource: Sendable {
    /// Under this name the bus remembers, for ever, the last number it took; so it must never be copied to another outbox.
    var id: UUID { get }
    /// The entries not yet settled with a number above `number`, ascending, at most `limit`.
    func pending(after number: UInt64, limit: Int) async throws -> [OutboxEntry]
    /// Every entry up to `number` is decided and will not be asked for again. Those in `refused` are not in the log and never will
    /// be (403 not permitted, 413 too large, 422 malformed): they belong in a place where people see them. A call may repeat.
    func settle(upTo number: UInt64, refused: [PublishException]) async throws
}
