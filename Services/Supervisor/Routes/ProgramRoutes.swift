import Contracts
import HTTPKit

/// `GET /v1/programs`: what runs on this host.
enum ProgramRoutes {
    static func add(to routes: Routes, _ query: ProgramsQuery) {
        routes.get("/v1/programs", .role(.viewer)) { _, context in
            var answer = try await query.answer()
            guard let holder = context.principal, holder.app != nil || holder.environment != nil else { return try .json(answer) }
            // Rights to one app show its instances; how the suite itself fares is for those whose rights reach all of it.
            answer.programs.removeAll { program in
                guard let instance = try? InstanceID(program.name) else { return true }
                return !holder.sees(instance.app, instance.environment)
            }
            answer.notes = []
            return try .json(answer)
        }
    }
}
