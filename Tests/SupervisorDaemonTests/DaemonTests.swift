import Foundation
import TestKit
import Testing

@testable import SupervisorDaemon

/// The real program under its other name's options, in a directory of its own, driven by Debian's supervisorctl.
struct RealDaemon {
    let place: Place
    let process: Background
    static let ours = Platform.binaries + "/slipway-supervisor"

    /// Starts `program` with a Unix socket and what `text` adds, and ends it with SIGKILL should the test not have.
    static func run(
        _ text: String, program: String = ours, arguments: [String] = [], place: Place? = nil, _ body: (RealDaemon) async throws -> Void
    ) async throws {
        let place = try place ?? Place()
        defer { place.remove() }
        let path = try place.write("s.conf", Self.configuration + text)
        let daemon = RealDaemon(place: place, process: try Background([program, "-n", "-c", path] + arguments))
        do {
            try await daemon.isUp()
            try await body(daemon)
        } catch {
            daemon.process.send(signal: SIGKILL)
            throw TestFailure("\(error)\nits log:\n\(place.read("s.log").suffix(3000))\(daemon.process.text.suffix(500))")
        }
        if daemon.process.isRunning { daemon.process.send(signal: SIGTERM) }
        _ = try await daemon.process.finish(within: 30)
    }

    static let configuration = """
        [unix_http_server]
        file=%(here)s/s.sock
        [supervisord]
        logfile=%(here)s/s.log
        pidfile=%(here)s/s.pid
        childlogdir=%(here)s
        loglevel=debug
        [rpcinterface:supervisor]
        supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
        [supervisorctl]
        serverurl=unix://%(here)s/s.sock

        """

    func isUp() async throws {
        try await eventually(within: 30, "the daemon's socket") {
            guard process.isRunning else { return true }
            return try await ctl("pid").status == 0
        }
    }

    func ctl(_ arguments: String...) async throws -> Finished {
        try await TestKit.run(["supervisorctl", "-c", "\(place.directory)/s.conf"] + arguments, within: 60)
    }

    /// A call by Python's xmlrpc.client; what it printed.
    func call(_ expression: String) async throws -> String {
        let script = """
            import http.client, socket, xmlrpc.client, sys
            class U(http.client.HTTPConnection):
                def connect(self):
                    self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(sys.argv[1])
            class T(xmlrpc.client.Transport):
                def make_connection(self, host): return U("localhost")
            s = xmlrpc.client.ServerProxy("http://x", transport=T()).supervisor
            slipway = xmlrpc.client.ServerProxy("http://x", transport=T()).slipway
            try: print(\(expression))
            except xmlrpc.client.Fault as f: print("fault", f.faultCode, f.faultString)
            """
        return try await TestKit.run(["/usr/bin/python3", "-c", script, "\(place.directory)/s.sock"], within: 60).description
            .replacingOccurrences(of: "exit 0\n", with: "").trimmingCharacters(in: .newlines)
    }

    /// Each line of `status` says RUNNING.
    func isRunning(_ names: String...) async throws -> Bool {
        let lines = try await TestKit.run(["supervisorctl", "-c", "\(place.directory)/s.conf", "status"] + names).output.split(
            separator: "\n")
        return !lines.isEmpty && lines.allSatisfy { $0.contains(" RUNNING ") }
    }

    func log(has text: String) async throws {
        try await eventually(within: 30, "'\(text)' in the log") { place.read("s.log").contains(text) }
    }
}

