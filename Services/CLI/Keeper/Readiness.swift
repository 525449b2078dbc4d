import AsyncHTTPClient
import Contracts
import Foundation
import Kit

/// Whether the eight components can work, asked at their own HTTP.
enum Readiness {
    /// Asks every component each 25 ms until all have said yes. Returns why those that have not did not; empty: all are ready.
    /// `isOver` ends the wait early.
    static func wait(
        _ config: SuiteConfig, seconds: Double, isOver: @escaping @Sendable () -> Bool, progress: @escaping @Sendable (Int) -> Void
    )
        async -> [(Component, String)]
    {
        let deadline = ContinuousClock.now + .seconds(seconds)
        return await withTaskGroup(of: (Component, String?).self) { group in
            for component in Component.allCases {
                group.addTask {
                    var reason = "does not answer on port \(config.port(component))"
                    while ContinuousClock.now < deadline, !isOver() {
                        switch await ask(config, component) {
                        case .ready: return (component, nil)
                        case .notReady(let why): reason = why
                        case .silent: break
                        }
                        try? await Task.sleep(for: .milliseconds(25))
                    }
                    return (component, reason)
                }
            }
            var missing: [(Component, String)] = []
            var ready = 0
            for await (component, reason) in group {
                if let reason { missing.append((component, reason)) } else { ready += 1 }
                progress(ready)
            }
            return missing.sorted { $0.0.rawValue < $1.0.rawValue }
        }
    }

    enum Answer: Sendable {
        case ready, silent
        case notReady(String)
    }

    static func ask(_ config: SuiteConfig, _ component: Component) async -> Answer {
        let url = "http://\(config.reach):\(config.port(component))/ready"
        guard let response = try? await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(2)) else { return .silent }
        var data = Data()
        do {
            for try await buffer in response.body where data.count < 1 << 16 { data.append(contentsOf: buffer.readableBytesView) }
        } catch { return .silent }
        if response.status.code == 200 { return .ready }
        let detail = (try? Coding.decode(JSON.self, from: data))?["detail"]?.string
        return .notReady(Terminal.inert(detail ?? "answers \(response.status.code)", limit: 300))
    }
}
