import ArgumentParser
import Contracts
import Foundation
import Kit

/// Git's credential helper (gitcredentials(7)): answers for the suite of its home, and for no other server.
struct GitCredential: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "git-credential", abstract: "Answer git's question for a password; git calls this itself.", shouldDisplay: false)
    @Argument(help: "get, store or erase.")
    var operation: String
    @OptionGroup var suite: SuiteOptions

    mutating func run() async throws {
        var asked: [String: String] = [:]
        while let line = readLine(), !line.isEmpty {
            guard let equals = line.firstIndex(of: "=") else { continue }
            asked[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
        // The token has its own place: nothing to store, nothing to erase.
        guard operation == "get" else { return }
        let client = try suite.client()
        guard let answer = Self.answer(asked, git: client.git, token: client.token) else { return }
        Terminal.out(answer)
    }

    /// Nil for any server but the one that `git` names.
    static func answer(_ asked: [String: String], git: String, token: String) -> String? {
        guard let parts = URLComponents(string: git), let scheme = parts.scheme, let host = parts.host, asked["protocol"] == scheme else {
            return nil
        }
        let port = parts.port.map { ":\($0)" } ?? ""
        var names = ["\(host)\(port)"]
        // One machine under two names.
        if host == "127.0.0.1" { names.append("localhost\(port)") }
        guard let wanted = asked["host"], names.contains(wanted) else { return nil }
        return "username=slipway\npassword=\(token)"
    }
}
