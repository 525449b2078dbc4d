/// Joins the lines that were read from a log with those that came live meanwhile: some are in both.
enum Overlap {
    /// How many of the first `live` lines are the last of `tail`.
    static func count(_ tail: [String], _ live: [String]) -> Int {
        var length = min(tail.count, live.count)
        while length > 0 {
            if tail.suffix(length).elementsEqual(live.prefix(length)) { return length }
            length -= 1
        }
        return 0
    }
}
