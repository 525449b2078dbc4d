import Kit

extension Nearest {
    /// `did you mean 'x'?`, or the whole choice when nothing is near.
    static func hint(_ text: String, among candidates: [String]) -> String {
        if let near = to(text, among: candidates) { return "did you mean '\(near)'?" }
        return candidates.isEmpty ? "there is none" : "there is: \(candidates.joined(separator: ", "))"
    }
}
