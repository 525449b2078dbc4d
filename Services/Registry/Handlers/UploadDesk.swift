import Contracts

/// Lets one request at a time work on an upload, and remembers the running digest between requests.
///
/// The digest is only a saving: when it is not here (after a restart, after a request that broke off) the file is hashed again.
actor UploadDesk {
    private var busy: Set<UploadID> = []
    private var hashers: [UploadID: ContentHasher] = [:]
    private let patience: Duration

    /// `patience`: how long a second request waits for the first, in case that one's connection has just died.
    init(patience: Duration = .seconds(5)) { self.patience = patience }

    /// Waits for the upload to be free and takes it. Throws `OCIError` (409) when the wait is too long.
    func take(_ id: UploadID) async throws -> ContentHasher? {
        let deadline = ContinuousClock.now + patience
        while busy.contains(id) {
            guard ContinuousClock.now < deadline else {
                throw OCIError(409, .uploadInvalid, "another request is writing to this upload; wait for its end")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        busy.insert(id)
        return hashers[id]
    }

    /// Gives the upload back. `hasher` covers all bytes of its file; nil when that is not known.
    func give(_ id: UploadID, _ hasher: ContentHasher?) {
        busy.remove(id)
        hashers[id] = hasher
    }

    func isBusy(_ id: UploadID) -> Bool { busy.contains(id) }

    /// Forgets uploads that are gone.
    func forget(_ ids: some Sequence<UploadID> & Sendable) { for id in ids where !busy.contains(id) { hashers[id] = nil } }
}
