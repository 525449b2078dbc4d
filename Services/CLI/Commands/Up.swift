import ArgumentParser
import Contracts
import Dispatch
import Foundation
import Kit

/// Starts the whole suite on this machine.
struct Up: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Start the suite here; print the console's URL and how to push.",
        discussion: "Without --detach it runs until Ctrl-C, which stops everything in order.")
    @OptionGroup var suite: SuiteOptions
    @Flag(help: "Return when all is ready, and leave the suite running.")
    var detach = false
    @Option(help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "level"))
    var logLevel: String?
    /// Set when `up --detach` starts itself again: the descriptor of the lock it has taken.
    @Option(help: .hidden)
    var keeperLock: Int32?

    static let readySeconds = 60.0

    mutating func run() async throws {
        let began = ContinuousClock.now
        let config = try suite.config(logLevel: logLevel)
        if let keeperLock { return try await keep(config, HomeLock.inherited(keeperLock)) }

        // Every refusal comes before anything is made.
        guard !HomeLock.isHeld(config.home) else { throw HomeLock.running(config.home) }
        if let left = KeeperRecord.load(config.home), left.isAlive, left.portBase != config.portBase {
            throw Problem(
                .conflict, "what a killed keeper left in \(config.home.path) still runs, on port base \(left.portBase)",
                hint: "slipway down first, or take it over: slipway up --port-base \(left.portBase)")
        }
        for component in Component.allCases { _ = try Spawn.sibling("slipway-\(component.rawValue)") }
        try Ports.check(config)
        try Files.makeDirectory(config.home.path, mode: 0o711)
        try Files.makeDirectory(config.home.run, mode: 0o700)
        let lock = try HomeLock.take(config.home)
        let token = try Keyring.prepare(config)
        try rememberPortBase(config)

        if detach {
            try await startDetached(config, lock, began, token)
        } else {
            try await runHere(config, lock, began, token)
        }
    }

    /// The remotes that apps are given name a port, so a base chosen at the first start holds for the next ones too.
    private func rememberPortBase(_ config: SuiteConfig) throws {
        guard config.portBase != 7700, !FileManager.default.fileExists(atPath: config.home.suiteFile) else { return }
        let text = "# Written at the first start; every key is in docs/running.md.\nport_base: \(config.portBase)\n"
        try Files.write(Data(text.utf8), to: config.home.suiteFile, mode: 0o600)
    }

    // MARK: In the foreground

    private func runHere(_ config: SuiteConfig, _ lock: HomeLock, _ began: ContinuousClock.Instant, _ token: String?) async throws {
        let keeper = Keeper(config: config, lock: lock)
        let signals = keeper.stopOnSignals(alsoHangup: true)
        try keeper.start()
        let missing = await ready(config) { keeper.hasEnded || keeper.failure != nil }
        if !keeper.hasEnded, keeper.failure == nil {
            if missing.isEmpty { greet(config, began, token) } else { report(missing, config) }
        }
        while !keeper.hasEnded { try await Task.sleep(for: .milliseconds(50)) }
        withExtendedLifetime(signals) {}
        if let failure = keeper.failure { throw failure }
        Terminal.out("Slipway is stopped.")
    }

    // MARK: Detached

    private func startDetached(_ config: SuiteConfig, _ lock: HomeLock, _ began: ContinuousClock.Instant, _ token: String?) async throws {
        let mark = try Self.startKeeper(config, lock)
        let isOver: @Sendable () -> Bool = { mark.map { !$0.isAlive } ?? true }
        // A suite whose keeper was killed is ready already; it has a keeper again only when this one has written itself down.
        let deadline = ContinuousClock.now + .seconds(Self.readySeconds)
        while !isOver(), KeeperRecord.load(config.home)?.keeper != mark, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(5))
        }
        let missing = await ready(config, isOver)
        guard !isOver() else {
            throw Problem(.failed, "the suite ended at once: \(Keeper.lastLine(config.home, "keeper"))", hint: "slipway doctor")
        }
        guard missing.isEmpty else {
            report(missing, config)
            throw ExitCode(1)
        }
        greet(config, began, token)
    }

    /// Starts the process that stays; nil when it has ended already.
    static func startKeeper(_ config: SuiteConfig, _ lock: HomeLock) throws -> ProcessMark? {
        let log = try Keeper.openLog(config.home, "keeper")
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer {
            close(log)
            close(null)
        }
        let pid = try Spawn(
            path: try Spawn.executable(), arguments: ["slipway", "up", "--keeper-lock", "3"] + Keeper.flags(config),
            environment: ProcessInfo.processInfo.environment, descriptors: [null, log, log, lock.descriptor]
        ).start()
        return ProcessMark(pid: pid)
    }

    /// The process that stays.
    private func keep(_ config: SuiteConfig, _ lock: HomeLock) async throws {
        // Passed on to this process, not to those that it starts.
        _ = fcntl(lock.descriptor, F_SETFD, FD_CLOEXEC)
        let keeper = Keeper(config: config, lock: lock)
        let signals = keeper.stopOnSignals(alsoHangup: false)
        try keeper.start()
        while !keeper.hasEnded { try await Task.sleep(for: .milliseconds(50)) }
        withExtendedLifetime(signals) {}
        if let failure = keeper.failure { throw failure }
    }

    // MARK: What people see

    private func ready(_ config: SuiteConfig, _ isOver: @escaping @Sendable () -> Bool) async -> [(Component, String)] {
        Terminal.progress("starting …")
        let missing = await Readiness.wait(config, seconds: Self.readySeconds, isOver: isOver) { count in
            Terminal.progress("starting … \(count) of \(Component.allCases.count) components ready")
        }
        Terminal.endProgress()
        return missing
    }

    private func report(_ missing: [(Component, String)], _ config: SuiteConfig) {
        Terminal.err("slipway: not ready after \(Int(Self.readySeconds)) s: \(missing.map(\.0.rawValue).joined(separator: ", "))")
        for (component, reason) in missing {
            Terminal.err("  \(component.rawValue): \(reason) (log: \(config.home.logs)/\(component.rawValue).log)")
        }
        Terminal.err("  hint: slipway doctor; to stop what runs: slipway down")
    }

    private func greet(_ config: SuiteConfig, _ began: ContinuousClock.Instant, _ token: String?) {
        let took = ContinuousClock.now - began
        let seconds = Double(took.components.seconds) + Double(took.components.attoseconds) / 1e18
        let tenths = Int((seconds * 10).rounded())
        let isDefaultHome = suite.home == nil
        let flags = isDefaultHome ? "" : " --home \(Shell.quoted(config.home.path))"
        Terminal.out(
            """
            \(Terminal.paint("Slipway is ready", .good)) (\(tenths / 10).\(tenths % 10) s)
              console  http://\(config.reach):\(config.port(.api))/
              apps     http://APP.localhost:\(config.ingressPort)/
              home     \(config.home.path)
            """)
        if let token {
            Terminal.out(
                """

                The operator's token, shown this once (the command line reads it from \(Keyring.operatorTokenFile(config))):
                  \(token)
                """)
        }
        Terminal.out(
            """

            To push an app, in its git repository:
              slipway app create NAME\(flags)
              git push slipway main
            """)
        Terminal.out(detach ? "\nTo stop:  slipway down\(flags)" : "\nCtrl-C stops everything.")
    }
}

/// Words for a POSIX shell: only for text that a person copies, and for git's credential helper, which git hands to one.
enum Shell {
    static func quoted(_ text: String) -> String {
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "/"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "="):
                    true
                default: false
                }
            }
        return isPlain ? text : "'" + text.replacing("'", with: "'\\''") + "'"
    }
}
