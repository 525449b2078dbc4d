import CZeroMQ
import Contracts
import Foundation
import Kit
import Wire

/// The bus's clients as HOME/keys/clients.json has them: which key belongs to which name, and what it may do. Read again when the
/// file changes, so that a key made by `slipway key create` works at once.
final class KeyTable: Sendable {
    private struct State: Sendable {
        var stamp: Stamp?
        var users: [Data: UserID] = [:]
        var rights: [String: Rights] = [:]
        var names = Names()
        var complaints: [String] = []
        /// The file as it was when it could not be read.
        var unreadable: Stamp?
    }
    private struct Stamp: Sendable, Equatable {
        var seconds: Int
        var nanoseconds: Int
        var inode: UInt64
    }

    private let state = Locked(State())
    private let path: String
    private let load: @Sendable () throws -> [ClientKey]

    /// `path` is only looked at for changes; `load` reads it. Throws when the first reading fails.
    init(path: String, load: @escaping @Sendable () throws -> [ClientKey]) throws {
        self.path = path
        self.load = load
        try read(stamp())
    }

    var rights: [String: Rights] { state.withLock(\.rights) }
    /// Those who have a key, and the suite's components.
    var names: Names { state.withLock(\.names) }

    /// The file as it is: names, public keys and rights; no secrets.
    var file: Data { FileManager.default.contents(atPath: path) ?? Data() }

    /// Whom a public key (32 bytes) stands for.
    func user(of key: Data) -> UserID? {
        if let user = state.withLock({ $0.users[key] }) { return user }
        refresh()
        return state.withLock { $0.users[key] }
    }

    /// Reads the file if it has changed; true when it did. What is wrong with it is given once, by `takeComplaints`.
    @discardableResult
    func refresh() -> Bool {
        let now = stamp()
        guard now != state.withLock(\.stamp) else { return false }
        do {
            try read(now)
            return true
        } catch {
            // The keys known so far stay good; the file may be half-way through somebody's editor. Tried again, told once.
            state.withLock {
                if $0.unreadable != now { $0.complaints.append("the key file cannot be read: \(error)") }
                $0.unreadable = now
            }
            return false
        }
    }

    func takeComplaints() -> [String] {
        state.withLock { state in
            defer { state.complaints = [] }
            return state.complaints
        }
    }

    private func read(_ stamp: Stamp?) throws {
        var users: [Data: UserID] = [:]
        var rights: [String: Rights] = [:]
        var complaints: [String] = []
        let clients = try load()
        let names = Names(clients.map(\.name) + Component.allCases.map(\.rawValue))
        for client in clients {
            var key = [UInt8](repeating: 0, count: 32)
            guard client.publicKey.utf8.count == 40, zmq_z85_decode(&key, client.publicKey) != nil else {
                complaints.append("'\(client.name)' has no Z85 key of 40 characters")
                continue
            }
            var (parsed, unreadable) = Rights.parse(
                publish: client.publish, subscribe: client.subscribe, call: client.call, serve: client.serve, subjects: client.subject,
                consumers: client.consumers, ephemeralOnly: client.ephemeral_only ?? false, replicate: client.replicate ?? false)
            complaints.append(contentsOf: unreadable.map { "'\(client.name)': \(Problem.quote($0)) is no pattern and allows nothing" })
            parsed.key = client.publicKey
            parsed.name = client.name
            parsed.names = names
            users[Data(key)] = UserID(name: client.name, key: client.publicKey)
            rights[client.name] = parsed
        }
        state.withLock { $0 = State(stamp: stamp, users: users, rights: rights, names: names, complaints: $0.complaints + complaints) }
    }

    private func stamp() -> Stamp? {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        return Stamp(seconds: Int(info.st_mtim.tv_sec), nanoseconds: Int(info.st_mtim.tv_nsec), inode: UInt64(info.st_ino))
    }
}
