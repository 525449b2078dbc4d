/// The commands of EB/1 (docs/wire.md, *Commands*).
public enum Command: UInt8, Sendable, Hashable {
    case hello = 0x01, welcome = 0x02, ping = 0x03, pong = 0x04, bye = 0x05, error = 0x06
    case publish = 0x10, publishAck = 0x11, emit = 0x12
    case subscribe = 0x20, subscribed = 0x21, events = 0x22, credit = 0x23, ack = 0x24, ackEach = 0x25, unsubscribe = 0x26, lost = 0x27
    case serve = 0x30, request = 0x31, call = 0x32, part = 0x33, reply = 0x34, cancel = 0x35
}

extension Command {
    /// As docs/wire.md spells it.
    public var name: String {
        switch self {
        case .hello: "HELLO"
        case .welcome: "WELCOME"
        case .ping: "PING"
        case .pong: "PONG"
        case .bye: "BYE"
        case .error: "ERR"
        case .publish: "PUB"
        case .publishAck: "PUBACK"
        case .emit: "EMIT"
        case .subscribe: "SUB"
        case .subscribed: "SUBOK"
        case .events: "EVENTS"
        case .credit: "CREDIT"
        case .ack: "ACK"
        case .ackEach: "ACKX"
        case .unsubscribe: "UNSUB"
        case .lost: "LOST"
        case .serve: "SERVE"
        case .request: "REQ"
        case .call: "CALL"
        case .part: "PART"
        case .reply: "REP"
        case .cancel: "CANCEL"
        }
    }

    /// Commands that say all in their header.
    public var hasNoBody: Bool {
        switch self {
        case .ping, .credit, .ack, .unsubscribe, .cancel: true
        default: false
        }
    }
}

/// Bytes that are not a frame, or not this command's body. The receiver answers ERR 400 and otherwise ignores the message.
public struct WireError: Error, Hashable, Sendable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// The limits of EB/1.
public enum Limits {
    /// Bytes of one event's payload.
    public static let payload = 1 << 20
    /// Bytes that ZeroMQ takes as one frame (`ZMQ_MAXMSGSIZE`), encrypted.
    public static let frame = (1 << 20) + (1 << 18)
    /// What CURVE adds to a frame: the command's name, nonce, authenticator and flags (ZeroMQ RFC 26, *MESSAGE Command*).
    public static let encryption = 33
    /// Bytes of one message, header and body: the largest event, its topic and id, with room to spare.
    public static let message = frame - encryption
    /// Events in one PUB or EMIT: what is wrong with each must fit into the answer.
    public static let eventsAPublication: UInt64 = 4096
    /// What the bus packs into one EVENTS message at most, one larger record excepted.
    public static let packedEvents = 128
    public static let packedBytes = 1 << 18
    /// Bytes of a reply, all its parts together.
    public static let reply = 64 << 20
    public static let topic = 200
    public static let id = 255
}
