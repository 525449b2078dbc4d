import Contracts
import Foundation
import Logging
import NIOCore
import Subprocess
import Synchronization

/// Runs git: no shell, no configuration file, a process group of its own that ends as a whole.
struct Git: Sendable {
    let executable: String
    let config: GitConfig
    private let home: String
    private let settings: [(String, String)]
    private let logger: Logger

    /// How a command ended, with all it wrote.
    struct Output: Sendable {
        var status: Int32
        var bytes: Data
        var errors: String
        var text: String { String(decoding: bytes, as: UTF8.self) }
    }

    /// `directory` gets two empty directories that nobody can write to: git's home and its hooks.
    init(executable: String, directory: String, config: GitConfig, logger: Logger) throws {
        self.executable = executable
        self.config = config
        self.logger = logger
        home = "\(directory)/empty/home"
        let hooks = "\(directory)/empty/hooks"
        for path in [home, hooks] {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            for name in try FileManager.default.contentsOfDirectory(atPath: path) {
                logger.warning("something was put where nothing may be, and is removed", metadata: ["path": "\(path)/\(name)"])
                chmod(path, 0o700)
                try FileManager.default.removeItem(atPath: "\(path)/\(name)")
            }
            chmod(path, 0o500)
        }
        settings = GitEnvironment.settings(hooks: hooks, maxPush: config.maxPush)
    }

    /// Finds git and sees that it is new enough. Throws `Problem` (`configuration`).
    static func find(directory: String, config: GitConfig, logger: Logger) async throws -> Git {
        let places = ["/usr/bin/git", "/usr/local/bin/git", "/bin/git"]
        guard let path = places.first(where: { access($0, X_OK) == 0 }) else {
            throw Problem(.configuration, "git is not installed", hint: "install it: apt-get install git")
        }
        let git = try Git(executable: path, directory: directory, config: config, logger: logger)
        let text = try await git.run(.version()).text
        let numbers = text.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        // 2.36 has core.fsync and safe.directory=*; --http-backend-info-refs is older.
        guard numbers.count == 2, (numbers[0], numbers[1]) >= (2, 36) else {
            throw Problem(.configuration, "\(path) is \(Problem.quote(text)); 2.36 or later is needed", hint: "install a newer git")
        }
        return git
    }

    private func variables(_ command: GitCommand, _ version: String?) -> Environment {
        let all = GitEnvironment.variables(home: home, settings: settings, protocolVersion: version, extra: command.environment)
        return .custom(all.map { Array("\($0.key)=\($0.value)\0".utf8) })
    }

    private var platform: PlatformOptions {
        var options = PlatformOptions()
        options.processGroupID = 0
        options.teardownSequence = Self.teardown
        return options
    }
    private static let teardown: [TeardownStep] = [
        .send(signal: .terminate, toProcessGroup: true, allowedDurationToNextStep: .milliseconds(300))
    ]

    /// A short command to its end. Throws `Problem`: `too_large` when it writes more than `limit` bytes, `timeout` when it takes
    /// too long. Its exit status is the caller's to judge.
    func run(_ command: GitCommand, input: Data = Data(), limit: Int = 16 << 20) async throws -> Output {
        try await Deadline.within(config.commandTimeout, "git \(command.arguments.first { !$0.hasPrefix("-") } ?? "")") {
            do {
                let result = try await Subprocess.run(
                    .path(.init(executable)), arguments: Arguments(command.arguments), environment: variables(command, nil),
                    platformOptions: platform, input: .array(Array(input)), output: .bytes(limit: limit), error: .string(limit: 1 << 16))
                return Output(
                    status: Self.status(result.terminationStatus), bytes: Data(result.standardOutput), errors: result.standardError)
            } catch let error as SubprocessError where error.code == .outputLimitExceeded {
                throw Problem(.tooLarge, "git has more than \(limit) bytes to say")
            }
        }
    }

    /// The same, but throws `Problem` (`failed`) when it does not exit with 0.
    @discardableResult
    func check(_ command: GitCommand, input: Data = Data(), limit: Int = 16 << 20) async throws -> Output {
        let output = try await run(command, input: input, limit: limit)
        guard output.status == 0 else {
            let name = command.arguments.first { !$0.hasPrefix("-") } ?? "command"
            throw Problem(.failed, "git \(name) exited with status \(output.status): \(Problem.quote(output.errors))")
        }
        return output
    }

    private static func status(_ status: TerminationStatus) -> Int32 {
        switch status {
        case .exited(let code): code
        case .signaled(let signal): 128 + signal
        }
    }

    private enum Part: Sendable { case fed, errors([UInt8]), watched }

