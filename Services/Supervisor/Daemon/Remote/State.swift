/// What a program hands to the one that takes its place: a struct of XML-RPC, read by the same strict reader as calls. Names that are not
/// known are passed over, and what is missing has a default, so that neighbouring versions understand each other.
struct State {
    private(set) var members: [(String, Value)] = []

    init() {}
    init(_ value: Value) { if case .structure(let members) = value { self.members = members } }

    subscript(_ name: String) -> Value? { members.first { $0.0 == name }?.1 }

    mutating func set(_ name: String, _ value: Value) { members.append((name, value)) }
    mutating func set(_ name: String, _ number: some BinaryInteger) { set(name, .int(Int(number))) }
    mutating func set(_ name: String, _ text: String?) { if let text { set(name, .bytes(Array(text.utf8))) } }
    mutating func set(_ name: String, _ flag: Bool) { if flag { set(name, .boolean(true)) } }
    mutating func set(_ name: String, _ list: [State]) { set(name, .array(list.map(\.value))) }

    var value: Value { .structure(members) }

    func int(_ name: String) -> Int? { if case .int(let number)? = self[name] { number } else { nil } }
    func int32(_ name: String) -> Int32? { int(name).flatMap { Int32(exactly: $0) } }
    /// Texts go as bytes: they may hold what XML does not.
    func text(_ name: String) -> String? { bytes(name).map { String(decoding: $0, as: UTF8.self) } }
    func bytes(_ name: String) -> [UInt8]? { if case .bytes(let bytes)? = self[name] { bytes } else { nil } }
    func flag(_ name: String) -> Bool { if case .boolean(let flag)? = self[name] { flag } else { false } }
    func list(_ name: String) -> [State] { if case .array(let items)? = self[name] { items.map { State($0) } } else { [] } }

    /// Whole, as a call that nobody makes.
    var encoded: [UInt8] {
        var writer = AnswerWriter()
        writer.put("<methodCall><methodName>resume</methodName><params><param>")
        writer.put(value)
        writer.put("</param></params></methodCall>")
        return writer.bytes
    }

    /// Throws `Complaint`.
    static func decode(_ bytes: [UInt8]) throws -> State {
        do throws(CallReader.Malformed) {
            let call = try CallReader.read(bytes)
            guard call.method == "resume", let value = call.parameters.first else {
                throw CallReader.Malformed(why: "it is something else")
            }
            return State(value)
        } catch { throw Complaint("the state that was handed over cannot be read: \(error.why)") }
    }
}
