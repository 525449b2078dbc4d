import Contracts

/// What can be set about the registry. Ports, home and host are the suite's.
struct RegistryConfig: Sendable, Equatable {
    /// Whether manifests, tags and blobs can be deleted. `SLIPWAY_REGISTRY_DELETE=on|off`, default on. Uploads can always be
    /// cancelled.
    var deletes = true
    /// Seconds after which an upload that does not grow is removed: a day.
    var uploadLife: Double = 86_400
    /// Bytes of the largest manifest: the 4 MiB that the specification asks a registry to take.
    var manifestLimit = 4 << 20

    /// Throws `Problem` (`configuration`) when a variable has a value that is not one of its own.
    init(environment: [String: String] = [:]) throws {
        switch environment["SLIPWAY_REGISTRY_DELETE"] {
        case nil, "on": deletes = true
        case "off": deletes = false
        case .some(let other):
            throw Problem(
                .configuration, "SLIPWAY_REGISTRY_DELETE=\(Problem.quote(other)): expected 'on' or 'off'", hint: "the default is 'on'")
        }
    }
}
