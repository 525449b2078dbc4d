import ArgumentParser
import Contracts
import Foundation
import Kit

/// Stops the suite of this home, and waits until all of it is gone.
struct Down: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "Stop the suite: the components, and the apps that it runs.")
    @OptionGroup var suite: SuiteOptions

    mutating func run() async throws {
        let home = try suite.config().home
        var found = false
        if let record = KeeperRecord.load(home) {
            if record.keeper.signal(SIGTERM) {
                found = true
                Terminal.progress("stopping …")
                guard record.keeper.wait(seconds: Keeper.stopSeconds + 20) else {
                    Terminal.endProgress()
                    throw Problem(
                        .timeout, "the suite has not stopped in \(Int(Keeper.stopSeconds + 20)) s",
                        hint: "see \(home.logs)/supervisor.log; slipway doctor")
                }
            } else if let supervisor = record.supervisor, supervisor.signal(SIGTERM) {
                // The keeper was killed; what it kept is still there.
                found = true
                Terminal.progress("stopping …")
                _ = supervisor.wait(seconds: Keeper.stopSeconds)
                KeeperRecord.remove(home)
            }
        }
        // Components that a killed supervisor left with nobody to look after them.
        for (signal, seconds) in [(SIGTERM, 15.0), (SIGKILL, 5.0)] {
            let left = Processes.components(of: home)
            guard !left.isEmpty else { break }
            found = true
            for mark in left { mark.signal(signal) }
            for mark in left { _ = mark.wait(seconds: seconds) }
        }
        Terminal.endProgress()
        Terminal.out(found ? "Slipway is stopped." : "Nothing of Slipway runs in \(home.path).")
    }
}
