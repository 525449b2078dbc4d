import Glibc

/// The command line of supervisord.
struct Options {
    var configuration = ""
    var isForeground = false
    var isSilent = false
    var user: String?
    var umask: String?
    var directory: String?
    var logfile: String?
    var logfileMaxBytes: String?
    var logfileBackups: String?
    var level: String?
    var pidfile: String?
    var identifier: String?
    var childLogDirectory: String?
    var keepsOldLogs = false
    var minimumFiles: String?
    var minimumProcesses: String?
    var stripsANSI = false
    /// The descriptor of the state of the program whose place this one takes, or would.
    var resume: Int32?
    var isCheck = false

    enum Wanted {
        case run(Options)
        case print(String)
    }

    static let help = """
        supervisord -- run a set of applications as daemons.

        Usage: supervisord [options]

        This is Slipway's: it reads supervisord's configuration, speaks its protocol, and is driven by supervisorctl.

        Options:
        -c/--configuration FILENAME -- configuration file path (searches if not given)
        -n/--nodaemon -- run in the foreground (same as 'nodaemon=true' in config file)
        -s/--silent -- no logs to stdout (maps to 'silent=true' in config file)
        -h/--help -- print this usage message and exit
        -v/--version -- print supervisord version number and exit
        -u/--user USER -- run supervisord as this user (or numeric uid)
        -m/--umask UMASK -- use this umask for daemon subprocess (default is 022)
        -d/--directory DIRECTORY -- directory to chdir to when daemonized
        -l/--logfile FILENAME -- use FILENAME as logfile path
        -y/--logfile_maxbytes BYTES -- use BYTES to limit the max size of logfile
        -z/--logfile_backups NUM -- number of backups to keep when max bytes reached
        -e/--loglevel LEVEL -- use LEVEL as log level (debug,info,warn,error,critical)
        -j/--pidfile FILENAME -- write a pid file for the daemon process to FILENAME
        -i/--identifier STR -- identifier used for this instance of supervisord
        -q/--childlogdir DIRECTORY -- the log directory for child process logs
        -k/--nocleanup --  prevent the process from performing cleanup (removal of
                           old automatic child log files) at startup.
        -a/--minfds NUM -- the minimum number of file descriptors for start success
        -t/--strip_ansi -- strip ansi escape codes from process output
        --minprocs NUM  -- the minimum number of processes available for start success

        """

    private static let flags: [String: (any WritableKeyPath<Options, Bool> & Sendable, Character)] = [
        "nodaemon": (\.isForeground, "n"), "silent": (\.isSilent, "s"), "nocleanup": (\.keepsOldLogs, "k"),
        "strip_ansi": (\.stripsANSI, "t"),
    ]
    private static let values: [String: (any WritableKeyPath<Options, String?> & Sendable, Character?)] = [
        "user": (\.user, "u"), "umask": (\.umask, "m"), "directory": (\.directory, "d"), "logfile": (\.logfile, "l"),
        "logfile_maxbytes": (\.logfileMaxBytes, "y"), "logfile_backups": (\.logfileBackups, "z"), "loglevel": (\.level, "e"),
        "pidfile": (\.pidfile, "j"), "identifier": (\.identifier, "i"), "childlogdir": (\.childLogDirectory, "q"),
        "minfds": (\.minimumFiles, "a"), "minprocs": (\.minimumProcesses, nil),
    ]

