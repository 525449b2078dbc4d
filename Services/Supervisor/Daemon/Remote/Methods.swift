import Glibc

/// An answer that may come later.
typealias Reply = (Result<Value, Fault>) -> Void

/// One method of the remote interface.
struct Method: Sendable {
    /// The result's type, then those of the parameters.
    var signature: [String]
    /// So many parameters at the end may be left out.
    var optional = 0
    var help: String
    /// Answers at once, or nil and later through the reply. Throws `Fault`.
    var run: @Sendable (Remote, [Value], @escaping Reply) throws -> Value?
}

/// What is asked of the daemon from outside.
final class Remote {
    static let apiVersion = "3.0"
    /// The release of supervisord whose interface this is.
    static let supervisorVersion = "4.2.5"
    static let mostCalls = 10_000
    unowned let daemon: Daemon

    init(_ daemon: Daemon) { self.daemon = daemon }

    /// Calls `reply` exactly once.
    func call(_ call: MethodCall, _ reply: @escaping Reply) {
        do {
            if call.method == "system.multicall" { return try multicall(call.parameters, reply) }
            guard let method = Self.methods[call.method] else { throw Fault(.unknownMethod) }
            if daemon.isEnding, !call.method.hasPrefix("system.") { throw Fault(.shutdownState) }
            try check(call.parameters, method, call.method)
            if let value = try method.run(self, call.parameters, reply) { reply(.success(value)) }
        } catch let fault as Fault {
            reply(.failure(fault))
        } catch {
            reply(.failure(Fault(.failed, "\(error)")))
        }
    }

    private func check(_ parameters: [Value], _ method: Method, _ name: String) throws {
        let most = method.signature.count - 1
        guard (most - method.optional...most).contains(parameters.count) else { throw Fault(.incorrectParameters) }
        for (index, (parameter, type)) in zip(parameters, method.signature.dropFirst()).enumerated() {
            switch (type, parameter) {
            case ("string", .string), ("int", .int), ("boolean", .boolean), ("array", .array), ("boolean", .int): continue
            // What scripts in Python get away with: a signal by its number, bytes for a text.
            case ("string", .int) where name.hasPrefix("supervisor.signal") && index == most - 1: continue
            case ("string", .bytes) where name == "supervisor.sendProcessStdin" && index == 1: continue
            default: throw Fault(.incorrectParameters, "parameter \(index + 1) of \(name) is no \(type)")
            }
        }
    }

    /// One after the other, each with its answer or its fault.
    private func multicall(_ parameters: [Value], _ reply: @escaping Reply) throws {
        guard parameters.count == 1, case .array(let calls) = parameters[0] else { throw Fault(.incorrectParameters) }
        guard calls.count <= Self.mostCalls else { throw Fault(.incorrectParameters, "more than \(Self.mostCalls) calls in one") }
        var results: [Value] = []
        var next = 0
        func goOn() {
            while next < calls.count {
                let item = calls[next]
                next += 1
                var hasReturned = false
                var isDone = false
                one(item) { result in
                    switch result {
                    case .success(let value): results.append(value)
                    case .failure(let fault): results.append(fault.value)
                    }
                    isDone = true
                    if hasReturned { goOn() }
                }
                hasReturned = true
                if !isDone { return }
            }
            reply(.success(.array(results)))
        }
        goOn()
    }

    private func one(_ item: Value, _ reply: @escaping Reply) {
        guard case .structure(let members) = item, case .string(let name) = members.first(where: { $0.0 == "methodName" })?.1 ?? .none
        else {
            return reply(.failure(Fault(.incorrectParameters, "No methodName")))
        }
        guard name != "system.multicall" else {
            return reply(.failure(Fault(.incorrectParameters, "Recursive system.multicall forbidden")))
        }
        var parameters: [Value] = []
        if let given = members.first(where: { $0.0 == "params" })?.1 {
            guard case .array(let list) = given else { return reply(.failure(Fault(.incorrectParameters, "params is no array"))) }
            parameters = list
        }
        call(MethodCall(method: name, parameters: parameters), reply)
    }

    // MARK: names

    /// `name`, `group:name`, `group:*`.
    private func split(_ text: String) -> (group: String, process: String?) {
        guard let (group, process) = text.halves(at: ":") else { return (text, text) }
        return (group, process.isEmpty || process == "*" ? nil : process)
    }

