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
        let config = try suite.config()
        let home = config.home
        var found = try stop(home)
        if !Processes.apps(of: home).isEmpty {
            // Keeper and supervisor were both killed. Only a supervisor knows how to stop what is left; it is given one for that.
            found = true
            Terminal.progress("stopping …")
            let lock = try HomeLock.take(home)
            let mark = try Up.startKeeper(config, lock)
            let deadline = ContinuousClock.now + .seconds(30)
            while ContinuousClock.now < deadline, mark?.isAlive == true {
                if KeeperRecord.load(home)?.keeper == mark, case .ready = await Readiness.ask(config, .supervisor) { break }
                try await Task.sleep(for: .milliseconds(25))
            }
            _ = try stop(home)
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
        let left = Processes.apps(of: home)
        guard left.isEmpty else {
            throw Problem(
                .failed,
                "these processes of apps or of the ingress could not be stopped: \(left.map { "\($0.pid)" }.joined(separator: ", "))",
                hint: "see \(home.logs)/supervisor.log")
        }
        KeeperRecord.remove(home)
        Terminal.out(found ? "Slipway is stopped." : "Nothing of Slipway runs in \(home.path).")
    }

    /// Stops what the keeper of the home keeps, and waits for its end. False: there is nobody to tell.
    private func stop(_ home: Home) throws -> Bool {
        guard let record = KeeperRecord.load(home) else { return false }
        if record.keeper.signal(SIGTERM) {
            Terminal.progress("stopping …")
            guard record.keeper.wait(seconds: Keeper.stopSeconds + 20) else {
                Terminal.endProgress()
                throw Problem(
                    .timeout, "the suite has not stopped in \(Int(Keeper.stopSeconds + 20)) s",
                    hint: "see \(home.logs)/supervisor.log; slipway doctor")
            }
            return true
        }
        // The keeper was killed; what it kept is still there.
        guard let supervisor = record.supervisor, supervisor.signal(SIGTERM) else { return false }
        Terminal.progress("stopping …")
        _ = supervisor.wait(seconds: Keeper.stopSeconds)
        return true
    }
}
