import Contracts
import HTTPKit
import HTTPTypes
import Hummingbird
import Kit
import Logging
import NIOCore

/// Git's smart HTTP (gitprotocol-http): discovery, fetch and push, each by stock git's own program.
struct SmartHTTP: Sendable {
    let access: Access
    let repositories: Repositories
    let processes: Turnstile
    let pushes: Pushes
    let config: GitConfig

    func install(_ routes: Routes) {
        routes.get("/:repository/info/refs", .custom) { request, context in try await advertise(request, context) }
        routes.post("/:repository/git-upload-pack", .custom) { request, context in try await fetch(request, context) }
        routes.post("/:repository/git-receive-pack", .custom) { request, context in
            routes.metrics.add("slipway_git_pushes_total")
            return try await push(request, context)
        }
    }

    private func advertise(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        guard let service = request.query("service").flatMap(GitService.init(rawValue:)) else {
            // Also asks for a token: what is served here is nobody's business without one.
            _ = try await access.admit(context, .read)
            throw Problem(.forbidden, "only git's smart HTTP is served here", hint: "use git 1.6.6 or later")
        }
        let (repository, _) = try await access.admit(context, service == .receivePack ? .push : .read)
        let path = try repositories.guardFiles(repository.id)
        let place = try await processes.enter(within: config.patience)
        var version = Grammar.protocolVersion(request.gitProtocol)
        let isV2 = version?.split(separator: ":").contains("version=2") == true
        if isV2, service == .receivePack { version = nil }
        let greeting = isV2 && service == .uploadPack ? [] : PktLine.text("# service=\(service.rawValue)\n") + PktLine.flush
        let (git, gitVersion) = (repositories.git, version)
        return answer("application/x-\(service.rawValue)-advertisement") { writer in
            defer { place.leave() }
            if !greeting.isEmpty { try await writer.write(ByteBuffer(bytes: greeting)) }
            let status = try await git.stream(
                .advertise(service, path), protocolVersion: gitVersion, input: { nil }, output: { try await writer.write($0) })
            guard status == 0 else { throw Problem(.failed, "git could not list the refs") }
            try await writer.finish(nil)
        }
    }

    private func fetch(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        let (repository, _) = try await access.admit(context, .read)
        try expect("application/x-git-upload-pack-request", request)
        let path = try repositories.guardFiles(repository.id)
        let body = try BodyReader(request, limit: Int64(config.maxFetchRequest))
        let place = try await processes.enter(within: config.patience)
        let (git, idle) = (repositories.git, Int(config.idle))
        let version = Grammar.protocolVersion(request.gitProtocol)
        return answer("application/x-git-upload-pack-result") { writer in
            defer { place.leave() }
            // A client that has seen enough ends upload-pack with an error of no interest; its answer is whole then too.
            _ = try await git.stream(
                .uploadPack(path, idle: idle), protocolVersion: version, input: { try await body.next() },
                output: { try await writer.write($0) })
            try await writer.finish(nil)
        }
    }

    private func push(_ request: Request, _ context: SlipwayContext) async throws -> Response {
        let (repository, principal) = try await access.admit(context, .push)
        try expect("application/x-git-receive-pack-request", request)
        let body = try BodyReader(request, limit: config.maxPush + Int64(config.maxPushHead))
        var head = PushHead()
        var seen: [ByteBuffer] = []
        var bytes = 0
        while head.isOpen, let piece = try await body.next() {
            bytes += piece.readableBytes
            head.take(piece.readableBytesView)
            seen.append(piece)
            guard !head.isOpen || bytes <= config.maxPushHead else { throw Problem(.tooLarge, "too many refs in one push") }
        }
        body.unread(seen)
        // A new tag cannot be one of them; git itself refuses to make what is there.
        let moved = head.commands.filter { !$0.old.utf8.allSatisfy { $0 == 0x30 } }.compactMap(\.ref)
        let kept = try await pushes.store.releaseTags(among: moved, in: repository.id)
        let tag = moved.first { kept.contains($0) }.map { "\($0) is the tag of a release, which is never moved or deleted" }
        if let reason = tag ?? head.refusal(options: config.maxPushOptions, bytes: config.maxPushOptionBytes) {
            let report = head.report(refusing: reason)
            return answer("application/x-git-receive-pack-result") { writer in
                // The client sends its pack before it reads.
                while try await body.next() != nil {}
                try await writer.write(ByteBuffer(bytes: report))
                try await writer.finish(nil)
            }
        }
        // One push after another, however long the one before takes; and who waits takes no place from others.
        let lock = try await repositories.locks.hold("repository \(repository.id)", within: config.pushPatience)
        let place = try await processes.enter(within: config.patience)
        let work = Pushes.Work(
            repository: repository, actor: principal.name, head: head, body: body,
            version: Grammar.protocolVersion(request.gitProtocol), places: [place, lock])
        let pushes = pushes
        return answer("application/x-git-receive-pack-result") { writer in
            try await pushes.carry(work) { try await writer.write(ByteBuffer(bytes: $0)) }
            try await writer.finish(nil)
        }
    }

    private func expect(_ type: String, _ request: Request) throws {
        guard request.headers[.contentType] == type else { throw Problem(.unsupportedMedia, "expected a body of type \(type)") }
    }

    private func answer(_ type: String, _ write: @escaping @Sendable (inout any ResponseBodyWriter) async throws -> Void) -> Response {
        var fields: HTTPFields = [:]
        fields[.contentType] = type
        fields[.cacheControl] = "no-cache, max-age=0, must-revalidate"
        fields[.expires] = "Fri, 01 Jan 1980 00:00:00 GMT"
        return Response(status: .ok, headers: fields, body: ResponseBody { writer in try await write(&writer) })
    }
}

extension Request {
    /// What git asks of the protocol, such as `version=2`.
    fileprivate var gitProtocol: String? { headers.first { $0.name.canonicalName == "git-protocol" }?.value }
}
