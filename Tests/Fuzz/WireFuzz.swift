import Contracts
import Foundation
import Wire

/// libFuzzer's entry: whatever the bytes are, the codec gives values or errors; and what it can read it writes back as it was.
///
/// The first byte chooses what is read, so that the corpus of one decoder does not get in the way of another's.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    let data = Data(bytes: start + 1, count: count - 1)
    switch start[0] % 12 {
    case 0:
        if let frame = try? Frame(data) { expect(frame.encoded() == data, "a frame") }
    case 1:
        for count: UInt64 in [0, 1, 2, 3, 16, 4097, .max] {
            // A topic or an id that is no UTF-8 is read as one that nobody may use.
            guard let list = try? Publication.decode(data, count: count) else { continue }
            expect((try? Publication.decode(Publication.encode(list), count: count)) == list, "publications")
        }
    case 2:
        if let list = try? Verdict.decode(data) { expect((try? Verdict.decode(Verdict.encode(list))) == list, "verdicts") }
    case 3:
        if let list = try? PublishException.decode(data) {
            expect((try? PublishException.decode(PublishException.encode(list))) == list, "exceptions")
        }
    case 4:
        if let list = try? Record.decodeAll(data) {
            var again = Data()
            for record in list { record.encode(into: &again) }
            expect((try? Record.decodeAll(again)) == list, "records")
        }
    case 5:
        if let body = try? RequestBody(data) { expect(body.encoded() == data, "a request") }
    case 6:
        if let body = try? CallBody(data) { expect(body.encoded() == data, "a call") }
    case 7: check(Hello.self, data)
    case 8: check(SubscribeBody.self, data)
    case 9: check(ServeBody.self, data)
    case 10: check(Position.self, data)
    default:
        let text = String(decoding: data, as: UTF8.self)
        let parts = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let filter = try? Filter(String(parts[0])) else { return 0 }
        expect(filter.contains(filter), "a filter lies inside itself")
        if parts.count > 1 { _ = filter.matches(String(parts[1])) }
    }
    return 0
}

/// JSON that is read once is read again as the same.
private func check<T: Codable & Equatable>(_ type: T.Type, _ data: Data) {
    guard let value = try? JSONDecoder().decode(type, from: data) else { return }
    guard let text = try? JSONEncoder().encode(value) else { return }
    let again = try? JSONDecoder().decode(type, from: text)
    expect(again == value, "\(type)")
}

private func expect(_ holds: Bool, _ what: String) {
    if !holds { fatalError("\(what) did not come back as it was") }
}
