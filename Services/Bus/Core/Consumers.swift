import Wire

/// A durable consumer: a name within its owner, the user whose key subscribed.
struct ConsumerKey: Hashable, Sendable {
    var owner: String
    var name: String
}

/// How far a durable consumer has come.
struct Cursor: Hashable, Sendable {
    /// Every event up to here is done.
    var seq: UInt64 = 0
    /// Raised by every subscription; an acknowledgement with an older one is refused.
    var generation: UInt64 = 0
    /// The event that an ordered consumer refused last.
    var strike: Strike?
}

struct SubscriptionKey: Hashable, Sendable {
    var peer: Peer
    var handle: UInt32
}

/// Policy of an ordered consumer for an event that it cannot take in.
enum Poison: Hashable, Sendable {
    /// Delivery ends there: for whom skipping would spoil the state.
    case stop
    /// It is parked, and delivery goes on after it.
    case park
}

/// An event that an ordered consumer refused, and how often it was delivered.
struct Strike: Hashable, Sendable {
    var seq: UInt64
    var deliveries: Int
}

/// One subscription of one session.
struct Subscription: Sendable {
    var owner: String
    /// Nil: ephemeral.
    var consumer: ConsumerKey?
    /// One of several sessions that share the consumer's work queue.
    var isMember = false
    /// When this member was last given something, as the router counts.
    var fedAt: UInt64 = 0
    /// What becomes of an event that this ordered consumer refuses again and again.
    var poison = Poison.stop
    var policy = WorkQueue.Policy()
    /// Nothing is sent before this moment: a refused event rests.
    var restsUntil = Int64.min
    var filters: [Filter]
    var generation: UInt64
    /// The next event to examine.
    var next: UInt64
    /// The first that no EVENTS message has named yet. Ranges that hold nothing for this consumer are named together.
    var unreported: UInt64
    /// When a range was last named, in milliseconds.
    var reportedAt: Int64
    var creditMessages: Int64
    var creditBytes: Int64
    /// Live events that were dropped for want of credit.
    var dropped: UInt64 = 0
    /// Whether a topic matches, as far as it was asked.
    var wanted = TopicVerdicts()
    /// A filter lets every topic through.
    let matchesAll: Bool

    init(
        owner: String, consumer: ConsumerKey?, filters: [Filter], generation: UInt64, next: UInt64, creditMessages: Int64,
        creditBytes: Int64, now: Int64
    ) {
        self.owner = owner
        self.consumer = consumer
        self.filters = filters
        matchesAll = filters.contains { $0.text == "**" }
        self.generation = generation
        self.next = next
        unreported = next
        reportedAt = now
        self.creditMessages = creditMessages
        self.creditBytes = creditBytes
    }

    var hasCredit: Bool { creditMessages > 0 && creditBytes > 0 }

    /// Whether it wants a record; `id` is the topic's number when the record's place says it.
    mutating func wants(_ record: UnsafeRawBufferPointer, _ id: TopicID, _ topics: TopicTable) -> Bool {
        if let known = wanted[id] { return known }
        let text = EventRun.topic(record)
        let topic = id == .none ? topics.known(text) : id
        if let known = wanted[topic] { return known }
        let answer = matches(String(decoding: text, as: UTF8.self))
        wanted[topic] = answer
        return answer
    }

    func matches(_ topic: String) -> Bool { filters.contains { $0.matches(topic) } }
}
