#!/usr/bin/env python3
"""Measures the bus beside its peers: every row of section 10 of bus-protocol.md, in interleaved rounds of one run.

The peers are NATS JetStream, Redis, RabbitMQ, raw libzmq, fdatasync and the prototype in C, driven by the programs in
../shared/bench/bus (SLIPWAY_PEERS names another place). Ours is driven by ebload.c, which counts as they do. Ratios are taken inside
a round; a row shows their median, and the ratio of the best runs. Needs Debian's python3-zmq and what `make bench-bus` installs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import report
from rows import BESIDE, ROWS
from servers import Failed, Yard, free_ports, machine_busy, processor_time, run, wait_for_quiet

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MILLION = 1_000_000


class Cases:
    """Each method is one measurement; its name, with spaces, is how rows and results call it."""

    def __init__(self, yard, scale, gibibytes):
        self.yard, self.scale, self.gibibytes = yard, scale, gibibytes

    def count(self, number):
        return max(200, int(number * self.scale))

    # Ours. `kind` is curve or plain.

    def bus_w1024(self, kind):
        return self.load(kind, 200_000)

    def bus_w1(self, kind):
        return self.load(kind, 600, win=1)

    def bus_w8(self, kind):
        return self.load(kind, 4000, win=8, pack=1)

    def bus_8_publishers_w1(self, kind):
        return self.load(kind, 4000, win=1, pubs=8)

    def bus_x8(self, kind):
        return self.load(kind, 60_000, subs=8)

    def bus_call(self, kind):
        bus, count = self.yard.server(kind), self.count(4000)
        return self.yard.measure(bus, bus.load("rtt", n=count), count)

    def load(self, kind, number, **options):
        bus, count = self.yard.server(kind), self.count(number)
        return self.yard.measure(bus, bus.load("load", n=count, **options), count)

    def filled(self):
        """The bus with CURVE, with a million events in its log."""
        bus = self.yard.server("curve")
        bus.wake()
        missing = MILLION + 1000 - run(bus.load("join"))["last"]
        if missing > 0:
            run(bus.load("load", n=missing, subs=0))
        return bus

    def bus_replay(self, _kind):
        bus = self.filled()
        return self.yard.measure(bus, bus.load("replay", n=MILLION - 5000, **{"from": -MILLION}), MILLION - 5000)

    def bus_beside_a_replay(self, _kind):
        return self.beside("replay", seconds=60, n=MILLION * 100)

    def bus_beside_a_stopped_consumer(self, _kind):
        return self.beside("hold", seconds=60, subs=1, credit_msgs=10)

    def beside(self, mode, **options):
        """How many times longer a live event takes from end to end than before and after."""
        def live():
            return self.bus_w1("curve")["e2e_p50"]

        bus = self.filled()
        before = live()
        other = subprocess.Popen(bus.load(mode, **{"from": -MILLION}, **options), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            bus.wake()
            time.sleep(0.5)
            during = live()
            bus.wake()
            if other.poll() is not None:
                raise Failed(f"what should disturb ended with status {other.returncode}")
        finally:
            other.kill()
            other.wait()
            bus.sleep()
        alone = (before + live()) / 2
        return {"alone": alone, "during": during, "times": during / alone}

    def bus_planned_restart(self, _kind):
        return self.restart(signal.SIGTERM)

    def bus_killed(self, _kind):
        return self.restart(signal.SIGKILL)

    def restart(self, number):
        """The longest time between two acknowledgements, around a restart by a supervisor that acts at once; with a million events
        in the log, since an empty one starts faster."""
        bus = self.filled()
        client = subprocess.Popen(bus.load("pause", seconds=4), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(1.5)
            began = time.monotonic()
            bus.signal(number)
            status = bus.process.wait(30)
            down = time.monotonic() - began
            bus.start()
            out, _ = client.communicate(timeout=60)
            if client.returncode or (number == signal.SIGTERM and status):
                raise Failed(f"restart: the bus ended with {status}, the publisher with {client.returncode}")
            result = json.loads(out)
            if result["sessions"] < 2 or result["silent_ms"] > 2000:
                raise Failed(f"the publisher did not come back: {result}")
            return {"pause": result["pause_ms"], "stopping": down * 1000, "acked": result["acked"]}
        finally:
            client.kill()
            client.wait()
            bus.sleep()

    def bus_at_rest(self, _kind):
        """Eight services that are connected, subscribed and serve, and a consumer that stands a million events behind."""
        bus, seconds = self.filled(), 10
        options = {"from": -1, "subs": 8, "serve": 1, "credit_msgs": 256}
        holders = [bus.load("hold", seconds=60, **options), bus.load("hold", seconds=60, subs=1, credit_msgs=10, **{"from": -MILLION})]
        holders = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for command in holders]
        try:
            time.sleep(3)
            began, used = time.monotonic(), processor_time(bus.process.pid)
            time.sleep(seconds)
            idle = (processor_time(bus.process.pid) - used) / (time.monotonic() - began) * 100
            if any(holder.poll() is not None for holder in holders):
                raise Failed("the services did not stay")
            return {"rss": bus.resident(), "idle": idle}
        finally:
            for holder in holders:
                holder.kill()
                holder.wait()
            bus.sleep()

    def bus_start(self, _kind):
        """Seconds from exec to the first session, with a log of many gibibytes whose last million events are small ones."""
        bus = self.yard.long_log(self.gibibytes)
        result = {}
        for name, number in (("after_kill", signal.SIGKILL), ("after_stop", signal.SIGTERM), ("cold", signal.SIGKILL)):
            bus.process.send_signal(number)
            bus.process.wait(60)
            if name == "cold":
                bus.forget_cached()
            began = time.monotonic_ns()
            bus.start()
            result[name] = bus.first_session(began)
        bus.sleep()
        return result

    # Peers.

    def prototype_w1024(self, _):
        return self.yard.prototype(self.count(200_000), win=1024, pack=16)

    def prototype_curve_w1024(self, _):
        return self.yard.prototype(self.count(150_000), curve=True, win=1024, pack=16)

    def prototype_w1(self, _):
        return self.yard.prototype(self.count(600), win=1, pack=1)

    def prototype_x8(self, _):
        return self.yard.prototype(self.count(60_000), win=1024, pack=16, subs=8)

    def jetstream_w1024(self, _):
        return self.nats("nats", 50_000, mode="js", win=1024)

    def jetstream_x8(self, _):
        return self.nats("nats", 15_000, mode="js", win=1024, subs=8)

    def jetstream_sync_w1024(self, _):
        return self.nats("nats-sync", 2000, mode="js", win=1024)

    def jetstream_sync_w1(self, _):
        return self.nats("nats-sync", 600, mode="js", win=1)

    def nats_request(self, _):
        return self.nats("nats", 4000, mode="rtt")

    def nats(self, name, number, **options):
        server, count = self.yard.server(name), self.count(number)
        return self.peer(server, "natsbench", count, url=f"nats://127.0.0.1:{server.port}", **options)

    def redis_always_w1024(self, _):
        return self.peer(self.yard.server("redis"), "redisbench", self.count(30_000), port=self.yard.server("redis").port, win=1024)

    def redis_always_w1(self, _):
        return self.peer(self.yard.server("redis"), "redisbench", self.count(600), port=self.yard.server("redis").port, win=1)

    def rabbit_quorum_w1(self, _):
        return self.peer(self.yard.server("rabbit"), "rabbitbench", self.count(400), port=self.yard.server("rabbit").port, win=1, queue="quorum")

    def peer(self, server, program, count, **options):
        command = [self.yard.program(program), "--n", str(count)]
        for name, value in options.items():
            command += ["--" + name, str(value)]
        return self.yard.measure(server, command, count)

    def pub_sub_x8(self, _):
        return self.raw("pubsub", 150_000, subs=8)

    def dealer_router(self, _):
        return self.raw("rtt", 10_000)

    def raw(self, mode, number, **options):
        command = [self.yard.program("zraw"), "--mode", mode, "--n", str(self.count(number)), "--ep", f"tcp://127.0.0.1:{free_ports(1)[0]}"]
        for name, value in options.items():
            command += ["--" + name, str(value)]
        return run(command)

    def fdatasync(self, _):
        return run([self.yard.program("fsyncbench"), "--dir", self.yard.work, "--mode", "overwrite", "--n", str(self.count(600)), "--size", "4096"])


def measure(arguments, work):
    """Rounds of all cases that the rows want; what was measured, as it is kept in the results file."""
    wanted = {name for row in ROWS if not arguments.only or row.number.rstrip("abc") in arguments.only for name in row.cases()}
    if not arguments.only:
        wanted |= BESIDE
    # What is compared lies close together.
    groups = (("w1024",), ("w1", "w8", "fdatasync"), ("x8",), ("call", "request"), ("",))
    known = [attribute.replace("_", " ") for attribute in vars(Cases)]
    order = sorted((name for name in wanted if name.split(":")[-1] in known), key=lambda name: (
        next(index for index, words in enumerate(groups) if any(word in name for word in words)), known.index(name.split(":")[-1]), name))
    if len(order) != len(wanted):
        raise SystemExit(f"bus: rows want what is not there: {wanted - set(order)}")
    yard = Yard(work, arguments.peers, arguments.bin, arguments.plain_bus)
    cases, results, began = Cases(yard, arguments.scale, arguments.log_gib), [], time.monotonic()
    try:
        for number in range(1, arguments.rounds + 1):
            for name in order:
                if time.monotonic() - began > arguments.limit:
                    print(f"bus: {arguments.limit} s are over in round {number}; that round does not count", flush=True)
                    return [one for one in results if one["round"] < number] or results
                kind, _, case = name.rpartition(":")
                result = {"round": number, "case": name}
                wait_for_quiet(arguments.quiet)
                busy, used, start = machine_busy(), sum(os.times()[:4]) + sum(server.cpu() for server in yard.running()), time.monotonic()
                try:
                    result.update(getattr(cases, case.replace(" ", "_"))(kind))
                except Failed as error:
                    results.append({**result, "failed": str(error)})
                    print(f"{number} {name}: {error}", flush=True)
                    continue
                seconds = time.monotonic() - start
                ours = sum(os.times()[:4]) + sum(server.cpu() for server in yard.running()) - used
                result["others"] = max(0.0, machine_busy() - busy - ours) / max(seconds, 0.001)
                results.append(result)
                values = {key: round(value, 1) if isinstance(value, float) else value for key, value in result.items() if key not in ("round", "case")}
                print(f"{number} {name:40} {seconds:5.1f} s  {values}", flush=True)
    finally:
        yard.close()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    environment = os.environ.get
    parser.add_argument("--bin", default=os.path.join(ROOT, ".build-release", "release"), help="directory of slipway-bus and slipway")
    parser.add_argument("--plain-bus", default=None, help="the same bus without CURVE, for the rows in the clear (default: slipway-bus-plain in --bin)")
    parser.add_argument("--peers", default=environment("SLIPWAY_PEERS", os.path.join(os.path.dirname(ROOT), "shared", "bench", "bus")))
    parser.add_argument("--rounds", type=int, default=int(environment("ROUNDS", "5")))
    parser.add_argument("--only", default=environment("ONLY", ""), help="numbers of rows, such as 1,2,6 (ONLY)")
    parser.add_argument("--work", default=environment("WORK", "/var/tmp"), help="a directory on the disk to be measured (WORK)")
    parser.add_argument("--scale", type=float, default=float(environment("SCALE", "1")), help="of the numbers of events (SCALE)")
    parser.add_argument("--log-gib", type=float, default=float(environment("LOG_GIB", "10")), help="size of the log of row 16 (LOG_GIB)")
    parser.add_argument("--quiet", type=float, default=4, help="seconds to wait for a quiet moment before each measurement")
    parser.add_argument("--limit", type=float, default=float(environment("LIMIT_S", "3600")), help="seconds for everything (LIMIT_S)")
    parser.add_argument("--results", default=os.path.join(ROOT, ".build-release", "bench-bus.json"), help="where the single results are kept")
    parser.add_argument("--render", action="store_true", help="measure nothing; make the page from the results file")
    parser.add_argument("--page", default=None, help="the page to write (default: docs/benchmarks.md when all rows were measured, else none)")
    arguments = parser.parse_args()
    arguments.only = set(filter(None, arguments.only.split(",")))
    arguments.bin = os.path.abspath(arguments.bin)
    if arguments.plain_bus is None:
        arguments.plain_bus = os.path.join(arguments.bin, "slipway-bus-plain")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped

    if arguments.render:
        with open(arguments.results, encoding="utf-8") as file:
            kept = json.load(file)
    else:
        if not os.path.exists(os.path.join(arguments.peers, "common.h")):
            sys.exit(f"bus: there are no programs of the peers in {arguments.peers}; set SLIPWAY_PEERS")
        for name in ("slipway-bus", "slipway"):
            if not os.access(os.path.join(arguments.bin, name), os.X_OK):
                sys.exit(f"bus: there is no {name} in {arguments.bin}; make bench-bus builds it")
        about = report.about(ROOT, arguments)
        work = tempfile.mkdtemp(prefix="slipway-bench-bus-", dir=arguments.work)
        try:
            kept = {"about": about, "results": measure(arguments, work)}
        finally:
            shutil.rmtree(work, ignore_errors=True)
        os.makedirs(os.path.dirname(arguments.results), exist_ok=True)
        with open(arguments.results, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
    print("\n" + report.table(kept["results"], only=arguments.only))
    page = arguments.page or (os.path.join(ROOT, "docs", "benchmarks.md") if not arguments.only else None)
    if page:
        report.write(page, kept)
        print(f"written: {page}")


if __name__ == "__main__":
    main()
