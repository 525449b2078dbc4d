import Contracts
import Foundation
import Kit
import TestKit
import Testing
import Wire

@testable import BusService

@Suite("What of the log may go") struct RetentionTests {
    static let second: UInt64 = 1_000_000_000
    /// Pieces of ten events and 100 bytes; piece n was finished in second n.
    static let pieces = ([1, 2, 3, 4, 5] as [UInt64]).map { n -> LogPiece in
        LogPiece(first: n * 10 - 9, last: n * 10, newest: n * second, bytes: 100)
    }

    @Test(
        "by age only what every consumer has done with; by size in any case; never the last piece",
        arguments: [
            // max age in seconds, max bytes, needed, now, the log's new beginning
            (nil, nil, 51, 1000, nil),
            (100, nil, 51, 100, nil),
            (100, nil, 51, 102, 11),
            (100, nil, 51, 1000, 41),
            (100, nil, 25, 1000, 21),
            (100, nil, 21, 1000, 21),
            (100, nil, 20, 1000, 11),
            (100, nil, 1, 1000, nil),
            (nil, 250, 1, 0, 31),
            (nil, 500, 1, 0, nil),
            (nil, 1, 1, 0, 41),
            (100, 350, 1, 1000, 21),
            (100, 350, 35, 1000, 31),
            // The clock was set back: nothing is old.
            (1, nil, 51, 0, nil),
        ] as [(UInt64?, UInt64?, UInt64, UInt64, UInt64?)])
    func rule(_ age: UInt64?, _ bytes: UInt64?, _ needed: UInt64, _ now: UInt64, _ beginning: UInt64?) {
        let retention = Retention(maxAge: age.map { $0 * Self.second }, maxBytes: bytes)
        #expect(retention.beginning(of: Self.pieces, needed: needed, now: now * Self.second) == beginning)
    }

    @Test("nothing goes from an empty log, nor from one of one piece") func few() {
        let retention = Retention(maxAge: 1, maxBytes: 1)
        #expect(retention.beginning(of: [], needed: 1, now: .max) == nil)
        #expect(retention.beginning(of: Array(Self.pieces.prefix(1)), needed: 100, now: .max) == nil)
    }

    /// A log of many segments, and where the fourth begins.
    private func filled(_ home: TestLog) throws -> (log: EventLog, fourth: UInt64) {
        let (log, _) = try home.open()
        for _ in 0..<60 { try TestLog.append(log, 10, size: 500) }
        return (log, log.pieces[3].first)
    }

    private var small: TestLog {
        var home = TestLog()
        home.segmentBytes = 64 << 10
        home.firstSegmentBytes = 64 << 10
        return home
    }

    @Test("trimmed events are told from missing ones, before and after a restart") func trimmed() throws {
        let home = small
        defer { home.remove() }
        let fourth: UInt64
        do {
            let (log, number) = try filled(home)
            fourth = number
            try log.trim(before: fourth)
            #expect(log.first == fourth && log.last == 600)
            #expect(throws: Trimmed(wanted: 1, first: fourth)) { try log.read(from: 1, bytes: 1) }
            #expect(throws: Trimmed(wanted: fourth - 1, first: fourth)) { try log.read(from: fourth - 1, bytes: 1) }
            #expect(try TestLog.readAll(log, from: fourth) == Array(fourth...600))
            #expect(try log.firstSeq(since: 0) == fourth)
            // A number where no segment begins removes nothing.
            try log.trim(before: fourth + 1)
            #expect(log.first == fourth)
            try TestLog.append(log, 1)
        }
        var settings = EventLog.Settings(directory: home.directory)
        settings.segmentBytes = home.segmentBytes
        let (again, recovered) = try EventLog.open(settings, durable: nil) { _ in KnownLog(first: fourth, epoch: 1) }
        #expect(recovered.damage.isEmpty && again.first == fourth && again.last == 601)
        // Nobody remembers: it is said, and what is there is served.
        let (unknown, assumed) = try EventLog.open(settings, durable: nil) { _ in nil }
        #expect(!assumed.isBeginningKnown && unknown.first == fourth && assumed.damage.isEmpty)
        // What is remembered to be there and is not, is missing.
        let (_, damaged) = try EventLog.open(settings, durable: nil) { _ in KnownLog(first: 1, epoch: 1) }
        #expect(damaged.damage.map { [$0.first, $0.last] } == [[1, fourth - 1]])
    }

    @Test("a bus that dies between noting and removing finishes at its next start, and one that dies before loses nothing")
    func interrupted() throws {
        for removed in 0...3 {
            let home = small
            defer { home.remove() }
            let (log, fourth) = try filled(home)
            let store = CursorStore(
                store: try .init(path: home.directory + "/state.sqlite", durability: .normal, migrations: CursorStore.migrations))
            try store.note(first: 1, epoch: log.epoch, stream: log.stream)
            try store.begin(at: fourth, epoch: log.epoch, stream: log.stream)
            for piece in log.pieces.prefix(removed) { try FileManager.default.removeItem(atPath: home.file(piece.first)) }
            var settings = EventLog.Settings(directory: home.directory)
            settings.segmentBytes = home.segmentBytes
            let (again, recovered) = try EventLog.open(settings, durable: nil) { try store.known(stream: $0) }
            #expect(again.first == fourth && again.last == 600 && recovered.damage.isEmpty, "\(removed) removed")
            #expect(try TestLog.readAll(again, from: fourth) == Array(fourth...600))
            #expect(!FileManager.default.fileExists(atPath: home.file(1)))
        }
    }

