/// Says when the disk has too little room left for new events.
///
/// They are refused (507) before the disk is full, and publishers keep them: what is left is the reserve from which cursors are
/// written and consumers served, and from which the suite's other programs live meanwhile.
struct SpaceWatch: Sendable {
    /// Bytes below which events are refused: 5 % of the disk, at most 1 GiB.
    static func reserve(total: Int) -> Int { min(total / 20, 1 << 30) }

    private(set) var isFull = false

    /// True when that changed. Room counts again when there is a quarter more than the reserve, so that it does not go to and fro.
    mutating func look(free: Int, total: Int) -> Bool {
        let reserve = Self.reserve(total: total)
        let full = free < (isFull ? reserve + reserve / 4 : reserve)
        defer { isFull = full }
        return full != isFull
    }
}

extension Router {
    /// What is free on the log's disk, and its size, in bytes.
    mutating func look(free: Int, total: Int) {
        guard space.look(free: free, total: total) else { return }
        let reserve = SpaceWatch.reserve(total: total) >> 20
        effects.append(
            .note(
                .warning,
                space.isFull
                    ? "the log's disk is nearly full (\(free >> 20) MiB free, \(reserve) MiB are kept back): events are refused, and read"
                    : "there is room again on the log's disk: events are taken"))
    }
}
