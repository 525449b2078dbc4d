import CSys
import Glibc

/// Changes the daemon for another version of itself while its programs run on: same process number, so they stay its children; their pipes,
/// the listening sockets and the lock stay open; what is known of them goes through a file in memory.
///
/// The new program is first run beside this one and asked whether it understands (`--check-resume`); only then does it take the place.
enum Reexec {
    static let version = 1

    /// Asks the new program, and becomes it. The answer comes only when that is not possible.
    static func begin(_ daemon: Daemon, _ refused: @escaping (String) -> Void, accepted: @escaping () -> Void) {
        if let why = obstacle(daemon) { return refused(why) }
        let program = path
        let fd = save(daemon)
        guard fd >= 0 else { return refused("no memory for the state: \(reason())") }
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        let words = [program] + daemon.arguments + ["--check-resume", "3"]
        let result = Spawner.start(
            program, words, environment: Environment.now, directory: nil, descriptors: [null, null, null, fd], user: nil, umask: nil,
            files: daemon.childFiles)
        close(fd)
        guard result.pid > 0 else { return refused("\(program) cannot be run: \(reason(result.error))") }
        close(result.pidfd)
        let limit = daemon.poller.after(20_000) { kill(result.pid, SIGKILL) }
        daemon.onEnd(of: result.pid) { [weak daemon] end in
            guard let daemon else { return }
            daemon.poller.cancel(limit)
            guard !end.by_signal, end.status == 0 else { return refused("\(program) does not understand the state of this one") }
            accepted()
            // Whoever asked has the answer by then.
            daemon.poller.after(50) { become(program, daemon, refused) }
        }
    }

    /// Why it cannot be done now.
    private static func obstacle(_ daemon: Daemon) -> String? {
        if daemon.isEnding { return "it is being shut down" }
        if daemon.isChanging { return "processes are being changed for new ones; try again when that is done" }
        do {
            var fresh = try SettingsReader.read(daemon.options.configuration)
            try daemon.options.apply(to: &fresh.daemon)
            guard Set(fresh.groups) == Set(daemon.groups.values.map(\.settings)) else {
                return "the configuration is not the one that runs; 'supervisorctl update' first"
            }
        } catch { return "\(error)" }
        return nil
    }

    private static func become(_ program: String, _ daemon: Daemon, _ refused: (String) -> Void) {
        // Much may have happened since it was asked.
        if let why = obstacle(daemon) { return refused(why) }
        daemon.pauseLooking(true)
        let fd = save(daemon)
        guard fd >= 0 else {
            daemon.pauseLooking(false)
            return refused("no memory for the state: \(reason())")
        }
        daemon.logger.info("becoming \(program)")
        let kept = daemon.descriptors + [fd]
        for fd in kept { _ = fcntl(fd, F_SETFD, 0) }
        var argv: [UnsafeMutablePointer<CChar>?] = ([program] + daemon.arguments + ["--resume", "\(fd)"]).map { strdup($0) } + [nil]
        execv(program, &argv)
        let why = reason()
        for fd in kept { _ = fcntl(fd, F_SETFD, FD_CLOEXEC) }
        for text in argv { free(text) }
        close(fd)
        daemon.pauseLooking(false)
        refused("\(program) cannot be run: \(why)")
    }

    /// The file that was started, or the one that has taken its place there.
    private static var path: String {
        var buffer = [CChar](repeating: 0, count: 4097)
        let count = readlink("/proc/self/exe", &buffer, 4096)
        let text = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.hasSuffix(" (deleted)") ? String(text.dropLast(10)) : text
    }

    /// A file in memory; negative with errno.
    private static func save(_ daemon: Daemon) -> Int32 {
        let fd = csys_memory_file("slipway-supervisord")
        guard fd >= 0 else { return -1 }
        let bytes = daemon.saved.encoded
        guard bytes.withUnsafeBytes({ Files.write(fd, $0) }) else {
            close(fd)
            return -1
        }
        return fd
    }

    /// What was handed over. Throws `Complaint`.
    static func load(_ fd: Int32) throws -> State {
        guard let bytes = Files.read(fd, at: 0, count: 1 << 30), !bytes.isEmpty else {
            throw Complaint("no state was handed over: \(reason())")
        }
        let state = try State.decode(bytes)
        guard let version = state.int("version"), version <= Self.version else {
            throw Complaint("the state is of version \(state.int("version") ?? 0), and this program knows up to \(Self.version)")
        }
        return state
    }
}