    @Test(
        "consumers hold what they need, groups by their floor; a live subscription that the cap passes gets LOST 410, the whole group, too")
    func passed() throws {
        let home = small
        defer { home.remove() }
        let (log, fourth) = try filled(home)
        var settings = Router.Settings(stream: log.stream, epoch: 3, host: "here")
        settings.retention = Retention(maxAge: 1)
        var router = Router(settings: settings, log: log, last: log.last, hash: log.hash) { EventID.fresh().text }
        let rights = Rights.parse(publish: [], subscribe: ["**"], call: [], serve: []).0
        router.setRights(["ada": rights], now: 0)
        var heard: [Frame] = []
        func say(_ router: inout Router, _ peer: String, _ frame: Frame) {
            router.receive(frame.encoded(), from: Data(peer.utf8), user: "ada", now: 0)
            for case .send(_, let data) in router.takeEffects() { if let frame = try? Frame(data) { heard.append(frame) } }
        }
        func subscribe(_ router: inout Router, _ peer: String, _ handle: UInt32, _ json: String) {
            say(&router, peer, Frame(.subscribe, handle: handle, body: Data(json.utf8)))
        }
        say(&router, "a", Frame(.hello, body: Data(#"{"client":"t"}"#.utf8)))
        say(&router, "b", Frame(.hello, body: Data(#"{"client":"t"}"#.utf8)))
        #expect(router.needed == 601)
        subscribe(&router, "a", 1, #"{"filters":["**"],"consumer":"one","credit_msgs":0,"from":{"seq":200}}"#)
        #expect(router.needed == 200)
        subscribe(&router, "a", 2, #"{"filters":["**"],"consumer":"team","mode":"group","credit_msgs":0,"from":{"seq":20}}"#)
        subscribe(&router, "b", 3, #"{"filters":["**"],"consumer":"team","mode":"group","credit_msgs":0}"#)
        subscribe(&router, "a", 4, #"{"filters":["**"],"credit_msgs":0,"from":{"seq":30}}"#)
        #expect(router.needed == 20)
        // Age alone removes nothing that somebody needs.
        #expect(router.trim(wall: .max).map { $0 <= 20 } ?? true)
        // The cap does.
        try log.trim(before: fourth)
        heard = []
        for (peer, handle) in [("a", 2), ("a", 4), ("a", 1)] as [(String, UInt32)] {
            say(&router, peer, Frame(.credit, handle: handle, a: 10, b: 1 << 20))
        }
        while router.deliver(messages: 10, now: 0) {}
        for case .send(_, let data) in router.takeEffects() { if let frame = try? Frame(data) { heard.append(frame) } }
        let lost = heard.filter { $0.known == .lost }
        #expect(Set(lost.map(\.handle)) == (fourth > 200 ? [1, 2, 3, 4] : [2, 3, 4]))
        #expect(lost.allSatisfy { $0.status == 410 && $0.b == fourth })
        #expect(lost.first { $0.handle == 2 }?.a == 20)
        // Where it was left is not there any more: it says so, and begins anew when it is told where.
        heard = []
        subscribe(&router, "a", 5, #"{"filters":["**"],"consumer":"team","mode":"group"}"#)
        #expect(heard.first?.known == .lost && heard.first?.status == 410 && heard.first?.b == fourth)
        heard = []
        subscribe(&router, "a", 5, #"{"filters":["**"],"consumer":"team","mode":"group","from":"first"}"#)
        #expect(heard.first?.known == .subscribed && heard.first?.a == fourth - 1)
    }
}

@Suite("Retention in the running bus", .serialized, .timeLimit(.minutes(3))) struct RetentionBusTests {
    @Test("a log that is too large is shortened, readers over HTTP are told, and a restart finds nothing wrong") func cap() async throws {
        let home = try BusHome(bus: "bus: {max_bytes: 16MiB, segment_bytes: 4MiB}\n")
        defer { home.remove() }
        let first = Locked<UInt64>(0)
        try await home.run { home in
            let fill = String(repeating: "x", count: 200_000)
            for round in 0..<15 {
                let list = (0..<10).map { #"{"type":"test.fill","subject":"x","data":{"n":\#(round * 10 + $0),"fill":"\#(fill)"}}"# }
                let file = home.config.home.path + "/body.json"
                try "[\(list.joined(separator: ","))]".write(toFile: file, atomically: true, encoding: .utf8)
                let answer = try await home.http("/v1/events", ["-H", "Content-Type: application/json", "--data-binary", "@\(file)"])
                #expect(answer.status == 202, "\(answer.body)")
            }
            let log = home.config.home.directory(.bus) + "/log"
            try await eventually("the log is within its limit") {
                try FileManager.default.contentsOfDirectory(atPath: log).filter { $0.hasSuffix(".log") }.count <= 4
            }
            let gone = try await home.http("/v1/events?since=2")
            #expect(gone.status == 410 && gone.body.contains("no longer kept"), "\(gone.body)")
            #expect(try await home.http("/v1/events/stream?since=2").status == 410)
            let kept = try await home.http("/v1/events?limit=1&since=1")
            let event = try Coding.decode([Envelope].self, from: Data(kept.body.utf8)).first
            first.withLock { $0 = event?.seq ?? 0 }
            #expect(event?.seq ?? 0 > 50)
        }
        try await home.run { home in
            let kept = try await home.http("/v1/events?limit=1")
            #expect(try Coding.decode([Envelope].self, from: Data(kept.body.utf8)).first?.seq == first.withLock { $0 })
        }
    }
}
