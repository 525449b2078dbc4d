import ArgumentParser
import BusService
import Contracts
import Foundation
import Kit

/// Checks the log and its bookkeeping, while the bus is down; changes nothing.
struct Fsck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fsck", abstract: "Check every byte of the log and of its bookkeeping; the bus must be down.",
        discussion: "Exit code 0: clean. 1: damaged. 2: the bus is running, or the home is none. Nothing is changed.")
    @OptionGroup var options: ComponentOptions
    @Flag(help: "The report as JSON.")
    var json = false

    func run() async throws {
        do {
            let config = try SuiteConfig.load(options, environment: ProcessInfo.processInfo.environment)
            let report = try BusCheck.run(config)
            print(json ? String(decoding: try Coding.encode(report), as: UTF8.self) : report.text, terminator: json ? "\n" : "")
            if !report.isClean { throw ExitCode(1) }
        } catch let problem as Problem {
            StandardError.write("slipway-bus: \(problem.message)\n" + (problem.hint.map { "  hint: \($0)\n" } ?? ""))
            throw ExitCode(2)
        }
    }
}
