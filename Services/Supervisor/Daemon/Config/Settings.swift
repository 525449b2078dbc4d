import Glibc

/// Everything that a configuration says.
struct Settings: Sendable {
    struct Daemon: Hashable, Sendable {
        var logfile = "supervisord.log"
        var logfileMaxBytes = 50 << 20
        var logfileBackups = 10
        var level = Level.info
        var pidfile = "supervisord.pid"
        var umask: mode_t = 0o022
        var isForeground = false
        var isSilent = false
        var minimumFiles = 1024
        var minimumProcesses = 200
        var keepsOldLogs = false
        var childLogDirectory = "/tmp"
        var user: Accounts.User?
        var directory: String?
        var stripsANSI = false
        var environment: [String: String] = [:]
        var identifier = "supervisor"
    }
    var daemon = Daemon()
    var servers: [Server] = []
    /// By priority, then as in the file.
    var groups: [Group] = []
    /// What is strange but not wrong.
    var warnings: [String] = []
    var notes: [String] = []
}

/// A listening socket for the remote interface.
struct Server: Hashable, Sendable {
    enum Address: Hashable, Sendable {
        case unix(path: String, mode: mode_t, owner: uid_t?, group: gid_t?)
        /// All addresses when `host` is empty.
        case inet(host: String, port: Int)
    }
    /// The section's name.
    var name: String
    var address: Address
    var username: String?
    var password: String?
}

/// Programs that are started, stopped and reread together.
struct Group: Hashable, Sendable {
    var name: String
    var priority = 999
    var programs: [Program] = []
    /// Set for event listeners.
    var pool: Pool?

    struct Pool: Hashable, Sendable {
        var bufferSize: Int
        var events: Set<EventType>
    }
}

/// One process to run: a program section gives one for each of its numprocs.
struct Program: Hashable, Sendable {
    enum Restart: Hashable, Sendable { case never, unexpected, always }
    enum Kind: Hashable, Sendable {
        /// Meant to stay up.
        case service
        /// Meant to end: a start is done when it has, and says how.
        case oneshot
    }
    enum Listen: Hashable, Sendable, CustomStringConvertible {
        case tcp(host: String, port: Int)
        case unix(path: String)

        var description: String {
            switch self {
            case .tcp(let host, let port): "tcp:\(host):\(port)"
            case .unix(let path): "unix:\(path)"
            }
        }

        static func parse(_ text: String) throws -> Listen {
            switch text.halves(at: ":") {
            case ("tcp", let rest)?:
                let (host, port) = try Values.address(rest)
                return .tcp(host: host, port: port)
            case ("unix", let path)?:
                guard path.hasPrefix("/"), path.utf8.count <= 107 else {
                    throw Complaint("'\(path)' is no absolute path of at most 107 bytes")
                }
                return .unix(path: path)
            default: throw Complaint("'\(text)' is no socket: tcp:PORT, tcp:ADDRESS:PORT or unix:PATH")
            }
        }
    }

    /// Seconds until the first retry, by how much each next one is longer, and how long it becomes at most. A tenth is left to chance.
    struct Retry: Hashable, Sendable {
        var delay: Double
        var factor: Double
        var most: Double

        /// Milliseconds before retry number `attempt`, from 1. `chance`: 0 to 1.
        func pause(_ attempt: Int, chance: Double) -> Int {
            var seconds = delay
            for _ in 1..<max(1, min(attempt, 200)) where seconds < most { seconds *= factor }
            return Int(min(seconds, most) * 1000 * (0.95 + 0.1 * chance))
        }
    }
    /// What the kernel is to hold it to; nil: as the daemon.
    struct Limits: Hashable, Sendable {
        var files: UInt64?
        var processes: UInt64?
        /// Bytes.
        var core: UInt64?
        var memory: UInt64?
        var nice: Int32?
        var oomScore: Int32?
        var noNewPrivileges = false
    }
    struct Output: Hashable, Sendable {
        enum Format: String, Hashable, Sendable {
            /// Byte for byte.
            case raw
            /// A JSON object a line.
            case json
        }
        var format = Format.raw
        enum File: Hashable, Sendable {
            case none, automatic
            case path(String)
        }
        var file = File.automatic
        var maxBytes = 50 << 20
        var backups = 10
        var captureMaxBytes = 0
        var emitsEvents = false
        var goesToSyslog = false
    }

