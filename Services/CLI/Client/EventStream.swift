import AsyncHTTPClient
import Contracts
import Foundation

/// Server-sent events as they come in (WHATWG HTML, 9.2).
struct EventStream: Sendable {
    struct Message: Sendable, Hashable {
        var id: String?
        var event: String?
        var data: String
    }
    let body: HTTPClientResponse.Body

    /// Hands over each message until `take` returns false. Returns false when it ended the stream itself, true when the server did.
    /// Throws `Problem` (`unavailable`) when the connection broke.
    func each(_ take: (Message) async throws -> Bool) async throws -> Bool {
        var parser = EventParser()
        do {
            for try await buffer in body {
                for message in parser.feed(buffer.readableBytesView) {
                    if message.event == "problem" { throw try Coding.decode(Problem.self, from: Data(message.data.utf8)) }
                    guard try await take(message) else { return false }
                }
            }
            return true
        } catch let problem as Problem {
            throw problem
        } catch let code as CancellationError {
            throw code
        } catch {
            throw Problem(.unavailable, "the connection to the api broke", hint: "slipway status")
        }
    }
}

/// Cuts bytes into messages.
struct EventParser {
    private var line: [UInt8] = []
    private var message = EventStream.Message(data: "")
    private var hasData = false

    mutating func feed(_ bytes: some Sequence<UInt8>) -> [EventStream.Message] {
        var found: [EventStream.Message] = []
        for byte in bytes {
            guard byte == UInt8(ascii: "\n") else {
                // A line is bounded by what the api sends: an event of at most 1 MiB.
                if line.count < 4 << 20 { line.append(byte) }
                continue
            }
            if line.last == UInt8(ascii: "\r") { line.removeLast() }
            if line.isEmpty {
                if hasData { found.append(message) }
                message = EventStream.Message(data: "")
                hasData = false
            } else {
                field(String(decoding: line, as: UTF8.self))
            }
            line.removeAll(keepingCapacity: true)
        }
        return found
    }

    private mutating func field(_ text: String) {
        guard let colon = text.firstIndex(of: ":") else { return }
        let name = text[..<colon]
        var value = text[text.index(after: colon)...]
        if value.first == " " { value.removeFirst() }
        switch name {
        case "id": message.id = String(value)
        case "event": message.event = String(value)
        case "data":
            message.data += (hasData ? "\n" : "") + value
            hasData = true
        default: break
        }
    }
}
