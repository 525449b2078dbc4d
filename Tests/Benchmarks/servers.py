"""What bus.py measures: our bus in a home of its own, its peers, and the programs that load them. Every server is a process of its
own on free ports of loopback, with its data in a folder of its own; it sleeps under SIGSTOP while another one is measured."""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")
LIMIT = 120  # seconds that one measurement may take


class Failed(Exception):
    pass


def dies_with_us():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives a run that is killed


def free_ports(count):
    """So many ports that nobody listens on at this moment."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def free_base():
    for base in range(21000, 29000, 100):
        try:
            for port in (base, base + 1, base + 10):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise Failed("no free range of ports between 21000 and 29000")


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def eventually(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def machine_busy():
    """Seconds of processor time that the whole machine has used."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def processor_time(pid):
    """Seconds that a process has used, to the nanosecond; threads that ended count."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python has for threads only


def group_time(leader):
    """Seconds that the processes of a group have used."""
    total = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(name)) == leader:
                total += processor_time(int(name))
        except OSError:  # ended meanwhile
            continue
    return total


def wait_for_quiet(seconds):
    """Until the rest of the machine rests for a moment; at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        busy, began = machine_busy(), time.monotonic()
        time.sleep(0.25)
        if (machine_busy() - busy) / (time.monotonic() - began) < 0.2:
            return


