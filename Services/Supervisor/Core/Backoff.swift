/// How long to wait before a process that ended by itself is started again.
struct Backoff: Sendable {
    /// Seconds, by how many short lives it had in a row before this one; the last one counts for ever.
    let delays: [Double]
    /// A life of this many seconds wipes out the failures before it.
    let calm: Double

    /// For instances of apps.
    static let instances = Backoff(delays: [0.1, 0.5, 1, 2, 4, 8, 16, 30], calm: 30)
    /// For the suite's own programs: at once, then with a low ceiling.
    static let programs = Backoff(delays: [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5], calm: 10)

    /// For the bus, without which nothing moves.
    static let bus = Backoff(delays: programs.delays, calm: 1)

    /// The failures to count for a process that lived `seconds` after `failures` short lives, and the wait that follows.
    func next(failures: Int, lived seconds: Double) -> (failures: Int, delay: Double) {
        let counted = seconds >= calm ? 0 : failures
        return (counted + 1, delays[min(counted, delays.count - 1)])
    }
}