    private func find(_ text: String) throws -> (ProcessGroup, Process?) {
        let (name, process) = split(text)
        guard let group = daemon.groups[name] else { throw Fault(.badName, text) }
        guard let process else { return (group, nil) }
        guard let found = group.processes[process] else { throw Fault(.badName, text) }
        return (group, found)
    }

    private func process(_ text: String) throws -> Process {
        guard let process = try find(text).1 else { throw Fault(.badName, text) }
        return process
    }

    private func group(_ name: String) throws -> ProcessGroup {
        guard let group = daemon.groups[name] else { throw Fault(.badName, name) }
        return group
    }

    // MARK: starting and stopping

    private func start(_ text: String, wait: Bool, _ reply: @escaping Reply) throws -> Value? {
        let (group, process) = try find(text)
        guard let process else { return each(group.ordered, { !$0.state.isRunning }, reply) { try self.start($0, $1, wait: wait, $2) } }
        return try start(process, text, wait: wait, reply)
    }

    private func start(_ process: Process, _ name: String, wait: Bool, _ reply: @escaping Reply) throws -> Value? {
        do { _ = try process.executable() } catch {
            switch error {
            case .notFound(let text): throw Fault(.noFile, text)
            case .notExecutable(let text): throw Fault(.notExecutable, text)
            }
        }
        if process.state.isRunning || process.state == .stopping, process.settings.kind == .oneshot {
            // Fault 60 would be shown with exit code 0: two deployments at once are no success.
            throw Fault(.failed, "\(name) is running already; wait for it, or stop it")
        }
        if process.isDismissed { throw Fault(.failed, "\(name) is being changed for a new process") }
        if process.state.isRunning { throw Fault(.alreadyStarted, name) }
        if process.state == .unknown { throw Fault(.failed, "\(name) is in an unknown process state") }
        if process.state == .stopping { throw Fault(.abnormalTermination, "\(name) is being stopped") }
        process.spawn()
        if !process.spawnError.isEmpty { throw Fault(.spawnError, name) }
        if process.settings.startSeconds == 0 { process.hasStayedUp() }
        guard wait else { return .boolean(true) }
        if process.settings.kind == .oneshot {
            process.observe { process in
                switch process.state {
                case .starting, .running, .stopping: return false
                case .exited where process.runs.last?.succeeded == true: reply(.success(.boolean(true)))
                case .backoff: reply(.failure(Fault(.spawnError, name)))
                default:
                    let how = process.runs.last.map {
                        $0.signal.map { "it was ended by \(Signals.name($0))" } ?? "exit status \($0.status ?? -1)"
                    }
                    reply(.failure(Fault(.abnormalTermination, "\(name): \(how ?? "it did not run")")))
                }
                return true
            }
            return nil
        }
        if process.state == .running { return .boolean(true) }
        process.observe { process in
            if !process.spawnError.isEmpty {
                reply(.failure(Fault(.spawnError, name)))
            } else if process.state == .running {
                reply(.success(.boolean(true)))
            } else if process.state != .starting {
                reply(.failure(Fault(.abnormalTermination, name)))
            } else {
                return false
            }
            return true
        }
        return nil
    }

    private func stop(_ text: String, wait: Bool, _ reply: @escaping Reply) throws -> Value? {
        let (group, process) = try find(text)
        guard let process else { return each(group.ordered, { $0.state.isRunning }, reply) { try self.stop($0, $1, wait: wait, $2) } }
        return try stop(process, text, wait: wait, reply)
    }

    private func stop(_ process: Process, _ name: String, wait: Bool, _ reply: @escaping Reply) throws -> Value? {
        guard process.state.isRunning else { throw Fault(.notRunning, name) }
        if let why = process.stop() { throw Fault(.failed, why) }
        if !wait || process.state.isStopped { return .boolean(true) }
        process.observe { process in
            guard process.state.isStopped else { return false }
            reply(.success(.boolean(true)))
            return true
        }
        return nil
    }