@Suite("as supervisord", .serialized, .timeLimit(.minutes(5))) struct DaemonTests {
    /// What a session with supervisorctl prints, with what changes from run to run taken out.
    private func transcript(_ program: String) async throws -> [String] {
        var lines: [String] = []
        try await RealDaemon.run(
            """
            [program:web]
            command=/bin/sh -c "echo out %(process_num)d; echo err >&2; exec sleep 100"
            numprocs=2
            process_name=%(program_name)s_%(process_num)02d
            stopwaitsecs=1
            stdout_logfile=%(here)s/web_%(process_num)d.log
            stderr_logfile=%(here)s/web_%(process_num)d.err
            [program:fail]
            command=/bin/sh -c "exit 7"
            autostart=false
            startretries=0
            [program:deploy]
            command=/bin/sh -c "echo done; sleep 0.3"
            autostart=false
            autorestart=false
            startsecs=0
            stdout_logfile=%(here)s/deploy.log
            [program:missing]
            command=/no/such/file
            autostart=false
            [program:directory]
            command=/bin/sh -c "pwd; sleep 0.3"
            directory=/usr
            autorestart=false
            startsecs=0
            stdout_logfile=%(here)s/directory.log
            [include]
            files=more/*.conf
            """, program: program
        ) { daemon in
            func say(_ arguments: String..., sorted: Bool = false) async throws {
                let done = try await TestKit.run(["supervisorctl", "-c", "\(daemon.place.directory)/s.conf"] + arguments, within: 60)
                var text = done.output + done.errors
                for (pattern, name) in [
                    ("pid +[0-9]+", "pid N"), ("uptime [0-9:]+", "uptime T"), ("[A-Z][a-z]{2} [0-9]{2} [0-9]{2}:[0-9]{2} [AP]M", "WHEN"),
                    (NSRegularExpression.escapedPattern(for: daemon.place.directory), "DIR"), ("(?m)^[0-9]+$", "N"),
                ] { text = text.replacingOccurrences(of: pattern, with: name, options: .regularExpression) }
                var said = text.components(separatedBy: "\n")
                if sorted { said.sort() }
                lines += ["$ \(arguments.joined(separator: " ")) -> \(done.status)"] + said
            }
            try await eventually { try await daemon.isRunning("web:*") }
            for name in ["version", "pid", "avail", "status"] { try await say(name) }
            try await say("status", "web:*", "nope", "nope:*")
            for words in [
                ["start", "web:web_00"], ["start", "nope"], ["start", "nope:*"], ["start", "fail"], ["start", "missing"],
                ["start", "deploy"],
            ] {
                try await say(words[0], words[1])
            }
            try await eventually { try await daemon.ctl("status", "deploy").output.contains("EXITED") }
            for words in [
                ["status", "deploy"], ["tail", "deploy"], ["tail", "directory"], ["stop", "web:web_01"], ["stop", "web:web_01"],
                ["stop", "nope"], ["stop", "fail"],
                ["pid", "web:web_00"], ["pid", "nope"], ["pid", "fail"], ["tail", "nope"], ["tail", "missing"], ["clear", "web:web_00"],
                ["tail", "web:web_00"],
                ["clear", "nope"], ["reread", ""],
            ] { try await say(words[0], words[1]) }
            try await say("start", "web:*", sorted: true)
            try await say("restart", "web:*", sorted: true)
            try await say("signal", "HUP", "fail")
            try await say("signal", "FOO", "web:web_00")
            try await say("signal", "CONT", "web:*", sorted: true)
            try await say("tail", "web:web_01", "stderr")
            try await say("tail", "-3", "web:web_01")
            try daemon.place.write("more/a.conf", "[program:new]\ncommand=/bin/sleep 100\nstopwaitsecs=1\n")
            try await say("reread")
            try await say("update")
            try await eventually { try await daemon.isRunning("new") }
            try daemon.place.write("more/a.conf", "[program:new]\ncommand=/bin/sleep 101\nstopwaitsecs=1\n")
            try await say("update")
            try await say("add", "nope")
            try await say("add", "new")
            try await say("remove", "new")
            try await say("remove", "nope")
            try daemon.place.write("more/b.conf", "[program:oops]\n")
            try await say("reread")
            try FileManager.default.removeItem(atPath: "\(daemon.place.directory)/more/b.conf")
            try FileManager.default.removeItem(atPath: "\(daemon.place.directory)/more/a.conf")
            try await say("update")
            try await say("stop", "all", sorted: true)
            try await say("status")
            try await say("start", "all", sorted: true)
            try await say("shutdown")
            lines.append("exit \(try await daemon.process.finish(within: 30).status)")
            for name in ["s.sock", "s.pid"] {
                lines.append("\(name) \(FileManager.default.fileExists(atPath: "\(daemon.place.directory)/\(name)"))")
            }
        }
        return lines
    }

    @Test("supervisorctl prints the same, and exits the same, as with the real one") func sameAsTheRealOne() async throws {
        let real = try await transcript("/usr/bin/supervisord")
        let ours = try await transcript(RealDaemon.ours)
        for (index, (one, other)) in zip(real, ours).enumerated() where one != other {
            Issue.record("line \(index), after '\(real[..<index].last { $0.hasPrefix("$") } ?? "")': '\(other)' for '\(one)'")
        }
        #expect(real.count == ours.count && real.count > 130)
    }

    @Test("a one-shot program: a start waits for its end, two at once are refused, and its runs are remembered") func oneshot() async throws
    {
        try await RealDaemon.run(
            """
            [program:deploy]
            type=oneshot
            command=/bin/sh -c "echo run >> %(here)s/runs; while [ ! -e %(here)s/go ]; do sleep 0.02; done; exit $(cat %(here)s/go)"
            exitcodes=0,2
            """
        ) { daemon in
            let directory = daemon.place.directory
            #expect(try await daemon.ctl("status", "deploy").output.contains("Not started"))
            async let first = daemon.ctl("start", "deploy")
            try await eventually { daemon.place.read("runs") == "run\n" }
            let second = try await daemon.ctl("start", "deploy")
            #expect(second.status != 0, "\(second)")
            #expect(
                try await daemon.call("s.startProcess('deploy')") == "fault 30 FAILED: deploy is running already; wait for it, or stop it")
            try daemon.place.write("go", "2")
            let done = try await first
            #expect(done.status == 0 && done.output == "deploy: started\n")
            #expect(daemon.place.read("runs") == "run\n")
            try daemon.place.write("go", "5")
            let failed = try await daemon.ctl("start", "deploy")
            #expect(failed.status == 7 && failed.output == "deploy: ERROR (abnormal termination)\n", "\(failed)")
            #expect(try await daemon.call("s.startProcess('deploy')") == "fault 40 ABNORMAL_TERMINATION: deploy: exit status 5")
            try FileManager.default.removeItem(atPath: "\(directory)/go")
            async let stopped = daemon.call("s.startProcess('deploy')")
            try await eventually { try await daemon.ctl("status", "deploy").output.contains("RUNNING") }
            #expect(try await daemon.ctl("stop", "deploy").status == 0)
            #expect(try await stopped == "fault 40 ABNORMAL_TERMINATION: deploy: it was ended by SIGTERM")
            #expect(daemon.place.read("runs") == "run\nrun\nrun\nrun\n", "never run again by itself")
            let runs = try await daemon.call(
                "[(r['exitstatus'], r['signal'], r['success'], r['end'] >= r['start'] > 0) for r in slipway.getRuns('deploy')]")
            #expect(runs == "[(2, '', True, True), (5, '', False, True), (5, '', False, True), (-1, 'SIGTERM', False, True)]")
        }
    }

    @Test("what dies comes back at once; what cannot start is given up; what ends at once does not burn the processor") func restarting()
        async throws
    {
        try await RealDaemon.run(
            """
            [program:web]
            command=/bin/sleep 1000
            startsecs=0
            [program:never]
            command=/bin/false
            startretries=1
            [program:spin]
            command=/bin/sh -c "echo x >> %(here)s/spins"
            startsecs=0
            autorestart=true
            [program:nowhere]
            command=/bin/true
            directory=/no/such/place
            startretries=0
            """
        ) { daemon in
            let pid = try #require(Int32(try await daemon.ctl("pid", "web").output.trimmingCharacters(in: .newlines)))
            kill(pid, SIGKILL)
            try await daemon.log(has: "exited: web (terminated by SIGKILL; not expected)")
            let again = Int32(try await daemon.ctl("pid", "web").output.trimmingCharacters(in: .newlines))
            #expect(again != nil && again != pid && again != 0)
            try await daemon.log(has: "gave up: never entered FATAL state, too many start retries too quickly")
            try await daemon.log(has: "gave up: nowhere entered FATAL state")
            #expect(
                try await daemon.ctl("status", "nowhere").output.contains("couldn't chdir to /no/such/place: No such file or directory"))
            // Nine runs without a pause of a second would be over in a moment.
            try await eventually { daemon.place.read("spins").count >= 18 }
            let log = daemon.place.read("s.log")
            #expect(log.contains("success: web entered RUNNING state, process has stayed up for > than 0 seconds (startsecs)"))
            #expect(
                log.range(of: #"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO spawned: 'web' with pid \d+$"#, options: .regularExpression)
                    != nil)
        }
    }

    @Test("a child has a group of its own, three pipes, the environment, and no shell in between") func children() async throws {
        try await RealDaemon.run(
            """
            environment=G="1,2"
            """.replacingOccurrences(of: "environment", with: "[program:x]\ncommand=/bin/sleep 1000 ; no\numask=027\nenvironment")
        ) { daemon in
            try await eventually { try await daemon.isRunning("x") }
            let pid = try #require(Int32(try await daemon.ctl("pid", "x").output.trimmingCharacters(in: .newlines)))
            let environment = try String(contentsOfFile: "/proc/\(pid)/environ", encoding: .utf8).split(separator: "\0").map(String.init)
            for entry in [
                "SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=x", "SUPERVISOR_GROUP_NAME=x",
                "SUPERVISOR_SERVER_URL=unix://\(daemon.place.directory)/s.sock", "G=1,2",
            ] {
                #expect(environment.contains(entry), "\(entry)")
            }
            #expect(getpgid(pid) == pid && getsid(pid) == getsid(daemon.process.pid))
            let links = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").sorted()
            #expect(links == ["0", "1", "2"])
            for link in links {
                #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\(link)").hasPrefix("pipe:"))
            }
            #expect(try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8).contains("Umask:\t0027"))
            #expect(try String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8) == "/bin/sleep\u{0}1000\u{0}")
        }
    }

    @Test("stopping: the signal, then SIGKILL when it does not help, to the group when that is asked for") func stopping() async throws {
        try await RealDaemon.run(
            """
            [program:deaf]
            command=/bin/sh -c "trap '' TERM; while :; do sleep 0.05; done"
            stopwaitsecs=1
            killasgroup=true
            [program:family]
            command=/bin/sh -c "sleep 1000 & echo $! > %(here)s/child; wait"
            stopasgroup=true
            [program:holder]
            command=/bin/sh -c "sleep 1000 & echo $! > %(here)s/orphan; exit 0"
            startsecs=0
            autorestart=false
            """
        ) { daemon in
            try await eventually { try await daemon.isRunning("deaf", "family") }
            #expect(try await daemon.ctl("stop", "deaf").output == "deaf: stopped\n")
            try await daemon.log(has: "killing 'deaf' (")
            try await daemon.log(has: "stopped: deaf (terminated by SIGKILL)")
            let child = try #require(Int32(daemon.place.read("child").trimmingCharacters(in: .newlines)))
            #expect(try await daemon.ctl("stop", "family").status == 0)
            try await eventually { kill(child, 0) != 0 }
            // An orphan that holds the output open keeps nobody waiting.
            try await eventually { try await daemon.ctl("status", "holder").output.contains("EXITED") }
            let orphan = try #require(Int32(daemon.place.read("orphan").trimmingCharacters(in: .newlines)))
            kill(orphan, SIGKILL)
            try await daemon.log(has: "reaped unknown pid \(orphan) (terminated by SIGKILL)")
        }
    }

    @Test("listeners get events, one at a time, and again when they fail or die") func listeners() async throws {
        let listener = """
            import os, sys
            from supervisor import childutils
            seen = open(sys.argv[1] + "/seen", "a", encoding="latin-1")
            failed = sys.argv[1] + "/failed"
            while True:
                headers, payload = childutils.listener.wait()
                seen.write("%s %s|%s\\n" % (headers["eventname"], headers["pool"], payload.replace("\\n", "/"))); seen.flush()
                if "twice" in payload and not os.path.exists(failed):
                    open(failed, "w"); childutils.listener.fail()
                elif "deadly" in payload and not os.path.exists(failed + "2"):
                    open(failed + "2", "w"); os._exit(3)
                else: childutils.listener.ok()
            """
        let place = try Place()
        try place.write("listener.py", listener)
        try await RealDaemon.run(
            """
            [eventlistener:ears]
            command=/usr/bin/python3 %(here)s/listener.py %(here)s
            environment=PYTHONIOENCODING="latin-1" ; childutils counts characters, and len counts bytes
            events=REMOTE_COMMUNICATION,PROCESS_STATE_EXITED,PROCESS_COMMUNICATION,PROCESS_GROUP
            [eventlistener:rude]
            command=/bin/sh -c "echo nonsense; exec sleep 1000"
            events=REMOTE_COMMUNICATION
            buffer_size=1
            [program:talk]
            command=/bin/sh -c "printf 'x<!--XSUPERVISOR:BEGIN-->héllo<!--XSUPERVISOR:END-->y'; exit 4"
            stdout_capture_maxbytes=1MB
            stdout_logfile=%(here)s/talk.log
            autostart=false
            autorestart=false
            startsecs=0
            """, place: place
        ) { daemon in
            func send(_ data: String) async throws { #expect(try await daemon.call("s.sendRemoteCommEvent('t', '\(data)')") == "True") }
            try await send("one")
            try await send("twice")
            try await send("deadly")
            try await send("é")
            #expect(try await daemon.call("s.startProcess('talk')") == "True")
            @Sendable func seen() -> [String] { place.read("seen").split(separator: "\n").map(String.init) }
            try await eventually { seen().count >= 8 }
            let remote = seen().filter { $0.hasPrefix("REMOTE") }
            let names = ["one", "twice", "twice", "deadly", "deadly", "é"]
            #expect(remote == names.map { "REMOTE_COMMUNICATION ears|type:t/\($0)" })
            let talk = seen().filter { $0.contains("talk") }.map {
                $0.replacingOccurrences(of: #"pid:\d+"#, with: "pid:N", options: .regularExpression)
            }
            #expect(
                talk == [
                    "PROCESS_COMMUNICATION_STDOUT ears|processname:talk groupname:talk pid:N/héllo",
                    "PROCESS_STATE_EXITED ears|processname:talk groupname:talk from_state:RUNNING expected:0 pid:N",
                ])
            #expect(place.read("talk.log") == "xy")
            try await daemon.log(has: "rude: has entered the UNKNOWN state and will no longer receive events")
            try await daemon.log(has: "pool rude event buffer overflowed, discarding event")
            try await daemon.log(has: "ears: event was rejected")
            try await daemon.log(has: "ears: BUSY -> ACKNOWLEDGED")
        }
    }

    @Test("a followed log is followed over rotation, clearing and a new process; supervisorctl's tail -f sees each line") func following()
        async throws
    {
        try await RealDaemon.run(
            """
            [program:cat]
            command=/bin/cat
            stdout_logfile=%(here)s/cat.log
            stdout_logfile_maxbytes=40
            [program:quiet]
            command=/bin/sleep 1000
            """
        ) { daemon in
            let curl = ["curl", "-sN", "--unix-socket", "\(daemon.place.directory)/s.sock"]
            let follower = try Background(curl + ["http://x/logtail/cat/stdout"])
            let empty = try Background(curl + ["-v", "http://x/logtail/quiet/stdout"])
            try await eventually { empty.text.contains("200 OK") }
            var expected = ""
            for number in 0..<20 {
                expected += "line number \(number)\n"
                #expect(try await daemon.call("s.sendProcessStdin('cat', 'line number \(number)\\n')") == "True")
                if number == 10 { #expect(try await daemon.ctl("restart", "cat").status == 0) }
                try await eventually { [expected] in follower.text.contains(expected) }
            }
            #expect(follower.text == expected)
            let tail = try Background(["supervisorctl", "-c", "\(daemon.place.directory)/s.conf", "tail", "-f", "cat"])
            try await eventually { tail.text.contains("line number 19") }
            #expect(try await daemon.ctl("clear", "cat").status == 0)
            #expect(try await daemon.call("s.sendProcessStdin('cat', 'after\\n')") == "True")
            try await eventually { tail.text.contains("after") && follower.text.contains("after") }
            for background in [follower, empty, tail] { background.send(signal: SIGKILL) }
            for (path, status) in [
                ("/logtail/nope", 404), ("/logtail/cat/bogus", 404), ("/mainlogtail", 200), ("/", 200), ("/x", 404), ("/RPC2", 400),
            ] {
                let answer = try await TestKit.run(curl + ["-m", "1", "-o", "/dev/null", "-w", "%{http_code}", "http://x\(path)"])
                #expect(answer.output == "\(status)", "\(path): \(answer)")
            }
        }
    }

    @Test("SIGHUP starts anew with the new configuration, and keeps the old when the new cannot be read; SIGUSR2 opens logs again")
    func signals() async throws {
        try await RealDaemon.run("[program:a]\ncommand=/bin/cat\nstdout_logfile=%(here)s/a.log\n") { daemon in
            try await eventually { try await daemon.isRunning("a") }
            try FileManager.default.moveItem(atPath: "\(daemon.place.directory)/a.log", toPath: "\(daemon.place.directory)/a.old")
            daemon.process.send(signal: SIGUSR2)
            try await daemon.log(has: "received SIGUSR2 indicating log reopen request")
            try await eventually { FileManager.default.fileExists(atPath: "\(daemon.place.directory)/a.log") }
            #expect(try await daemon.call("s.sendProcessStdin('a', 'x')") == "True")
            try await eventually { daemon.place.read("a.log") == "x" }
            let pid = try await daemon.ctl("pid", "a").output
            try daemon.place.write("s.conf", RealDaemon.configuration + "[program:b]\n")
            daemon.process.send(signal: SIGHUP)
            try await daemon.log(has: "not restarted, because the configuration cannot be read: program section program:b")
            #expect(try await daemon.ctl("pid", "a").output == pid)
            try daemon.place.write("s.conf", RealDaemon.configuration + "[program:b]\ncommand=/bin/sleep 1000\n")
            daemon.process.send(signal: SIGHUP)
            try await eventually { try await daemon.ctl("status").output.hasPrefix("b  ") }
            try await eventually { try await daemon.isRunning("b") }
            #expect(
                try await daemon.ctl("pid").output.trimmingCharacters(in: .newlines) == "\(daemon.process.pid)", "it is the same process")
        }
    }

    @Test("a second daemon is refused, a socket left behind is taken over, and wrong settings end with code 2") func second() async throws {
        let place = try Place()
        try await RealDaemon.run("[program:a]\ncommand=/bin/sleep 1000\n", place: place) { daemon in
            let second = try await TestKit.run([RealDaemon.ours, "-n", "-c", "\(place.directory)/s.conf"])
            #expect(second.status == 2 && second.errors.contains("Another program is already"), "\(second)")
            let other = try await TestKit.run([
                RealDaemon.ours, "-n", "-c", "\(place.directory)/s.conf", "-j", "\(place.directory)/other.pid",
            ])
            #expect(other.status == 2 && other.errors.contains("Another program is already listening"), "\(other)")
            let broken = try place.write("broken.conf", "[supervisord]\n[program:x]\n")
            let refused = try await TestKit.run([RealDaemon.ours, "-n", "-c", broken])
            #expect(
                refused.status == 2 && refused.errors.hasPrefix("Error: program section program:x does not specify a command")
                    && refused.errors.contains("For help, use"))
            // Killed, it leaves its socket and its program; the next one does not stumble over them.
            let child = try #require(Int32(try await daemon.ctl("pid", "a").output.trimmingCharacters(in: .newlines)))
            daemon.process.send(signal: SIGKILL)
            _ = try await daemon.process.finish(within: 10)
            let next = try Background([RealDaemon.ours, "-n", "-c", "\(place.directory)/s.conf"])
            defer { next.send(signal: SIGKILL) }
            try await eventually { try await daemon.ctl("pid").output.trimmingCharacters(in: .newlines) == "\(next.pid)" }
            kill(child, SIGKILL)
            next.send(signal: SIGTERM)
            #expect(try await next.finish(within: 30).status == 0)
        }
    }

    @Test("without -n it goes into the background, and says so by its exit") func background() async throws {
        let place = try Place()
        defer { place.remove() }
        let path = try place.write("s.conf", RealDaemon.configuration + "[program:a]\ncommand=/bin/sleep 1000\n")
        let started = try await TestKit.run([RealDaemon.ours, "-c", path], within: 20)
        #expect(started.status == 0 && started.output.isEmpty, "\(started)")
        @Sendable func ctl(_ words: String...) async throws -> Finished { try await TestKit.run(["supervisorctl", "-c", path] + words) }
        try await eventually { try await ctl("status", "a").status == 0 }
        let pid = try #require(Int32(place.read("s.pid").trimmingCharacters(in: .newlines)))
        #expect(getsid(pid) == pid)
        #expect(try await ctl("shutdown").output == "Shut down\n")
        try await eventually { kill(pid, 0) != 0 && !FileManager.default.fileExists(atPath: "\(place.directory)/s.sock") }
    }

    @Test("over TCP with a password, plain or hashed; calls that are wrong get an answer, and everything else goes on") func remote()
        async throws
    {
        let port = try Ports.freeBase()
        try await RealDaemon.run(
            """
            [inet_http_server]
            port=127.0.0.1:\(port)
            username=bob
            password={SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4
            [program:a]
            command=/bin/sleep 1000
            """
        ) { daemon in
            func status(_ more: String...) async throws -> String {
                try await TestKit.run(
                    ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"] + more + ["http://127.0.0.1:\(port)/RPC2"]
                ).output
            }
            let body = "<methodCall><methodName>supervisor.getState</methodName></methodCall>"
            #expect(try await status("-d", body) == "401")
            #expect(try await status("-d", body, "-u", "bob:wrong") == "401")
            #expect(try await status("-d", body, "-u", "bob:{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4") == "401")
            #expect(try await status("-d", body, "-H", "Authorization: Basic %%%") == "401")
            #expect(try await status("-d", body, "-u", "bob:secret") == "200")
            #expect(try await status("-d", body, "-H", "Transfer-Encoding: chunked", "-u", "bob:secret") == "200")
            #expect(try await status("-d", "", "-u", "bob:secret") == "400")
            for (call, answer) in [
                ("s.nope()", "fault 1 UNKNOWN_METHOD"), ("s.getState(1)", "fault 2 INCORRECT_PARAMETERS"),
                ("s.stopProcess('nope')", "fault 10 BAD_NAME: nope"),
                ("s.startProcess('a')", "fault 60 ALREADY_STARTED: a"), ("s.signalProcess('a', 'FOO')", "fault 11 BAD_SIGNAL: FOO"),
                ("s.signalProcess('a', 18)", "True"),
                ("s.readProcessStdoutLog('a', -4, 2)", "fault 3 BAD_ARGUMENTS"), ("s.readProcessStdoutLog('a', 0, 0)", ""),
                ("s.addProcessGroup('a')", "fault 90 ALREADY_ADDED: a"),
                ("s.removeProcessGroup('a')", "fault 91 STILL_RUNNING: a"), ("s.getProcessInfo('a:../b')", "fault 10 BAD_NAME: a:../b"),
                ("s.startProcess(5)", "fault 2 INCORRECT_PARAMETERS: parameter 1 of supervisor.startProcess is no string"),
            ] { #expect(try await daemon.call(call) == answer, "\(call)") }
            // Many who say nothing keep nobody out.
            let silent = try Background([
                "/usr/bin/python3", "-c",
                "import socket,sys,time\na=[]\nfor i in range(700):\n s=socket.socket(); s.connect(('127.0.0.1',\(port))); s.send(b'POST /RPC2 HT'); a.append(s)\nprint('up',flush=True)\ntime.sleep(60)",
            ])
            try await eventually { silent.text.contains("up") }
            #expect(try await status("-d", body, "-u", "bob:secret") == "200")
            silent.send(signal: SIGKILL)
        }
    }

    @Test("300 programs start, are killed all at once, come back, and stop") func many() async throws {
        try await RealDaemon.run("[program:x]\ncommand=/bin/sleep 1000\nnumprocs=300\nprocess_name=%(process_num)d\nstartsecs=0\n") {
            daemon in
            @Sendable func pids() async throws -> [Int32] {
                try await daemon.call("' '.join(str(p['pid']) for p in s.getAllProcessInfo() if p['state'] == 20)").split(separator: " ")
                    .compactMap { Int32($0) }
            }
            try await eventually { try await pids().count == 300 }
            let before = try await pids()
            for pid in before { kill(pid, SIGKILL) }
            try await eventually {
                let now = try await pids()
                return now.count == 300 && Set(now).isDisjoint(with: before)
            }
            let after = try await pids()
            #expect(try await daemon.ctl("stop", "all").status == 0)
            for pid in after { #expect(kill(pid, 0) != 0) }
        }
    }

    @Test("output that is written without end arrives whole, also when nothing reads it as fast") func flood() async throws {
        try await RealDaemon.run(
            """
            [program:flood]
            command=/bin/sh -c "seq 1 400000; seq 1 10 >&2"
            stdout_logfile=%(here)s/flood.log
            stdout_logfile_maxbytes=0
            stderr_logfile=%(here)s/flood.err
            startsecs=0
            autorestart=false
            """
        ) { daemon in
            try await eventually { try await daemon.ctl("status", "flood").output.contains("EXITED") }
            let lines = daemon.place.read("flood.log").split(separator: "\n")
            #expect(lines.count == 400_000 && lines.first == "1" && lines.last == "400000")
            #expect(daemon.place.read("flood.err") == (1...10).map { "\($0)\n" }.joined())
        }
    }

    @Test("programs start when what they depend on is ready, a failed migration stops them, and they stop before it") func dependencies()
        async throws
    {
        let port = try Ports.freeBase()
        let place = try Place()
        try place.write(
            "db.py",
            """
            import signal, socket, sys, time
            def end(*_):
                open("\(place.directory)/order", "a").write("db-end\\n")
                sys.exit(0)
            signal.signal(signal.SIGTERM, end)
            s = socket.socket()
            s.bind(("127.0.0.1", \(port)))
            s.listen()
            time.sleep(1000)
            """)
        try await RealDaemon.run(
            """
            [program:web]
            command=/bin/sh -c "echo web >> %(here)s/order; trap 'echo web-end >> %(here)s/order; exit 0' TERM; while :; do sleep 0.02; done"
            depends_on=db,migrate
            priority=1
            [program:db]
            command=/bin/sh -c "echo db >> %(here)s/order; while [ ! -e %(here)s/go ]; do sleep 0.02; done; exec /usr/bin/python3 %(here)s/db.py"
            ready=tcp:\(port)
            priority=2
            [program:migrate]
            type=oneshot
            command=/bin/sh -c "echo migrate >> %(here)s/order"
            depends_on=db
            [program:orphan]
            command=/bin/sleep 1000
            depends_on=broken
            startretries=0
            [program:broken]
            type=oneshot
            command=/bin/false
            """, place: place
        ) { daemon in
            func order() -> [String] { daemon.place.read("order").split(separator: "\n").map(String.init) }
            try await eventually { try await daemon.ctl("status", "web").output.contains("waits for db, migrate") }
            #expect(order() == ["db"])
            try daemon.place.write("go", "")
            try await eventually { try await daemon.isRunning("web") }
            #expect(order() == ["db", "migrate", "web"])
            try await daemon.log(has: "success: db entered RUNNING state, it is ready (tcp:127.0.0.1:\(port))")
            try await eventually {
                try await daemon.ctl("status", "orphan").output.contains("FATAL     broken, which it depends on, has failed")
            }
            #expect(try await daemon.ctl("shutdown").status == 0)
            #expect(try await daemon.process.finish(within: 30).status == 0)
            #expect(order() == ["db", "migrate", "web", "web-end", "db-end"])
        }
    }

    @Test("ready is what the program says: over HTTP, by a command, in its log, by sd_notify; who is not in time is ended") func readiness()
        async throws
    {
        let port = try Ports.freeBase()
        let place = try Place()
        try place.write(
            "answer.py",
            """
            import http.server, os
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(200 if os.path.exists("\(place.directory)/up") and self.path == "/health" else 503)
                    self.end_headers()
            http.server.HTTPServer(("127.0.0.1", \(port)), Handler).serve_forever()
            """)
        try place.write(
            "notify.py",
            """
            import os, socket
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=x\\nREADY=1\\n", os.environ["NOTIFY_SOCKET"])
            """)
        try await RealDaemon.run(
            """
            [program:http]
            command=/usr/bin/python3 %(here)s/answer.py
            ready=http:\(port)/health
            alive=http:\(port)/health
            alive_interval=1
            alive_failures=2
            [program:exec]
            command=/bin/sleep 1000
            ready=exec:/usr/bin/test -e %(here)s/up
            [program:log]
            command=/bin/sh -c "printf 'list'; while [ ! -e %(here)s/up ]; do sleep 0.02; done; printf 'ening on 80'; exec sleep 1000"
            ready=log:listening on
            [program:notify]
            command=/bin/sh -c "while [ ! -e %(here)s/up ]; do sleep 0.02; done; /usr/bin/python3 %(here)s/notify.py; exec sleep 1000"
            ready=notify
            [program:never]
            command=/bin/sleep 1000
            ready=tcp:\(port + 1)
            ready_timeout=1
            startretries=0
            """, place: place
        ) { daemon in
            try await eventually { try await daemon.ctl("status", "never").output.contains("FATAL     not ready within 1 s") }
            let names = ["http", "exec", "log", "notify"]
            let before = try await daemon.ctl("status", "http", "exec", "log", "notify").output
            #expect(names.allSatisfy { before.contains($0) } && before.components(separatedBy: "STARTING").count == 5, "\(before)")
            try daemon.place.write("up", "")
            try await eventually { try await daemon.isRunning("http", "exec", "log", "notify") }
            let pid = try await daemon.ctl("pid", "http").output
            try FileManager.default.removeItem(atPath: "\(daemon.place.directory)/up")
            try await daemon.log(has: "has failed http:127.0.0.1:\(port)/health 2 times, and is started anew")
            try await eventually { try await daemon.ctl("pid", "http").output != pid }
            #expect(try await daemon.ctl("status", "http").output.contains("STARTING"))
        }
    }

    @Test("the daemon is changed for another version of itself, and its programs notice nothing") func reexec() async throws {
        let place = try Place()
        let programs = "\(place.directory)/bin"
        try FileManager.default.createDirectory(atPath: programs, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: Platform.binaries + "/slipway-supervisord", toPath: programs + "/slipway-supervisord")
        try await RealDaemon.run(
            """
            [program:count]
            command=/bin/sh -c "n=0; while :; do n=$((n+1)); echo $n; echo $n >&2; sleep 0.002; done"
            stdout_logfile=%(here)s/count.log
            stderr_logfile=%(here)s/count.err
            stderr_logfile_maxbytes=1000
            stderr_logfile_backups=100
            [program:cat]
            command=/bin/cat
            stdout_logfile=%(here)s/cat.log
            [program:slow]
            command=/bin/sleep 1000
            startsecs=4
            [program:auto]
            command=/bin/sleep 1000
            [program:halves]
            command=/bin/cat
            stdout_logfile=%(here)s/halves.json
            stdout_logfile_format=json
            [program:once]
            type=oneshot
            command=/bin/true
            """, program: programs + "/slipway-supervisord", place: place
        ) { daemon in
            try await eventually { try await daemon.isRunning("count", "cat", "auto", "halves") }
            #expect(try await daemon.ctl("start", "once").status == 0)
            func pids() async throws -> String {
                try await daemon.call("[(p['name'], p['pid'], p['start'], p['stdout_logfile']) for p in s.getAllProcessInfo()]")
            }
            let before = try await pids()
            #expect(try await daemon.call("s.sendProcessStdin('halves', 'half a ')") == "True")
            #expect(try await daemon.call("slipway.reexec()") == "True")
            try await daemon.log(has: "supervisord goes on with pid \(daemon.process.pid)")
            try await eventually { try await daemon.ctl("pid").output.trimmingCharacters(in: .newlines) == "\(daemon.process.pid)" }
            #expect(try await pids() == before)
            #expect(try await daemon.call("len(slipway.getRuns('once'))") == "1")
            #expect(try await daemon.call("s.sendProcessStdin('cat', 'after')") == "True")
            #expect(try await daemon.call("s.sendProcessStdin('halves', 'line\\n')") == "True")
            try await eventually { place.read("cat.log") == "after" }
            try await eventually { place.read("halves.json").contains(#""message":"half a line","#) }
            try await daemon.log(has: "success: slow entered RUNNING state")
            // Nothing that was written is missing, and it is still a child whose end is seen.
            let count = place.read("count.log").split(separator: "\n").count
            try await eventually { place.read("count.log").split(separator: "\n").count > count + 100 }
            let pid = try #require(Int32(try await daemon.ctl("pid", "count").output.trimmingCharacters(in: .newlines)))
            // By signal, too.
            daemon.process.send(signal: SIGUSR1)
            try await eventually { place.read("s.log").components(separatedBy: "goes on with pid").count == 3 }
            kill(pid, SIGKILL)
            try await daemon.log(has: "exited: count (terminated by SIGKILL; not expected)")
            try await eventually { try await daemon.isRunning("count") }
            let lines = place.read("count.log").split(separator: "\n").compactMap { Int($0) }
            let end = (lines.dropFirst().firstIndex(of: 1) ?? lines.count)
            #expect(lines[..<end].elementsEqual(1...end))

            // What does not understand, or is not what runs, is refused, and nothing changes. A new file takes the place of the old one.
            let stays = try await pids()
            try place.write("bin/new", "#!/bin/sh\nexit 1\n")
            chmod(programs + "/new", 0o755)
            rename(programs + "/new", programs + "/slipway-supervisord")
            #expect(
                try await daemon.call("slipway.reexec()")
                    == "fault 30 FAILED: \(programs)/slipway-supervisord does not understand the state of this one")
            try FileManager.default.copyItem(atPath: Platform.binaries + "/slipway-supervisord", toPath: programs + "/new")
            rename(programs + "/new", programs + "/slipway-supervisord")
            #expect(try await pids() == stays)
            #expect(try await daemon.call("slipway.reexec()") == "True")
            try await eventually { place.read("s.log").components(separatedBy: "goes on with pid").count == 4 }
            try await eventually { try await daemon.ctl("pid").status == 0 }
            try place.write("s.conf", RealDaemon.configuration + "[program:other]\ncommand=/bin/cat\n")
            #expect(
                try await daemon.call("slipway.reexec()")
                    == "fault 30 FAILED: the configuration is not the one that runs; 'supervisorctl update' first")
            #expect(try await pids() == stays)
        }
    }

    @Test("processes with a handed-over socket are changed one after the other, and no connection is refused; a bad one changes nothing")
    func rolling() async throws {
        let port = try Ports.freeBase()
        let place = try Place()
        try place.write(
            "serve.py",
            """
            import os, signal, socket, sys, threading, time
            if os.path.exists(sys.argv[1] + "/bad"): sys.exit(1)
            assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_FDNAMES"].startswith("web_") and int(os.environ["LISTEN_PID"]) == os.getpid()
            s = socket.socket(fileno=3)
            s.settimeout(0.05)
            end = []
            signal.signal(signal.SIGTERM, lambda *_: end.append(1))
            print("up", flush=True)
            while not end:
                try: c, _ = s.accept()
                except TimeoutError: continue
                c.settimeout(5); c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d\\n" % os.getpid()); c.close()
            """)
        try await RealDaemon.run(
            """
            [program:web]
            command=/usr/bin/python3 %(here)s/serve.py %(here)s
            numprocs=2
            process_name=%(program_name)s_%(process_num)d
            listen=tcp:127.0.0.1:\(port)
            ready=log:up
            stdout_logfile=%(here)s/web_%(process_num)d.log
            """, place: place
        ) { daemon in
            try await eventually { try await daemon.isRunning("web:*") }
            func pids() async throws -> [Int32] {
                try await daemon.ctl("pid", "web:web_0", "web:web_1").output.split(separator: "\n").compactMap { Int32($0) }
            }
            let before = try await pids()
            let load = try Background([
                "/usr/bin/python3", "-c",
                """
                import socket, sys
                good = 0
                while True:
                    c = socket.create_connection(("127.0.0.1", \(port)), timeout=10); c.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                    assert c.recv(1000).startswith(b"HTTP/1.0 200"); c.close(); good += 1
                    if good % 10 == 0: print(good, flush=True)
                """,
            ])
            try await eventually { load.text.contains("20\n") }
            #expect(
                try await daemon.call("[(r['name'], r['status']) for r in slipway.rollingRestart('web:*')]")
                    == "[('web_0', 80), ('web_1', 80)]")
            let after = try await pids()
            #expect(after.count == 2 && Set(after).isDisjoint(with: before))
            for pid in before { #expect(kill(pid, 0) != 0) }
            try place.write("bad", "")
            let failed = try await daemon.call("[(r['name'], r['status'], r['description']) for r in slipway.rollingRestart('web:*')]")
            #expect(
                failed
                    == "[('web_0', 50, 'SPAWN_ERROR: web_0: Exited before it was ready (process log may have details); the old process goes on')]"
            )
            #expect(try await pids() == after)
            #expect(try await daemon.ctl("status", "web:*").output.components(separatedBy: " RUNNING ").count == 3)
            let served = load.text.split(separator: "\n").count
            try await eventually { load.text.split(separator: "\n").count > served + 2 }
            #expect(load.isRunning, "\(load.text.suffix(500))")
            load.send(signal: SIGKILL)
            #expect(place.read("web_0.log").components(separatedBy: "up\n").count == 3)
            // The socket goes with its program.
            #expect(try await daemon.ctl("stop", "web:*").status == 0)
            #expect(Ports.answers(port))
            try place.write("s.conf", RealDaemon.configuration)
            #expect(try await daemon.ctl("update").output.contains("web: removed process group"))
            #expect(!Ports.answers(port))
        }
    }

    @Test("limits hold, and output can be written as JSON") func limits() async throws {
        let place = try Place()
        try place.write(
            "x.sh",
            #"""
            ulimit -n; ulimit -c; nice; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status
            printf 'a"\\b\t\377\nno end'
            """#)
        try await RealDaemon.run(
            """
            [program:x]
            command=/bin/sh %(here)s/x.sh
            limit_nofile=300
            limit_core=0
            limit_as=1GB
            nice=5
            oom_score_adj=300
            no_new_privs=true
            stdout_logfile=%(here)s/x.json
            stdout_logfile_format=json
            startsecs=0
            autorestart=false
            """, place: place
        ) { daemon in
            try await eventually { try await daemon.ctl("status", "x").output.contains("EXITED") }
            struct Line: Decodable {
                var time: String
                var message: String
                var stream: String
                var process: String
                var pid: Int
            }
            let lines = try daemon.place.read("x.json").split(separator: "\n").map {
                try JSONDecoder().decode(Line.self, from: Data($0.utf8))
            }
            #expect(lines.map(\.message) == ["300", "0", "5", "300", "NoNewPrivs:\t1", "a\"\\b\t\u{FFFD}", "no end"])
            #expect(
                lines.allSatisfy {
                    $0.stream == "stdout" && $0.process == "x" && $0.pid > 1 && $0.time.hasSuffix("Z") && $0.time.count == 24
                })
        }
    }

    @Test("what comes between while processes are changed leaves nothing behind and starts nothing twice") func interrupted() async throws {
        let place = try Place()
        try await RealDaemon.run(
            """
            [program:web]
            command=/bin/sh -c "echo $$ >> %(here)s/pids; trap '' TERM; while :; do sleep 0.02; done"
            startsecs=2
            stopwaitsecs=1
            [program:once]
            type=oneshot
            command=/bin/sh -c "echo run >> %(here)s/once; while [ ! -e %(here)s/go ]; do sleep 0.02; done"
            [program:other]
            command=/bin/sh -c "echo $$ >> %(here)s/pids; exec sleep 1000"
            startsecs=2
            """, place: place
        ) { daemon in
            try await eventually { try await daemon.isRunning("web", "other") }
            // A one-shot program is not run beside itself.
            async let once = daemon.ctl("start", "once")
            try await eventually { place.read("once") == "run\n" }
            #expect(try await daemon.call("slipway.rollingRestart('once')").hasPrefix("fault 30 FAILED: once is a one-shot program"))
            try place.write("go", "")
            #expect(try await once.status == 0 && place.read("once") == "run\n")
            // One is enough, and a change of the daemon waits for its end.
            @Sendable func count() -> Int { place.read("pids").split(separator: "\n").count }
            async let first = daemon.call("[(r['status'], r['description']) for r in slipway.rollingRestart('other')]")
            try await eventually { count() == 3 }
            #expect(
                try await daemon.call("slipway.rollingRestart('other')")
                    == "fault 30 FAILED: other is being changed for a new process already")
            #expect(try await daemon.call("slipway.reexec()").hasPrefix("fault 30 FAILED: processes are being changed"))
            // Who stops it means the new one, too.
            #expect(try await daemon.ctl("stop", "other").status == 0)
            #expect(try await first.hasPrefix("[(50, 'SPAWN_ERROR: other: "))
            #expect(try await daemon.ctl("status", "other").output.contains("STOPPED"))
            // The end comes in the middle; both ignore SIGTERM.
            async let second = daemon.call("slipway.rollingRestart('web')")
            try await eventually { count() == 4 }
            daemon.process.send(signal: SIGTERM)
            #expect(try await daemon.process.finish(within: 30).status == 0)
            _ = try? await second
            for pid in place.read("pids").split(separator: "\n").compactMap({ Int32($0) }) { #expect(kill(pid, 0) != 0, "\(pid) lives on") }
        }
    }

    @Test("a dependency that ends, or is stopped, is not started again and again for who waits") func brokenDependencies() async throws {
        try await RealDaemon.run(
            """
            [program:web]
            command=/bin/sleep 1000
            depends_on=brief,long
            startretries=0
            [program:brief]
            command=/bin/true
            startsecs=0
            autorestart=false
            [program:api]
            command=/bin/sleep 1000
            depends_on=long
            startretries=0
            [program:long]
            command=/bin/sleep 1000
            ready=exec:/bin/false
            """
        ) { daemon in
            try await eventually {
                try await daemon.ctl("status", "web").output.contains("FATAL     brief, which it depends on, has failed")
            }
            #expect(daemon.place.read("s.log").components(separatedBy: "spawned: 'brief'").count == 2)
            #expect(try await daemon.ctl("status", "api").output.contains("waits for long"))
            #expect(try await daemon.ctl("stop", "long").status == 0)
            try await eventually {
                try await daemon.ctl("status", "api").output.contains("FATAL     long, which it depends on, has been stopped")
            }
            #expect(try await daemon.ctl("status", "long").output.contains("STOPPED"))
            #expect(try await daemon.ctl("remove", "long").status == 0)
        }
    }

    @Test("who asks and goes away before the answer costs nothing; who asks and does not read is not answered without end")
    func goneAndSilent() async throws {
        try await RealDaemon.run("[program:slow]\ncommand=/bin/sleep 1000\nstartsecs=1000\nautostart=false\n") { daemon in
            let script = """
                import socket, sys, time
                s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
                call = b"<methodCall><methodName>%s</methodName><params>%s</params></methodCall>"
                def send(method, params=b""):
                    body = call % (method, params)
                    s.sendall(b"POST /RPC2 HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
                if sys.argv[2] == "gone":
                    send(b"supervisor.startProcess", b"<param><value>slow</value></param>"); time.sleep(0.3)
                else:
                    s.setblocking(False)
                    try:
                        while True: send(b"supervisor.getAllConfigInfo")
                    except BlockingIOError: pass
                    print("full", flush=True); time.sleep(60)
                """
            func ticks() throws -> Int {
                let stat = try String(contentsOfFile: "/proc/\(daemon.process.pid)/stat", encoding: .utf8)
                let fields = stat.components(separatedBy: ") ").last?.split(separator: " ") ?? []
                return (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)
            }
            let socket = "\(daemon.place.directory)/s.sock"
            _ = try await TestKit.run(["/usr/bin/python3", "-c", script, socket, "gone"])
            let before = try ticks()
            try await Task.sleep(for: .milliseconds(500))
            // Turning round and round, it would have used fifty.
            #expect(try ticks() - before < 20)
            let silent = try Background(["/usr/bin/python3", "-c", script, socket, "silent"])
            try await eventually { silent.text.contains("full") }
            #expect(try await daemon.ctl("pid").status == 0)
            let pages = try String(contentsOfFile: "/proc/\(daemon.process.pid)/statm", encoding: .utf8).split(separator: " ")
            let resident = (Int(pages[1]) ?? .max / 8) * 4
            #expect(resident < 64 << 10, "\(resident) KiB")
            silent.send(signal: SIGKILL)
        }
    }

    @Test("a group is brought to its new settings, and what is the same goes on") func growing() async throws {
        func programs(_ count: Int, _ second: String) -> String {
            RealDaemon.configuration + """
                [program:web]
                command=/bin/sleep 1000
                process_name=%(program_name)s_%(process_num)d
                numprocs=\(count)
                [program:b]
                command=/bin/sleep \(second)
                [group:pair]
                programs=web,b
                """
        }
        let place = try Place()
        try await RealDaemon.run(programs(2, "1000").replacingOccurrences(of: RealDaemon.configuration, with: ""), place: place) { daemon in
            try await eventually { try await daemon.isRunning("pair:*") }
            func pids() async throws -> [String: Int] {
                let text = try await daemon.call("' '.join('%s=%d' % (p['name'], p['pid']) for p in s.getAllProcessInfo())")
                return Dictionary(
                    text.split(separator: " ").compactMap { $0.split(separator: "=").count == 2 ? $0.split(separator: "=") : nil }.map {
                        (String($0[0]), Int($0[1]) ?? 0)
                    }
                ) { _, last in last }
            }
            let before = try await pids()
            try place.write("s.conf", programs(4, "1001"))
            let update = "(lambda r: [sorted(r[k]) for k in ('kept', 'stopped', 'started')])(slipway.updateProcessGroup('pair'))"
            #expect(try await daemon.call(update) == "[['web_0', 'web_1'], ['b'], ['b', 'web_2', 'web_3']]")
            try await eventually { try await daemon.isRunning("pair:*") }
            let after = try await pids()
            #expect(after.count == 5 && after["web_0"] == before["web_0"] && after["web_1"] == before["web_1"] && after["b"] != before["b"])
            #expect(try await daemon.ctl("reread").output == "No config updates to processes\n")
            try place.write("s.conf", programs(1, "1001"))
            #expect(try await daemon.call(update) == "[['b', 'web_0'], ['web_1', 'web_2', 'web_3'], []]")
            #expect(try await pids() == after.filter { $0.key == "b" || $0.key == "web_0" })
            try place.write("s.conf", RealDaemon.configuration + "[program:x]\n")
            #expect(try await daemon.call(update).hasPrefix("fault 92 CANT_REREAD"))
        }
    }
}
