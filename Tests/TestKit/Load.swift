import AsyncHTTPClient
import Foundation
import NIOCore

/// A steady stream of requests, each counted as answered with 200 or failed. Bounded in rate and time; loopback only.
public final class Load: Sendable {
    public struct Result: Sendable, CustomStringConvertible {
        public var sent = 0
        public var failures: [String] = []
        public var description: String { "\(sent) requests, \(failures.count) failed: \(Set(failures).sorted().prefix(5))" }
    }
    private let task: Task<Result, Never>

    /// Sends `rate` requests a second to the ingress of `platform` for `host` until `stop()`, five minutes at most.
    public init(_ platform: Platform, host: String, rate: Int = 200) {
        let url = "http://127.0.0.1:\(platform.ingressPort)/"
        task = Task {
            await withTaskGroup(of: String?.self) { group in
                var result = Result()
                let interval = Duration.nanoseconds(1_000_000_000 / rate)
                let start = ContinuousClock.now
                let end = start + .seconds(300)
                while !Task.isCancelled, ContinuousClock.now < end {
                    group.addTask {
                        // Not cancelled with the load: a request that was sent is waited for.
                        let answer = await Task.detached { await fetch(url, host: host, timeout: 10) }.value
                        return answer.status == 200 ? nil : "\(answer.status) \(answer.body.prefix(80))"
                    }
                    result.sent += 1
                    let next = start + interval * result.sent
                    try? await Task.sleep(until: next, clock: .continuous)
                }
                for await failure in group { if let failure { result.failures.append(failure) } }
                return result
            }
        }
    }

    /// Stops sending, waits for what is in flight, and tells how it went.
    public func stop() async -> Result {
        task.cancel()
        return await task.value
    }
}
