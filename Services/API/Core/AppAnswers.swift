import Contracts

/// Answers about apps, from the tables.
extension APIState {
    func appView(_ app: AppRow, git: String, holder: Principal) -> AppView {
        let live = environments.under(app.name.text)
        var names = OrderRules.environments(self, app.name)
        for row in live where !names.contains(row.name) { names.append(row.name) }
        return AppView(
            name: app.name, defaultBranch: app.defaultBranch, createdAt: app.createdAt, createdBy: app.createdBy,
            git: "\(git)/\(app.name).git", latestRelease: releases.under(app.name.text).last?.number,
            environments: names.filter { holder.environment == nil || holder.environment == $0 }.map { environmentView(app.name, $0) })
    }

    func environmentView(_ app: AppName, _ name: EnvName) -> EnvironmentView {
        let row = environments[Key.environment(app, name)]
        let newest = deployments.under("\(app)/\(name)").last
        let release = row.flatMap { releases[Key.release(app, $0.release)] }
        let isDeploying = newest.map { $0.finishedAt == nil } ?? false
        return EnvironmentView(
            name: name, state: isDeploying ? "deploying" : row == nil ? "empty" : "live", release: row?.release,
            version: row.map { "v\($0.release)" }, commit: row?.commit, title: release?.title, url: row?.url, since: row?.since,
            by: row.flatMap { orders[$0.order.text]?.by ?? deployments[Key.deployment($0.deployment)]?.by }, deployment: row?.deployment,
            instances: instanceViews(app, name), last: newest.map(DeploymentView.init))
    }

    func instanceViews(_ app: AppName?, _ environment: EnvName? = nil, _ service: ServiceName? = nil) -> [InstanceView] {
        instances.values
            .filter {
                (app == nil || $0.id.app == app) && (environment == nil || $0.id.environment == environment)
                    && (service == nil || $0.id.service == service)
            }
            .sorted {
                ($0.id.app, $0.id.environment, $0.id.service, $0.id.number) < ($1.id.app, $1.id.environment, $1.id.service, $1.id.number)
            }
            .map(InstanceView.init)
    }

    /// Newest first.
    func releaseViews(_ app: AppName, for holder: Principal) -> [ReleaseView] {
        let all = deployments.under(app.text).filter { holder.sees(app, $0.head.environment) }
        let live = environments.under(app.text).filter { holder.sees(app, $0.name) }
        return releases.under(app.text).reversed().map { row in
            var newest: [EnvName: DeploymentRow] = [:]
            for deployment in all where deployment.head.release == row.number { newest[deployment.head.environment] = deployment }
            return ReleaseView(
                app: row.app, number: row.number, version: "v\(row.number)", ref: row.ref, branch: row.ref.branch, commit: row.commit,
                title: row.title, author: row.author, pushedBy: row.pushedBy, run: row.run, bundle: row.bundle, createdAt: row.createdAt,
                live: live.filter { $0.release == row.number }.map(\.name),
                deployments: newest.values.sorted { $0.plannedAt < $1.plannedAt }.map(DeploymentView.init))
        }
    }

    /// What runs there and how it came there. Throws `Problem` (`not_found`) when nothing is live.
    func why(_ app: AppName, _ named: EnvName?, service: ServiceName?) throws -> WhyView {
        guard let environment = OrderRules.meant(self, app, named), let row = environments[Key.environment(app, environment)] else {
            let place = named.map { " in \($0)" } ?? ""
            throw Problem(.notFound, "nothing of \(app) is live\(place)", hint: "slipway releases \(app); slipway wait \(app)")
        }
        let release = releases[Key.release(app, row.release)]
        let deployment = deployments[Key.deployment(row.deployment)]
        let order = orders[row.order.text]
        let run = release.flatMap { runs[Key.run(app, $0.run)] }
        let shown = instanceViews(app, environment, service).filter { $0.release == nil || $0.release == row.release }
        let by = order?.by ?? deployment?.by
        let kind = deployment?.head.kind ?? .deploy
        let verb = kind == .rollback ? "rolled back to" : "deployed"
        let text =
            "\(app) in \(environment) runs v\(row.release), commit \(row.commit.short)"
            + (release.map { " \"\($0.title)\" by \($0.author ?? "an unknown author")" } ?? "")
            + (release?.pushedBy.map { ", pushed by \($0)" } ?? "")
            + "; \(verb) at \(row.since)" + (by.map { " on the order of \($0)" } ?? "")
        return WhyView(
            app: app, environment: environment, release: row.release, version: "v\(row.release)", commit: row.commit,
            title: release?.title, author: release?.author, ref: release?.ref, pushedBy: release?.pushedBy, pushedAt: release?.pushedAt,
            run: release?.run, builtHow: run?.jobs.map { "\($0.name): \($0.state)" } ?? [], releasedAt: release?.createdAt,
            deployment: row.deployment, kind: kind.rawValue, deployedAt: row.since, orderedBy: by, order: row.order,
            previous: deployment?.head.previous, url: row.url, bundle: release?.bundle, instances: shown, text: text)
    }
}
