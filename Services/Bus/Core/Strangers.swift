/// How many connections have not shown a key yet, and whether more are to be taken.
///
/// Whoever says nothing is thrown out by libzmq after `HANDSHAKE_IVL`, but until then holds a descriptor. Beyond `most` of them
/// the bus stops listening until half of them are gone: those that it knows do not notice, and newcomers wait.
struct Strangers: Sendable {
    enum Step: Hashable, Sendable { case listen, rest }

    let most: Int
    /// Descriptors of all connections.
    private(set) var open: Set<Int32> = []
    private(set) var isListening = true

    init(most: Int) { self.most = most }

    mutating func accepted(_ descriptor: Int32) { open.insert(descriptor) }
    mutating func gone(_ descriptor: Int32) { open.remove(descriptor) }
    /// Keeps only those that are still open: for what nobody told of.
    mutating func keep(_ isOpen: (Int32) -> Bool) { open = open.filter(isOpen) }

    /// What is to be done now; `known`: connections with a session.
    mutating func step(known: Int) -> Step? {
        let count = open.count - known
        if isListening, count >= most {
            isListening = false
            return .rest
        }
        if !isListening, count <= most / 2 {
            isListening = true
            return .listen
        }
        return nil
    }
}
