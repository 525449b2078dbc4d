import Contracts
import Foundation
import Kit

/// Where the supervisor keeps things, and the limits it works by. It has no key of its own in suite.yml yet: `trust` and the
/// ports come from the suite's settings.
struct SupervisorConfig: Sendable {
    let home: Home
    let host: HostName
    let trust: Trust
    /// Whether this process is root, so that pushed code can be given a user of its own.
    let isRoot: Bool

    init(_ suite: SuiteConfig) {
        home = suite.home
        host = suite.host
        trust = suite.trust
        isRoot = geteuid() == 0
    }

    /// For tests: what a process that is or is not root would do.
    init(home: Home = Home("/nowhere"), host: HostName, isRoot: Bool, trust: Trust) {
        self.home = home
        self.host = host
        self.isRoot = isRoot
        self.trust = trust
    }

    private var root: String { home.directory(.supervisor) }
    /// HOME/supervisor/bundles/APP/DIGEST: unpacked, read-only.
    func bundles(_ app: AppName) -> String { "\(root)/bundles/\(app)" }
    /// What an instance may write to: its HOME and TMPDIR.
    func room(_ instance: InstanceID) -> String { "\(root)/instances/\(instance.fileName)" }
    /// A job's checkout, HOME and TMPDIR.
    func room(_ job: JobID) -> String { "\(root)/jobs/\(job.fileName)" }
    var rooms: [String] { ["\(root)/bundles", "\(root)/instances", "\(root)/jobs"] }
    var appLogs: String { "\(home.logs)/apps" }
    func log(_ instance: InstanceID) -> String { "\(appLogs)/\(instance.fileName).log" }
    func log(_ job: JobID) -> String { "\(appLogs)/\(job.fileName).log" }
    func log(program: String) -> String { "\(home.logs)/\(program).log" }

    /// `root` or `single-user`, as `host.joined` tells it.
    var mode: String { isRoot ? "root" : "single-user" }
    /// Why pushed code may not run here; nil when it may.
    var refusal: String? {
        guard !isRoot, trust != .singleUser else { return nil }
        return "pushed code is not run: the suite does not run as root, so it cannot be confined "
            + "(run the suite as root, or set trust: single-user in suite.yml)"
    }

    /// User ids that systemd's dynamic users take too, so nobody's accounts; one for each app, for ever.
    static let users: Range<UInt32> = 61_184..<65_520
    /// Ports of instances, below the range from which Linux takes the near ends of outgoing connections.
    static let ports: Range<Int> = 20_000..<30_000
    static let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    /// Descriptors of an instance or a job that says nothing else.
    static let files = 4096
    /// A log file is rotated at this size in bytes; this many are kept.
    static let logSize: Int64 = 10 << 20
    static let logFiles = 3
    /// What one bundle or checkout may come to.
    static let archive = ArchiveLimits(entries: 200_000, bytes: 4 << 30, path: 1024)
    /// Seconds to wait for git or the registry to come back before a job or a start is given up.
    static let patience = 120.0
    /// Seconds from SIGTERM to the end of everything.
    static let shutdown = 13.0
}

/// What an archive may contain at most.
struct ArchiveLimits: Sendable {
    var entries: Int
    /// Of all contents together, unpacked.
    var bytes: Int64
    /// Length of one path in bytes.
    var path: Int
}