    /// Throws `Complaint`.
    static func parse(_ arguments: [String]) throws -> Wanted {
        var options = Options()
        var configuration: String?
        var rest = arguments[...]
        func value(_ name: String, _ given: String?) throws -> String {
            if let given { return given }
            guard let next = rest.popFirst() else { throw Complaint("option \(name) requires argument") }
            return next
        }
        /// True when that was the end of a bundle of short options.
        func take(_ name: String, _ shown: String, _ given: String?) throws -> Wanted? {
            switch name {
            case "help": return .print(help)
            case "version": return .print(Remote.supervisorVersion + "\n")
            case "configuration": configuration = try value(shown, given)
            case "resume", "check-resume":
                options.resume = Int32(try value(shown, given))
                options.isCheck = name == "check-resume"
            default:
                if let (path, _) = flags[name] {
                    guard given == nil else { throw Complaint("option \(shown) must not have an argument") }
                    options[keyPath: path] = true
                } else if let (path, _) = values[name] {
                    options[keyPath: path] = try value(shown, given)
                } else {
                    throw Complaint("option \(shown) not recognized")
                }
            }
            return nil
        }
        while let argument = rest.popFirst() {
            if argument.hasPrefix("--"), argument.count > 2 {
                let (name, given) = argument.dropFirst(2).halves(at: "=").map { ($0, $1) } ?? (String(argument.dropFirst(2)), nil)
                if let wanted = try take(name, "--\(name)", given) { return wanted }
            } else if argument.hasPrefix("-"), argument.count > 1 {
                var letters = argument.dropFirst()
                while let letter = letters.popFirst() {
                    let long: String? =
                        switch letter {
                        case "h": "help"
                        case "v": "version"
                        case "c": "configuration"
                        default: flags.first { $0.value.1 == letter }?.key ?? values.first { $0.value.1 == letter }?.key
                        }
                    guard let long else { throw Complaint("option -\(letter) not recognized") }
                    let takesValue = long == "configuration" || values[long] != nil
                    let given = takesValue && !letters.isEmpty ? String(letters) : nil
                    if given != nil { letters = "" }
                    if let wanted = try take(long, "-\(letter)", given) { return wanted }
                }
            } else {
                throw Complaint("positional arguments are not supported: \(argument)")
            }
        }
        options.configuration = try configuration.map(Files.absolute) ?? search()
        return .run(options)
    }

    private static func search() throws -> String {
        let own = CommandLineFiles.ownDirectory
        let paths = [
            own + "/../etc/supervisord.conf", own + "/../supervisord.conf", "supervisord.conf", "etc/supervisord.conf",
            "/etc/supervisord.conf",
            "/etc/supervisor/supervisord.conf",
        ].map(Files.absolute)
        guard let found = paths.first(where: Files.exists) else {
            throw Complaint(
                "No config file found at default paths (\(paths.joined(separator: ", "))); use the -c option to specify a config file at a "
                    + "different path")
        }
        return found
    }

    /// What the command line says is stronger than the file. Throws `Complaint`.
    func apply(to daemon: inout Settings.Daemon) throws {
        if isForeground { daemon.isForeground = true }
        if isSilent { daemon.isSilent = true }
        if keepsOldLogs { daemon.keepsOldLogs = true }
        if stripsANSI { daemon.stripsANSI = true }
        func set<T>(_ text: String?, _ path: WritableKeyPath<Settings.Daemon, T>, _ option: String, _ parse: (String) throws -> T) throws {
            guard let text else { return }
            do { daemon[keyPath: path] = try parse(text) } catch { throw Complaint("Invalid value for -\(option) '\(text)': \(error)") }
        }
        func natural(_ text: String) throws -> Int {
            let number = try Values.integer(text)
            guard number >= 0 else { throw Complaint("it is negative") }
            return number
        }
        try set(user, \.user, "u") { try Accounts.user($0) }
        try set(umask, \.umask, "m", Values.octal)
        try set(directory, \.directory, "d") { try Values.directory($0) }
        try set(logfile, \.logfile, "l", Values.filePath)
        try set(logfileMaxBytes, \.logfileMaxBytes, "y") { try Values.bytes($0) }
        try set(logfileBackups, \.logfileBackups, "z", natural)
        try set(level, \.level, "e", Level.parse)
        try set(pidfile, \.pidfile, "j", Values.filePath)
        try set(identifier, \.identifier, "i") { $0 }
        try set(childLogDirectory, \.childLogDirectory, "q", Values.directory)
        try set(minimumFiles, \.minimumFiles, "a", natural)
        try set(minimumProcesses, \.minimumProcesses, "-minprocs", natural)
    }
}

enum CommandLineFiles {
    static var ownDirectory: String {
        var buffer = [CChar](repeating: 0, count: 4097)
        let count = readlink("/proc/self/exe", &buffer, 4096)
        guard count > 0 else { return "." }
        return Files.directory(of: String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
}