    var name: String
    var command: String
    var kind = Kind.service
    /// How many finished runs of a one-shot program are remembered.
    var historyLength = 20
    var priority = 999
    var autostart = true
    var restart = Restart.unexpected
    var startSeconds = 1
    var startRetries = 3
    var exitCodes = [0]
    var stopSignal = SIGTERM
    var stopWaitSeconds = 10
    var stopsGroup = false
    var killsGroup = false
    var user: Accounts.User?
    var directory: String?
    var umask: mode_t?
    var environment: [String: String] = [:]
    var serverURL: String?
    var redirectsError = false
    var limits = Limits()
    /// Sockets that are opened here, once, and handed over to each of its processes (sd_listen_fds(3)).
    var listen: [Listen] = []
    /// Names of groups, or GROUP:PROCESS.
    var dependsOn: [String] = []
    /// It is RUNNING when this says so, instead of after `startSeconds`.
    var ready: Check?
    var readyTimeout = 60
    /// It is started anew when this fails so many times in a row.
    var alive: Check?
    var aliveInterval = 10
    var aliveTimeout = 5
    var aliveFailures = 3
    /// Nil: the n-th retry waits n seconds.
    var retry: Retry?
    var output = Output()
    var error = Output()
}

/// Reads configuration files into `Settings`. Every complaint names section, option and place.
struct SettingsReader {
    private var ini = IniFile()
    private var settings = Settings()
    private var expansions = Expansions()
    private var included: Set<String> = []
    private let here: String
    /// The options that were asked for, by section: the rest is unknown.
    private var asked: [String: Set<String>] = [:]

    static let mostPrograms = 20_000
    static let mostFiles = 2_000

    /// Throws `Complaint`.
    static func read(_ path: String, environment: [String: String] = Environment.now) throws -> Settings {
        let file = Files.absolute(path)
        var reader = SettingsReader(here: Files.directory(of: file), environment)
        try reader.load(file)
        try reader.include(from: file)
        try reader.readDaemon()
        try reader.readServers()
        try reader.readGroups()
        reader.warnOfTheUnknown()
        return reader.settings
    }

    private init(here: String, _ environment: [String: String]) {
        self.here = here
        expansions["here"] = here
        expansions["host_node_name"] = Self.hostName
        expansions.add(environment: environment)
    }

