/// Processes that are started, stopped and reread together.
final class ProcessGroup {
    let settings: Group
    private(set) var processes: [String: Process]
    /// By priority: the order of starting.
    private(set) var ordered: [Process]
    private(set) var byName: [Process]
    let pool: ListenerPool?

    /// `known`: processes that go on as they are.
    init(_ settings: Group, _ daemon: Daemon, keeping known: [Process] = []) {
        self.settings = settings
        ordered = settings.programs.map { program in
            known.first { $0.settings == program } ?? Process(program, in: settings.name, daemon)
        }
        processes = Dictionary(ordered.map { ($0.settings.name, $0) }) { _, last in last }
        byName = ordered.sorted { $0.settings.name < $1.settings.name }
        pool = settings.pool.map { ListenerPool(settings.name, $0, daemon) }
        for process in ordered where pool != nil {
            process.listener = ListenerState()
            process.pool = pool
        }
        pool?.processes = ordered
    }

    /// One takes the place of the other.
    func replace(_ old: Process, by new: Process) {
        processes[new.settings.name] = new
        ordered = ordered.map { $0 === old ? new : $0 }
        byName = byName.map { $0 === old ? new : $0 }
        pool?.processes = ordered
    }

    var name: String { settings.name }
    var isStopped: Bool { ordered.allSatisfy { $0.state.isStopped } }
}
