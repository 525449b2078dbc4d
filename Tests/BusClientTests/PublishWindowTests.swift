import Testing
import Wire

@testable import BusClient

@Suite("the window of an outbox") struct PublishWindowTests {
    func filled(_ numbers: ClosedRange<UInt64>, messages: Int = 100) -> PublishWindow {
        var window = PublishWindow(session: 1, messages: messages, bytes: 1000, settled: numbers.lowerBound - 1)
        for number in numbers { window.send(number, bytes: 10) }
        return window
    }

    @Test("what is acknowledged is settled, and makes room") func acknowledged() {
        var window = filled(1...4, messages: 4)
        #expect(window.room == 0)
        #expect(window.acknowledged(upTo: 3, []) == .init(settled: 3, refused: [], pause: false))
        #expect(window.room == 3)
    }

    @Test("bytes bound it as well, but one event always fits an empty window") func bytes() {
        var window = PublishWindow(session: 1, messages: 100, bytes: 50, settled: 0)
        #expect(window.fits(1000))
        window.send(1, bytes: 40)
        #expect(!window.fits(11))
        #expect(window.fits(10))
    }

    @Test("a duplicate is settled without being refused") func duplicate() {
        var window = filled(1...3)
        #expect(window.acknowledged(upTo: 3, [.init(number: 2, status: 208)]) == .init(settled: 3, refused: [], pause: false))
    }

    @Test("a permanent refusal concerns that event alone") func permanent() {
        var window = filled(1...3)
        let refusal = PublishException(number: 2, status: 403)
        #expect(window.acknowledged(upTo: 3, [refusal]) == .init(settled: 3, refused: [refusal], pause: false))
    }

    @Test("a temporary refusal holds back everything after it until all that is under way was answered") func temporary() {
        var window = filled(1...48)
        let first = (17...32).map { PublishException(number: $0, status: $0 == 17 ? 429 : 425) }
        #expect(window.acknowledged(upTo: 32, first) == .init(settled: 16, refused: [], pause: false))
        #expect(window.room == 0)
        let second = (33...48).map { PublishException(number: $0, status: 425) }
        #expect(window.acknowledged(upTo: 48, second) == .init(settled: 16, refused: [], pause: true))
        window.startAgain()
        #expect(window.sent == 16 && window.resume && window.room == 100)
        window.send(17, bytes: 10)
        #expect(!window.resume)
        #expect(window.acknowledged(upTo: 17, []) == .init(settled: 17, refused: [], pause: false))
    }

    @Test("a permanent refusal behind a temporary one is not final: it will be asked again") func mixed() {
        var window = filled(1...3)
        let decision = window.acknowledged(
            upTo: 3, [.init(number: 1, status: 507), .init(number: 2, status: 403), .init(number: 3, status: 425)])
        #expect(decision == .init(settled: 0, refused: [], pause: true))
    }

    @Test("an acknowledgement of more than was sent settles no more than was sent") func excess() {
        var window = filled(1...2)
        #expect(window.acknowledged(upTo: 900, []).settled == 2)
    }

    @Test("acknowledgements that come twice or go backwards change nothing") func backwards() {
        var window = filled(1...4)
        _ = window.acknowledged(upTo: 3, [])
        #expect(window.acknowledged(upTo: 2, []) == .init(settled: 3, refused: [], pause: false))
    }
}
