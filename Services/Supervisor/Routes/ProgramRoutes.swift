import Contracts
import HTTPKit

/// `GET /v1/programs`: what runs on this host.
enum ProgramRoutes {
    static func add(to routes: Routes, _ query: ProgramsQuery) {
        routes.get("/v1/programs", .role(.viewer)) { _, _ in try .json(try await query.answer()) }
    }
}
