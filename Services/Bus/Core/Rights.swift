import Contracts
import Foundation
import Wire

/// What a key may do. Whatever is not granted is refused.
struct Rights: Hashable, Sendable {
    var publish: [Filter]
    var subscribe: [Filter]
    var call: [Filter]
    var serve: [Filter]
    /// Subjects that its events may be about; nil: any, also none.
    var subjects: [SubjectPattern]?
    /// Durable names that it may use; nil: any.
    var consumers: Set<String>?
    /// It may have no durable consumer at all.
    var isEphemeralOnly = false
    /// It may copy the log as a replica does.
    var mayReplicate = false
    /// Whose rights these are.
    var name = ""
    /// Whom events may be from, beside those who have no key.
    var names = Names()
    /// The public key that stands for the name, in Z85. When it changes, sessions that began with the old one are over.
    var key = ""

    /// A pattern that is none allows nothing; it is returned so that somebody is told.
    static func parse(
        publish: [String], subscribe: [String], call: [String], serve: [String], subjects: [String]? = nil, consumers: [String]? = nil,
        ephemeralOnly: Bool = false, replicate: Bool = false
    ) -> (Rights, unreadable: [String]) {
        var unreadable: [String] = []
        func read<Pattern>(_ texts: [String], _ make: (String) throws -> Pattern) -> [Pattern] {
            texts.compactMap { text in
                if let pattern = try? make(text) { return pattern }
                unreadable.append(text)
                return nil
            }
        }
        var rights = Rights(
            publish: read(publish, Filter.init), subscribe: read(subscribe, Filter.init), call: read(call, Filter.init),
            serve: read(serve, Filter.init))
        rights.subjects = subjects.map { read($0, SubjectPattern.init) }
        rights.consumers = consumers.map { Set($0) }
        rights.isEphemeralOnly = ephemeralOnly
        rights.mayReplicate = replicate
        return (rights, unreadable)
    }

    func mayPublish(_ topic: String) -> Bool { publish.contains { $0.matches(topic) } }
    /// The filter must lie inside a pattern; to overlap is not enough.
    func maySubscribe(_ filter: Filter) -> Bool { subscribe.contains { $0.contains(filter) } }
    func mayCall(_ method: String) -> Bool { call.contains { $0.matches(method) } }
    func mayServe(_ service: String) -> Bool { serve.contains { $0.matches(service) } }
    /// Whether it may read under that durable name.
    func mayUse(consumer: String) -> Bool { !isEphemeralOnly && consumers?.contains(consumer) ?? true }

    /// What of a running subscription these rights do not allow; nil: all is allowed.
    func lost(_ subscription: Subscription) -> String? {
        if let name = subscription.consumer?.name, !mayUse(consumer: name) { return "consumer \(name)" }
        return subscription.filters.first { !maySubscribe($0) }?.text
    }

    /// Whether `maySay` can refuse anything at all.
    var readsPayloads: Bool { subjects != nil || !names.isEmpty }

    /// Whether the CloudEvent in an event's payload is one that this key may publish: from itself or from nobody known, and
    /// about a subject that its patterns allow. What is no JSON object has neither, and is refused only where patterns are.
    func maySay(_ payload: UnsafeRawBufferPointer) -> Bool { Speech(self).allows(payload) }

    /// For people: what of a refused event was not allowed.
    func refusal(_ topic: String, _ payload: UnsafeRawBufferPointer) -> String {
        guard mayPublish(topic) else { return topic }
        var what: String?
        _ = PayloadScan.scan(payload) { member, value in
            let text = String(decoding: value.prefix(100), as: UTF8.self)
            switch member {
            case .source: if names.isAnother(value, than: name) { what = "source \(text)" }
            case .subject: if subjects?.contains(where: { $0.matches(value) }) == false { what = "subject \(text)" }
            }
            return what == nil
        }
        return "\(topic) with \(what ?? "no subject")"
    }
}

/// What of `Rights` is about an event's payload. An object, because it is asked for each event, and a copy of all rights a time costs
/// more than the question.
final class Speech: Sendable {
    private let name: String
    private let names: Names
    private let subjects: [SubjectPattern]?

    init(_ rights: Rights) {
        name = rights.name
        names = rights.names
        subjects = rights.subjects
    }

    /// See `Rights.maySay`.
    func allows(_ payload: UnsafeRawBufferPointer) -> Bool {
        var hasSubject = false
        let shape = PayloadScan.scan(payload) { member, value in
            switch member {
            case .source: return !names.isAnother(value, than: name)
            case .subject:
                hasSubject = true
                return subjects?.contains { $0.matches(value) } ?? true
            }
        }
        switch shape {
        case .refused: return false
        case .object: return hasSubject || subjects == nil
        case .opaque: return subjects == nil
        }
    }
}

/// Names that stand for somebody: those of the keys and of the suite's components. An event may not claim to be from another's.
struct Names: Hashable, Sendable {
    /// `git`, `supervisor@host2`.
    private var whole: Set<String> = []
    /// The same without what follows the `@`.
    private var bases: Set<String> = []
    /// Those of them that stand before an `@`.
    private var instantiated: Set<String> = []

    init() {}
    init(_ names: some Sequence<String>) {
        whole = Set(names)
        bases = Set(whole.map(Self.base))
        instantiated = Set(whole.filter { $0.contains("@") }.map(Self.base))
    }

    var isEmpty: Bool { whole.isEmpty }

    /// The name itself, without the host.
    private static func base(_ name: String) -> String { String(name.utf8.prefix { $0 != UInt8(ascii: "@") }) ?? name }

    /// Whether a CloudEvent's `source`, which is `NAME` or `NAME@host`, is somebody's, and not this one's.
    func isAnother(_ source: UnsafeRawBufferPointer, than own: String) -> Bool {
        let at = UInt8(ascii: "@")
        if instantiated.isEmpty || !instantiated.contains(own) {
            // The usual case, without making a text.
            let end = source.firstIndex(of: at) ?? source.count
            if end == own.utf8.count,
                own.utf8.withContiguousStorageIfAvailable({ own in
                    zip(own, source).allSatisfy { $0 == $1 }
                }) == true
            {
                return false
            }
        }
        return isAnother(String(decoding: source, as: UTF8.self), than: own)
    }

    func isAnother(_ source: String, than own: String) -> Bool {
        if source == own { return false }
        if whole.contains(source) { return true }
        let base = Self.base(source)
        return base != own && bases.contains(base)
    }
}
