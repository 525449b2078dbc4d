/// A component has a session on the bus. Published by `bus`.
public struct ComponentJoined: Event {
    public static let type: EventType = "component.joined"
    /// The name of its key, such as `git`.
    public var component: String
    public var version: String
    public var subject: String { component }
    public init(component: String, version: String) {
        self.component = component
        self.version = version
    }
}

/// A component's session on the bus has ended.
public struct ComponentLeft: Event {
    public static let type: EventType = "component.left"
    public var component: String
    public var reason: String
    public var subject: String { component }
    public init(component: String, reason: String) {
        self.component = component
        self.reason = reason
    }
}

/// A durable consumer has fallen far behind: 10 000 events, 64 MiB or five minutes. Published by `bus`, once until it has caught
/// up by half.
public struct ConsumerLagging: Event {
    public static let type: EventType = "bus.consumer.lagging"
    /// The name of the consumer's key.
    public var owner: String
    public var consumer: String
    /// How many events are after its cursor, of whatever type.
    public var events: UInt64
    /// About how many bytes those take.
    public var bytes: UInt64
    /// For how long at least it has been behind.
    public var seconds: Int
    public var subject: String { owner }
    public init(owner: String, consumer: String, events: UInt64, bytes: UInt64, seconds: Int) {
        self.owner = owner
        self.consumer = consumer
        self.events = events
        self.bytes = bytes
        self.seconds = seconds
    }
}

/// A client of the bus asked for what its key may not. Published by `bus`, at most once a minute for the same thing.
public struct BusDenied: Event {
    public static let type: EventType = "bus.denied"
    /// The name of the client's key; `unknown` for a key that the bus does not know.
    public var key: String
    /// The command as docs/wire.md spells it, such as `PUB`.
    public var command: String
    /// The topic, filter, service or method.
    public var what: String
    public var subject: String { key }
    public init(key: String, command: String, what: String) {
        self.key = key
        self.command = command
        self.what = what
    }
}

/// A consumer of the bus was given an event too often, or gave it up; the event stays in the log. Published by `bus`.
public struct MessageParked: Event {
    public static let type: EventType = "bus.message.parked"
    /// The name of the consumer's key.
    public var owner: String
    public var consumer: String
    /// The event's number.
    public var sequence: UInt64
    public var deliveries: Int
    public var reason: String
    public var subject: String { owner }
    public init(owner: String, consumer: String, sequence: UInt64, deliveries: Int, reason: String) {
        self.owner = owner
        self.consumer = consumer
        self.sequence = sequence
        self.deliveries = deliveries
        self.reason = reason
    }
}

/// A consumer that reads in order came to an event that it cannot take in; it gets nothing more until it subscribes again.
/// Published by `bus`.
public struct ConsumerStopped: Event {
    public static let type: EventType = "bus.consumer.stopped"
    /// The name of the consumer's key.
    public var owner: String
    public var consumer: String
    /// The event's number.
    public var sequence: UInt64
    public var deliveries: Int
    public var reason: String
    public var subject: String { owner }
    public init(owner: String, consumer: String, sequence: UInt64, deliveries: Int, reason: String) {
        self.owner = owner
        self.consumer = consumer
        self.sequence = sequence
        self.deliveries = deliveries
        self.reason = reason
    }
}

/// A manifest was stored in the registry.
public struct ImagePushed: Event {
    public static let type: EventType = "image.pushed"
    public var repository: String
    public var tag: String?
    public var digest: Digest
    public var mediaType: String
    /// The manifest's size in bytes.
    public var size: Int64
    public var subject: String { repository }
    public init(repository: String, tag: String?, digest: Digest, mediaType: String, size: Int64) {
        self.repository = repository
        self.tag = tag
        self.digest = digest
        self.mediaType = mediaType
        self.size = size
    }
}

/// A manifest or a tag was removed from the registry.
public struct ImageDeleted: Event {
    public static let type: EventType = "image.deleted"
    public var repository: String
    public var tag: String?
    public var digest: Digest
    public var subject: String { repository }
    public init(repository: String, tag: String?, digest: Digest) {
        self.repository = repository
        self.tag = tag
        self.digest = digest
    }
}

/// Somebody did, or was refused, something that matters to security. Published by `api`.
public struct AuditRecorded: Event {
    public static let type: EventType = "audit.recorded"
    /// Such as `token.create`.
    public var action: String
    public var object: String
    public var outcome: String
    public var subject: String { object }
    public init(action: String, object: String, outcome: String) {
        self.action = action
        self.object = object
        self.outcome = outcome
    }
}

/// Lines that a job or an instance wrote. A stream: live only, never stored in the log.
public struct LogLines: Event {
    public static let type: EventType = "log.lines"
    /// The text of a `JobID` or an `InstanceID`.
    public var origin: String
    /// At most 200 lines, each cut at 4096 characters.
    public var lines: [String]
    public var subject: String { origin }
    public init(origin: String, lines: [String]) {
        self.origin = origin
        self.lines = lines
    }
}