def run(command, seconds=LIMIT):
    """What a load program prints: a JSON object."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, preexec_fn=dies_with_us)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: no end within {seconds} s") from None
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


class Server:
    """A process that leads a group of its own."""

    def __init__(self, name, folder):
        self.name, self.folder, self.process = name, folder, None
        os.makedirs(folder, exist_ok=True)

    def spawn(self, command, environment=None, **options):
        with open(os.path.join(self.folder, "output"), "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, preexec_fn=dies_with_us,
                env={**os.environ, **(environment or {})}, **options)

    def must_run(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as file:
                raise Failed(f"{self.name} ended with {self.process.returncode}: {file.read()[-600:]}")
        return False

    def ready(self, port):
        eventually(f"{self.name} listens on port {port}", lambda: listens(port) or self.must_run())

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def sleep(self):
        self.signal(signal.SIGSTOP)

    def wake(self):
        self.signal(signal.SIGCONT)
        time.sleep(0.2)

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def cpu(self):
        return group_time(self.process.pid)


class Bus(Server):
    """slipway-bus in a home of its own, with a key 'bench'. It inherits its listening sockets, as under the suite's keeper."""

    def __init__(self, name, folder, program, slipway, plain=False):
        super().__init__(name, folder)
        self.program, self.plain, self.home = program, plain, os.path.join(folder, "home")
        self.base = free_base()
        self.key = os.path.join(folder, "bench.json")
        self.sockets = []
        for part in ("keys", "run", "logs", "bus"):
            os.makedirs(os.path.join(self.home, part), mode=0o700)
        import zmq  # Debian's python3-zmq; only for the pair of keys
        public, secret = (half.decode() for half in zmq.curve_keypair())
        with open(os.open(os.path.join(self.home, "keys/bus.json"), os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            json.dump({"name": "bus", "endpoint": f"tcp://127.0.0.1:{self.base + 10}", "serverKey": public, "publicKey": public,
                       "secretKey": secret}, file)
        made = subprocess.run(
            [slipway, "key", "create", "bench", "--publish", "build.**", "--subscribe", "**", "--call", "bench.*", "--serve", "bench",
             "--out", self.key, "--home", self.home, "--port-base", str(self.base)], capture_output=True, text=True, timeout=60,
            env={**os.environ, "SWIFT_BACKTRACE": "enable=no"}, check=False)
        if made.returncode:
            raise Failed(f"slipway key create: {made.stdout}{made.stderr}")

    def set(self, text):
        with open(os.path.join(self.home, "suite.yml"), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self):
        if not self.sockets:
            for port in (self.base + 10, self.base + 1):
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
                listener.listen(512)
                # Out of the way of descriptors 3 and 4, where the bus expects them.
                self.sockets.append(socket.socket(fileno=fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, 100)))
                listener.close()
        zeromq, http = (one.fileno() for one in self.sockets)
        script = f'exec 3<&{zeromq} 4<&{http}; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=bus-zmq:bus exec "$@"'
        self.spawn(
            ["bash", "-c", script, "bash", self.program, "--home", self.home, "--port-base", str(self.base), "--log-level", "warning"],
            {"SWIFT_BACKTRACE": "enable=no"}, pass_fds=(zeromq, http))

    def first_session(self, began):
        """Seconds from `began`, on the monotonic clock in ns, to the first session."""
        return (run(self.load("join"))["at"] - began) / 1e9

    def load(self, mode, **options):
        command = [os.path.join(self.programs, "ebload"), "--key", self.key, "--mode", mode, "--limit", str(LIMIT), "--plain", str(int(self.plain))]
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        return command

    def files(self):
        folder = os.path.join(self.home, "bus", "log")
        return [os.path.join(folder, name) for name in os.listdir(folder)]

    def forget_cached(self):
        """Takes the log's files out of the page cache, as after a start of the machine."""
        for path in self.files():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def resident(self):
        """MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024

    def stop(self):
        super().stop()
        for one in self.sockets:
            one.close()
        self.sockets = []


class Nats(Server):
    def __init__(self, name, folder, synchronous):
        super().__init__(name, folder)
        [self.port] = free_ports(1)
        store = os.path.join(folder, "store")
        os.makedirs(store)
        if synchronous:  # nats-server 2.9 has no such setting: with this attribute each write reaches the device before it returns
            subprocess.run(["chattr", "+S", store], check=True)
        configuration = os.path.join(folder, "nats.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(f'listen: "127.0.0.1:{self.port}"\nmax_pending: 1GB\njetstream {{ store_dir: "{store}", max_mem: 64M, max_file: 8G }}\n')
        self.spawn(["nats-server", "-c", configuration])
        self.ready(self.port)


class Redis(Server):
    def __init__(self, name, folder):
        super().__init__(name, folder)
        [self.port] = free_ports(1)
        self.spawn(["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", folder, "--appendonly", "yes",
                    "--appendfsync", "always", "--save", ""])
        self.ready(self.port)


class Rabbit(Server):
    def __init__(self, name, folder):
        super().__init__(name, folder)
        self.port, mapper_port, distribution = free_ports(3)
        home, plugins, configuration = (os.path.join(folder, part) for part in ("home", "plugins", "rabbitmq.conf"))
        os.makedirs(home)
        with open(plugins, "w", encoding="ascii") as file:
            file.write("[].\n")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        environment = {
            "HOME": home, "ERL_EPMD_PORT": str(mapper_port), "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_CONFIG_FILE": configuration, "RABBITMQ_CONF_ENV_FILE": "/dev/null", "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs", "RABBITMQ_DIST_PORT": str(distribution), "RABBITMQ_ENABLED_PLUGINS_FILE": plugins,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
        self.mapper = Server("epmd", os.path.join(folder, "epmd"))
        self.mapper.spawn(["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)])
        self.spawn(["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment)
        self.ready(self.port)

    def stop(self):
        super().stop()
        self.mapper.stop()


PROGRAMS = {"fsyncbench": [], "zraw": ["-lzmq"], "broker": ["-lzmq", "-lsqlite3"], "busclient": ["-lzmq"], "natsbench": ["-lnats"],
            "redisbench": ["-lhiredis"], "rabbitbench": ["-lrabbitmq"]}


def compile_programs(peers, folder):
    """Ours from here, the peers' from where they are. Returns what could not be compiled, with why."""
    missing = {}
    sources = {name: (os.path.join(peers, name + ".c"), libraries) for name, libraries in PROGRAMS.items()}
    sources["ebload"] = (os.path.join(HERE, "ebload.c"), ["-lzmq"])
    for name, (source, libraries) in sources.items():
        flags = ["-msse4.2"] if name == "broker" and os.uname().machine == "x86_64" else []
        done = subprocess.run(["gcc", "-O2", *flags, "-o", os.path.join(folder, name), source, *libraries, "-lpthread"], capture_output=True,
                              text=True, timeout=LIMIT, check=False)
        if done.returncode:
            missing[name] = done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"gcc: status {done.returncode}"
    if "ebload" in missing:
        raise Failed(f"ebload.c: {missing['ebload']}")
    return missing


class Yard:
    """All servers of a run, started when first asked for."""

    def __init__(self, work, peers, binaries, plain_bus):
        self.work, self.binaries, self.plain_bus = work, binaries, plain_bus
        self.programs = os.path.join(work, "programs")
        os.makedirs(self.programs)
        self.missing = compile_programs(peers, self.programs)
        self.servers = {}

    def program(self, name):
        if name in self.missing:
            raise Failed(f"{name}.c does not compile here: {self.missing[name]}")
        return os.path.join(self.programs, name)

    def make(self, name, place=None, settings=None):
        folder = os.path.join(self.work, (place or name).replace(" ", "-"))
        os.makedirs(folder)
        if name in ("curve", "plain"):
            program = os.path.join(self.binaries, "slipway-bus") if name == "curve" else self.plain_bus
            if not os.access(program or "", os.X_OK):
                raise Failed(f"there is no {program or 'bus without CURVE (--plain-bus)'}")
            bus = Bus(name, folder, program, os.path.join(self.binaries, "slipway"), plain=name == "plain")
            bus.programs = self.programs
            if settings:
                bus.set(settings)
            bus.start()
            bus.first_session(time.monotonic_ns())
            return bus
        return {"nats": lambda: Nats(name, folder, False), "nats-sync": lambda: Nats(name, folder, True), "redis": lambda: Redis(name, folder),
                "rabbit": lambda: Rabbit(name, folder)}[name]()

    def server(self, name):
        """Started, and asleep. A server that could not be started is not tried again."""
        if name not in self.servers:
            try:
                self.servers[name] = self.make(name)
                self.servers[name].sleep()
            except (Failed, OSError, subprocess.SubprocessError) as error:
                self.servers[name] = Failed(str(error))
        if isinstance(self.servers[name], Failed):
            raise self.servers[name]
        return self.servers[name]

    def running(self):
        return [server for server in self.servers.values() if isinstance(server, Server)]

    def long_log(self, gibibytes):
        """A bus with a log of that size: large events, and then 1 200 000 small ones."""
        bus = self.servers.get("long log")
        if isinstance(bus, Failed):
            raise bus
        if bus:
            bus.wake()
            return bus
        try:
            room = shutil.disk_usage(self.work).free / 2**30
            if room < gibibytes * 1.1 + 8:
                raise Failed(f"{room:.0f} GiB are free in {self.work}; a log of {gibibytes:g} GiB wants {gibibytes * 1.1 + 8:.0f}")
            bus = self.make("curve", "long log", "bus:\n  max_bytes: none\n")
            self.servers["long log"] = bus
            large = 256 << 10
            each = 4000  # 1 GiB, so that one program never runs long
            for _ in range(max(1, int((gibibytes - 0.5) * 2**30 / large / each))):
                run(bus.load("load", n=each, size=large, subs=0))
            run(bus.load("load", n=1_200_000, subs=0))
            return bus
        except Failed as error:
            if isinstance(bus, Server):
                bus.stop()
            self.servers["long log"] = error
            raise

    def measure(self, server, command, count):
        """Runs a load program against a server that is awake only meanwhile; adds the server's processor time in µs an event."""
        server.wake()
        try:
            began = server.cpu()
            result = run(command)
            result["cpu"] = (server.cpu() - began) * 1e6 / count
            return result
        finally:
            server.sleep()

    def prototype(self, count, curve=False, **options):
        """The C prototype: one broker a measurement, which ends by itself."""
        import zmq
        folder = os.path.join(self.work, "prototype")
        shutil.rmtree(folder, ignore_errors=True)
        inward, outward = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
        ends = ["--in", inward, "--out", outward, "--deliver", "batch"]
        broker, client = [self.program("broker"), "--log", "segpre", "--dir", folder, *ends], [self.program("busclient"), "--n", str(count), *ends]
        if curve:
            public, secret = (half.decode() for half in zmq.curve_keypair())
            broker += ["--curve-secret", secret]
            client += ["--curve-server", public]
        for name, value in options.items():
            client += ["--" + name, str(value)]
        process = subprocess.Popen(broker, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=dies_with_us)
        try:
            eventually("the prototype listens", lambda: listens(int(inward.rsplit(":", 1)[1])))
            time.sleep(0.1)
            result = run(client)
            end = time.monotonic() + 20
            while True:
                pid, _status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = 0
                    break
                if time.monotonic() > end:
                    raise Failed("the prototype did not end")
                time.sleep(0.01)
            result["cpu"] = (usage.ru_utime + usage.ru_stime) * 1e6 / count
            return result
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def close(self):
        for server in self.running():
            try:
                server.stop()
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{server.name}: {error}")
