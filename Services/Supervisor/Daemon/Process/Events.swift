/// The kinds of events, by the names that configurations use. An abstract one stands for all that begin with its name.
enum EventType: String, Hashable, Sendable, CaseIterable {
    case event = "EVENT"
    case processState = "PROCESS_STATE"
    case stopped = "PROCESS_STATE_STOPPED"
    case exited = "PROCESS_STATE_EXITED"
    case starting = "PROCESS_STATE_STARTING"
    case stopping = "PROCESS_STATE_STOPPING"
    case backoff = "PROCESS_STATE_BACKOFF"
    case fatal = "PROCESS_STATE_FATAL"
    case running = "PROCESS_STATE_RUNNING"
    case unknown = "PROCESS_STATE_UNKNOWN"
    case communication = "PROCESS_COMMUNICATION"
    case communicationOutput = "PROCESS_COMMUNICATION_STDOUT"
    case communicationError = "PROCESS_COMMUNICATION_STDERR"
    case log = "PROCESS_LOG"
    case logOutput = "PROCESS_LOG_STDOUT"
    case logError = "PROCESS_LOG_STDERR"
    case remote = "REMOTE_COMMUNICATION"
    case supervisorState = "SUPERVISOR_STATE_CHANGE"
    case supervisorRunning = "SUPERVISOR_STATE_CHANGE_RUNNING"
    case supervisorStopping = "SUPERVISOR_STATE_CHANGE_STOPPING"
    case tick = "TICK"
    case tick5 = "TICK_5"
    case tick60 = "TICK_60"
    case tick3600 = "TICK_3600"
    case group = "PROCESS_GROUP"
    case groupAdded = "PROCESS_GROUP_ADDED"
    case groupRemoved = "PROCESS_GROUP_REMOVED"

    func includes(_ other: EventType) -> Bool {
        self == .event || self == other || other.rawValue.hasPrefix(rawValue + "_")
    }
}

struct Event {
    var type: EventType
    var payload: [UInt8]
    /// Counts all events of this daemon, from 0.
    var serial = 0
}

/// One event on its way to a listener of a pool.
struct PoolEvent {
    var event: Event
    /// Counts those of the pool, from 0.
    var poolSerial: Int

    init(event: Event, poolSerial: Int) {
        self.event = event
        self.poolSerial = poolSerial
    }

    /// As it was handed over.
    init?(_ saved: State) {
        guard let type = saved.text("type").flatMap({ EventType(rawValue: $0) }), let payload = saved.bytes("payload") else { return nil }
        event = Event(type: type, payload: payload, serial: saved.int("serial") ?? 0)
        poolSerial = saved.int("pool") ?? 0
    }

    var saved: State {
        var saved = State()
        saved.set("type", event.type.rawValue)
        saved.set("payload", .bytes(event.payload))
        saved.set("serial", event.serial)
        saved.set("pool", poolSerial)
        return saved
    }

    /// The header line and the payload. `len` counts bytes; supervisord 4.2.5 counts characters, which listeners cannot use.
    func encoded(identifier: String, pool: String) -> [UInt8] {
        let head =
            "ver:3.0 server:\(identifier) serial:\(event.serial) pool:\(pool) poolserial:\(poolSerial) "
            + "eventname:\(event.type.rawValue) len:\(event.payload.count)\n"
        return Array(head.utf8) + event.payload
    }
}

/// The listeners of one section, and what waits for them.
final class ListenerPool {
    let name: String
    private let settings: Group.Pool
    private var buffer: [PoolEvent] = []
    private var poolSerial = -1
    private unowned let daemon: Daemon
    var processes: [Process] = []

    init(_ name: String, _ settings: Group.Pool, _ daemon: Daemon) {
        self.name = name
        self.settings = settings
        self.daemon = daemon
    }

    var saved: State {
        var saved = State()
        saved.set("name", name)
        saved.set("serial", poolSerial)
        saved.set("events", buffer.map(\.saved))
        return saved
    }

    func restore(_ saved: State) {
        poolSerial = saved.int("serial") ?? -1
        buffer = saved.list("events").compactMap { PoolEvent($0) }
    }

    func wants(_ type: EventType) -> Bool { settings.events.contains { $0.includes(type) } }

