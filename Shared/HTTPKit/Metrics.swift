import Synchronization

/// Numbers for Prometheus, in its text exposition format 0.0.4.
public final class Metrics: Sendable {
    private struct Series: Hashable {
        var name: String
        var labels: String
    }
    private let values = Mutex<(numbers: [Series: Double], counters: Set<String>)>(([:], []))
    private let source = Mutex<(@Sendable () async -> Void)?>(nil)
    public init() {}

    /// Adds to a counter; by custom its name ends in `_total`.
    public func add(_ name: String, _ value: Double = 1, labels: [(String, String)] = []) {
        let series = Series(name: name, labels: Self.text(labels))
        values.withLock {
            $0.numbers[series, default: 0] += value
            $0.counters.insert(name)
        }
    }
    /// Sets a counter to what was counted elsewhere.
    public func set(total name: String, _ value: Double, labels: [(String, String)] = []) {
        let series = Series(name: name, labels: Self.text(labels))
        values.withLock {
            $0.numbers[series] = value
            $0.counters.insert(name)
        }
    }
    /// Forgets a name with all its labels.
    public func remove(_ name: String) { values.withLock { $0.numbers = $0.numbers.filter { $0.key.name != name } } }

    /// What is to be called before each scrape, to set numbers that are only known when asked for.
    public func collect(_ body: @escaping @Sendable () async -> Void) { source.withLock { $0 = body } }
    func collected() async -> String {
        await source.withLock { $0 }?()
        return text
    }

    /// Sets a gauge.
    public func set(_ name: String, _ value: Double, labels: [(String, String)] = []) {
        let series = Series(name: name, labels: Self.text(labels))
        values.withLock { $0.numbers[series] = value }
    }

    public var text: String {
        let (numbers, counters) = values.withLock { $0 }
        var result = ""
        var last = ""
        for (series, value) in numbers.sorted(by: { ($0.key.name, $0.key.labels) < ($1.key.name, $1.key.labels) }) {
            if series.name != last {
                result += "# TYPE \(series.name) \(counters.contains(series.name) ? "counter" : "gauge")\n"
                last = series.name
            }
            let shown = value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
            result += "\(series.name)\(series.labels) \(shown)\n"
        }
        return result
    }

    private static func text(_ labels: [(String, String)]) -> String {
        guard !labels.isEmpty else { return "" }
        let pairs = labels.sorted { $0.0 < $1.0 }.map { name, value in
            "\(name)=\"\(value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n"))\""
        }
        return "{\(pairs.joined(separator: ","))}"
    }
}
