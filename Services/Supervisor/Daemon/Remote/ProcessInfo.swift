import Glibc

/// The parts of a process's struct that stay as they are until its state changes: all but `now` and the time in `description`.
struct EncodedInfo {
    var before: [UInt8]
    var after: [UInt8]
    /// Nil when it contains the time that has passed.
    var description: String?
}

/// Answers about processes.
enum ProcessInfo {
    /// The whole answer, which is the same for a second, as long as no state changes.
    struct All {
        var second: Int
        var bytes: [UInt8]
    }

    static func all(_ daemon: Daemon) -> [UInt8] {
        let now = Clock.wall() / 1000
        if let known = daemon.allInfo, known.second == now { return known.bytes }
        let bytes = all(daemon, now)
        daemon.allInfo = All(second: now, bytes: bytes)
        return bytes
    }

    private static func all(_ daemon: Daemon, _ now: Int) -> [UInt8] {
        var writer = AnswerWriter()
        writer.put("<value><array><data>\n")
        for group in daemon.groups.values.sorted(by: { $0.name < $1.name }) {
            for process in group.byName { write(process, now, &writer) }
        }
        writer.put("</data></array></value>\n")
        return writer.bytes
    }

    static func write(_ process: Process, _ now: Int, _ writer: inout AnswerWriter) {
        let info = process.encoded ?? encode(process)
        process.encoded = info
        writer.put(.encoded(info.before))
        writer.put(capped(now))
        writer.put(.encoded(info.after))
        if let description = info.description {
            writer.escape(description)
        } else {
            writer.put("pid ")
            writer.put(Int(process.pid))
            writer.escape(", uptime \(uptime(max(0, now - process.lastStart)))")
        }
        writer.put("</string></value>\n</member>\n</struct></value>\n")
    }

    /// XML-RPC's integers have 32 bits.
    private static func capped(_ number: Int) -> Int { min(max(number, Int(Int32.min)), Int(Int32.max)) }

    private static func encode(_ process: Process) -> EncodedInfo {
        var before = AnswerWriter()
        before.put("<value><struct>\n")
        before.put("name", .string(process.settings.name))
        before.put("group", .string(process.group))
        before.put("start", .int(capped(process.lastStart)))
        before.put("stop", .int(capped(process.lastStop)))
        before.put("<member>\n<name>now</name>\n<value><int>")
        var after = AnswerWriter()
        after.put("</int></value>\n</member>\n")
        after.put("state", .int(process.state.rawValue))
        after.put("statename", .string(process.state.name))
        after.put("spawnerr", .string(process.spawnError))
        after.put("exitstatus", .int(process.exitStatus ?? 0))
        after.put("logfile", .string(process.outputPath ?? ""))
        after.put("stdout_logfile", .string(process.outputPath ?? ""))
        after.put("stderr_logfile", .string(process.errorPath ?? ""))
        after.put("pid", .int(Int(process.pid)))
        after.put("<member>\n<name>description</name>\n<value><string>")
        return EncodedInfo(before: before.bytes, after: after.bytes, description: description(process))
    }

    static func description(_ process: Process) -> String? {
        switch process.state {
        case .running: nil
        case .fatal, .backoff: process.spawnError.isEmpty ? "unknown error (try \"tail \(process.settings.name)\")" : process.spawnError
        case .stopped, .exited: process.lastStart == 0 ? "Not started" : Clock.text(process.lastStop, "%b %d %I:%M %p")
        case .starting where !process.waitsFor.isEmpty: "waits for \(process.waitsFor)"
        case .starting, .stopping, .unknown: ""
        }
    }

    /// As Python prints a time span.
    static func uptime(_ seconds: Int) -> String {
        let (days, rest) = seconds.quotientAndRemainder(dividingBy: 86_400)
        let time = "\(rest / 3600):\((rest / 60 % 60).padded(2)):\((rest % 60).padded(2))"
        return days == 0 ? time : "\(days) day\(days == 1 ? "" : "s"), \(time)"
    }

    static func configured(_ daemon: Daemon) -> Value {
        var all: [(String, Value)] = []
        for group in daemon.settings.groups {
            for program in group.programs {
                all.append((program.name, configured(program, group, isActive: daemon.groups[group.name] != nil)))
            }
        }
        return .array(all.enumerated().sorted { ($0.element.0, $0.offset) < ($1.element.0, $1.offset) }.map(\.element.1))
    }

    private static func configured(_ program: Program, _ group: Group, isActive: Bool) -> Value {
        func file(_ output: Program.Output) -> Value {
            switch output.file {
            case .none: .string("none")
            case .automatic: .string("auto")
            case .path(let path): .string(path)
            }
        }
        var members: [(String, Value)] = [
            ("autostart", .boolean(program.autostart)), ("directory", .string(program.directory ?? "none")),
            ("uid", program.user.map { .int(Int($0.uid)) } ?? .string("none")), ("command", .string(program.command)),
            ("exitcodes", .array(program.exitCodes.map { .int($0) })), ("group", .string(group.name)), ("group_prio", .int(group.priority)),
            ("inuse", .boolean(isActive)), ("killasgroup", .boolean(program.killsGroup)), ("name", .string(program.name)),
            ("process_prio", .int(program.priority)), ("redirect_stderr", .boolean(program.redirectsError)),
            ("startretries", .int(program.startRetries)), ("startsecs", .int(program.startSeconds)),
        ]
        for (channel, output, isOff) in [("stdout", program.output, false), ("stderr", program.error, program.redirectsError)] {
            members += [
                ("\(channel)_capture_maxbytes", .int(output.captureMaxBytes)), ("\(channel)_events_enabled", .boolean(output.emitsEvents)),
                ("\(channel)_logfile", isOff ? .string("none") : file(output)), ("\(channel)_logfile_backups", .int(output.backups)),
                ("\(channel)_logfile_maxbytes", .int(output.maxBytes)), ("\(channel)_syslog", .boolean(output.goesToSyslog)),
            ]
            if channel == "stdout" {
                members += [("stopsignal", .int(Int(program.stopSignal))), ("stopwaitsecs", .int(program.stopWaitSeconds))]
            }
        }
        members.append(("serverurl", .string(program.serverURL ?? "none")))
        return .structure(members)
    }
}
