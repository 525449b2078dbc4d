import Contracts
import Foundation
import Kit

/// What of the bus can be set: `bus:` in suite.yml (docs/running.md), read by `BusSettings`.
struct BusConfig: Sendable {
    /// Where the log lies; with the default home `HOME/bus/log`.
    var logDirectory: String
    /// The bus's own directory, above the log's.
    var directory: String { (logDirectory as NSString).deletingLastPathComponent }
    /// Bytes of a segment file: `segment_bytes`. Default 64 MiB, 16 MiB on a disk of less than 16 GiB.
    var segmentBytes = 64 << 20
    /// Bytes of the very first one, which is filled with zeros while the bus starts. Default 4 MiB.
    var firstSegmentBytes = 4 << 20
    /// `max_age` and `max_bytes`.
    var retention = Retention()
    /// The address and port of the ZeroMQ socket. Port 0: any free one.
    var listen: String
    var port: Int
    /// A listening socket that was handed over; nil: bind.
    var descriptor: Int32?
    /// This machine's name.
    var host: String
    /// Nothing is acknowledged or delivered before a replica has it.
    var isSynchronous = false
    /// How files are reached; tests listen, and make it fail.
    var disk = Disk()
    /// Set: no CURVE, everybody is that client. See `BusComponent.services(_:unencryptedAs:)`.
    var unencryptedAs: String?

    init(logDirectory: String, listen: String, port: Int, host: String, descriptor: Int32? = nil) {
        self.logDirectory = logDirectory
        self.listen = listen
        self.port = port
        self.host = host
        self.descriptor = descriptor
    }

    /// Takes over what the file says. What it does not say follows from the size of the disk, in bytes.
    mutating func apply(_ settings: BusSettings, disk: Int?) {
        segmentBytes = settings.segmentBytes ?? (disk ?? .max < 16 << 30 ? 16 << 20 : 64 << 20)
        firstSegmentBytes = min(firstSegmentBytes, segmentBytes)
        // A log may not fill the disk that the apps live on, too.
        retention.maxBytes =
            switch settings.maxBytes {
            case nil: UInt64(min(20 << 30, disk.map { $0 / 4 } ?? 20 << 30))
            case .unlimited?: nil
            case .limit(let bytes)?: UInt64(bytes)
            }
        isSynchronous = settings.syncReplica
        if case .limit(let milliseconds)? = settings.maxAge { retention.maxAge = UInt64(milliseconds) * 1_000_000 }
    }
}
