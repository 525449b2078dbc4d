import Foundation
import HeapModule

/// Who asked: a session under its own number, or this process under a ticket.
enum Caller: Hashable, Sendable {
    case session(Peer, UInt64)
    case local(UInt64)
}

/// Whom a request is for: whoever serves the name, or the one instance of it (`supervisor@host2`).
struct Address: Hashable, Sendable {
    var service: String
    /// Nil: any.
    var instance: String?

    /// `service` or `service@instance`; nil when either part is empty or holds another `@` or a dot.
    init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty && !$0.contains(".") }) else { return nil }
        service = String(parts[0])
        instance = parts.count == 2 ? String(parts[1]) : nil
    }

    var text: String { instance.map { "\(service)@\($0)" } ?? service }
}

/// What a caller names with a key: asked again under it, a call that is under way is the same call.
struct CallKey: Hashable, Sendable {
    var caller: String
    var key: String
}

/// A request on its way to a worker or being worked on.
struct Call: Sendable {
    var caller: Caller
    /// The caller's name.
    var name: String
    var address: Address
    /// `service.method`, without the instance.
    var method: String
    var key: String
    var payload: Data
    /// Milliseconds of the router's clock.
    var deadline: Int64
    /// Until then it waits for somebody to serve; afterwards it fails as soon as nobody does.
    var patience: Int64
    /// Nil: waits for a worker with room.
    var worker: SubscriptionKey?
    /// How often it was handed out.
    var attempts = 0
    /// The payload is still here: should the worker be lost, another gets it.
    var isKept = false
    /// What of the reply has been passed on.
    var parts: UInt64 = 0
    var partBytes = 0

    var callKey: CallKey? { key.isEmpty ? nil : CallKey(caller: name, key: key) }
}

/// A session that answers calls to one service.
struct Worker: Sendable {
    var key: SubscriptionKey
    /// Where it runs: the part of its key's name after `@`, or the bus's own host.
    var instance: String
    /// It takes only what is addressed to its instance.
    var isExclusive: Bool
    /// Calls it takes at once.
    var room: Int
    /// Methods that may run twice: with or without the service's name, `*` for all.
    var idempotent: Set<String>
    var busy = 0

    func serves(_ address: Address) -> Bool { address.instance.map { $0 == instance } ?? !isExclusive }

    func mayRepeat(_ method: String) -> Bool {
        guard !idempotent.isEmpty else { return false }
        return idempotent.contains("*") || idempotent.contains(method)
            || idempotent.contains(String(method.drop { $0 != "." }.dropFirst()))
    }
}

/// The workers of one service, and what waits for them.
struct Pool: Sendable {
    /// Who has rested longest comes first.
    var workers: [Worker] = []
    /// Numbers of calls by instance ("": any), ascending.
    private var queues: [String: [UInt64]] = [:]
    private(set) var waiting = 0

    var isEmpty: Bool { workers.isEmpty && waiting == 0 }
    var waitingCalls: [UInt64] { queues.values.flatMap { $0 }.sorted() }

    func isServed(_ address: Address) -> Bool { workers.contains { $0.serves(address) } }

    mutating func add(_ number: UInt64, for address: Address) {
        let queue = address.instance ?? ""
        // Nearly always the newest; one that is handed out a second time goes before those that came after it.
        let at = queues[queue, default: []].lastIndex { $0 < number }.map { $0 + 1 } ?? 0
        queues[queue, default: []].insert(number, at: at)
        waiting += 1
    }

    mutating func remove(_ number: UInt64, for address: Address) {
        let queue = address.instance ?? ""
        guard let at = queues[queue]?.firstIndex(of: number) else { return }
        queues[queue]?.remove(at: at)
        if queues[queue]?.isEmpty == true { queues[queue] = nil }
        waiting -= 1
    }

    /// The next call and the worker that takes it, with one more under way; the worker goes to the end of the line.
    mutating func match() -> (call: UInt64, worker: Worker)? {
        guard waiting > 0 else { return nil }
        for (index, worker) in workers.enumerated() where worker.busy < worker.room {
            let general = worker.isExclusive ? nil : queues[""]?.first
            let special = queues[worker.instance]?.first
            guard let number = [general, special].compactMap({ $0 }).min() else { continue }
            let queue = number == general ? "" : worker.instance
            queues[queue]?.removeFirst()
            if queues[queue]?.isEmpty == true { queues[queue] = nil }
            waiting -= 1
            workers.remove(at: index)
            var worker = worker
            worker.busy += 1
            workers.append(worker)
            return (number, worker)
        }
        return nil
    }

    /// One call less under way there.
    mutating func release(_ key: SubscriptionKey) {
        if let at = workers.firstIndex(where: { $0.key == key }) { workers[at].busy -= 1 }
    }
}

/// When to look at calls again; an entry may outlive its call, and is then dropped unseen.
struct CallTimes: Sendable {
    private struct Entry: Comparable {
        var at: Int64
        var number: UInt64
        static func < (left: Self, right: Self) -> Bool { (left.at, left.number) < (right.at, right.number) }
    }
    private var heap = Heap<Entry>()

    var next: Int64? { heap.min?.at }
    var count: Int { heap.count }

    mutating func add(_ number: UInt64, at: Int64) { heap.insert(Entry(at: at, number: number)) }

    mutating func due(_ now: Int64) -> UInt64? {
        guard let first = heap.min, first.at <= now else { return nil }
        return heap.popMin()?.number
    }

    /// Forgets what calls that are over have left, once that is most of it.
    mutating func tidy(_ calls: [UInt64: Call]) {
        guard heap.count > 1024 + 4 * calls.count else { return }
        heap = Heap(calls.flatMap { number, call in [call.deadline, call.patience].map { Entry(at: $0, number: number) } })
    }
}
