"""What the scenarios stand on: a home with keys, the real bus in a process of its own, load processes, a TCP proxy that misbehaves."""
import collections
import ctypes
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

import zmq

import checker
from eb1 import Asker, load_key

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LIBC = ctypes.CDLL(None)


def dies_with_us():
    """In a child before exec: should this process be killed, so is the child (PR_SET_PDEATHSIG)."""
    LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)


class Failed(Exception):
    """A promise of section 11 was broken, or something that a test needs did not happen."""


def binaries():
    return os.environ.get("SLIPWAY_BIN", os.path.join(ROOT, ".build/debug"))


def free_base(generator):
    """A port base whose offsets 1 and 10 are free."""
    for _ in range(200):
        base = generator.randrange(20000, 30000)
        if all(is_free(base + offset) for offset in (1, 10, 11)):
            return base
    raise Failed("no free ports")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def eventually(what, condition, seconds=30, every=0.01):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("not within %d s: %s" % (seconds, what))
        time.sleep(every)


class Bus:
    """slipway-bus in a home of its own."""

    def __init__(self, folder, base, settings=None, preload=None, environment=None, name="", twin=None):
        """`twin`: a bus whose identity this one takes over, as a replica does (docs/replica.md)."""
        self.home, self.base = os.path.join(folder, "home" + name), base
        self.port = base + 10
        self.process = None
        self.log_path = os.path.join(folder, "bus%s.log" % name)
        self.environment = dict(os.environ, SWIFT_BACKTRACE="enable=no")
        self.environment.pop("SLIPWAY_HOME", None)
        self.environment.update(environment or {})
        self.wrapper = []
        if preload:
            self.environment["LD_PRELOAD"] = preload
        self.program = os.path.join(binaries(), "slipway-bus")
        self.starts = self.kills = 0
        if not os.path.exists(self.program):
            raise Failed("there is no %s: run 'make build', or set SLIPWAY_BIN" % self.program)
        for name in ("keys", "run", "logs", "bus"):
            os.makedirs(os.path.join(self.home, name), mode=0o700)
        self.write_private("keys/clients.json", "[]")
        self.token = os.path.join(self.home, "keys/operator.token")
        if twin:
            for name in ("bus.json", "robots.json", "operator.token"):
                with open(os.path.join(twin.home, "keys", name)) as file:
                    self.write_private("keys/" + name, file.read())
        else:
            self.make_identity()
        if settings:
            self.write_private("suite.yml", settings)

    def make_identity(self):
        public, secret = (half.decode() for half in zmq.curve_keypair())
        self.write_private("keys/bus.json", json.dumps({
            "name": "bus", "endpoint": "tcp://127.0.0.1:%d" % self.port, "serverKey": public, "publicKey": public, "secretKey": secret}))
        # The operator's token, in the form of docs/running.md; the bus knows it by its SHA-256.
        alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        body = "".join(random.SystemRandom().choice(alphabet) for _ in range(43))
        check = hashlib.sha256(b"slipway token " + body.encode()).digest()[:6]
        token = "slp_%s%s" % (body, "".join(alphabet[byte % 62] for byte in check))
        self.write_private("keys/operator.token", token + "\n")
        self.write_private("keys/robots.json", json.dumps({hashlib.sha256(token.encode()).hexdigest(): "admin"}))

    def write_private(self, path, text):
        with open(os.open(os.path.join(self.home, path), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)

    def slipway(self, *arguments):
        done = subprocess.run([os.path.join(binaries(), "slipway"), *arguments, "--home", self.home, "--port-base", str(self.base)],
                              capture_output=True, text=True, env=self.environment, timeout=60)
        if done.returncode != 0:
            raise Failed("slipway %s: %s%s" % (" ".join(arguments), done.stdout, done.stderr))
        return done.stdout

    def key(self, name, publish=("t.**",), subscribe=("**",), call=("echo.*", "bus.**"), serve=("echo",)):
        """The file of a new key, made by `slipway key create`."""
        path = os.path.join(self.home, "keys", name + ".json")
        arguments = ["key", "create", name, "--out", path]
        for option, values in (("publish", publish), ("subscribe", subscribe), ("call", call), ("serve", serve)):
            for value in values:
                arguments += ["--" + option, value]
        self.slipway(*arguments)
        return path

    def start(self, wait=True):
        output = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            self.wrapper + [self.program, "--home", self.home, "--port-base", str(self.base), "--log-level", "info"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment, start_new_session=True, preexec_fn=dies_with_us)
        output.close()
        self.starts += 1
        if wait:
            self.wait_until_it_listens()

    def wait_until_it_listens(self, seconds=120):
        eventually("the bus listens", lambda: self.listens() or self.must_run(), seconds)

    def must_run(self):
        """False while it runs; raises when it ended by itself."""
        status = self.process.poll() if self.process else 0
        if status is not None:
            raise Failed("the bus ended by itself with %s; see %s:\n%s" % (status, self.log_path, self.tail()))
        return False

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def signal(self, number):
        self.must_run()
        self.process.send_signal(number)

    def kill(self):
        """kill -9; raises when it had ended by itself before."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.kills += 1

    def stop(self, seconds=30):
        """SIGTERM; the drain; exit 0."""
        self.signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed("the bus did not stop within %d s of SIGTERM:\n%s" % (seconds, self.tail()))
        if status != 0:
            raise Failed("the bus stopped with %d:\n%s" % (status, self.tail()))
        self.process = None

    def children(self):
        """Process ids, as text, of what the wrapper started."""
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as file:
            return file.read().split()

    def tail(self):
        try:
            with open(self.log_path, errors="replace") as file:
                return "".join(file.readlines()[-15:])
        except OSError:
            return ""

    def resident(self):
        """MiB."""
        with open("/proc/%d/status" % self.process.pid) as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def log_files(self):
        folder = os.path.join(self.home, "bus/log")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Load:
    """A load.py with some roles."""

    def __init__(self, folder, name, seed, roles):
        self.folder, self.name, self.seed, self.roles, self.lives = folder, name, seed, roles, 0
        self.process = None
        self.names = [role["name"] for role in roles]
        self.progress, self.ended, self.reports, self.faults, self.events = {}, set(), None, [], []
        self.start()

    def start(self):
        self.lives += 1
        path = os.path.join(self.folder, "%s.plan.json" % self.name)
        with open(path, "w") as file:
            json.dump({"seed": self.seed, "roles": [dict(role, life=self.lives) for role in self.roles]}, file)
        self.errors = open(os.path.join(self.folder, self.name + ".err"), "ab")
        self.process = subprocess.Popen(["/usr/bin/python3", os.path.join(HERE, "load.py"), path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, start_new_session=True, preexec_fn=dies_with_us)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.buffer, self.quitted, self.running = b"", False, False

    def pump(self):
        while True:
            try:
                part = os.read(self.process.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not part:
                break
            self.buffer += part
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            event = json.loads(line)
            kind = event["e"]
            if kind == "progress":
                self.progress.update({name: value[1] for name, value in event["roles"].items()})
            elif kind in ("drained", "finished"):
                self.ended.add(event["name"])
            elif kind == "report":
                self.reports = event["roles"]
            elif kind == "fault":
                self.faults.append("%s: %s" % (event["name"], event["what"]))
            elif kind == "quit":
                self.quitted = True
            elif kind == "running":
                self.running = True
            else:
                self.events.append(event)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def check(self):
        self.pump()
        if self.process is not None and self.process.poll() not in (None, 0) and not self.may_die:
            raise Failed("load %s ended with %s; see %s.err:\n%s" % (self.name, self.process.poll(), self.name, self.error_text()))

    may_die = False

    def error_text(self):
        with open(os.path.join(self.folder, self.name + ".err"), errors="replace") as file:
            return file.read()[-2000:]

    def say(self, line):
        try:
            self.process.stdin.write((line + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.pump()

    def total(self, prefix=""):
        self.pump()
        return sum(value for name, value in self.progress.items() if name.startswith(prefix))

    def end(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                try:
                    stream.close()
                except OSError:
                    pass
        self.errors.close()


class World:
    """One scenario's folder, bus and loads; ends them whatever happens, and runs the checker."""

    def __init__(self, name, seed, settings=None, preload=None, environment=None):
        self.name, self.seed = name, seed
        self.random = random.Random("%s:%s" % (name, seed))
        self.folder = tempfile.mkdtemp(prefix="slipway-torture-%s-" % name)
        os.chmod(self.folder, 0o711)
        self.loads, self.groups, self.notes, self.others = [], [], [], []
        self.keys, self.askers = {}, []
        self.foreign = ["bus"]
        self.extra = {}
        try:
            self.bus = Bus(self.folder, free_base(random.Random()), settings, preload, environment)
            self.read_key = self.key("reader", publish=(), serve=())
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for load in self.loads:
            load.end()
        for asker in self.askers:
            asker.link.close()
        for bus in [self.bus] + self.others:
            bus.end()
        if kind is None and not os.environ.get("TORTURE_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)
        elif kind is not None:
            print("  kept for you: %s" % self.folder, file=sys.stderr)

    def note(self, text):
        self.notes.append(text)

    def path(self, name):
        return os.path.join(self.folder, name)

    def key(self, name, **rights):
        if name not in self.keys:
            self.keys[name] = self.bus.key(name, **rights)
        return self.keys[name]

    def role(self, kind, name, key=None, **options):
        return dict({"role": kind, "name": name, "key": key or self.key("load"), "journal": self.path(name + ".sqlite")}, **options)

    def publisher(self, name, **options):
        # A key of its own: order and duplicates are a producer's.
        return self.role("publisher", name, key=self.key(options.pop("producer", name)), **options)

    def consumer(self, name, **options):
        return self.role("consumer", name, consumer=options.pop("consumer", name), **options)

    def over_http(self, kind, name, **options):
        return dict({"role": "http-" + kind, "name": name, "journal": self.path(name + ".sqlite"), "token": self.bus.token,
                     "base": "http://127.0.0.1:%d" % (self.bus.base + 1)}, **options)

    def group(self, name, members, **options):
        group = {"name": name, "filters": options.get("filters", ["t.**"]), "journals": ["%s.sqlite" % member for member in members],
                 "max_deliver": options.get("options", {}).get("max_deliver", 8)}
        self.groups.append(group)
        return [self.role("worker", member, consumer=name, **options) for member in members]

    def load(self, name, roles):
        load = Load(self.folder, name, self.seed, roles)
        self.loads.append(load)
        return load

    def asker(self, key=None):
        asker = Asker(load_key(key or self.read_key), endpoint="tcp://127.0.0.1:%d" % self.bus.port)
        self.askers.append(asker)
        return asker

    def check_all(self):
        """Faults that clients saw, and processes that ended; raises."""
        for load in self.loads:
            load.check()
            if load.faults:
                raise Failed("; ".join(load.faults[:5]))
        if self.bus.process is not None:
            self.bus.must_run()

    def wait(self, what, condition, seconds=60):
        def met():
            self.check_all()
            return condition()
        return eventually(what, met, seconds)

    def acked(self):
        return sum(load.total(role["name"]) for load in self.loads for role in load.roles if role["role"] == "publisher")

    def wait_for_end(self, seconds):
        """Until the bus's process is gone, which is what is wanted. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while self.bus.process.poll() is None:
            for load in self.loads:
                load.check()
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.005)

    def wait_for_acks(self, more, seconds=60):
        """Until so many more events are decided than now."""
        aim = self.acked() + more
        self.wait("%d more events are acknowledged" % more, lambda: self.acked() >= aim, seconds)

    def roles(self, kind):
        return [role for load in self.loads for role in load.roles if role["role"] == kind]

    def settle(self, seconds=120):
        """Publishers drain, consumers come to the end, groups settle. Gives the last number."""
        for load in self.loads:
            load.say("stop")
        wanted = {role["name"] for role in self.roles("publisher") + self.roles("caller") + self.roles("http-publisher")}
        try:
            self.wait("all publishers are told what became of their events",
                      lambda: wanted <= set().union(*(load.ended for load in self.loads)), seconds)
        except Failed as failed:
            raise Failed("%s; drained: %s of %s" % (failed, sorted(set().union(*(load.ended for load in self.loads))), sorted(wanted)))
        asker = self.asker()
        self.parked = {}
        for group in self.groups:
            self.settle_group(asker, group, seconds)
        fresh = self.asker()  # whose WELCOME says what is the last now
        last = self.extra["settled"] = fresh.wait_up()["last"]
        for load in self.loads:
            load.say("finish %d" % last)
        readers = {role["name"] for role in self.roles("consumer") + self.roles("http-follower") 
                   if not role.get("unfinished") and not role.get("team")}
        self.wait("all consumers have come to number %d" % last,
                  lambda: readers <= set().union(*(load.ended for load in self.loads)), seconds)
        return last

    def settle_group(self, asker, group, seconds):
        end = time.monotonic() + seconds
        while True:
            self.check_all()
            status, rows = asker.call("bus.consumers")
            if status != 200:
                raise Failed("bus.consumers: %d %s" % (status, rows))
            row = [row for row in rows if row["consumer"] == group["name"]]
            if row and row[0]["unsettled"] == 0 and row[0]["lag"] == 0:
                return
            if time.monotonic() > end:
                raise Failed("group %s is not settled within %d s: %s" % (group["name"], seconds, row))
            time.sleep(0.05)

    def reports(self):
        alive = [load for load in self.loads if load.alive()]
        for load in alive:
            load.reports = None
            load.say("report")
        self.wait("reports", lambda: all(load.reports is not None for load in alive), 30)
        return {name: report for load in alive for name, report in load.reports.items()}

    def read_log(self, first=1):
        """Reads all through the bus into log.sqlite; gives the last number."""
        asker = self.asker()
        last = asker.wait_up()["last"]
        db = sqlite3.connect(self.path("log.sqlite"), isolation_level=None)
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE IF NOT EXISTS log(seq INTEGER PRIMARY KEY, time INTEGER, topic TEXT, producer TEXT, id TEXT)")
        db.execute("BEGIN")
        db.executemany("INSERT OR IGNORE INTO log VALUES (?, ?, ?, ?, ?)", (
            (seq, nanos, topic, producer, name) for _, seq, nanos, kind, topic, producer, name, _ in asker.read(first, last) if kind == 1))
        db.execute("COMMIT")
        db.close()
        return last

    def judge(self, complete=True, read=True, parked=None):
        """Reads the log, ends the bus, runs the checker over everything. Raises `Failed` with what was found."""
        for group in self.groups:
            group["parked"] = self.parked_of(group) if parked is None else parked
            group["restarts"] = self.bus.starts - 1 + sum(load.lives - 1 for load in self.loads)
        for load in self.loads:
            load.say("quit")
        self.wait("loads quit", lambda: all(load.quitted or not load.alive() for load in self.loads), 30)
        self.check_all()
        if read:
            last = self.read_log()
        self.bus.stop()
        run = {"log": "log.sqlite", "segments": os.path.join(self.bus.home, "bus/log"), "foreign": self.foreign, "complete": complete,
               "publishers": [{"name": role["name"], "producer": load_key(role["key"])["name"], "journal": role["name"] + ".sqlite"}
                              for role in self.roles("publisher")]
               + [{"name": role["name"], "producer": "http/admin", "journal": role["name"] + ".sqlite"} for role in self.roles("http-publisher")],
               "consumers": [{"name": role["name"], "journal": role["name"] + ".sqlite", "filters": role.get("filters", ["t.**"]),
                              "from": role.get("from", "first")}
                             for role in self.roles("consumer") if not role.get("unfinished") and not role.get("team")]
               + [{"name": role["name"], "journal": role["name"] + ".sqlite", "filters": ["**"]} for role in self.roles("http-follower")],
               "groups": self.groups}
        if read:
            run["last"] = last
        if self.roles("caller"):
            run["calls"] = [{"callers": [role["name"] + ".sqlite" for role in self.roles("caller")],
                             "servers": [role["name"] + ".sqlite" for role in self.roles("server")]}]
        run.update(self.extra)
        with open(self.path("run.json"), "w") as file:
            json.dump(run, file, indent=1)
        report = checker.check(self.path("run.json"))
        if report.violations:
            raise Failed("the checker found:\n    " + "\n    ".join(report.violations[:30]))
        self.report = report
        return report

    def parked_of(self, group):
        asker = self.asker(self.key("load"))
        status, rows = asker.call("bus.parked.list", {"consumer": group["name"]})
        if status != 200:
            raise Failed("bus.parked.list: %d %s" % (status, rows))
        return [row["seq"] for row in rows]


class Proxy:
    """TCP in the middle, on a thread: passes, holds, delays, throttles or resets what flows, each way by itself.

    `up` is client to bus, `down` bus to client; each is `pass`, `hold` (nothing moves, nothing is lost), or a number of bytes a
    second. `delay` in seconds holds each piece back. `cut(after)` resets every connection once `after` more bytes have flowed.
    """

    def __init__(self, target, seed):
        self.target, self.random = target, random.Random(seed)
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(512)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.up = self.down = "pass"
        self.delay, self.refuse, self.cut_after, self.resets, self.bytes = 0.0, False, None, 0, 0
        self.pairs, self.ending = [], False
        self.wake_read, self.wake_write = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    @property
    def endpoint(self):
        return "tcp://127.0.0.1:%d" % self.port

    def cut(self, after=0):
        self.cut_after = after
        self.wake()

    def set(self, up="pass", down="pass", delay=0.0, refuse=False):
        self.up, self.down, self.delay, self.refuse = up, down, delay, refuse
        self.wake()

    def wake(self):
        os.write(self.wake_write, b".")

    def reset(self, pair):
        for side in pair["sockets"]:
            try:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.close()
            except OSError:
                pass
        if pair in self.pairs:
            self.pairs.remove(pair)

    def accept(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        if self.refuse:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return client.close()
        try:
            server = socket.create_connection(self.target, 2)
        except OSError:
            return client.close()
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # For each way: pieces that wait as (when they may go, bytes), and since when the allowance counts.
        self.pairs.append({"sockets": [client, server], "queues": [collections.deque(), collections.deque()], "budget": [0.0, 0.0],
                           "at": time.monotonic()})

    def run(self):
        while not self.ending:
            readers, writers = [self.listener, self.wake_read], []
            for pair in self.pairs:
                for side in (0, 1):
                    mode = self.down if side else self.up
                    if sum(len(piece) for _, piece in pair["queues"][side]) < 1 << 20 and mode != "hold":
                        readers.append(pair["sockets"][side])
            try:
                ready, _, _ = select.select(readers, [], [], 0.005 if any(any(p["queues"]) for p in self.pairs) else 0.2)
            except (OSError, ValueError):
                self.pairs = [p for p in self.pairs if all(s.fileno() >= 0 for s in p["sockets"])]
                continue
            now = time.monotonic()
            if self.wake_read in ready:
                os.read(self.wake_read, 4096)
            if self.listener in ready:
                self.accept()
            for pair in list(self.pairs):
                self.move(pair, ready, now)

    def move(self, pair, ready, now):
        elapsed, pair["at"] = now - pair["at"], now
        for side in (0, 1):
            mode = self.down if side else self.up
            source, sink = pair["sockets"][side], pair["sockets"][1 - side]
            if source in ready:
                try:
                    data = source.recv(65536)
                except BlockingIOError:
                    data = None
                except OSError:
                    return self.reset(pair)
                if data == b"":
                    return self.reset(pair)
                if data:
                    pair["queues"][side].append((now + self.delay * (0.5 + self.random.random()), data))
            if mode == "hold":
                continue
            budget = None
            if mode != "pass":
                pair["budget"][side] = min(pair["budget"][side] + elapsed * mode, mode)
                budget = int(pair["budget"][side])
            queue = pair["queues"][side]
            while queue and queue[0][0] <= now and budget != 0:
                when, data = queue[0]
                part = data if budget is None else data[:budget]
                if self.cut_after is not None:
                    part = part[:self.cut_after]
                try:
                    sent = sink.send(part) if part else 0
                except BlockingIOError:
                    break
                except OSError:
                    return self.reset(pair)
                self.bytes += sent
                if budget is not None:
                    budget -= sent
                    pair["budget"][side] -= sent
                if sent == len(data):
                    queue.popleft()
                else:
                    queue[0] = (when, data[sent:])
                if self.cut_after is not None:
                    self.cut_after -= sent
                    if self.cut_after <= 0:
                        # In the midst of a frame, more often than not.
                        self.cut_after = None
                        self.resets += 1
                        for each in list(self.pairs):
                            self.reset(each)
                        return

    def close(self):
        self.ending = True
        self.wake()
        self.thread.join(5)
        for pair in list(self.pairs):
            self.reset(pair)
        self.listener.close()
        os.close(self.wake_read)
        os.close(self.wake_write)
