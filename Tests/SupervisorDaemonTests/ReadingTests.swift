import Foundation
import Testing

@testable import SupervisorDaemon

/// A directory for one test, with a configuration in it.
struct Place {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("slipway-sd-\(UUID().uuidString.prefix(8))").path
    init() throws { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }
    func remove() { try? FileManager.default.removeItem(atPath: directory) }

    @discardableResult
    func write(_ name: String, _ text: String) throws -> String {
        let path = "\(directory)/\(name)"
        try FileManager.default.createDirectory(
            atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }

    func read(_ name: String) -> String { (try? String(contentsOfFile: "\(directory)/\(name)", encoding: .utf8)) ?? "" }

    /// The settings of a file with a [supervisord] section and this.
    func settings(_ text: String) throws -> Settings {
        try SettingsReader.read(try write("s.conf", "[supervisord]\n\(text)"), environment: ["HOME": "/root", "ODD": "50%d"])
    }

    func complaint(_ text: String, raw: Bool = false) -> String {
        do {
            if raw { _ = try SettingsReader.read(try write("s.conf", text), environment: [:]) } else { _ = try settings(text) }
            return "none"
        } catch { return "\(error)" }
    }
}

@Suite("supervisord's configuration") struct ReadingTests {
    @Test("lines are read as Python's ConfigParser reads them") func lines() throws {
        var ini = IniFile()
        let text = """
            ; a comment
            [DEFAULT]
            Shared = yes
            [one]
            KEY=value ; said
            other: a:b=c
            hash=1#c
            semi=1;c
            many = first
                second ; not this
                # nor this

                third
            twice=1
            twice=2
            empty=
            [two]   ; after the header
            shared=no
            [one]
            later=here
            """
        try ini.add(Array(text.replacingOccurrences(of: "\n", with: "\r\n").utf8), file: "/x/a.conf", here: "/x")
        let one = try #require(ini.section("one"))
        let values = Dictionary(uniqueKeysWithValues: one.options.map { ($0.key, $0.value.value) })
        #expect(
            values == [
                "key": "value", "other": "a:b=c", "hash": "1#c", "semi": "1;c", "many": "first\nsecond\n\nthird", "twice": "2", "empty": "",
                "later": "here",
            ])
        #expect(ini.option(one, "shared")?.value == "yes")
        #expect(ini.option(try #require(ini.section("two")), "shared")?.value == "no")
        #expect(one.options["later"]?.place.line == 20 && ini.sections.map(\.name) == ["one", "two"])
    }

