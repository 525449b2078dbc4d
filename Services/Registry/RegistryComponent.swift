import Contracts
import Foundation
import HTTPKit
import Kit
import ServiceLifecycle
import Storage

/// Makes the registry's objects and hands them to each other.
public enum RegistryComponent {
    /// The services to run, in the order in which they must be there. Throws `Problem` when the store or the settings are wrong.
    public static func services(_ boot: Boot) async throws -> [any Service] {
        try await services(boot, config: RegistryConfig(environment: ProcessInfo.processInfo.environment))
    }

    /// `authenticator` and `bound` are for tests: who is let in, and on which port it listens (port 0: a free one).
    static func services(
        _ boot: Boot, config: RegistryConfig, port: Int? = nil, authenticator: (any Authenticator)? = nil,
        bound: (@Sendable (Int) -> Void)? = nil
    ) async throws -> [any Service] {
        let store = RegistryStore(try boot.openStore(durability: .full, migrations: RegistrySchema.register), source: boot.source)
        let files = try BlobFiles(root: boot.directory)
        let desk = UploadDesk()
        let housekeeping = Housekeeping(
            store: store, files: files, desk: desk, config: config, now: { boot.now() }, logger: boot.logger)
        try await housekeeping.atStart()
        let server = HTTPServer(boot, port: port, authenticator: authenticator, errors: RegistryRoutes.errors, bound: bound) { routes in
            RegistryRoutes(
                store: store, files: files, desk: desk, config: config, metrics: routes.metrics, logger: boot.logger,
                now: { boot.now() }, changed: { boot.bus.outboxChanged() }
            ).install(in: routes)
        }
        return [server, housekeeping]
    }
}