    /// A command that talks: what `input` gives is fed to it, what it writes goes to `output` at once. Ends with the exit status.
    ///
    /// Throws what `input` or `output` throw, and `Problem` (`timeout`) after `idle` seconds without progress on either side;
    /// then the whole process group is ended. A child that no longer reads is no error: the rest of the input is read and dropped.
    func stream(
        _ command: GitCommand, protocolVersion: String? = nil, idle: Double? = nil,
        input: @escaping @Sendable () async throws -> ByteBuffer?, output: (ByteBuffer) async throws -> Void
    ) async throws -> Int32 {
        let pulse = Pulse(limit: idle ?? config.idle)
        let result = try await Subprocess.run(
            .path(.init(executable)), arguments: Arguments(command.arguments), environment: variables(command, protocolVersion),
            platformOptions: platform, input: .inputWriter, output: .sequence, error: .sequence
        ) { execution -> [UInt8] in
            // What goes wrong beside the output must end the process, or its output would never end and nobody would look.
            @Sendable func orEnd(_ body: @Sendable () async throws -> Part) async throws -> Part {
                do {
                    return try await body()
                } catch {
                    if !(error is CancellationError) { await execution.teardown(using: Self.teardown) }
                    throw error
                }
            }
            do {
                return try await withThrowingTaskGroup(of: Part.self) { group in
                    group.addTask {
                        try await orEnd {
                            var open = true
                            while let chunk = try await input() {
                                pulse.beat()
                                guard open, chunk.readableBytes > 0 else { continue }
                                do {
                                    open =
                                        try await execution.standardInputWriter.write(Array(chunk.readableBytesView)) == chunk.readableBytes
                                } catch is SubprocessError {
                                    open = false
                                }
                            }
                            try await execution.standardInputWriter.finish()
                            return .fed
                        }
                    }
                    group.addTask {
                        var tail: [UInt8] = []
                        for try await buffer in execution.standardError {
                            tail += buffer.withUnsafeBytes { Array($0) }
                            if tail.count > 4096 { tail.removeFirst(tail.count - 4096) }
                        }
                        return .errors(tail)
                    }
                    group.addTask {
                        try await orEnd {
                            try await pulse.watch()
                            return .watched
                        }
                    }
                    for try await buffer in execution.standardOutput {
                        pulse.beat()
                        try await output(buffer.withUnsafeBytes { ByteBuffer(bytes: $0) })
                    }
                    var errors: [UInt8] = []
                    var left = 2
                    while left > 0, let part = try await group.next() {
                        switch part {
                        case .fed: left -= 1
                        case .errors(let tail):
                            errors = tail
                            left -= 1
                        case .watched: break
                        }
                    }
                    group.cancelAll()
                    return errors
                }
            } catch {
                await execution.teardown(using: Self.teardown)
                throw error
            }
        }
        let status = Self.status(result.terminationStatus)
        if status != 0 {
            // A refused push ends with 1 and says why on the side-band; the log is for the operator.
            logger.info(
                "git ended with an error",
                metadata: [
                    "command": "\(command.arguments.first { !$0.hasPrefix("-") } ?? "")", "status": "\(status)",
                    "said": "\(Problem.quote(String(decoding: result.closureResult.suffix(200), as: UTF8.self)))",
                ])
        }
        return status
    }
}

/// Notices that nothing moves any more.
final class Pulse: Sendable {
    private let last = Mutex(ContinuousClock.now)
    private let limit: Double
    init(limit: Double) { self.limit = limit }

    func beat() { last.withLock { $0 = .now } }
    /// Seconds since the last beat.
    var age: Double {
        let (seconds, attoseconds) = (ContinuousClock.now - last.withLock { $0 }).components
        return Double(seconds) + Double(attoseconds) / 1e18
    }

    /// Returns only by throwing: `timeout` after the limit, or the cancellation of its task.
    func watch() async throws {
        while true {
            try await Task.sleep(for: .seconds(max(0.05, min(5, limit / 4))))
            if age > limit { throw Problem(.timeout, "nothing moved for \(Int(limit)) seconds") }
        }
    }
}

/// A time limit around something that can be cancelled.
enum Deadline {
    static func within<T: Sendable>(_ seconds: Double, _ what: String, _ body: @escaping @Sendable () async throws -> T) async throws -> T {
        try await withThrowingTaskGroup(of: T.self) { group in
            group.addTask { try await body() }
            group.addTask {
                try await Task.sleep(for: .seconds(seconds))
                throw Problem(.timeout, "\(what) took more than \(Int(seconds)) seconds")
            }
            defer { group.cancelAll() }
            guard let first = try await group.next() else { throw CancellationError() }
            return first
        }
    }
}