    private func signal(_ process: Process, _ name: String, _ signal: Value) throws -> Value? {
        let number: Int32?
        let text: String
        switch signal {
        case .int(let value):
            text = "\(value)"
            number = Signals.number(text)
        case .string(let value):
            text = value
            number = Signals.number(value)
        default: throw Fault(.incorrectParameters)
        }
        guard let number else { throw Fault(.badSignal, text) }
        guard process.state.isSignallable else { throw Fault(.notRunning, name) }
        if let why = process.signal(number) { throw Fault(.failed, why) }
        return .boolean(true)
    }

    /// Does it to each that it applies to; answers when all have, a struct for each: those that were done at once, then the others, in order.
    private func each(
        _ processes: [Process], _ applies: (Process) -> Bool, _ reply: @escaping Reply,
        _ action: (Process, String, @escaping Reply) throws -> Value?
    ) -> Value? {
        var results: [Value] = []
        var later: [Int: Value] = [:]
        var open = 0
        var isCounting = true
        func told(_ process: Process, _ fault: Fault?) -> Value {
            .structure([
                ("name", .string(process.settings.name)), ("group", .string(process.group)),
                ("status", .int((fault?.code ?? .success).rawValue)), ("description", .string(fault?.text ?? "OK")),
            ])
        }
        func all() -> Value { .array(results + later.sorted { $0.key < $1.key }.map(\.value)) }
        for (index, process) in processes.enumerated() where applies(process) {
            let name = process.group == process.settings.name ? process.group : "\(process.group):\(process.settings.name)"
            open += 1
            do {
                let value = try action(process, name) { result in
                    if case .failure(let fault) = result { later[index] = told(process, fault) } else { later[index] = told(process, nil) }
                    open -= 1
                    if open == 0, !isCounting { reply(.success(all())) }
                }
                if value != nil {
                    results.append(told(process, nil))
                    open -= 1
                }
            } catch {
                results.append(told(process, error as? Fault ?? Fault(.failed, "\(error)")))
                open -= 1
            }
        }
        isCounting = false
        return open == 0 ? all() : nil
    }

    /// One after the other; the first that fails ends it, and what it and those after it run stays.
    private func roll(_ names: [String], in group: ProcessGroup, _ reply: @escaping Reply) {
        var results: [Value] = []
        var rest = names[...]
        func next() {
            guard let name = rest.popFirst() else { return reply(.success(.array(results))) }
            guard let process = group.processes[name], process.twin == nil, process.pid != 0,
                process.state == .running || process.state == .starting
            else { return next() }
            daemon.replace(process, in: group) { why in
                let fault = why.map { Fault(.spawnError, "\(process.settings.name): \($0); the old process goes on") }
                results.append(
                    .structure([
                        ("name", .string(process.settings.name)), ("group", .string(process.group)),
                        ("status", .int((fault?.code ?? .success).rawValue)), ("description", .string(fault?.text ?? "OK")),
                    ]))
                if fault == nil { next() } else { reply(.success(.array(results))) }
            }
        }
        next()
    }

    // MARK: logs

    private func read(_ path: String?, _ offset: Value, _ length: Value) throws -> Value {
        guard case .int(let offset) = offset, case .int(let length) = length else { throw Fault(.incorrectParameters) }
        guard let path, Files.exists(path) else { throw Fault(.noFile, path ?? "none") }
        do { return .text(try LogSlice.read(path, offset: offset, length: length)) } catch {
            throw Fault(error == .badArguments ? .badArguments : .failed)
        }
    }

    private func tail(_ path: String?, _ offset: Value, _ length: Value) throws -> Value {
        guard case .int(let offset) = offset, case .int(let length) = length else { throw Fault(.incorrectParameters) }
        guard let path, Files.exists(path) else { return .array([.string(""), .int(0), .boolean(false)]) }
        do {
            let (data, end, overflow) = try LogSlice.tail(path, offset: offset, length: length)
            return .array([.text(data), .int(end), .boolean(overflow)])
        } catch { throw Fault(.failed) }
    }

    private static func text(_ value: Value) -> String { if case .string(let text) = value { text } else { "" } }
    private static func flag(_ values: [Value], _ index: Int) -> Bool {
        guard index < values.count else { return true }
        switch values[index] {
        case .boolean(let flag): return flag
        case .int(let number): return number != 0
        default: return true
        }
    }

    // MARK: the table

