import CSys
import Contracts
import Foundation
import HTTPKit
import Kit
import Logging
import Storage
import Synchronization
import Testing

@testable import SupervisorService

let isRoot = geteuid() == 0
/// Lives as long as the test process: it must not be torn down while a test uses it.
private let testClient = Probe.makeClient()

@Suite("processes", .timeLimit(.minutes(1))) struct ProcessTests {
    let scratch = Scratch()

    private func launch(_ command: String, _ change: (inout Launch) -> Void = { _ in }) throws -> RunningProcess {
        let output = open("\(scratch.path)/out", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        defer { close(output) }
        var launch = Launch(
            program: "/bin/sh", arguments: ["sh", "-c", command], environment: ["PATH": SupervisorConfig.path], directory: scratch.path,
            output: output)
        change(&launch)
        return try RunningProcess.start(launch)
    }

    @Test("the end of a process is noticed with its status or signal") func ends() async throws {
        let brief = try launch("exit 3")
        #expect(await brief.ended(within: 5) == RunningProcess.End(status: 3, signal: nil))
        let killed = try launch("exec sleep 60")
        killed.signal(SIGKILL)
        #expect(await killed.ended(within: 5) == RunningProcess.End(status: nil, signal: 9))
        let sleeping = try launch("exec sleep 60")
        #expect(await sleeping.ended(within: 0.05) == nil)
        sleeping.signalGroup(SIGTERM)
        #expect(await sleeping.ended(within: 5)?.signal == 15)
    }

    @Test("what cannot be started says which step failed and why") func failures() throws {
        #expect(throws: Problem(.failed, "cannot run /nowhere/x: No such file or directory")) {
            try launch("") { $0.program = "/nowhere/x" }
        }
        #expect(throws: Problem(.failed, "cannot enter /nowhere: No such file or directory")) {
            try launch("") { $0.directory = "/nowhere" }
        }
        #expect(throws: Problem(.failed, "cannot run /bin/sh: its command line and environment are too large")) {
            try launch("") { $0.environment["BIG"] = String(repeating: "x", count: 200_000) }
        }
        #expect(throws: Problem.self) { try launch("a\0b") }
    }

    @Test("a confined process has its own user, no capability, no new privileges and no descriptor of ours", .enabled(if: isRoot))
    func confined() async throws {
        chmod(scratch.path, 0o755)
        let held = open("/etc/shadow", O_RDONLY)
        defer { close(held) }
        let process = try launch("id; grep -E 'NoNewPrivs|Cap|Groups' /proc/self/status; ls /proc/self/fd | wc -l; umask; ulimit -n") {
            $0.user = 61_200
            $0.umask = 0o027
            $0.limits = [(Int32(RLIMIT_NOFILE.rawValue), 99)]
        }
        #expect(await process.ended(within: 5)?.status == 0)
        let text = scratch.text("out")
        #expect(text.contains("uid=61200 gid=61200 groups=61200"))
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Groups:\t \n", "\n4\n0027\n99\n"] {
            #expect(text.contains(line), "\(text) should have \(line)")
        }
    }

    @Test("a process is found again by pid and start time, and by those only") func adoption() async throws {
        let process = try launch("exec sleep 60")
        var record = ProcessRecord(
            name: "x", pid: process.pid, ticks: process.ticks, boot: ProcFS.boot, generation: 1, since: Timestamp(milliseconds: 0))
        #expect(RunningProcess.adopt(record) != nil)
        record.ticks += 1
        #expect(RunningProcess.adopt(record) == nil)
        record.ticks -= 1
        record.boot = "another"
        #expect(RunningProcess.adopt(record) == nil)
        record.boot = ProcFS.boot
        process.signal(SIGKILL)
        _ = await process.ended(within: 5)
        #expect(RunningProcess.adopt(record) == nil)
    }

    @Test("a program that was started by a supervisor which could not write that down is found by its arguments") func stray() async throws
    {
        let program = Program(name: "x", executable: "/bin/sleep", arguments: ["\(getpid()).5"], needs: nil)
        #expect(RunningProcess.stray(of: program) == nil)
        let process = try RunningProcess.start(program.launch(home: "/", environment: [:], output: 2))
        // The kernel shows the arguments a moment after the start.
        #expect(try await eventually { RunningProcess.stray(of: program)?.pid == process.pid })
        process.signal(SIGKILL)
        _ = await process.ended(within: 5)
        #expect(RunningProcess.stray(of: program) == nil)
    }

    @Test("what a process leaves behind in its session is found and ended") func session() async throws {
        let process = try launch("sleep 61 & sleep 62 & exit 0")
        _ = await process.ended(within: 5)
        #expect(ProcFS.session(process.pid).count == 2)
        await process.killSession()
        #expect(ProcFS.session(process.pid).isEmpty)
    }

    @Test("lines that a process writes are handed on as they come, and the file is rotated") func logs() async throws {
        let seen = Mutex<[String]>([])
        let tail = try LogTail(logger: Logger(label: "test")) { origin, lines in
            #expect(origin == "o")
            seen.withLock { $0 += lines }
        }
        let running = Task { try await tail.run() }
        defer { running.cancel() }
        let path = "\(scratch.path)/app.log"
        let output = try tail.open(path, origin: "o")
        defer { close(output) }
        let text = Array("one\ntwo\r\nthr".utf8)
        write(output, text, text.count)
        #expect(try await eventually { seen.withLock { $0 } == ["one", "two"] })
        write(output, "ee\n", 3)
        #expect(try await eventually { seen.withLock { $0 } == ["one", "two", "three"] })
        #expect(LogTail.last(2, of: path) == ["two", "three"])
        let block = [UInt8](repeating: 0x61, count: 4095) + [0x0A]
        for _ in 0..<2700 { write(output, block, block.count) }
        #expect(try await eventually { access("\(path).1", F_OK) == 0 })
        #expect(
            try await eventually {
                var stat = stat()
                return lstat(path, &stat) == 0 && stat.st_size < 2 << 20
            })
        write(output, "end\n", 4)
        #expect(try await eventually { seen.withLock { $0.last } == "end" })
        tail.forget(path)
    }
}

