import Contracts
import Hummingbird

/// Tags, referrers and repositories.
extension RegistryRoutes {
    func tags(of name: RepositoryName, _ call: Call) async throws -> Response {
        try allow(.pull, name, call)
        let page = try Paging(call.query, lastLimit: TagName.limit)
        // One more than asked for tells whether there is a next page.
        guard let found = try await store.tags(of: name, after: page.last, limit: page.limit + 1) else { throw OCIError.nameUnknown(name) }
        let shown = found.prefix(page.limit)
        return try .registry(
            200, next("/v2/\(name)/tags/list", page, shown.last, more: found.count > shown.count),
            json: .object(["name": .string(name.text), "tags": .array(shown.map { .string($0) })]))
    }

    func catalog(_ call: Call) async throws -> Response {
        let page = try Paging(call.query, lastLimit: RepositoryName.limit)
        let principal = call.principal
        let found = try await store.catalog(after: page.last, limit: page.limit + 1) { Access.allows(principal, .pull, $0) }
        let shown = found.prefix(page.limit)
        return try .registry(
            200, next("/v2/_catalog", page, shown.last, more: found.count > shown.count),
            json: .object(["repositories": .array(shown.map { .string($0) })]))
    }

    /// Never 404: a subject may be signed before it is pushed, and a repository that may not be read has no referrers to show.
    func referrers(to subject: Digest, in name: RepositoryName, _ call: Call) async throws -> Response {
        let type = call.query["artifactType"].flatMap { $0.isEmpty ? nil : $0 }
        let page = try Paging(call.query, lastLimit: 200)
        var found: [Referrer] = []
        if Access.allows(call.principal, .pull, name) {
            found = try await store.referrers(to: subject, in: name, artifactType: type, after: page.last, limit: page.limit + 1)
        }
        var weight = 0
        let fitting = found.prefix(page.limit).prefix { referrer in
            weight += referrer.weight
            return weight <= Referrer.pageWeight
        }
        let shown = fitting.isEmpty ? found.prefix(min(1, page.limit)) : fitting
        let extra = type.map { "&artifactType=\(Percent.encode($0))" } ?? ""
        var headers = next(
            "/v2/\(name)/referrers/\(subject)", page, shown.last?.digest, more: found.count > shown.count, extra: extra)
        if type != nil { headers.append(("OCI-Filters-Applied", "artifactType")) }
        return try .registry(200, headers, json: Referrer.index(Array(shown)), type: MediaType.ociIndex)
    }

    private func next(_ path: String, _ page: Paging, _ last: String?, more: Bool, extra: String = "") -> [(String, String)] {
        guard more, let last else { return [] }
        return [("Link", Paging.link(path, limit: page.limit, last: last, extra: extra))]
    }
}
