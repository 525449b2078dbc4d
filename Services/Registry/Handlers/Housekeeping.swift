import Contracts
import Logging
import ServiceLifecycle

/// Removes uploads that nobody ends, and names content whose file is gone.
struct Housekeeping: Service {
    let store: RegistryStore
    let files: BlobFiles
    let desk: UploadDesk
    let config: RegistryConfig
    let now: @Sendable () -> Timestamp
    let logger: Logger

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            await logging("could not check the stored content") { _ = try await nameMissing() }
            while !Task.isCancelled {
                try await Task.sleep(for: .seconds(3600))
                await logging("could not remove old uploads") { try await removeExpired() }
            }
        }
    }

    /// A failure here must not take the registry down; being stopped in the middle is none.
    private func logging(_ failure: Logger.Message, _ work: () async throws -> Void) async {
        do { try await work() } catch {
            if !Task.isCancelled { logger.error(failure, metadata: ["error": "\(error)"]) }
        }
    }

    /// To be called before requests are served: rows and files of uploads must agree. Whichever is alone is removed, because
    /// neither can be continued; then what has expired.
    func atStart() async throws {
        let files = files
        let known = try await store.allUploads()
        let onDisk = try await Disk.run { Set(files.uploads()) }
        for upload in known where !onDisk.contains(upload.id) { try await store.closeUpload(upload.id) }
        let orphans = onDisk.subtracting(known.map(\.id))
        try await Disk.run { for id in orphans { try files.remove(id) } }
        try await removeExpired()
    }

    /// Removes uploads whose file has not grown for as long as the configuration allows.
    func removeExpired() async throws {
        let limit = now().adding(seconds: -config.uploadLife)
        for upload in try await store.allUploads() {
            guard max(upload.created, files.touched(upload.id) ?? upload.created) < limit, await !desk.isBusy(upload.id) else { continue }
            // Taken, so that a late chunk cannot write to a file that is being removed.
            _ = try await desk.take(upload.id)
            do {
                try await store.closeUpload(upload.id)
                let files = files
                try await Disk.run { try files.remove(upload.id) }
                await desk.give(upload.id, nil)
            } catch {
                await desk.give(upload.id, nil)
                throw error
            }
            logger.info(
                "removed an upload that was not continued", metadata: ["repository": "\(upload.repository)", "upload": "\(upload.id)"])
        }
    }

    /// Names stored content whose file is missing or has another size. It answers as unknown until it is pushed again.
    func nameMissing() async throws -> [Digest] {
        var missing: [Digest] = []
        var last = ""
        while true {
            let page = try await store.content(after: last, limit: 500)
            guard let end = page.last else { break }
            last = end.digest.text
            let files = files
            let gone = try await Disk.run { page.filter { files.size($0.digest) != $0.size }.map(\.digest) }
            for digest in gone {
                let holders = try await store.holders(of: digest).map(\.text).joined(separator: " ")
                logger.error(
                    "stored content is missing or damaged; push it again",
                    metadata: ["digest": "\(digest)", "path": "\(files.path(digest))", "repositories": "\(holders)"])
            }
            missing += gone
        }
        return missing
    }
}
