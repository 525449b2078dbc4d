import Foundation

/// Every setting of `git`, its default, unit and meaning. There is no key for them in `suite.yml` yet; tests set them.
public struct GitConfig: Sendable {
    /// Bytes of one push that are taken; git answers "pack exceeds maximum allowed size" beyond.
    public var maxPush: Int64 = 512 << 20
    /// Bytes of an (inflated) fetch request: wants and haves.
    public var maxFetchRequest = 16 << 20
    /// Bytes of the commands and options that stand before a pack.
    public var maxPushHead = 8 << 20
    /// Push options: how many, and bytes of all together.
    public var maxPushOptions = 100
    public var maxPushOptionBytes = 16 << 10
    /// Git processes that serve clients at a time, how many requests may wait for one, and seconds they wait.
    public var processes = max(4, ProcessInfo.processInfo.activeProcessorCount * 2)
    public var waiting = 256
    public var patience: Double = 30
    /// Seconds that a push waits for the ones before it into the same repository.
    public var pushPatience: Double = 600
    /// Seconds without any progress after which a transfer is ended. There is no limit on the whole of it.
    public var idle: Double = 300
    /// Seconds a short git command may take.
    public var commandTimeout: Double = 60
    /// Seconds without news after which a push stops telling its story; what it leads to goes on.
    public var storyPatience: Double = 900
    /// Seconds between two signs of life on a push that waits.
    public var heartbeat: Double = 5
    /// Files and bytes of a tree that is archived or checked out.
    public var maxFiles = 100_000
    public var maxTreeBytes: Int64 = 4 << 30
    /// Bytes of a file that `git.file` answers with.
    public var maxFile = 1 << 20

    public init() {}
}