    static let methods: [String: Method] = {
        var table: [String: Method] = [:]
        func add(
            _ names: String..., signature: String, optional: Int = 0, _ help: String,
            run: @escaping @Sendable (Remote, [Value], @escaping Reply) throws -> Value?
        ) {
            for name in names {
                table[name.contains(".") ? name : "supervisor.\(name)"] = Method(
                    signature: signature.split(separator: " ").map(String.init), optional: optional, help: help, run: run)
            }
        }
        add("getAPIVersion", "getVersion", signature: "string", "The version of this interface.") { _, _, _ in .string(apiVersion) }
        add("getSupervisorVersion", signature: "string", "The release of supervisord whose interface this is.") { _, _, _ in
            .string(supervisorVersion)
        }
        add("getIdentification", signature: "string", "The identifier from the configuration.") { remote, _, _ in
            .string(remote.daemon.settings.daemon.identifier)
        }
        add("getState", signature: "struct", "The state of the daemon: statecode and statename.") { remote, _, _ in
            .structure([
                ("statecode", .int(remote.daemon.isEnding ? -1 : 1)),
                ("statename", .string(remote.daemon.isEnding ? "SHUTDOWN" : "RUNNING")),
            ])
        }
        add("getPID", signature: "int", "The process number of the daemon.") { _, _, _ in .int(Int(getpid())) }
        add("readLog", "readMainLog", signature: "string int int", "LENGTH bytes of the daemon's log from OFFSET; 0: to its end.") {
            remote, values, _ in
            try remote.read(remote.daemon.logger.file?.path, values[0], values[1])
        }
        add("clearLog", signature: "boolean", "Begin the daemon's log anew.") { remote, _, _ in
            guard let file = remote.daemon.logger.file, Files.exists(file.path) else { throw Fault(.noFile) }
            do { try file.clear() } catch { throw Fault(.failed, "\(error)") }
            remote.daemon.logger.info("reopening log file")
            return .boolean(true)
        }
        add("shutdown", signature: "boolean", "Stop everything and end.") { remote, _, _ in
            remote.daemon.end(restart: false)
            return .boolean(true)
        }
        add("restart", signature: "boolean", "Stop everything, read the configuration again and start.") { remote, _, _ in
            remote.daemon.end(restart: true)
            return .boolean(true)
        }
        add("reloadConfig", signature: "array", "Read the configuration again; the names of groups that are added, changed, removed.") {
            remote, _, _ in
            do {
                let (added, changed, removed) = try remote.daemon.reread()
                return .array([.array([added, changed, removed].map { .array($0.map { .string($0) }) })])
            } catch { throw Fault(.cantReread, "\(error)") }
        }
        add("addProcessGroup", signature: "boolean string", "Take a group of the configuration into service.") { remote, values, _ in
            let name = text(values[0])
            guard let settings = remote.daemon.settings.groups.first(where: { $0.name == name }) else { throw Fault(.badName, name) }
            guard remote.daemon.add(settings) else { throw Fault(.alreadyAdded, name) }
            return .boolean(true)
        }
        add("removeProcessGroup", signature: "boolean string", "Take a group whose processes are stopped out of service.") {
            remote, values, _ in
            let group = try remote.group(text(values[0]))
            guard remote.daemon.remove(group) else { throw Fault(.stillRunning, group.name) }
            return .boolean(true)
        }
        add("startProcess", signature: "boolean string boolean", optional: 1, "Start NAME, GROUP:NAME or GROUP:*; WAIT until it runs.") {
            try $0.start(text($1[0]), wait: flag($1, 1), $2)
        }
        add("startProcessGroup", signature: "array string boolean", optional: 1, "Start all processes of a group.") {
            remote, values, reply in
            remote.each(try remote.group(text(values[0])).ordered, { !$0.state.isRunning }, reply) {
                try remote.start($0, $1, wait: flag(values, 1), $2)
            }
        }
        add("startAllProcesses", signature: "array boolean", optional: 1, "Start all processes.") { remote, values, reply in
            remote.each(remote.daemon.ordered, { !$0.state.isRunning }, reply) { try remote.start($0, $1, wait: flag(values, 0), $2) }
        }
        add("stopProcess", signature: "boolean string boolean", optional: 1, "Stop NAME, GROUP:NAME or GROUP:*; WAIT until it has ended.") {
            try $0.stop(text($1[0]), wait: flag($1, 1), $2)
        }
        add("stopProcessGroup", signature: "array string boolean", optional: 1, "Stop all processes of a group.") { remote, values, reply in
            remote.each(try remote.group(text(values[0])).ordered, { $0.state.isRunning }, reply) {
                try remote.stop($0, $1, wait: flag(values, 1), $2)
            }
        }
        add("stopAllProcesses", signature: "array boolean", optional: 1, "Stop all processes.") { remote, values, reply in
            remote.each(remote.daemon.ordered, { $0.state.isRunning }, reply) { try remote.stop($0, $1, wait: flag(values, 0), $2) }
        }
        add("signalProcess", signature: "boolean string string", "Send a signal, by name or number, to NAME, GROUP:NAME or GROUP:*.") {
            remote, values, reply in
            let (group, process) = try remote.find(text(values[0]))
            guard let process else {
                return remote.each(group.ordered, { $0.state.isSignallable }, reply) { process, name, _ in
                    try remote.signal(process, name, values[1])
                }
            }
            return try remote.signal(process, text(values[0]), values[1])
        }
        add("signalProcessGroup", signature: "array string string", "Send a signal to all processes of a group.") { remote, values, reply in
            remote.each(try remote.group(text(values[0])).ordered, { $0.state.isSignallable }, reply) { process, name, _ in
                try remote.signal(process, name, values[1])
            }
        }
        add("signalAllProcesses", signature: "array string", "Send a signal to all processes.") { remote, values, reply in
            remote.each(remote.daemon.ordered, { $0.state.isSignallable }, reply) { process, name, _ in
                try remote.signal(process, name, values[0])
            }
        }
        add("getAllConfigInfo", signature: "array", "What is configured, a struct for each process.") { remote, _, _ in
            ProcessInfo.configured(remote.daemon)
        }
        add("getProcessInfo", signature: "struct string", "What is known of a process.") { remote, values, _ in
            var writer = AnswerWriter()
            ProcessInfo.write(try remote.process(text(values[0])), Clock.wall() / 1000, &writer)
            return .encoded(writer.bytes)
        }
        add("getAllProcessInfo", signature: "array", "What is known of all processes.") { remote, _, _ in
            .encoded(ProcessInfo.all(remote.daemon))
        }
        add(
            "readProcessStdoutLog", "readProcessLog", signature: "string string int int",
            "LENGTH bytes of a process's output from OFFSET; 0: to its end."
        ) { remote, values, _ in
            try remote.read(try remote.process(text(values[0])).outputPath, values[1], values[2])
        }
        add("readProcessStderrLog", signature: "string string int int", "LENGTH bytes of a process's errors from OFFSET; 0: to their end.")
        { remote, values, _ in
            try remote.read(try remote.process(text(values[0])).errorPath, values[1], values[2])
        }
        add(
            "tailProcessStdoutLog", "tailProcessLog", signature: "array string int int",
            "The last LENGTH bytes of a process's output: text, end, whether bytes after OFFSET are left out."
        ) { remote, values, _ in
            try remote.tail(try remote.process(text(values[0])).outputPath, values[1], values[2])
        }
        add(
            "tailProcessStderrLog", signature: "array string int int",
            "The last LENGTH bytes of a process's errors: text, end, whether bytes after OFFSET are left out."
        ) { remote, values, _ in
            try remote.tail(try remote.process(text(values[0])).errorPath, values[1], values[2])
        }
        add("clearProcessLogs", "clearProcessLog", signature: "boolean string", "Begin the logs of a process anew.") { remote, values, _ in
            do { try remote.process(text(values[0])).clearLogs() } catch let complaint as Complaint { throw Fault(.failed, "\(complaint)") }
            return .boolean(true)
        }
        add("clearAllProcessLogs", signature: "array", "Begin the logs of all processes anew.") { remote, _, reply in
            remote.each(remote.daemon.ordered, { _ in true }, reply) { process, name, _ in
                do { try process.clearLogs() } catch { throw Fault(.failed, name) }
                return .boolean(true)
            }
        }
        add("sendProcessStdin", signature: "boolean string string", "Write to the standard input of a process.") { remote, values, _ in
            let name = text(values[0])
            let bytes: [UInt8] = if case .bytes(let data) = values[1] { data } else { Array(text(values[1]).utf8) }
            let process = try remote.process(name)
            guard process.pid != 0, !process.isBeingKilled else { throw Fault(.notRunning, name) }
            guard process.write(bytes) else { throw Fault(.noFile, name) }
            return .boolean(true)
        }
        add("sendRemoteCommEvent", signature: "boolean string string", "Send an event of TYPE with DATA to listeners.") {
            remote, values, _ in
            remote.daemon.emit(.remote) { Array("type:\(text(values[0]))\n\(text(values[1]))".utf8) }
            return .boolean(true)
        }
        add("system.listMethods", signature: "array", "The names of all methods.") { _, _, _ in .array(listed.map { .string($0) }) }
        add("system.methodHelp", signature: "string string", "What a method does.") { _, values, _ in
            guard let method = methods[text(values[0])] else { throw Fault(.signatureUnsupported) }
            return .string(method.help)
        }
        add("system.methodSignature", signature: "array string", "The types of a method's result and parameters.") { _, values, _ in
            guard let method = methods[text(values[0])] else { throw Fault(.signatureUnsupported) }
            return .array(method.signature.map { .string($0) })
        }
        add("system.multicall", signature: "array array", "Many calls in one: structs with methodName and params.") { _, _, _ in nil }
        add(
            "slipway.updateProcessGroup", signature: "struct string",
            "Read the configuration again and bring a group to it: what is the same goes on, the rest is stopped and started; kept, stopped, started."
        ) { remote, values, reply in
            let group = try remote.group(text(values[0]))
            do { _ = try remote.daemon.reread() } catch { throw Fault(.cantReread, "\(error)") }
            guard let settings = remote.daemon.settings.groups.first(where: { $0.name == group.name }) else {
                throw Fault(.badName, "\(group.name) is not in the configuration any more: stop it and remove it")
            }
            guard settings.pool == nil, group.pool == nil else {
                throw Fault(.failed, "\(group.name) is a pool of event listeners: update it as a whole")
            }
            guard !remote.daemon.isChanging else {
                throw Fault(.failed, "processes are being changed for new ones; try again when that is done")
            }
            remote.daemon.update(group, to: settings) { kept, stopped, started in
                func names(_ processes: [Process]) -> Value { .array(processes.map { .string($0.settings.name) }) }
                reply(.success(.structure([("kept", names(kept)), ("stopped", names(stopped)), ("started", names(started))])))
            }
            return nil
        }
        add(
            "slipway.rollingRestart", signature: "array string",
            "Change the processes of NAME or GROUP:* for new ones, one after the other; an old one is stopped when its new one runs."
        ) { remote, values, reply in
            let (group, process) = try remote.find(text(values[0]))
            let processes = process.map { [$0] } ?? group.ordered
            if let oneshot = processes.first(where: { $0.settings.kind == .oneshot }) {
                throw Fault(.failed, "\(oneshot.settings.name) is a one-shot program: it is run again, not restarted")
            }
            if let busy = processes.first(where: { $0.twin != nil }) {
                throw Fault(.failed, "\(busy.settings.name) is being changed for a new process already")
            }
            remote.roll(processes.map(\.settings.name), in: group, reply)
            return nil
        }
        add("slipway.reexec", signature: "boolean", "Change the daemon for the version that is installed now; its programs run on.") {
            remote, _, reply in
            var isAnswered = false
            func once(_ result: Result<Value, Fault>) {
                if !isAnswered { reply(result) }
                isAnswered = true
            }
            remote.daemon.reexec({ once(.failure(Fault(.failed, $0))) }, accepted: { once(.success(.boolean(true))) })
            return nil
        }
        add(
            "slipway.getRuns", signature: "array string",
            "The last runs of a one-shot program, the newest last: start, end, exitstatus, signal, success."
        ) { remote, values, _ in
            .array(
                try remote.process(text(values[0])).runs.map { run in
                    .structure([
                        ("start", .int(run.began)), ("end", .int(run.ended)), ("exitstatus", .int(run.status ?? -1)),
                        ("signal", .string(run.signal.map(Signals.name) ?? "")), ("success", .boolean(run.succeeded)),
                    ])
                })
        }
        return table
    }()

    /// supervisord's own, in their order; what is ours alone is not listed, because clients count them.
    private static let listed = methods.keys.filter { !$0.hasPrefix("slipway.") }.sorted()
}
