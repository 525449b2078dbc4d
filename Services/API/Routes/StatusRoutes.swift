import Contracts
import Foundation
import HTTPKit
import Hummingbird
import Kit

/// `/v1/status`: the eight components, hosts, programs and apps at a glance.
struct StatusRoutes: Sendable {
    let desk: Desk
    let caller: HTTPCaller

    struct ComponentView: Codable, Sendable {
        var name: String
        /// `ready`, `not ready`, or `down`: it does not answer.
        var state: String
        var ready: Bool
        var reason: String?
        var version: String?
        var commit: String?
        var port: Int
        var pid: Int32?
        var restarts: Int?
        var since: Timestamp?
    }
    struct Answer: Encodable {
        var version: String
        var host: HostName
        var ready: Bool
        var components: [ComponentView]
        var hosts: [HostRow]
        var programs: [ListPrograms.Program]
        /// What is missing on the hosts, for people.
        var notes: [String]
        var apps: [AppView]
        /// The number of the last event that these answers know of.
        var sequence: UInt64
    }

    func add(to routes: Routes) {
        routes.get("/v1/status", .role(.viewer)) { request, context in
            let holder = try context.holder()
            let git = desk.gitURL(request)
            async let probed = probe()
            var programs: [ListPrograms.Program] = []
            var notes: [String] = []
            do {
                let reply = try await desk.boot.bus.call(ListPrograms(), timeout: 3)
                programs = reply.programs
                notes = reply.notes
            } catch let problem as Problem {
                notes = ["the supervisor cannot be asked: \(problem.message)"]
            }
            var components = await probed
            for index in components.indices {
                guard let program = programs.first(where: { $0.name == components[index].name }) else { continue }
                components[index].pid = program.pid
                components[index].restarts = program.restarts
                components[index].since = program.since
            }
            // Rights to one app show that app, and that the platform is well, not what else runs here.
            if let app = holder.app { programs = programs.filter { $0.name.hasPrefix("\(app)/") } }
            let (hosts, apps, sequence) = try await desk.read { state in
                (
                    state.hosts.values,
                    state.apps.values.filter { holder.may(.viewer, app: $0.name) }.map { state.appView($0, git: git, holder: holder) },
                    state.position
                )
            }
            return try .json(
                Answer(
                    version: Version.text, host: desk.boot.config.host, ready: components.allSatisfy(\.ready), components: components,
                    hosts: hosts, programs: programs, notes: notes, apps: apps, sequence: sequence))
        }
    }

    /// Asks all eight at once.
    private func probe() async -> [ComponentView] {
        await withTaskGroup(of: ComponentView.self) { group in
            for component in Component.allCases { group.addTask { await probe(component) } }
            var views: [ComponentView] = []
            for await view in group { views.append(view) }
            return views.sorted { $0.name < $1.name }
        }
    }

    private func probe(_ component: Component) async -> ComponentView {
        struct About: Codable {
            var version: String
            var commit: String
        }
        struct Ready: Codable { var status: String }
        let port = desk.boot.config.port(component)
        let base = "http://\(desk.boot.config.reach):\(port)"
        var view = ComponentView(name: component.rawValue, state: "ready", ready: true, port: port)
        do {
            let about = try await caller.json(About.self, .GET, "\(base)/version", timeout: 2)
            view.version = about.version
            view.commit = about.commit
        } catch {
            view.state = "down"
            view.ready = false
            view.reason = "does not answer on port \(port)"
            return view
        }
        do {
            _ = try await caller.json(Ready.self, .GET, "\(base)/ready", timeout: 2)
        } catch {
            view.state = "not ready"
            view.ready = false
            view.reason = (error as? Problem)?.message ?? "does not say why"
        }
        return view
    }
}
