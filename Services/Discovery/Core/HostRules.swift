import Contracts

/// Which host names a route may have.
enum HostRules {
    /// Why this app cannot have the name; nil: it can.
    static func refusal(_ host: String, for app: AppName) -> String? {
        let labels = host.split(separator: ".", omittingEmptySubsequences: false)
        guard !host.isEmpty, host.utf8.count <= 253 else { return "a host name has 1 to 253 characters" }
        for label in labels {
            guard !label.isEmpty, label.utf8.count <= 63 else { return "its parts have 1 to 63 characters each" }
            guard label.utf8.allSatisfy(isLabelByte) else { return "only a-z, 0-9, '-' and '.' (wildcards are not supported)" }
            guard label.first != "-", label.last != "-" else { return "no part may begin or end with '-'" }
        }
        // APP.localhost and ENV.APP.localhost are given by the suite, so nobody can ask for another app's.
        if labels.last == "localhost", labels.count < 2 || labels[labels.count - 2] != app.text {
            return "names under localhost belong to the app they name"
        }
        return nil
    }

    private static func isLabelByte(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2D
    }
}