@Suite("instances", .serialized, .timeLimit(.minutes(1)), .enabled("instances of apps are confined as root only") { isRoot })
struct InstanceTests {
    let scratch = Scratch()

    private func parts() throws -> (InstanceRunner, HostStore, SupervisorConfig, NewsBox) {
        var suite = try SuiteConfig.load(ComponentOptions(home: scratch.path), environment: [:])
        suite.host = Samples.host
        let config = SupervisorConfig(suite)
        for directory in [config.home.logs, config.appLogs, config.home.directory(.supervisor)] + config.rooms {
            mkdir(directory, 0o711)
            chmod(directory, 0o711)
        }
        let opened = try Store(path: "\(scratch.path)/state.sqlite", durability: .normal) { HostStore.migrations(&$0) }
        let store = HostStore(db: opened.db)
        // The bundle is there already, so nothing asks the registry.
        let bundle = "supervisor/bundles/shop/\(Samples.bundle.hex)"
        try scratch.write("hello", to: "\(bundle)/index.html")
        chmod("\(scratch.path)/supervisor/bundles/shop", 0o711)
        let sandbox = Sandbox(config: config, store: store, cgroups: Cgroups(home: scratch.path, isRoot: true))
        let logger = Logger(label: "test")
        let news = NewsBox()
        let siblings = Siblings(caller: HTTPCaller(token: nil), git: "http://127.0.0.1:1", registry: "http://127.0.0.1:1")
        let runner = InstanceRunner(
            config: config, store: store, sandbox: sandbox, bundles: Bundles(config: config, siblings: siblings),
            logs: try LogTail(logger: logger) { _, _ in }, probe: Probe(client: testClient), logger: logger,
            report: { news.add($0) })
        return (runner, store, config, news)
    }

    @Test("an instance starts as the app's user, becomes ready, and stops when told") func life() async throws {
        let (runner, store, config, news) = try parts()
        let spec = Samples.spec(
            run: "echo user $(id -u) app $SLIPWAY_APP port $PORT $PORT_HTTP; exec python3 -m http.server $PORT",
            health: HealthSpec(check: .http(path: "/index.html"), healthy: 2))
        let notice = try await runner.start(Samples.instance, generation: 1, spec: spec)
        guard case .started(_, 1, let pid, let ports) = notice else {
            Issue.record("\(notice)")
            return
        }
        let port = try #require(ports["http"])
        #expect(SupervisorConfig.ports.contains(port))
        #expect(try await eventually { news.all.contains(.ready(Samples.instance, generation: 1)) })
        // The same order again finds it running.
        #expect(try await runner.start(Samples.instance, generation: 1, spec: spec) == notice)
        let uid = try await store.user(of: Samples.app, taken: [])
        let first = try #require(LogTail.last(100, of: config.log(Samples.instance)).first)
        #expect(first == "user \(uid) app shop port \(port) \(port)")
        let stopped = try await runner.stop(Samples.instance, StopSpec(signal: "TERM", timeout: 5))
        guard case .stopped(_, let ending?) = stopped else {
            Issue.record("\(stopped)")
            return
        }
        #expect(ending.signal == 15 && ending.reason == "was told to stop")
        #expect(kill(pid, 0) != 0 && access(config.room(Samples.instance), F_OK) != 0)
        #expect(try await store.processes().isEmpty)
        #expect(try await store.ports(of: Samples.instance).isEmpty)
    }

    @Test("one that ends by itself is told of, with its status and last lines; its children go with it") func crash() async throws {
        let (runner, _, _, news) = try parts()
        let spec = Samples.spec(run: "setsid sleep 63 & sleep 64 & echo giving up; exit 7", ports: false)
        _ = try await runner.start(Samples.instance, generation: 4, spec: spec)
        let ending = Ending(status: 7, reason: "exited with status 7", tail: ["giving up"])
        #expect(try await eventually { news.all.contains(.exited(Samples.instance, generation: 4, ending)) }, "\(news.all)")
        _ = try await runner.stop(Samples.instance, StopSpec())
    }