    @Test(
        "what cannot be read is refused with file and line",
        arguments: [
            ("\u{FEFF}[a]\n", "x.conf:1: the file begins with a byte order mark"), ("a=1\n[x]", "x.conf:1: 'a=1' stands before"),
            ("[x]\nnonsense\n", "x.conf:2: 'nonsense' is neither"), ("[x\na=1", "x.conf:1: '[x' is no section header"),
            ("[]\n", "is no section header"), ("[x]\na=\0", "NUL"), ("[x]\n=1", "is neither"),
        ]) func wrongLines(text: String, complaint: String)
    {
        var ini = IniFile()
        do {
            try ini.add(Array(text.utf8), file: "x.conf", here: "/")
            Issue.record("it was read: \(text)")
        } catch { #expect("\(error)".contains(complaint), "\(error)") }
    }

    @Test("expansions are Python's: text, numbers with zeros, a percent sign") func expansions() throws {
        var expansions = Expansions()
        expansions["name"] = "web"
        expansions.values["n"] = .number(7)
        expansions.add(environment: ["A": "50%d"])
        func expand(_ text: String) -> String { (try? expansions.expand(text, "x")) ?? "refused" }
        #expect(expand("%(name)s_%(n)02d-%(n)d%(n)3d %(ENV_A)s 100%%") == "web_07-7  7 50%d 100%")
        for wrong in ["%", "100% sure", "%(nope)s", "%(name)d", "%(name)", "%(n)x", "%s", "%(n)9999d"] {
            #expect(expand(wrong) == "refused", "\(wrong)")
        }
    }

    @Test("a command is split as a POSIX shell would, and nothing else is done to it") func words() throws {
        #expect(try Words.split(#"/bin/sh -c "a \"b\" \$x" 'c d'e f\ g """#) == ["/bin/sh", "-c", #"a "b" \$x"#, "c de", "f g", ""])
        #expect(try Words.split("a;b|c >d $(e) `f` *") == ["a;b|c", ">d", "$(e)", "`f`", "*"])
        for wrong in ["'a", "\"a", "a\\"] { #expect(throws: Complaint.self) { try Words.split(wrong) } }
    }

    @Test("environment is KEY=value with commas and quotes") func pairs() throws {
        func pairs(_ text: String) throws -> [String] { try Values.pairs(text).map { "\($0)=\($1)" } }
        #expect(try pairs(#"A="1,2",B='x"y', C=plain/path:1 ,D="q\"r",E="#) == ["A=1,2", "B=x\"y", "C=plain/path:1", "D=q\"r", "E="])
        #expect(try pairs("A=1,\nB=2,") == ["A=1", "B=2"] && pairs("").isEmpty)
        for wrong in ["A", "A=\"1", "=1", "A=1,,B=2", "A='1'B"] { #expect(throws: Complaint.self, "\(wrong)") { try pairs(wrong) } }
    }

    @Test("programs, groups, listeners and their defaults") func programs() throws {
        let place = try Place()
        defer { place.remove() }
        try place.write("conf.d/more.conf", "[program:inc]\ncommand=%(here)s/run\n")
        let settings = try place.settings(
            """
            environment=G="g"
            [include]
            files=conf.d/*.conf none/*.conf
            [program:web]
            command=/bin/x %(program_name)s %(process_num)d %(ENV_HOME)s %(ENV_OWN)s %(ENV_ODD)s %(ENV_G)s %(group_name)s
            numprocs=2
            numprocs_start=3
            process_name=%(program_name)s_%(process_num)02d
            environment=OWN="o%%%(process_num)d"
            priority=5
            stopsignal=sigint
            exitcodes=0,2
            stdout_logfile=/tmp/w%(process_num)d.log
            stdout_logfile_maxbytes=1kB
            redirect_stderr=true
            [program:solo]
            command=/bin/y
            autorestart=true
            stopasgroup=yes
            colour=blue
            [group:pair]
            programs=web,solo
            priority=7
            [eventlistener:ears]
            command=/bin/z
            events=PROCESS_STATE,tick_5
            """)
        #expect(settings.groups.map(\.name) == ["ears", "pair", "inc"])
        let pair = settings.groups[1]
        #expect(pair.programs.map(\.name) == ["web_03", "web_04", "solo"] && pair.priority == 7)
        let web = pair.programs[0]
        #expect(web.command == "/bin/x web 3 /root o%3 50%d g pair")
        #expect(web.environment == ["G": "g", "OWN": "o%3"] && web.stopSignal == SIGINT && web.exitCodes == [0, 2])
        #expect(web.output.file == .path("/tmp/w3.log") && web.output.maxBytes == 1024 && web.error.file == .none)
        #expect(pair.programs[2].restart == .always && pair.programs[2].killsGroup && pair.programs[2].output.file == .automatic)
        #expect(settings.groups[0].pool?.events == [.processState, .tick5] && settings.groups[0].priority == -1)
        #expect(settings.groups[2].programs[0].command == "\(place.directory)/conf.d/run")
        #expect(
            settings.warnings.contains { $0.contains("s.conf:21: nothing is known of an option 'colour' in [program:solo]") },
            "\(settings.warnings)")
        #expect(settings.warnings.contains { $0.hasPrefix("No file matches via include") })
    }

    @Test("a program may be in two sections of the same name, and files that include each other are read once") func repeated() throws {
        let place = try Place()
        defer { place.remove() }
        let settings = try place.settings("[include]\nfiles=s.conf *.conf\n[program:a]\ncommand=x\n[program:a]\npriority=3\n")
        #expect(settings.groups.count == 1 && settings.groups[0].programs[0].priority == 3)
    }

    @Test(
        "what makes no sense is refused, with section, option and place",
        arguments: [
            ("[program:x]\n", "program section program:x does not specify a command in section 'program:x' (file: '"),
            ("[program:x]\ncommand=\n", "does not specify a command"),
            ("[program:x]\ncommand=y\nnumprocs=2\n", "must be present within process_name"),
            ("[program:x]\ncommand=y\nnumprocs=0\n", "option numprocs"), ("[program:x]\ncommand=y\nnumprocs=-1\n", "outside 1 to"),
            ("[program:x]\ncommand=y\nstartretries=-1\n", "option startretries"),
            ("[program:x]\ncommand=y\nstartsecs=x\n", "'x' is no whole number"),
            ("[program:x]\ncommand=y\nstdout_logfile_maxbytes=-1\n", "option stdout_logfile_maxbytes"),
            ("[program:x]\ncommand=y\nstdout_logfile_maxbytes=9999999999GB\n", "is no whole number"),
            ("[program:x]\ncommand=y\nautostart=maybe\n", "not a valid boolean"),
            ("[program:x]\ncommand=y\nautorestart=maybe\n", "invalid 'autorestart'"),
            ("[program:x]\ncommand=y\nexitcodes=0,256\n", "exit codes"),
            ("[program:x]\ncommand=y\nstopsignal=NOPE\n", "not a valid signal"),
            ("[program:x]\ncommand=y\numask=9\n", "octal"), ("[program:x]\ncommand=y\nuser=nobody-here\n", "Invalid user name"),
            ("[program:x]\ncommand=y\nstopasgroup=true\nkillasgroup=false\n", "Cannot set stopasgroup=true"),
            ("[program:x]\ncommand=y\nenvironment=A\n", "Unexpected end of key/value pairs"),
            ("[program:x]\ncommand=%(nope)s\n", "cannot be expanded"), ("[program:x]\ncommand=100%\n", "badly formatted"),
            ("[program:x]\ncommand=y\nstdout_logfile=/no/such/dir/x\n", "does not exist"),
            ("[program:x]\ncommand=y\nstdout_logfile=/tmp\n", "is a directory"),
            ("[program:x]\ncommand=y\nstdout_logfile=/dev/stdout\n", "cannot be rotated"), ("[program:a b]\ncommand=y\n", "Invalid name"),
            ("[program:]\ncommand=y\n", "Invalid name"), ("[program:a/b]\ncommand=y\n", "Invalid name"),
            ("[program:x]\ncommand=y\ntype=cron\n", "no kind of program"),
            ("[group:g]\nprograms=x\n", "names unknown program"), ("[group:g]\n", "no programs="),
            ("[program:x]\ncommand=y\n[group:g]\nprograms=x\n[group:h]\nprograms=x\n", "is in group g already"),
            ("[program:x]\ncommand=y\n[eventlistener:x]\ncommand=y\nevents=TICK_5\n", "two groups have the name x"),
            ("[eventlistener:x]\ncommand=y\n", "requires an \"events\" line"),
            ("[eventlistener:x]\ncommand=y\nevents=NOPE\n", "Unknown event type NOPE"),
            ("[eventlistener:x]\ncommand=y\nevents=TICK_5\nredirect_stderr=true\n", "eventlistener protocol"),
            ("[eventlistener:x]\ncommand=y\nevents=TICK_5\nbuffer_size=0\n", "buffer_size"), ("[fcgi-program:x]\ncommand=y\n", "FastCGI"),
            ("[inet_http_server]\n", "has no port value"), ("[inet_http_server]\nport=0\n", "not a valid port number"),
            ("[inet_http_server]\nport=65536\n", "not a valid port number"),
            ("[inet_http_server]\nport=1\nusername=x\n", "incomplete authentication"),
            ("[unix_http_server]\n", "has no file value"),
            ("[unix_http_server]\nfile=/tmp/\(String(repeating: "x", count: 108))\n", "1 to 107 bytes"),
            ("[unix_http_server]\nfile=/tmp/x\nchmod=888\n", "octal"),
            ("[unix_http_server]\nfile=/tmp/x\nchown=no:one\n", "Invalid user name"),
            ("[include]\n", "says no files="), ("loglevel=loud\n", "bad logging level"), ("minfds=0\n", "minfds"),
            ("childlogdir=/no/such\n", "existing directory"),
            ("logfile=/no/such/x\n", "does not exist"), ("user=nobody-here\n", "Invalid user name"),
        ]) func refused(text: String, complaint: String) throws
    {
        let place = try Place()
        defer { place.remove() }
        let said = place.complaint(text)
        #expect(said.contains(complaint), "\(text): \(said)")
        if text.contains("command=y\n"), text.hasPrefix("[program:x]"), !complaint.contains("group") {
            #expect(said.contains("s.conf"), "no place: \(said)")
        }
    }

    @Test("checks, dependencies and pauses between retries") func checks() throws {
        let place = try Place()
        defer { place.remove() }
        let settings = try place.settings(
            "[program:a]\ncommand=x\nready=http:8080/h?x=1\nalive=exec:/bin/t 'a b'\ndepends_on=b:b\nstartretries=unlimited\nretry_delay=0.5\nretry_max=10\n"
                + "[program:b]\ncommand=y\nready=tcp:[::1]:90\n")
        let a = settings.groups[0].programs[0]
        #expect(
            a.ready == .http(host: "127.0.0.1", port: 8080, path: "/h?x=1") && a.alive == .exec(["/bin/t", "a b"]) && a.startRetries == .max
        )
        #expect(settings.groups[1].programs[0].ready == .tcp(host: "::1", port: 90))
        #expect((1...7).map { a.retry?.pause($0, chance: 0.5) } == [500, 1000, 2000, 4000, 8000, 10_000, 10_000])
        #expect(a.retry?.pause(.max, chance: 1) == 10_500)
        for (text, complaint) in [
            ("[program:a]\ncommand=x\ndepends_on=a\n", "in a circle: a:a -> a:a"),
            (
                "[program:a]\ncommand=x\ndepends_on=b\n[program:b]\ncommand=x\ndepends_on=c\n[program:c]\ncommand=x\ndepends_on=a\n",
                "a:a -> b:b -> c:c -> a:a"
            ),
            ("[program:a]\ncommand=x\ndepends_on=b\n", "depends on b, which is not there"),
            ("[program:a]\ncommand=x\nready=udp:1\n", "is no kind of check"),
            ("[program:a]\ncommand=x\nready=tcp:0\n", "not a valid port"),
            ("[program:a]\ncommand=x\nalive=log:x\n", "cannot be asked again"),
            ("[program:a]\ncommand=x\nready=exec:'a\n", "No closing quotation"),
            ("[program:a]\ncommand=x\nretry_factor=0.5\n", "no number from 1.0"),
            ("[program:a]\ncommand=x\nready=http:80/a b\n", "no path of a URL"),
        ] { #expect(place.complaint(text).contains(complaint), "\(place.complaint(text))") }
    }

    @Test("a configuration that is no file is refused") func noFile() throws {
        let place = try Place()
        defer { place.remove() }
        #expect(place.complaint("[program:x]\ncommand=y\n", raw: true) == ".ini file does not include supervisord section")
        mkfifo("\(place.directory)/fifo", 0o600)
        for path in [place.directory, "\(place.directory)/fifo", "\(place.directory)/none", "/dev/zero"] {
            #expect(throws: Complaint.self, "\(path)") { try SettingsReader.read(path, environment: [:]) }
        }
    }
}

@Suite("supervisord's command line") struct OptionsTests {
    @Test("options in both forms, and in bundles") func options() throws {
        let place = try Place()
        defer { place.remove() }
        let path = try place.write("a.conf", "[supervisord]\n")
        guard
            case .run(let options) = try Options.parse([
                "-nc", path, "-edebug", "--logfile=/tmp/x.log", "--pidfile", "/tmp/x.pid", "-i", "me",
            ])
        else { throw Complaint("not run") }
        var daemon = Settings.Daemon()
        try options.apply(to: &daemon)
        #expect(options.configuration == path && daemon.isForeground && daemon.level == .debug && daemon.identifier == "me")
        #expect(daemon.logfile == "/tmp/x.log" && daemon.pidfile == "/tmp/x.pid")
        guard case .print(let help) = try Options.parse(["-n", "-h"]) else { throw Complaint("no help") }
        #expect(help.hasPrefix("supervisord -- run a set of applications"))
        for wrong in [["-x"], ["--nope"], ["-c"], ["file"], ["--nodaemon=1"], ["-e"]] {
            #expect(throws: Complaint.self, "\(wrong)") { try Options.parse(wrong) }
        }
        for wrong in [["-e", "loud"], ["-m", "9"], ["-y", "x"], ["-z", "-1"]] {
            guard case .run(let options) = try Options.parse(["-c", path] + wrong) else { throw Complaint("not run") }
            #expect(throws: Complaint.self, "\(wrong)") { try options.apply(to: &daemon) }
        }
    }
}
