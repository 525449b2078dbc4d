import Foundation

/// One event inside PUB or EMIT: lengths of topic and id (u16), of the payload (u32), then the three.
public struct Publication: Hashable, Sendable {
    public var topic: String
    public var id: String
    /// CloudEvents JSON; opaque to the bus.
    public var payload: Data

    public init(topic: String, id: String, payload: Data) {
        self.topic = topic
        self.id = id
        self.payload = payload
    }

    public static func encode(_ publications: some Collection<Publication>) -> Data {
        var writer = Writer(capacity: publications.reduce(0) { $0 + 8 + $1.topic.utf8.count + $1.id.utf8.count + $1.payload.count })
        for publication in publications {
            writer.u16(UInt16(clamping: publication.topic.utf8.count))
            writer.u16(UInt16(clamping: publication.id.utf8.count))
            writer.u32(UInt32(clamping: publication.payload.count))
            writer.text(publication.topic)
            writer.text(publication.id)
            writer.bytes(publication.payload)
        }
        return writer.data
    }

    /// Throws `WireError` unless the body holds exactly `count` events. A topic or an id that is not UTF-8 comes as empty text,
    /// which neither can be: that event is refused, and its neighbours are not.
    public static func decode(_ body: Data, count: UInt64) throws -> [Publication] {
        try body.withUnsafeBytes { bytes in
            var reader = try PublicationReader(bytes, count: count)
            var result: [Publication] = []
            result.reserveCapacity(Int(clamping: count))
            while let event = reader.next() {
                result.append(
                    Publication(
                        topic: String(validating: event.topic, as: UTF8.self) ?? "", id: String(validating: event.id, as: UTF8.self) ?? "",
                        payload: Data(event.payload)))
            }
            return result
        }
    }
}

/// Walks over the events in the body of PUB or EMIT where they lie. Valid only as long as the buffer is.
public struct PublicationReader {
    public struct Event {
        public var topic: UnsafeRawBufferPointer
        public var id: UnsafeRawBufferPointer
        public var payload: UnsafeRawBufferPointer
    }
    private let bytes: UnsafeRawBufferPointer
    private var at = 0

    /// Throws `WireError` unless the body holds exactly `count` events.
    public init(_ bytes: UnsafeRawBufferPointer, count: UInt64) throws {
        self.bytes = bytes
        guard count <= Limits.eventsAPublication else {
            throw WireError("\(count) events; at most \(Limits.eventsAPublication) in one message")
        }
        guard count <= UInt64(bytes.count / 8) else { throw WireError("claims \(count) events in \(bytes.count) bytes") }
        for number in 0..<count {
            guard next() != nil else { throw WireError("event \(number + 1) of \(count) is cut short") }
        }
        guard at == bytes.count else { throw WireError("\(bytes.count - at) bytes after the last event") }
        at = 0
    }

    /// Nil after the last one.
    public mutating func next() -> Event? {
        guard bytes.count - at >= 8 else { return nil }
        let topic = Int(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self)))
        let id = Int(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 2, as: UInt16.self)))
        let payload = UInt64(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self)))
        guard UInt64(topic + id) + payload <= UInt64(bytes.count - at - 8) else { return nil }
        let start = at + 8
        at = start + topic + id + Int(payload)
        return Event(
            topic: UnsafeRawBufferPointer(rebasing: bytes[start..<start + topic]),
            id: UnsafeRawBufferPointer(rebasing: bytes[start + topic..<start + topic + id]),
            payload: UnsafeRawBufferPointer(rebasing: bytes[start + topic + id..<at]))
    }
}

/// An exception in PUBACK: that event was not stored as new.
public struct PublishException: Hashable, Sendable {
    public var number: UInt64
    /// 208 stored before, 403 not permitted, 413 too large, 422 malformed topic or id, 425 out of order, 429 window, 507 disk.
    public var status: UInt16
    public init(number: UInt64, status: UInt16) {
        self.number = number
        self.status = status
    }

    public static func encode(_ exceptions: [PublishException]) -> Data {
        var writer = Writer(capacity: exceptions.count * 12)
        for exception in exceptions {
            writer.u64(exception.number)
            writer.u16(exception.status)
            writer.u16(0)
        }
        return writer.data
    }

    public static func decode(_ body: Data) throws -> [PublishException] {
        guard body.count % 12 == 0 else { throw WireError("exceptions take 12 bytes each, found \(body.count)") }
        var reader = Reader(body)
        var result: [PublishException] = []
        while let number = reader.u64(), let status = reader.u16(), reader.u16() != nil {
            result.append(PublishException(number: number, status: status))
        }
        return result
    }
}

/// An entry of ACKX: what became of one event. `u64` number, `u8` verb, `u8` zero, `u16` length of the text, `u32` milliseconds,
/// text.
public struct Verdict: Hashable, Sendable {
    public enum Verb: UInt8, Sendable {
        /// Done.
        case ack = 1
        /// Not done: deliver it again, after `delay` milliseconds or, when that is 0, after the pause of the subscription.
        case nak = 2
        /// Being worked on: the wait for an acknowledgement begins again.
        case inProgress = 3
        /// Not to be delivered again: park it.
        case terminate = 4
    }
    /// Of an entry without text.
    public static let length = 16
    /// Bytes of a text; what is longer is cut.
    public static let longestText = 1000
    public var seq: UInt64
    public var verb: Verb
    public var delay: UInt32
    /// Why, for people.
    public var text: String
    public init(_ verb: Verb, _ seq: UInt64, delay: UInt32 = 0, text: String = "") {
        self.seq = seq
        self.verb = verb
        self.delay = delay
        var text = text
        while text.utf8.count > Self.longestText { text.removeLast(max(1, (text.utf8.count - Self.longestText) / 4)) }
        self.text = text
    }

    public static func encode(_ verdicts: [Verdict]) -> Data {
        var writer = Writer(capacity: verdicts.reduce(0) { $0 + length + $1.text.utf8.count })
        for verdict in verdicts {
            writer.u64(verdict.seq)
            writer.u8(verdict.verb.rawValue)
            writer.u8(0)
            writer.u16(UInt16(clamping: verdict.text.utf8.count))
            writer.u32(verdict.delay)
            writer.text(verdict.text)
        }
        return writer.data
    }

    /// Throws `WireError` when the body is no whole number of entries, is empty, names an unknown verb or holds a text that is
    /// longer than `longestText` or no UTF-8.
    public static func decode(_ body: Data) throws -> [Verdict] {
        var reader = Reader(body)
        var result: [Verdict] = []
        result.reserveCapacity(body.count / length)
        repeat {
            guard let seq = reader.u64(), let code = reader.u8(), reader.u8() != nil, let size = reader.u16(), let delay = reader.u32()
            else { throw WireError("ACKX: an entry takes 16 bytes, found \(body.count) in all") }
            guard let verb = Verb(rawValue: code) else { throw WireError("ACKX: verb \(code), expected 1 to 4") }
            guard size <= longestText, let text = reader.text(Int(size)) else {
                throw WireError("ACKX: a text reaches past the end, is longer than \(longestText) bytes or is no UTF-8")
            }
            result.append(Verdict(verb, seq, delay: delay, text: text))
        } while reader.remaining > 0
        return result
    }
}
