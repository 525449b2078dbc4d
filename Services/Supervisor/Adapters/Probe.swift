import AsyncHTTPClient
import Contracts
import Foundation

/// One look at whether an instance works.
struct Probe: Sendable {
    let client: HTTPClient

    /// A client that follows no redirect: where one leads is not the instance's health.
    static func makeClient() -> HTTPClient {
        var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
        configuration.timeout.connect = .seconds(1)
        configuration.httpVersion = .http1Only
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Nil when it passes, otherwise why not, for people.
    func problem(_ check: HealthSpec.Check, port: Int, timeout seconds: Double) async -> String? {
        switch check {
        case .running: return nil
        case .tcp: return await Ports.refusal(port, within: seconds)
        case .http(let path):
            var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path.hasPrefix("/") ? path : "/" + path)")
            request.headers.add(name: "User-Agent", value: "slipway-supervisor")
            request.headers.add(name: "Connection", value: "close")
            do {
                let response = try await client.execute(request, timeout: .milliseconds(Int64(max(1, seconds * 1000))))
                let status = response.status.code
                return (200..<400).contains(status) ? nil : "GET \(path) answered \(status)"
            } catch let error as HTTPClientError where error == .deadlineExceeded || error == .connectTimeout || error == .readTimeout {
                return "GET \(path) did not answer within \(seconds) s"
            } catch {
                return await Ports.refusal(port, within: seconds) ?? "GET \(path) failed: \(error)"
            }
        }
    }
}

/// What many looks come to.
///
///     while starting: as soon as `healthy` looks in a row pass ─▶ ready
///     afterwards: `unhealthy` failures in a row ─▶ unready; `healthy` passes in a row ─▶ ready again
struct ProbeCount: Sendable {
    /// Failures in a row that make a ready instance unready; a single slow answer does not.
    static let unhealthy = 3
    let healthy: Int
    private(set) var isReady: Bool
    private var passes = 0
    private var failures = 0

    init(healthy: Int, isReady: Bool) {
        self.healthy = max(1, healthy)
        self.isReady = isReady
    }

    /// True or false when this look changes what the instance is, nil when it does not.
    mutating func take(passed: Bool) -> Bool? {
        passes = passed ? passes + 1 : 0
        failures = passed ? 0 : failures + 1
        if !isReady, passes >= healthy {
            isReady = true
            return true
        }
        if isReady, failures >= Self.unhealthy {
            isReady = false
            return false
        }
        return nil
    }

    /// Seconds until the next look, for the `number`th (from 0): quick until the first that passes, so that a fast start is seen at
    /// once; from then on as often as was asked for, because `healthy` passes in a row are to say something.
    func pause(_ number: Int, interval: Double) -> Double {
        isReady || passes > 0 ? interval : min(interval, 0.1, 0.01 * Double(1 << min(number, 4)))
    }
}
