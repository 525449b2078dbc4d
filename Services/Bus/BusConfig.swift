import Kit

/// What of the bus can be set. Next issue: keys in suite.yml for retention (`max_age`, `max_bytes`), ack levels and segment size.
struct BusConfig: Sendable {
    /// Where the log lies; with the default home `HOME/bus/log`.
    var logDirectory: String
    /// Bytes of a segment file. Default 64 MiB.
    var segmentBytes = 64 << 20
    /// Bytes of the very first one, which is filled with zeros while the bus starts. Default 4 MiB.
    var firstSegmentBytes = 4 << 20
    /// The address and port of the ZeroMQ socket. Port 0: any free one.
    var listen: String
    var port: Int
    /// A listening socket that was handed over; nil: bind.
    var descriptor: Int32?
    /// This machine's name.
    var host: String

    init(logDirectory: String, listen: String, port: Int, host: String, descriptor: Int32? = nil) {
        self.logDirectory = logDirectory
        self.listen = listen
        self.port = port
        self.host = host
        self.descriptor = descriptor
    }
}
