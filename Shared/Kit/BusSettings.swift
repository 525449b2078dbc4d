import Contracts

/// `bus:` in suite.yml: how much of its log the bus keeps, where it is, and who else keeps its log.
public struct BusSettings: Sendable, Hashable {
    /// A value that may also be `none`.
    public enum Bound: Sendable, Hashable { case unlimited, limit(Int) }
    static let keys = ["max_age", "max_bytes", "segment_bytes", "endpoints", "replica_of", "sync_replica", "copy_to"]

    /// Milliseconds after which events may go that every durable consumer has seen. Nil or `none`: age removes nothing.
    public var maxAge: Bound?
    /// Bytes beyond which the oldest events go in any case. Nil: a quarter of the disk, at most 20 GiB.
    public var maxBytes: Bound?
    /// Bytes of one file of the log. Nil: by the size of the disk.
    public var segmentBytes: Int?

    /// Where the bus is reached, in the order in which to try; such as `tcp://10.0.0.1:7710`. Empty: on this machine.
    public var endpoints: [String] = []
    /// Key file of the bus whose log this one copies until it is promoted.
    public var replicaOf: String?
    /// Nothing is acknowledged or delivered before a replica has it.
    public var syncReplica = false
    /// Directory into which finished segments of the log are copied, with the bookkeeping.
    public var copyTo: String?

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
        try readHosts(section)
    }

    private mutating func readHosts(_ section: SuiteFile) throws {
        endpoints = try section.texts("endpoints") ?? []
        for endpoint in endpoints {
            let port = endpoint.lastIndex(of: ":").flatMap { UInt16(endpoint[endpoint.index(after: $0)...]) }
            guard endpoint.hasPrefix("tcp://"), port != nil else {
                throw Problem(
                    .configuration, "\(section.place("endpoints")): endpoints: \(Problem.quote(endpoint))",
                    hint: "expected tcp://ADDRESS:PORT, such as tcp://10.0.0.1:7710")
            }
        }
        replicaOf = try section.text("replica_of")
        copyTo = try section.text("copy_to")
        for (key, value) in [("replica_of", replicaOf), ("copy_to", copyTo)] {
            guard value?.hasPrefix("/") ?? true else {
                throw Problem(
                    .configuration, "\(section.place(key)): \(key): \(Problem.quote(value ?? ""))",
                    hint: "give the path from the root: /…")
            }
        }
        switch try section.written("sync_replica") {
        case nil, "off": syncReplica = false
        case "required": syncReplica = true
        case let other?:
            throw Problem(
                .configuration, "\(section.place("sync_replica")): sync_replica \(Problem.quote(other))",
                hint: "it is 'required' or 'off'")
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
