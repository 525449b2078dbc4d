import Contracts
import Foundation
import Testing
import Wire

@testable import BusService

/// A log in memory.
final class MemoryLog: LogView {
    private let records = Locked<[StoredRecord]>([])
    var first: UInt64 { 1 }
    var pieces: [LogPiece] { [] }
    func hashes(at seq: UInt64) -> [Data] { [] }
    func add(_ run: EventRun) { records.withLock { $0 += run } }
    func read(from seq: UInt64, bytes: Int) throws -> EventRun {
        records.withLock { all in
            var run = EventRun(firstSeq: seq, bytes: [], places: [])
            for record in all where record.seq >= seq && run.bytes.count < bytes {
                run.places.append(EventRun.Place(offset: UInt32(run.bytes.count), length: UInt32(record.bytes.count)))
                run.bytes += record.bytes
            }
            return run
        }
    }
    func firstSeq(since time: UInt64) throws -> UInt64 { 1 }
    func bytes(after seq: UInt64) -> UInt64 {
        records.withLock { $0.reduce(0) { $0 + ($1.seq > seq ? UInt64($1.bytes.count) : 0) } }
    }
}

/// A router with a clock, a device and clients that exist only here.
struct Bench {
    var router: Router
    let log = MemoryLog()
    var now: Int64 = 1000
    var hash = Data(count: 32)
    var sent: [(peer: Peer, frame: Frame)] = []
    var others: [Effect] = []
    static let witness = Witness(secretKey: "the key of the suite's bus")
    static let box = "b0b00000-0000-4000-8000-000000000001"

    init(
        records: ConsumerRecords = ConsumerRecords(), outboxes: [OutboxKey: UInt64] = [:],
        change: (inout Router.Settings) -> Void = { _ in }
    ) {
        var settings = Router.Settings(stream: "5" + String(repeating: "0", count: 31), epoch: 3, host: "here")
        settings.witness = Self.witness
        change(&settings)
        let counter = Locked(0)
        router = Router(settings: settings, log: log, last: 0, hash: hash, outboxes: outboxes, consumers: records) {
            counter.withLock { count in
                count += 1
                return "00000000-0000-7000-8000-" + String(repeating: "0", count: 12 - "\(count)".count) + "\(count)"
            }
        }
        func rights(_ publish: [String], _ subscribe: [String] = ["**"], call: [String] = ["*.*", "bus.**"], serve: [String] = []) -> Rights
        {
            Rights.parse(publish: publish, subscribe: subscribe, call: call, serve: serve).0
        }
        router.setRights(
            [
                "ada": rights(["test.**", "log.**"]), "bob": rights(["test.**"], serve: ["echo"]), "eve": rights([], ["test.*"], call: []),
            ], now: now)
    }

    mutating func say(_ peer: String, _ user: String?, _ frame: Frame) {
        router.receive(frame.encoded(), from: Data(peer.utf8), user: user, now: now)
        collect()
    }

    mutating func hello(_ peer: String, _ user: String, outbox: String? = nil) {
        let body = (try? Coding.encode(Hello(client: "test", version: "1", outbox: outbox))) ?? Data()
        say(peer, user, Frame(.hello, body: body))
    }

    mutating func publish(
        _ peer: String, _ user: String, from number: UInt64, _ ids: [String], topic: String = "test.one", flags: UInt16 = 0
    ) {
        let events = ids.map { Publication(topic: topic, id: $0, payload: Data("{}".utf8)) }
        say(peer, user, Frame(.publish, flags: flags, a: number, b: UInt64(ids.count), body: Publication.encode(events)))
    }

    mutating func subscribe(
        _ peer: String, _ user: String, handle: UInt32 = 1, consumer: String = "", _ filters: [String] = ["**"], from: Position? = nil,
        messages: Int = 100, bytes: Int = 1 << 20
    ) {
        let body = SubscribeBody(consumer: consumer, filters: filters, from: from, credit_msgs: messages, credit_bytes: bytes)
        say(peer, user, Frame(.subscribe, handle: handle, body: (try? Coding.encode(body)) ?? Data()))
    }

    /// Lets one batch reach the device.
    @discardableResult
    mutating func flush(full: Bool = false) -> Int {
        guard let batch = router.takeBatch(now) else {
            collect()
            return 0
        }
        land(batch, full: full)
        return batch.records.count
    }

    mutating func land(_ batch: Batch, full: Bool = false) {
        if full {
            router.flushed(.full("no room"), now: now)
        } else {
            let sealed = BatchCodec.seal(batch, time: 1, previousHash: hash)
            hash = sealed.hash
            log.add(sealed.run)
            router.flushed(.durable(sealed.run, time: 1, hash: hash), now: now)
        }
        collect()
        settle()
    }

    /// Acknowledgements that need no flush, and all deliveries.
    mutating func settle() {
        while router.deliver(messages: 10, now: now) { collect() }
        collect()
    }

    mutating func pass(_ milliseconds: Int64) {
        now += milliseconds
        router.tick(now)
        collect()
    }

    private mutating func collect() {
        for effect in router.takeEffects() {
            if case .send(let peer, let data) = effect, let frame = try? Frame(data) {
                sent.append((peer, frame))
            } else {
                others.append(effect)
            }
        }
    }

    /// What a peer was sent since the last look, PINGs left out.
    mutating func heard(_ peer: String) -> [Frame] {
        let mine = sent.filter { $0.peer == Data(peer.utf8) }.map(\.frame).filter { $0.known != .ping }
        sent.removeAll { $0.peer == Data(peer.utf8) }
        return mine
    }

    static func records(_ frames: [Frame]) -> [Record] {
        frames.filter { $0.known == .events }.flatMap { (try? Record.decodeAll($0.body)) ?? [] }
    }
    static func exceptions(_ frame: Frame?) -> [UInt64: UInt16] {
        let list = frame.flatMap { try? PublishException.decode($0.body) } ?? []
        return Dictionary(list.map { ($0.number, $0.status) }) { first, _ in first }
    }
}
