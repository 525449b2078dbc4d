import Contracts
import Foundation
import Kit

/// The git repository of the working directory, led to an app. Git is asked with argument lists; nothing goes through a shell.
struct GitRepository {
    let directory: String

    /// Nil when the working directory is in none, or git is not installed.
    static func here() -> GitRepository? {
        let directory = FileManager.default.currentDirectoryPath
        let repository = GitRepository(directory: directory)
        return (try? repository.git(["rev-parse", "--is-inside-work-tree"]))?.output == "true" ? repository : nil
    }

    /// Adds the remote and the credential helper for exactly that server; tells in lines what was done.
    func lead(to url: String, home: Home) throws -> [String] {
        var said: [String] = []
        let known = try git(["remote", "get-url", "slipway"])
        if known.status != 0 {
            guard try git(["remote", "add", "slipway", url]).status == 0 else {
                throw Problem(.failed, "git would not add the remote 'slipway'", hint: "git remote add slipway \(url)")
            }
            said.append("the remote 'slipway' leads to it")
        } else if known.output != url {
            guard Self.server(of: known.output) == Self.server(of: url) else {
                return [
                    "the remote 'slipway' leads to \(Terminal.inert(known.output)) and was left alone; to change it: git remote set-url slipway \(url)"
                ]
            }
            guard try git(["remote", "set-url", "slipway", url]).status == 0 else {
                throw Problem(.failed, "git would not change the remote 'slipway'")
            }
            said.append("the remote 'slipway', which led to \(Terminal.inert(known.output)), leads to it now")
        }
        if let server = Self.server(of: url) {
            let key = "credential.\(server).helper"
            // The empty value forgets helpers of wider reach, so that none of them stores the token.
            let helper = "!\(Shell.quoted(try Spawn.executable())) git-credential --home \(Shell.quoted(home.path))"
            guard try git(["config", "--local", "--replace-all", key, ""]).status == 0,
                try git(["config", "--local", "--add", key, helper]).status == 0
            else { throw Problem(.failed, "git would not take the credential helper") }
        }
        let branch = try git(["symbolic-ref", "--short", "HEAD"])
        said.append("next: git push slipway \(branch.status == 0 && !branch.output.isEmpty ? Terminal.inert(branch.output) : "main")")
        return said
    }

    /// `http://127.0.0.1:7704` of `http://127.0.0.1:7704/shop.git`.
    static func server(of url: String) -> String? {
        guard let parts = URLComponents(string: url), let scheme = parts.scheme, let host = parts.host, !host.isEmpty else { return nil }
        let shown = host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host
        return "\(scheme)://\(shown)" + (parts.port.map { ":\($0)" } ?? "")
    }

    private func git(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["git"] + arguments
        process.currentDirectoryURL = URL(fileURLWithPath: directory)
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        do { try process.run() } catch { throw Problem(.failed, "git cannot be started", hint: "install git") }
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
    }
}
