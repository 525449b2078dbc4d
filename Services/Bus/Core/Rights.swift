import Wire

/// What a key may do, as patterns. Whatever no pattern allows is refused.
///
/// Next issue: patterns on subjects and sources, consumers' names, `ephemeral_only`.
struct Rights: Hashable, Sendable {
    var publish: [Filter]
    var subscribe: [Filter]
    var call: [Filter]
    var serve: [Filter]
    /// The public key that stands for the name, in Z85. When it changes, sessions that began with the old one are over.
    var key = ""

    /// A pattern that is none allows nothing; it is returned so that somebody is told.
    static func parse(publish: [String], subscribe: [String], call: [String], serve: [String]) -> (Rights, unreadable: [String]) {
        var unreadable: [String] = []
        func filters(_ texts: [String]) -> [Filter] {
            texts.compactMap { text in
                if let filter = try? Filter(text) { return filter }
                unreadable.append(text)
                return nil
            }
        }
        let rights = Rights(publish: filters(publish), subscribe: filters(subscribe), call: filters(call), serve: filters(serve))
        return (rights, unreadable)
    }

    func mayPublish(_ topic: String) -> Bool { publish.contains { $0.matches(topic) } }
    /// The filter must lie inside a pattern; to overlap is not enough.
    func maySubscribe(_ filter: Filter) -> Bool { subscribe.contains { $0.contains(filter) } }
    func mayCall(_ method: String) -> Bool { call.contains { $0.matches(method) } }
    func mayServe(_ service: String) -> Bool { serve.contains { $0.matches(service) } }
}
