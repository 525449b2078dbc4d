import Contracts
import Foundation
import Kit
import Logging
import Storage
import Synchronization
import Testing

@testable import RegistryService

@Suite("housekeeping") struct HousekeepingTests {
    /// A store and files in a directory of their own, and a clock that the test moves.
    struct Room: Sendable {
        let store: RegistryStore
        let files: BlobFiles
        let keeper: Housekeeping
        let clock: Clock
    }
    final class Clock: Sendable {
        private let offset = Mutex<Double>(0)
        var now: Timestamp { Timestamp.now().adding(seconds: offset.withLock { $0 }) }
        func advance(_ seconds: Double) { offset.withLock { $0 += seconds } }
    }

    func withRoom(_ body: (Room) async throws -> Void) async throws {
        let root = NSTemporaryDirectory() + "slipway-registry-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: root) }
        let files = try BlobFiles(root: root)
        let database = try Store(path: "\(root)/state.sqlite", durability: .normal, migrations: RegistrySchema.register)
        let store = RegistryStore(database, source: "registry@testhost")
        let clock = Clock()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let keeper = Housekeeping(
            store: store, files: files, desk: UploadDesk(), config: try RegistryConfig(), now: { clock.now }, logger: logger)
        try await body(Room(store: store, files: files, keeper: keeper, clock: clock))
    }

    func begin(_ room: Room) async throws -> UploadID {
        let id = UploadID.fresh()
        _ = try room.files.open(id, create: true)
        try await room.store.openUpload(
            Upload(id: id, repository: "a", principal: "dora", algorithm: .sha256, created: room.clock.now))
        return id
    }

    @Test("an upload that nobody continues is removed after a day, not before")
    func expiry() async throws {
        try await withRoom { room in
            let id = try await begin(room)
            room.clock.advance(23 * 3600)
            try await room.keeper.removeExpired()
            #expect(try await room.store.allUploads().map(\.id) == [id])
            room.clock.advance(2 * 3600)
            try await room.keeper.removeExpired()
            #expect(try await room.store.allUploads().isEmpty)
            #expect(room.files.uploads().isEmpty)
        }
    }

    @Test("at start, files without a row and rows without a file go")
    func halves() async throws {
        try await withRoom { room in
            let whole = try await begin(room)
            try room.files.remove(try await begin(room))
            _ = try room.files.open(UploadID.fresh(), create: true)
            try await room.keeper.atStart()
            #expect(try await room.store.allUploads().map(\.id) == [whole])
            #expect(room.files.uploads() == [whole])
        }
    }

    @Test("content whose file is missing or has another size is named")
    func missing() async throws {
        try await withRoom { room in
            let name = try RepositoryName("a")
            var digests: [Digest] = []
            for text in ["good", "gone", "short"] {
                let bytes = Array(text.utf8)
                let digest = try Digest(ContentHasher.digestText(bytes, .sha256))
                try room.files.store(bytes, as: digest)
                try await room.store.commitBlob(digest, size: Int64(bytes.count), to: name, upload: nil, now: room.clock.now)
                digests.append(digest)
            }
            try FileManager.default.removeItem(atPath: room.files.path(digests[1]))
            try Data("x".utf8).write(to: URL(fileURLWithPath: room.files.path(digests[2])))
            #expect(Set(try await room.keeper.nameMissing()) == [digests[1], digests[2]])
        }
    }

    @Test("only 'on' and 'off' switch deletion")
    func settings() throws {
        #expect(try RegistryConfig(environment: [:]).deletes)
        #expect(try !RegistryConfig(environment: ["SLIPWAY_REGISTRY_DELETE": "off"]).deletes)
        #expect { try RegistryConfig(environment: ["SLIPWAY_REGISTRY_DELETE": "no"]) } throws: { ($0 as? Problem)?.code == .configuration }
    }
}