    private static var hostName: String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, 255)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private mutating func load(_ file: String) throws {
        included.insert(file)
        try ini.add(try Files.read(file), file: file, here: Files.directory(of: file))
    }

    private mutating func include(from file: String) throws {
        guard let section = ini.section("include") else { return }
        guard let files = try text(section, "files") else { throw Complaint("\(section.place): [include] says no files=") }
        for word in files.split(whereSeparator: \.isWhitespace).map(String.init) {
            let pattern = word.hasPrefix("/") ? word : "\(here)/\(word)"
            let matches = Files.matches(pattern)
            if matches.isEmpty { settings.warnings.append("No file matches via include \"\(pattern)\"") }
            for path in matches where !included.contains(Files.absolute(path)) {
                guard included.count < Self.mostFiles else {
                    throw Complaint("\(section.place): more than \(Self.mostFiles) files are included")
                }
                try load(Files.absolute(path))
                settings.notes.append("Included extra file \"\(path)\" during parsing")
            }
        }
    }

    // MARK: options

    private mutating func raw(_ section: IniFile.Section, _ name: String) -> IniFile.Option? {
        asked[section.name, default: []].insert(name)
        return ini.option(section, name)
    }

    private mutating func text(_ section: IniFile.Section, _ name: String, _ expansions: Expansions? = nil) throws -> String? {
        guard let option = raw(section, name) else { return nil }
        return try at(option, section, name) { try (expansions ?? self.expansions).expand(option.value, "\(section.name).\(name)") }
    }

    private mutating func value<T>(
        _ section: IniFile.Section, _ name: String, _ otherwise: T, _ expansions: Expansions? = nil, _ parse: (String) throws -> T
    ) throws -> T {
        guard let written = try text(section, name, expansions), let option = ini.option(section, name) else { return otherwise }
        return try at(option, section, name) { try parse(written) }
    }

    private mutating func number(
        _ section: IniFile.Section, _ name: String, _ otherwise: Int, _ range: ClosedRange<Int>,
        _ parse: (String) throws -> Int = Values.integer
    ) throws -> Int {
        try value(section, name, otherwise) { text in
            let number = try parse(text)
            guard range.contains(number) else {
                throw Complaint(
                    range.upperBound == .max
                        ? "\(text) is below \(range.lowerBound)" : "\(text) is outside \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
    }

    private func at<T>(_ option: IniFile.Option, _ section: IniFile.Section, _ name: String, _ body: () throws -> T) throws -> T {
        do { return try body() } catch let complaint as Complaint {
            throw Complaint(
                "\(complaint) in section '\(section.name)', option \(name) (file: '\(option.place.file)', line \(option.place.line))")
        }
    }

    private func wrong(_ text: String, in section: IniFile.Section) -> Complaint {
        Complaint("\(text) in section '\(section.name)' (file: '\(section.place.file)')")
    }

    // MARK: sections

    private mutating func readDaemon() throws {
        guard let section = ini.section("supervisord") else { throw Complaint(".ini file does not include supervisord section") }
        var daemon = Settings.Daemon()
        daemon.environment = try value(section, "environment", [:]) { try Self.dictionary($0) }
        expansions.add(environment: daemon.environment)
        daemon.logfile = try value(section, "logfile", daemon.logfile, nil, Values.filePath)
        daemon.logfileMaxBytes = try number(section, "logfile_maxbytes", daemon.logfileMaxBytes, 0...(.max), Values.bytes)
        daemon.logfileBackups = try number(section, "logfile_backups", daemon.logfileBackups, 0...10_000)
        daemon.level = try value(section, "loglevel", daemon.level, nil, Level.parse)
        daemon.pidfile = try value(section, "pidfile", daemon.pidfile, nil, Values.filePath)
        daemon.umask = try value(section, "umask", daemon.umask, nil, Values.octal)
        daemon.isForeground = try value(section, "nodaemon", false, nil, Values.boolean)
        daemon.isSilent = try value(section, "silent", false, nil, Values.boolean)
        daemon.minimumFiles = try number(section, "minfds", daemon.minimumFiles, 1...(1 << 20))
        daemon.minimumProcesses = try number(section, "minprocs", daemon.minimumProcesses, 1...(1 << 22))
        daemon.keepsOldLogs = try value(section, "nocleanup", false, nil, Values.boolean)
        let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        daemon.childLogDirectory = try value(section, "childlogdir", temporary, nil, Values.directory)
        daemon.user = try value(section, "user", nil, nil) { try Accounts.user($0) }
        daemon.directory = try value(section, "directory", nil, nil) { try Values.directory($0) }
        daemon.stripsANSI = try value(section, "strip_ansi", false, nil, Values.boolean)
        daemon.identifier = try text(section, "identifier") ?? daemon.identifier
        settings.daemon = daemon
    }

    private static func dictionary(_ text: String) throws -> [String: String] {
        Dictionary(try Values.pairs(text)) { _, last in last }
    }

    private mutating func readServers() throws {
        for section in ini.sections where Self.is(section, "inet_http_server") {
            var server = Server(name: section.name, address: .inet(host: "", port: 0))
            guard raw(section, "port") != nil else { throw Complaint("section [\(section.name)] has no port value") }
            let (host, port) = try value(section, "port", ("", 0), nil, Values.address)
            server.address = .inet(host: host, port: port)
            try readUser(section, &server)
            settings.servers.append(server)
        }
        for section in ini.sections where Self.is(section, "unix_http_server") {
            guard let file = try text(section, "file") else { throw Complaint("section [\(section.name)] has no file value") }
            let path = try value(section, "file", file) { written in
                let path = Values.expandHome(written)
                guard (1...107).contains(path.utf8.count) else {
                    throw Complaint("the path of a socket has 1 to 107 bytes, and this one \(path.utf8.count)")
                }
                return path
            }
            let mode = try value(section, "chmod", 0o700, nil, Values.octal)
            let (owner, group): (uid_t?, gid_t?) = try value(section, "chown", (nil, nil), nil) { text in
                guard let (user, group) = text.halves(at: ":") else { return (try Accounts.user(text).uid, nil) }
                return (try Accounts.user(user).uid, try Accounts.group(group))
            }
            var server = Server(name: section.name, address: .unix(path: path, mode: mode, owner: owner, group: group))
            try readUser(section, &server)
            settings.servers.append(server)
        }
    }

    private static func `is`(_ section: IniFile.Section, _ kind: String) -> Bool {
        section.name == kind || section.name.hasPrefix(kind + ":")
    }

    private mutating func readUser(_ section: IniFile.Section, _ server: inout Server) throws {
        server.username = try text(section, "username")
        server.password = try text(section, "password")
        guard (server.username == nil) == (server.password == nil) else {
            throw Complaint(
                "Section [\(section.name)] contains incomplete authentication: If a username or a password is specified, both the "
                    + "username and password must be specified")
        }
    }

    private mutating func readGroups() throws {
        var inGroup: [String: String] = [:]
        var groups: [Group] = []
        for section in ini.sections where section.name.hasPrefix("fcgi-program:") {
            throw wrong("FastCGI programs are not offered here", in: section)
        }
        for section in ini.sections where section.name.hasPrefix("group:") {
            let name = try named(section)
            var group = Group(name: name)
            let programs = try value(section, "programs", [], nil, Values.list)
            guard !programs.isEmpty else { throw wrong("no programs= says what belongs to the group", in: section) }
            group.priority = try number(section, "priority", 999, -1_000_000...1_000_000)
            for program in programs {
                guard let part = ini.section("program:\(program)") else {
                    throw Complaint("[\(section.name)] names unknown program or fcgi-program \(program)")
                }
                if let other = inGroup[program] { throw wrong("program \(program) is in group \(other) already", in: section) }
                inGroup[program] = name
                group.programs += try self.programs(part, in: name, isListener: false)
            }
            groups.append(group)
        }
        for section in ini.sections where section.name.hasPrefix("program:") {
            let name = try named(section)
            guard inGroup[name] == nil else { continue }
            var group = Group(name: name)
            group.priority = try number(section, "priority", 999, -1_000_000...1_000_000)
            group.programs = try programs(section, in: name, isListener: false)
            groups.append(group)
        }
        for section in ini.sections where section.name.hasPrefix("eventlistener:") {
            let name = try named(section)
            var group = Group(name: name)
            group.priority = try number(section, "priority", -1, -1_000_000...1_000_000)
            let size = try number(section, "buffer_size", 10, 1...1_000_000)
            _ = raw(section, "result_handler")
            let events: [EventType] = try value(section, "events", [], nil) { text in
                try Values.list(text).map { name -> EventType in
                    guard let type = EventType(rawValue: name.uppercased()) else {
                        throw Complaint("Unknown event type \(name) in [\(section.name)] events")
                    }
                    return type
                }
            }
            guard !events.isEmpty else { throw Complaint("[\(section.name)] section requires an \"events\" line") }
            if try value(section, "redirect_stderr", false, nil, Values.boolean) {
                throw Complaint(
                    "[\(section.name)] section sets redirect_stderr=true but this is not allowed because it will interfere "
                        + "with the eventlistener protocol")
            }
            group.pool = Group.Pool(bufferSize: size, events: Set(events))
            group.programs = try programs(section, in: name, isListener: true)
            groups.append(group)
        }
        var seen: [String: String] = [:]
        for group in groups {
            guard seen.updateValue(group.name, forKey: group.name) == nil else {
                throw Complaint("two groups have the name \(group.name): a group, program or eventlistener needs one of its own")
            }
            let names = group.programs.map(\.name)
            if Set(names).count < names.count {
                throw Complaint("two processes of group \(group.name) have the same name: \(names.joined(separator: ", "))")
            }
        }
        try checkDependencies(groups)
        guard groups.reduce(0, { $0 + $1.programs.count }) <= Self.mostPrograms else {
            throw Complaint("more than \(Self.mostPrograms) processes are configured")
        }
        settings.groups = groups.enumerated().sorted { ($0.element.priority, $0.offset) < ($1.element.priority, $1.offset) }.map(\.element)
    }

    private func named(_ section: IniFile.Section) throws -> String {
        do { return try Values.name(section.name.halves(at: ":")?.1 ?? "") } catch let complaint as Complaint {
            throw wrong("\(complaint)", in: section)
        }
    }

    private mutating func programs(_ section: IniFile.Section, in group: String, isListener: Bool) throws -> [Program] {
        let name = try named(section)
        var common = expansions
        common["program_name"] = name
        common["group_name"] = group
        let saved = expansions
        defer { expansions = saved }
        expansions = common

        var model = Program(name: name, command: "")
        model.kind = try value(section, "type", .service, nil) { text in
            switch text.lowercased() {
            case "service": return .service
            case "oneshot": return .oneshot
            default: throw Complaint("'\(text)' is no kind of program: service or oneshot")
            }
        }
        let isOneshot = model.kind == .oneshot
        if isOneshot, isListener { throw wrong("an event listener cannot be of type oneshot", in: section) }
        model.historyLength = try number(section, "history", 20, 1...1000)
        model.priority = try number(section, "priority", isListener ? -1 : 999, -1_000_000...1_000_000)
        model.autostart = try value(section, "autostart", !isOneshot, nil, Values.boolean)
        model.restart = try value(section, "autorestart", isOneshot ? .never : .unexpected, nil) { text in
            if text.lowercased() == "unexpected" { return .unexpected }
            do { return try Values.boolean(text) ? .always : .never } catch { throw Complaint("invalid 'autorestart' value '\(text)'") }
        }
        model.startSeconds = try number(section, "startsecs", isOneshot ? 0 : 1, 0...86_400)
        model.startRetries = try value(section, "startretries", isOneshot ? 0 : 3, nil) { text in
            if text.lowercased() == "unlimited" { return .max }
            let number = try Values.integer(text)
            guard number >= 0 else { throw Complaint("\(text) is below 0; unlimited means for ever") }
            return number
        }
        try readChecks(section, &model)
        try readLimits(section, &model)
        model.exitCodes = try value(section, "exitcodes", [0], nil, Values.exitCodes)
        model.stopSignal = try value(section, "stopsignal", SIGTERM, nil, Values.signal)
        model.stopWaitSeconds = try number(section, "stopwaitsecs", 10, 0...86_400)
        model.stopsGroup = try value(section, "stopasgroup", false, nil, Values.boolean)
        model.killsGroup = try value(section, "killasgroup", model.stopsGroup, nil, Values.boolean)
        model.user = try value(section, "user", nil, nil) { text in
            let user = try Accounts.user(text)
            guard geteuid() == 0 || user.uid == geteuid() else {
                throw Complaint("Can't drop privilege as nonroot user: only root can run a program as \(user.name)")
            }
            return user
        }
        model.umask = try value(section, "umask", nil, nil) { try Values.octal($0) }
        model.redirectsError = try value(section, "redirect_stderr", false, nil, Values.boolean)
        model.serverURL = try text(section, "serverurl").flatMap { $0.trimmed.uppercased() == "AUTO" ? nil : $0 }
        for (channel, path) in [("stdout", \Program.output), ("stderr", \Program.error)] {
            model[keyPath: path].captureMaxBytes = try number(section, "\(channel)_capture_maxbytes", 0, 0...(1 << 30), Values.bytes)
            model[keyPath: path].emitsEvents = try value(section, "\(channel)_events_enabled", false, nil, Values.boolean)
            model[keyPath: path].maxBytes = try number(section, "\(channel)_logfile_maxbytes", 50 << 20, 0...(.max), Values.bytes)
            model[keyPath: path].format = try value(section, "\(channel)_logfile_format", .raw, nil) { text in
                guard let format = Program.Output.Format(rawValue: text.lowercased()) else {
                    throw Complaint("'\(text)' is no format: raw or json")
                }
                return format
            }
            model[keyPath: path].backups = try number(section, "\(channel)_logfile_backups", 10, 0...10_000)
            model[keyPath: path].goesToSyslog = try value(section, "\(channel)_syslog", false, nil, Values.boolean)
        }
        let count = try number(section, "numprocs", 1, 1...Self.mostPrograms)
        let start = try number(section, "numprocs_start", 0, 0...1_000_000)
        let pattern = raw(section, "process_name")?.value ?? "%(program_name)s"
        if count > 1, !pattern.contains("%(process_num)") {
            throw wrong("%(process_num) must be present within process_name when numprocs > 1", in: section)
        }
        if model.stopsGroup, !model.killsGroup { throw wrong("Cannot set stopasgroup=true and killasgroup=false", in: section) }

        var result: [Program] = []
        for number in start..<(start + count) {
            result.append(try instance(model, section, common, number, of: count, pattern))
        }
        return result.enumerated().sorted { ($0.element.priority, $0.offset) < ($1.element.priority, $1.offset) }.map(\.element)
    }

    private mutating func readLimits(_ section: IniFile.Section, _ model: inout Program) throws {
        func limit(_ name: String, _ parse: (String) throws -> Int = Values.integer) throws -> UInt64? {
            try value(section, name, nil) { text in
                if text.lowercased() == "unlimited" { return .max }
                guard let number = UInt64(exactly: try parse(text)) else { throw Complaint("\(text) is below 0") }
                return number
            }
        }
        func whole(_ name: String, _ range: ClosedRange<Int>) throws -> Int32? {
            guard ini.option(section, name) != nil else { return nil }
            return Int32(try number(section, name, 0, range))
        }
        model.limits.files = try limit("limit_nofile")
        model.limits.processes = try limit("limit_nproc")
        model.limits.core = try limit("limit_core", Values.bytes)
        model.limits.memory = try limit("limit_as", Values.bytes)
        model.limits.nice = try whole("nice", -20...19)
        model.limits.oomScore = try whole("oom_score_adj", -1000...1000)
        model.limits.noNewPrivileges = try value(section, "no_new_privs", false, nil, Values.boolean)
    }

    private mutating func readChecks(_ section: IniFile.Section, _ model: inout Program) throws {
        model.dependsOn = try value(section, "depends_on", [], nil, Values.list)
        model.ready = try value(section, "ready", nil, nil) { try Check.parse($0) }
        model.readyTimeout = try number(section, "ready_timeout", 60, 1...86_400)
        model.alive = try value(section, "alive", nil, nil) { text in
            let check = try Check.parse(text)
            guard check.canBeAsked else { throw Complaint("a program cannot be asked again and again by \(check): tcp, http or exec") }
            return check
        }
        model.aliveInterval = try number(section, "alive_interval", 10, 1...86_400)
        model.aliveTimeout = try number(section, "alive_timeout", 5, 1...3600)
        model.aliveFailures = try number(section, "alive_failures", 3, 1...1000)
        func seconds(_ name: String, _ otherwise: Double, _ range: ClosedRange<Double>) throws -> Double {
            try value(section, name, otherwise) { text in
                guard let number = Double(text), range.contains(number) else {
                    throw Complaint("'\(text)' is no number from \(range.lowerBound) to \(range.upperBound)")
                }
                return number
            }
        }
        let names = ["retry_delay", "retry_factor", "retry_max"]
        let isSet = names.contains { ini.option(section, $0) != nil }
        let retry = Program.Retry(
            delay: try seconds(names[0], 1, 0.001...3600), factor: try seconds(names[1], 2, 1...100),
            most: try seconds(names[2], 60, 0.001...86_400))
        model.retry = isSet ? retry : nil
    }

    /// What programs depend on is there, and nothing depends on itself.
    private func checkDependencies(_ groups: [Group]) throws {
        let byName = Dictionary(groups.map { ($0.name, $0) }) { first, _ in first }
        var edges: [String: Set<String>] = [:]
        for group in groups {
            for program in group.programs {
                let own = "\(group.name):\(program.name)"
                for name in program.dependsOn {
                    let (target, process) = name.halves(at: ":") ?? (name, "*")
                    guard let found = byName[target], process == "*" || found.programs.contains(where: { $0.name == process }) else {
                        throw Complaint("program \(own) depends on \(name), which is not there: expected GROUP or GROUP:PROCESS")
                    }
                    for other in found.programs where process == "*" || other.name == process {
                        edges[own, default: []].insert("\(target):\(other.name)")
                    }
                }
            }
        }
        var finished: Set<String> = []
        var path: [String] = []
        func visit(_ name: String) throws {
            if finished.contains(name) { return }
            if let start = path.firstIndex(of: name) {
                throw Complaint("programs depend on each other in a circle: \((path[start...] + [name]).joined(separator: " -> "))")
            }
            path.append(name)
            for next in (edges[name] ?? []).sorted() { try visit(next) }
            path.removeLast()
            finished.insert(name)
        }
        for name in edges.keys.sorted() { try visit(name) }
    }

    /// One of numprocs.
    private mutating func instance(
        _ model: Program, _ section: IniFile.Section, _ common: Expansions, _ number: Int, of count: Int, _ pattern: String
    ) throws -> Program {
        var program = model
        var own = common
        own.values["process_num"] = .number(number)
        own.values["numprocs"] = .number(count)
        let environment = try value(section, "environment", [:], own) { try Self.dictionary($0) }
        own.add(environment: environment)
        program.environment = settings.daemon.environment.merging(environment) { _, last in last }
        do { program.name = try Values.name(own.expand(pattern, "process_name")) } catch let complaint as Complaint {
            throw wrong("\(complaint)", in: section)
        }
        program.directory = try text(section, "directory", own).map(Values.expandHome)
        program.listen = try value(section, "listen", [], own) { try Values.list($0).map(Program.Listen.parse) }
        guard program.listen.count <= 32 else { throw wrong("more than 32 sockets", in: section) }
        for (channel, path) in [("stdout", \Program.output), ("stderr", \Program.error)] {
            var goesToSyslog = model[keyPath: path].goesToSyslog
            program[keyPath: path].file = try value(section, "\(channel)_logfile", .automatic, own) { text in
                switch text.lowercased() {
                case "none", "off": return .none
                case "auto": return .automatic
                case "syslog":
                    goesToSyslog = true
                    return .none
                default:
                    let path = try Values.filePath(text)
                    if Files.isDirectory(path) { throw Complaint("\(path) is a directory") }
                    return .path(path)
                }
            }
            program[keyPath: path].goesToSyslog = goesToSyslog
            if case .path(let file) = program[keyPath: path].file, program[keyPath: path].maxBytes > 0, Self.isStream(file) {
                throw wrong("\(file) cannot be rotated: set \(channel)_logfile_maxbytes=0", in: section)
            }
            if program[keyPath: path].file == .automatic, program[keyPath: path].maxBytes == 0 {
                settings.warnings.append(
                    "For [\(section.name)], AUTO logging used for \(channel)_logfile without rollover, set maxbytes > 0 to avoid "
                        + "filling up filesystem unintentionally")
            }
        }
        if program.redirectsError {
            if case .path = program.error.file {
                settings.warnings.append(
                    "For [\(section.name)], redirect_stderr=true but stderr_logfile has also been set to a filename, the filename has been "
                        + "ignored")
            }
            program.error.file = .none
        }
        guard let command = try text(section, "command", own), !command.trimmed.isEmpty else {
            throw wrong("program section \(section.name) does not specify a command", in: section)
        }
        program.command = command
        return program
    }

    /// A pipe, a terminal or a device, which has no end that could be moved away.
    private static func isStream(_ path: String) -> Bool {
        var info = stat()
        if path == "/dev/stdout" || path == "/dev/stderr" || path.hasPrefix("/dev/fd/") { return true }
        return stat(path, &info) == 0 && info.st_mode & S_IFMT != S_IFREG
    }

    private mutating func warnOfTheUnknown() {
        let ours = ["supervisord", "supervisorctl", "include"]
        let kinds = ["program:", "group:", "eventlistener:", "inet_http_server", "unix_http_server"]
        for section in ini.sections where section.name != "supervisorctl" && !section.name.hasPrefix("ctlplugin:") {
            if section.name.hasPrefix("rpcinterface:") {
                let factory = ini.option(section, "supervisor.rpcinterface_factory")?.value
                if factory != "supervisor.rpcinterface:make_main_rpcinterface" {
                    settings.warnings.append("\(section.place): [\(section.name)] is a plugin in Python and is not loaded")
                }
                continue
            }
            guard ours.contains(section.name) || kinds.contains(where: { section.name.hasPrefix($0) }) else {
                settings.warnings.append("\(section.place): nothing is known of a section [\(section.name)]")
                continue
            }
            let known = asked[section.name] ?? []
            for (name, option) in section.options.sorted(by: { $0.value.place.line < $1.value.place.line }) where !known.contains(name) {
                settings.warnings.append("\(option.place): nothing is known of an option '\(name)' in [\(section.name)]")
            }
        }
    }
}
