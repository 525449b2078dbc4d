import Contracts

/// What can be told about an order before it is given, so that a mistake is answered at once. The owner of the deed decides
/// again: this is kindness, not the gate.
enum OrderRules {
    /// Throws `Problem` when the release or environment is not there, or the holder's rights do not reach.
    static func check(
        _ state: APIState, _ app: AppName, environment: EnvName?, release: Int?, ref: String?, by holder: Principal
    ) throws {
        if release != nil, ref != nil {
            throw Problem(.invalid, "a deployment names a release or a ref, not both", hint: "leave one out")
        }
        if let ref, ref.isEmpty || ref.hasPrefix("-") || ref.utf8.count > 255 {
            throw Problem(.invalid, "ref \(Problem.quote(ref)): expected a branch, a tag or a commit")
        }
        if let release, state.releases[Key.release(app, release)] == nil {
            throw Problem(.notFound, "\(app) has no release v\(release)", hint: "slipway releases \(app)")
        }
        if release == nil, ref == nil, !state.releases.keys.contains(where: { $0.hasPrefix("\(app)/") }) {
            throw Problem(.notFound, "\(app) has no release yet", hint: "git push slipway main")
        }
        if let environment { try known(state, app, environment) }
        try reach(state, app, environment, by: holder)
    }

    /// Throws `Problem` when neither the newest release of the app nor anything that runs knows the environment.
    static func known(_ state: APIState, _ app: AppName, _ environment: EnvName) throws {
        var names = environments(state, app)
        for row in state.environments.under(app.text) where !names.contains(row.name) { names.append(row.name) }
        guard !names.isEmpty, !names.contains(environment) else { return }
        throw Problem(
            .notFound, "\(app) has no environment '\(environment)'", hint: "it has \(names.map(\.text).joined(separator: ", "))")
    }

    /// Throws `Problem` when neither the newest release of the app nor anything that runs knows the service.
    static func known(_ state: APIState, _ app: AppName, _ service: ServiceName) throws {
        guard let newest = state.releases.under(app.text).last, let declared = newest.services else { return }
        let names = Set(declared).union(state.instanceViews(app).map(\.service)).sorted()
        guard !names.contains(service) else { return }
        throw Problem(.notFound, "\(app) has no service '\(service)'", hint: "it has \(names.map(\.text).joined(separator: ", "))")
    }

    /// A token for one environment must name it, or the one that is meant must be it.
    static func reach(_ state: APIState, _ app: AppName, _ environment: EnvName?, by holder: Principal) throws {
        guard let own = holder.environment else { return }
        let meant = environment ?? environments(state, app).last
        guard meant == own else {
            throw Problem(.forbidden, "'\(holder.name)' reaches the environment \(own) only", hint: "add --env \(own)")
        }
    }

    /// First to last, as the newest release names them.
    static func environments(_ state: APIState, _ app: AppName) -> [EnvName] {
        state.releases.under(app.text).last?.environments ?? []
    }

    /// The environment that is meant when none is named: the only one with something live, else the last in the chain.
    static func meant(_ state: APIState, _ app: AppName, _ named: EnvName?) -> EnvName? {
        if let named { return named }
        let live = state.environments.under(app.text).map(\.name)
        if live.count == 1 { return live.first }
        return environments(state, app).last(where: { live.contains($0) }) ?? environments(state, app).last ?? live.last
    }
}
