/// Processes that are started, stopped and reread together.
final class ProcessGroup {
    let settings: Group
    let processes: [String: Process]
    /// By priority: the order of starting.
    let ordered: [Process]
    let byName: [Process]
    let pool: ListenerPool?

    init(_ settings: Group, _ daemon: Daemon) {
        self.settings = settings
        ordered = settings.programs.map { Process($0, in: settings.name, daemon) }
        processes = Dictionary(ordered.map { ($0.settings.name, $0) }) { _, last in last }
        byName = ordered.sorted { $0.settings.name < $1.settings.name }
        pool = settings.pool.map { ListenerPool(settings.name, $0, daemon) }
        for process in ordered where pool != nil {
            process.listener = ListenerState()
            process.pool = pool
        }
        pool?.processes = ordered
    }

    var name: String { settings.name }
    var isStopped: Bool { ordered.allSatisfy { $0.state.isStopped } }
}
