import CSys
import Contracts
import Foundation
import Kit

/// Bundles on this host: HOME/supervisor/bundles/APP/DIGEST, unpacked once, owned by root, read by all instances of the app.
///
/// APP is a directory that only the app's own user can pass through.
actor Bundles {
    private let config: SupervisorConfig
    private let siblings: Siblings
    private var fetching: [String: Task<String, any Error>] = [:]

    init(config: SupervisorConfig, siblings: Siblings) {
        self.config = config
        self.siblings = siblings
    }

    /// The directory of a bundle, fetched from the registry and checked against its digest when it is not there yet.
    func directory(_ app: AppName, _ bundle: Digest, user: UInt32?) async throws -> String {
        let place = "\(config.bundles(app))/\(bundle.hex)"
        if access(place, F_OK) == 0 { return place }
        if let known = fetching[place] { return try await known.value }
        let task = Task { [config, siblings] in
            try await Siblings.patiently { try await Self.fetch(app, bundle, user: user, to: place, config, siblings) }
        }
        fetching[place] = task
        defer { fetching[place] = nil }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    private static func fetch(
        _ app: AppName, _ bundle: Digest, user: UInt32?, to place: String, _ config: SupervisorConfig, _ siblings: Siblings
    ) async throws -> String {
        let parent = config.bundles(app)
        guard mkdir(parent, 0o710) == 0 || errno == EEXIST else { throw Problem(.failed, "cannot make \(parent): \(Spawn.message(errno))") }
        if let user, chown(parent, 0, user) != 0 || chmod(parent, 0o710) != 0 {
            throw Problem(.failed, "cannot give \(parent) to the app's group: \(Spawn.message(errno))")
        }
        let layer = try await siblings.layer(app, bundle)
        let temporary = "\(parent)/.\(bundle.hex).\(UInt32.random(in: 0...UInt32.max))"
        guard mkdir(temporary, 0o755) == 0 else { throw Problem(.failed, "cannot make \(temporary): \(Spawn.message(errno))") }
        do {
            chmod(temporary, 0o755)
            try await Archive.unpack(to: temporary, owner: nil) { take in try await siblings.blob(app, layer) { try take($0) } }
            // Nothing is there under its final name before every byte has been checked.
            // And nothing is named before it is on the disk: a power cut must not leave an empty bundle that looks whole.
            let directory = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard directory >= 0 else { throw Problem(.failed, "cannot open \(temporary): \(Spawn.message(errno))") }
            let synced = csys_sync_filesystem(directory) == 0
            close(directory)
            guard synced else { throw Problem(.storageFull, "cannot sync \(temporary): \(Spawn.message(errno))") }
            guard rename(temporary, place) == 0 || access(place, F_OK) == 0 else {
                throw Problem(.failed, "cannot put the bundle in place: \(Spawn.message(errno))")
            }
            Files.syncDirectory(parent)
        } catch {
            Trash.remove(temporary)
            if let problem = error as? Problem, problem.code == .invalid || problem.code == .malformed || problem.code == .tooLarge {
                throw Problem(problem.code, "bundle \(problem.message)", hint: problem.hint)
            }
            throw error
        }
        return place
    }

    /// Removes bundles of an app that nothing here names any more, but for the newest few: a rollback to one of those is quicker, and
    /// the registry has them all.
    func prune(_ app: AppName, named: Set<Digest>) {
        let root = config.bundles(app)
        let kept = Set(named.map(\.hex))
        let all = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).filter { !$0.hasPrefix(".") }.map { name in
            var info = stat()
            return (name: name, made: lstat("\(root)/\(name)", &info) == 0 ? info.st_mtim.tv_sec : 0)
        }
        let old = all.filter { !kept.contains($0.name) }.sorted { ($0.made, $0.name) > ($1.made, $1.name) }
        for bundle in old.dropFirst(Self.spare) {
            // Under another name first: nobody may find it half gone.
            let doomed = "\(root)/.\(bundle.name).old"
            guard fetching["\(root)/\(bundle.name)"] == nil, rename("\(root)/\(bundle.name)", doomed) == 0 else { continue }
            Trash.remove(doomed)
        }
    }
    static let spare = 3

    /// Removes all bundles of an app.
    func forget(_ app: AppName) { Trash.remove(config.bundles(app)) }

    /// Removes what an earlier process left half unpacked.
    nonisolated func sweep() {
        let root = "\(config.home.directory(.supervisor))/bundles"
        for app in (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? [] {
            for name in (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/\(app)")) ?? [] where name.hasPrefix(".") {
                Trash.remove("\(root)/\(app)/\(name)")
            }
        }
    }
}