    func take(_ event: Event) {
        poolSerial += 1
        buffer.append(PoolEvent(event: event, poolSerial: poolSerial))
        if buffer.count > settings.bufferSize {
            let lost = buffer.removeFirst()
            daemon.logger.error("pool \(name) event buffer overflowed, discarding event \(lost.event.serial)")
        }
        dispatch()
    }

    /// Its listener failed, or died, before it was done: it comes first again.
    func putBack(_ event: PoolEvent) {
        if buffer.count >= settings.bufferSize, !buffer.isEmpty {
            let lost = buffer.removeFirst()
            daemon.logger.error("pool \(name) event buffer overflowed, discarding event \(lost.event.serial)")
        }
        buffer.insert(event, at: 0)
        daemon.poller.soon { [weak self] in self?.dispatch() }
    }

    /// Gives waiting events to listeners that are ready.
    func dispatch() {
        while let event = buffer.first {
            guard let process = processes.first(where: { $0.listener?.state == .ready && $0.state == .running }) else { return }
            buffer.removeFirst()
            process.give(event, as: event.encoded(identifier: daemon.settings.daemon.identifier, pool: name))
        }
    }
}

/// What a listener said, and what is expected of it.
struct ListenerState {
    enum Life: String { case acknowledged = "ACKNOWLEDGED", ready = "READY", busy = "BUSY", unknown = "UNKNOWN" }
    enum News {
        case became(Life, from: Life)
        case done
        case rejected(String)
        case misspoke(String)
    }
    private(set) var state = Life.acknowledged
    var event: PoolEvent?
    private var said: [UInt8] = []
    private var resultLength: Int?
    private static let ready = Array("READY\n".utf8)
    /// A result has no reason to be longer.
    private static let most = 1 << 20

    init() {}

    /// As it was handed over.
    init(_ saved: State) {
        state = saved.text("state").flatMap { Life(rawValue: $0) } ?? .unknown
        said = saved.bytes("said") ?? []
        resultLength = saved.int("result")
        event = saved["event"].flatMap { PoolEvent(State($0)) }
    }

    var saved: State {
        var saved = State()
        saved.set("state", state.rawValue)
        saved.set("said", .bytes(said))
        if let resultLength { saved.set("result", resultLength) }
        if let event { saved.set("event", event.saved.value) }
        return saved
    }

    mutating func give(_ event: PoolEvent) -> News {
        self.event = event
        return change(.busy)
    }

    private mutating func change(_ next: Life) -> News {
        defer { state = next }
        return .became(next, from: state)
    }

    private mutating func giveUp(_ news: inout [News]) {
        said = []
        news.append(change(.unknown))
    }

    /// What follows from more output.
    mutating func hear(_ bytes: UnsafeRawBufferPointer) -> [News] {
        var news: [News] = []
        guard state != .unknown else { return news }
        said.append(contentsOf: bytes)
        while !said.isEmpty {
            switch state {
            case .unknown: return news
            case .ready:
                giveUp(&news)
                return news
            case .acknowledged:
                let common = min(said.count, Self.ready.count)
                guard said.prefix(common).elementsEqual(Self.ready.prefix(common)) else {
                    giveUp(&news)
                    return news
                }
                guard common == Self.ready.count else { return news }
                said.removeFirst(common)
                news.append(change(.ready))
            case .busy:
                if let length = resultLength {
                    guard said.count >= length else { return news }
                    let result = Array(said.prefix(length))
                    said.removeFirst(length)
                    resultLength = nil
                    news.append(result == Array("OK".utf8) ? .done : .rejected(String(decoding: result, as: UTF8.self)))
                    news.append(change(.acknowledged))
                } else {
                    guard let end = said.firstIndex(of: 10) ?? (said.count > 1024 ? 1024 : nil) else { return news }
                    let line = String(decoding: said[..<end], as: UTF8.self)
                    said.removeFirst(end + 1)
                    guard line.hasPrefix("RESULT "), let length = Int(line.dropFirst(7)), (0...Self.most).contains(length) else {
                        news.append(.misspoke(line))
                        giveUp(&news)
                        return news
                    }
                    resultLength = length
                    if length == 0 {
                        resultLength = nil
                        news.append(.rejected(""))
                        news.append(change(.acknowledged))
                    }
                }
            }
        }
        return news
    }
}
