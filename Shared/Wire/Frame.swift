import Foundation

/// One message: a header of 28 bytes in network order, then the body.
public struct Frame: Hashable, Sendable {
    public static let magic: (UInt8, UInt8) = (0x45, 0x42)
    public static let headerLength = 28
    /// Flag of EVENTS: the body is a piece of the log's files, for a replica.
    public static let raw: UInt16 = 2

    public var major: UInt8 = 1
    public var command: UInt8
    /// Low byte: unknown bits are ignored. High byte: unknown bits are refused with 400.
    public var flags: UInt16 = 0
    /// 0, or an HTTP-like code in answers.
    public var status: UInt16 = 0
    /// The client's number of a subscription or served name; otherwise 0.
    public var handle: UInt32 = 0
    public var a: UInt64 = 0
    public var b: UInt64 = 0
    public var body: Data

    public init(
        _ command: Command, flags: UInt16 = 0, status: UInt16 = 0, handle: UInt32 = 0, a: UInt64 = 0, b: UInt64 = 0, body: Data = Data()
    ) {
        self.command = command.rawValue
        self.flags = flags
        self.status = status
        self.handle = handle
        self.a = a
        self.b = b
        self.body = body
    }

    /// Reads one message. Throws `WireError` when it is shorter than a header or does not begin with the magic bytes; any
    /// version and command is read, because the answer to an unknown one must name it.
    public init(_ message: Data) throws {
        var reader = Reader(message)
        guard let first = reader.u8(), let second = reader.u8(), (first, second) == Self.magic else {
            throw WireError("not an EB frame")
        }
        guard let major = reader.u8(), let command = reader.u8(), let flags = reader.u16(), let status = reader.u16(),
            let handle = reader.u32(), let a = reader.u64(), let b = reader.u64()
        else { throw WireError("shorter than a header of \(Self.headerLength) bytes") }
        self.major = major
        self.command = command
        self.flags = flags
        self.status = status
        self.handle = handle
        self.a = a
        self.b = b
        self.body = reader.rest()
    }

    /// The command, when this version of the code knows it.
    public var known: Command? { Command(rawValue: command) }

    public func encoded() -> Data {
        var writer = Writer(capacity: Self.headerLength + body.count)
        writer.u8(Self.magic.0)
        writer.u8(Self.magic.1)
        writer.u8(major)
        writer.u8(command)
        writer.u16(flags)
        writer.u16(status)
        writer.u32(handle)
        writer.u64(a)
        writer.u64(b)
        writer.bytes(body)
        return writer.data
    }
}