    @Test("one that ignores its signal is killed after its time, with all that it started") func stubborn() async throws {
        let (runner, _, config, _) = try parts()
        _ = try await runner.start(
            Samples.instance, generation: 1, spec: Samples.spec(run: "trap '' TERM; echo deaf; sleep 65; sleep 65", ports: false))
        let log = config.log(Samples.instance)
        #expect(try await eventually { FileManager.default.contents(atPath: log) == Data("deaf\n".utf8) })
        let stopped = try await runner.stop(Samples.instance, StopSpec(signal: "TERM", timeout: 0.3))
        guard case .stopped(_, let ending?) = stopped else {
            Issue.record("\(stopped)")
            return
        }
        #expect(ending.signal == 9 && ending.reason == "did not stop within 0.3 s of TERM and was killed")
    }

    @Test("a second runner adopts what the first one started, and tells of what ended meanwhile") func adoption() async throws {
        let (runner, store, config, _) = try parts()
        let spec = Samples.spec(run: "exec sleep 66", ports: false)
        guard case .started(_, _, let pid, _) = try await runner.start(Samples.instance, generation: 1, spec: spec) else {
            Issue.record("not started")
            return
        }
        _ = config
        let (second, _, _, news) = try parts()
        let row = InstanceRow(instance: Samples.instance, spec: spec, phase: .ready, generation: 1, since: .now())
        var gone = row
        gone.instance = try InstanceID("shop/production/web/2")
        let notices = try await second.adopt([row, gone])
        #expect(
            notices == [
                .exited(gone.instance, generation: 1, Ending(reason: "was stopped together with the suite", interrupted: true))
            ])
        kill(pid, SIGKILL)
        #expect(try await eventually { news.all.count == 1 })
        _ = try await second.stop(Samples.instance, StopSpec())
        #expect(try await store.processes().isEmpty)
    }

    @Test("bundles and logs that nothing names go, but for the newest few") func prune() async throws {
        let (_, _, config, _) = try parts()
        let app = Samples.instance.app
        let root = config.bundles(app)
        let digests = try (0..<6).map { try Digest("sha256:" + String(repeating: "\($0)", count: 64)) }
        for (index, digest) in digests.enumerated() {
            try scratch.write("x", to: "supervisor/bundles/shop/\(digest.hex)/file")
            var times = [timeval(tv_sec: 1000 + index, tv_usec: 0), timeval(tv_sec: 1000 + index, tv_usec: 0)]
            #expect(utimes("\(root)/\(digest.hex)", &times) == 0)
        }
        let siblings = Siblings(caller: HTTPCaller(token: nil), git: "http://127.0.0.1:1", registry: "http://127.0.0.1:1")
        await Bundles(config: config, siblings: siblings).prune(app, named: [digests[0]])
        // The newest three of the others: the sample's own, which was made just now, and two of these.
        let left = Set(try FileManager.default.contentsOfDirectory(atPath: root))
        #expect(left == [digests[0].hex, digests[5].hex, digests[4].hex, Samples.bundle.hex], "\(left)")
        for number in 1...120 { try scratch.write("l", to: "logs/apps/shop.production.web.\(number).log") }
        try scratch.write("l", to: "logs/apps/shop.run-1.build.log")
        try scratch.write("l", to: "logs/apps/other.production.web.1.log")
        let tail = try LogTail(logger: Logger(label: "test")) { _, _ in }
        tail.prune(app, in: config.appLogs, live: ["shop/production/web/1"])
        let names = try FileManager.default.contentsOfDirectory(atPath: config.appLogs)
        #expect(names.count == LogTail.kept + 3 && names.contains("shop.production.web.1.log"), "\(names.count)")
        tail.remove(ofApp: app, in: config.appLogs)
        #expect(try FileManager.default.contentsOfDirectory(atPath: config.appLogs) == ["other.production.web.1.log"])
    }

    @Test("a command that is not there is a clear reason") func missing() async throws {
        let (runner, _, _, news) = try parts()
        _ = try await runner.start(Samples.instance, generation: 1, spec: Samples.spec(run: "./no-such-thing", ports: false))
        let reason = "exited with status 127: the command, or a program it needs, was not found"
        #expect(
            try await eventually {
                news.all.contains { if case .exited(_, _, let ending) = $0 { ending.reason == reason } else { false } }
            }, "\(news.all)")
        _ = try await runner.stop(Samples.instance, StopSpec())
    }

    @Test("without root and without trust, pushed code is refused with what to do") func untrusted() {
        let text = SupervisorConfig(host: Samples.host, isRoot: false, trust: .none).refusal
        #expect(text?.contains("run the suite as root, or set trust: single-user in suite.yml") == true)
        #expect(SupervisorConfig(host: Samples.host, isRoot: false, trust: .singleUser).refusal == nil)
        #expect(SupervisorConfig(host: Samples.host, isRoot: true, trust: .none).refusal == nil)
    }
}

/// Collects what a runner reports.
final class NewsBox: Sendable {
    private let notices = Mutex<[SupervisorNotice]>([])
    func add(_ notice: SupervisorNotice) { notices.withLock { $0.append(notice) } }
    var all: [SupervisorNotice] { notices.withLock { $0 } }
}
