import Foundation

/// What a program that has ended left behind.
public struct Finished: Sendable, CustomStringConvertible {
    public var status: Int32
    public var output: String
    public var errors: String
    /// Both streams, for a failing test's message.
    public var description: String { "exit \(status)\n\(output)\(errors)" }
}

/// Runs a program with an argument array, never through a shell, and collects what it prints. It is killed at the deadline.
@discardableResult
public func run(
    _ arguments: [String], in directory: String? = nil, environment: [String: String] = [:], input: String? = nil,
    within seconds: Double = 120
) async throws -> Finished {
    let process = try Background(arguments, in: directory, environment: environment, input: input)
    return try await process.finish(within: seconds)
}

/// A program that runs beside the test; its output can be looked at while it runs.
public final class Background: Sendable {
    private let process: ProcessBox
    private let output = Collected()
    private let errors = Collected()
    private let ended = Ended()
    private let name: String

    public init(_ arguments: [String], in directory: String? = nil, environment: [String: String] = [:], input: String? = nil) throws {
        name = arguments.joined(separator: " ")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        var variables = ProcessInfo.processInfo.environment
        variables["GIT_CONFIG_NOSYSTEM"] = "1"
        variables["GIT_CONFIG_GLOBAL"] = "/dev/null"
        variables["GIT_TERMINAL_PROMPT"] = "0"
        variables["GIT_AUTHOR_NAME"] = "Ada"
        variables["GIT_AUTHOR_EMAIL"] = "ada@example.org"
        variables["GIT_COMMITTER_NAME"] = "Ada"
        variables["GIT_COMMITTER_EMAIL"] = "ada@example.org"
        variables["SWIFT_BACKTRACE"] = "enable=no"
        for (key, value) in environment { variables[key] = value }
        process.environment = variables
        let out = Pipe()
        let err = Pipe()
        process.standardOutput = out
        process.standardError = err
        let inPipe = input.map { _ in Pipe() }
        process.standardInput = inPipe ?? FileHandle.nullDevice
        let ended = ended
        process.terminationHandler = { ended.set($0.terminationReason == .exit ? $0.terminationStatus : 128 + $0.terminationStatus) }
        try process.run()
        output.follow(out.fileHandleForReading)
        errors.follow(err.fileHandleForReading)
        if let inPipe, let input {
            inPipe.fileHandleForWriting.write(Data(input.utf8))
            try? inPipe.fileHandleForWriting.close()
        }
        self.process = ProcessBox(process)
    }

    /// What it has printed so far.
    public var text: String { output.text + errors.text }
    public var pid: Int32 { process.process.processIdentifier }
    public var isRunning: Bool { ended.status == nil }
    public func send(signal: Int32) { kill(pid, signal) }

    public func finish(within seconds: Double) async throws -> Finished {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ended.status == nil {
            guard ContinuousClock.now < deadline else {
                kill(pid, SIGKILL)
                throw TestFailure("'\(name)' did not end within \(seconds) s; it printed:\n\(text.suffix(4000))")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
        // The pipes may be held open by a child that lives on; what came until now is what counts.
        let drained = ContinuousClock.now + .milliseconds(500)
        while !(output.isClosed && errors.isClosed), ContinuousClock.now < drained { try await Task.sleep(for: .milliseconds(2)) }
        return Finished(status: ended.status ?? -1, output: output.text, errors: errors.text)
    }
}

public struct TestFailure: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// Waits until the condition holds, looking every 20 ms; throws with the last error when it does not in time.
public func eventually(
    within seconds: Double = 30, _ what: String = "the condition", _ condition: @Sendable () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + .seconds(seconds)
    var last: (any Error)?
    while ContinuousClock.now < deadline {
        do {
            if try await condition() { return }
            last = nil
        } catch {
            last = error
        }
        try await Task.sleep(for: .milliseconds(20))
    }
    throw TestFailure("\(what) did not come about within \(seconds) s\(last.map { ": \($0)" } ?? "")")
}

private final class ProcessBox: @unchecked Sendable {
    // Safe: set once before it is shared; afterwards only processIdentifier is read, which does not change.
    let process: Process
    init(_ process: Process) { self.process = process }
}

private final class Ended: @unchecked Sendable {
    // Safe: every access holds the lock.
    private let lock = NSLock()
    private var value: Int32?
    var status: Int32? { lock.withLock { value } }
    func set(_ status: Int32) { lock.withLock { value = status } }
}

private final class Collected: @unchecked Sendable {
    // Safe: every access holds the lock.
    private let lock = NSLock()
    private var data = Data()
    private var closed = false
    var text: String { lock.withLock { String(decoding: data, as: UTF8.self) } }
    var isClosed: Bool { lock.withLock { closed } }

    func follow(_ handle: FileHandle) {
        Thread.detachNewThread { [self] in
            while true {
                let piece = handle.availableData
                lock.withLock { if piece.isEmpty { closed = true } else { data.append(piece) } }
                if piece.isEmpty { return }
            }
        }
    }
}
