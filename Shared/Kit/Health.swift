import Foundation
import Synchronization

/// Why a component is not able to work, by part. Nothing set: ready.
public final class Health: Sendable {
    private let problems = Mutex<[String: String]>([:])
    public init() {}

    /// Sets or (nil) clears the reason that a part gives.
    public func set(_ part: String, problem: String?) { problems.withLock { $0[part] = problem } }
    /// In the order of the parts' names.
    public var reasons: [String] { problems.withLock { all in all.keys.sorted().compactMap { key in all[key].map { "\(key): \($0)" } } } }
}

/// What this build is.
public enum Version {
    /// Semantic version of the suite.
    public static let text = "0.1.0"
    /// Versions of the contracts it speaks.
    public static let contracts = ["bus": 1, "events": 1, "http": 1]
}

extension Version {
    /// The commit this build was made from: SLIPWAY_COMMIT at start, which the build's installer sets; `unknown` otherwise.
    public static let commit = ProcessInfo.processInfo.environment["SLIPWAY_COMMIT"] ?? "unknown"
}
