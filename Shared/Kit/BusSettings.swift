import Contracts

/// `bus:` in suite.yml: how much of its log the bus keeps.
public struct BusSettings: Sendable, Hashable {
    /// A value that may also be `none`.
    public enum Bound: Sendable, Hashable { case unlimited, limit(Int) }
    static let keys = ["max_age", "max_bytes", "segment_bytes"]

    /// Milliseconds after which events may go that every durable consumer has seen. Nil or `none`: age removes nothing.
    public var maxAge: Bound?
    /// Bytes beyond which the oldest events go in any case. Nil: a quarter of the disk, at most 20 GiB.
    public var maxBytes: Bound?
    /// Bytes of one file of the log. Nil: by the size of the disk.
    public var segmentBytes: Int?

    public init() {}

    init(_ file: SuiteFile) throws {
        let section = try file.section("bus", keys: Self.keys)
        if let text = try section.written("max_age") {
            guard let age = Self.duration(text) else {
                throw Problem(
                    .configuration, "\(section.place("max_age")): max_age \(Problem.quote(text)): expected a time of at least a minute",
                    hint: "for example 90d, 12h, 30m, or none")
            }
            maxAge = age
        }
        if let text = try section.written("max_bytes") {
            guard let bytes = Self.bytes(text), bytes.isAtLeast(16 << 20) else {
                throw Problem(
                    .configuration, "\(section.place("max_bytes")): max_bytes \(Problem.quote(text)): expected a size of at least 16MiB",
                    hint: "for example 20GiB, 512MiB, or none")
            }
            maxBytes = bytes
        }
        if let text = try section.written("segment_bytes") {
            guard case .limit(let bytes)? = Self.bytes(text), (1 << 20...1 << 30).contains(bytes) else {
                throw Problem(
                    .configuration,
                    "\(section.place("segment_bytes")): segment_bytes \(Problem.quote(text)): expected 1MiB to 1GiB",
                    hint: "for example 64MiB")
            }
            segmentBytes = bytes
        }
    }

    private static func number(_ text: String, _ units: [(String, Int)]) -> Int? {
        for (unit, factor) in units where text.hasSuffix(unit) {
            guard let value = Int(text.dropLast(unit.utf8.count)), value >= 0 else { return nil }
            let (result, overflow) = value.multipliedReportingOverflow(by: factor)
            return overflow ? nil : result
        }
        return nil
    }

    static func duration(_ text: String) -> Bound? {
        if text == "none" { return .unlimited }
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)]
        // Nanoseconds must fit as well.
        return number(text, units).flatMap { (60_000...9_000_000_000_000).contains($0) ? .limit($0) : nil }
    }

    static func bytes(_ text: String) -> Bound? {
        if text == "none" { return .unlimited }
        return number(text, [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1)]).map { .limit($0) }
    }
}

extension BusSettings.Bound {
    fileprivate func isAtLeast(_ least: Int) -> Bool {
        switch self {
        case .unlimited: true
        case .limit(let value): value >= least
        }
    }
}
