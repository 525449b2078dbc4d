#!/usr/bin/python3
"""Breaks the bus from the outside, and lets checker.py judge (section 11 of the bus's design; README.md says what each must show).

    torture.py SCENARIO… [--seed N] [--rounds N] [--seconds N] [--long]
    torture.py small [--seed N]       every scenario, seconds each: what `make test` runs
    torture.py long [--seed N] …      every scenario at length: what `make torture-bus` runs
    torture.py list

SLIPWAY_BIN names the directory of the programs (default .build/debug). TORTURE_KEEP=1 keeps what a good run wrote. The seed is
printed; the same seed makes the same choices, though not the same timing.
"""
import argparse
import collections
import http.client
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import zmq

from eb1 import (ACK, ACKX, ERR, EVENTS, EXCEPTION, HELLO, LOST, PING, PUB, PUBACK, REFUSED, REP, REQ, SERVE, SUB, SUBOK, UNSUB, VERDICT, Asker, Link,
                 load_key, message, pack, records)
from rig import HERE, Bus, Failed, Proxy, World, free_base

SCENARIOS = {}


def scenario(name, title, rounds=(12, 500), seconds=(3, 60)):
    """rounds and seconds: small, long."""
    def add(function):
        function.title, function.rounds, function.seconds = title, rounds, seconds
        SCENARIOS[name] = function
        return function
    return add


class Options:
    def __init__(self, function, seed, rounds, seconds, long):
        self.seed, self.long = seed, long
        self.rounds = rounds or function.rounds[long]
        self.seconds = seconds or function.seconds[long]


def nap(seconds):
    """A moment at random: which one is what is tested, not waited for."""
    time.sleep(seconds)


# Segments as small as can be set, so that they change under load.
SMALL_SEGMENTS = "bus:\n  segment_bytes: 1MiB\n"


def mixed_load(world, rate=400, calls=True, endpoint=None, size=600, crash=0.0):
    """Publishers of both kinds, consumers of both kinds, a group, calls: in two processes."""
    via = {"endpoint": endpoint} if endpoint else {}
    if crash:
        via["crash"] = crash
    load = world.load("publishers", [
        world.publisher("p0", topics=["t.p0.a", "t.p0.b"], rate=rate, size=size, **via),
        world.publisher("p1", mode="ids", topics=["t.p1.a", "t.p1.b"], rate=rate, size=size // 3, **via),
        # Two of one name: a producer's order is that of each outbox.
        world.publisher("p2", topics=["t.p2"], rate=rate // 4, size=20 * size, window=64, **via),
        # Up to the largest that there may be: alone in a message, and beyond what a consumer has credit for.
        world.publisher("p4", topics=["t.p4"], rate=max(2, rate // 150), window=8, sizes=[0, 10, 300_000, 1, 1000, 0, 1_040_000, 70_000], **via),
        world.publisher("p3", producer="p2", mode="ids", topics=["t.p2"], rate=rate // 4, pack=1, size=10, **via),
    ] + ([world.role("caller", "asking", rate=30, **via)] if calls else []))
    readers = world.load("readers", [
        world.consumer("c0", filters=["t.**"], **via),
        world.consumer("c1", filters=["t.*.a"], position="bus", credit_msgs=64, credit_bytes=50_000, **via),
    ] + world.group("g", ["w0", "w1"], filters=["t.p1.*"], nak=0.03, progress=0.02,
                    options={"max_deliver": 0, "backoff_ms": [20], "ack_wait_ms": 2000}, **via)
      + ([world.role("server", "serving", **via)] if calls else []))
    return load, readers


def pause_of(world):
    reports = world.reports()
    return max([report["pause_ms"] for report in reports.values() if "pause_ms" in report], default=0)


@scenario("kill", "1: kill -9 of the bus at random instants, under load, in start-up, segment change and drain", rounds=(6, 500))
def kill_bus(o):
    with World("kill", o.seed, settings=SMALL_SEGMENTS) as world:
        bus, choose = world.bus, world.random
        mixed_load(world, rate=150 if o.long else 400)
        world.load("web", [world.over_http("publisher", "h0"), world.over_http("follower", "h1")])
        bus.start()
        world.wait_for_acks(50)
        moments = {"load": 0, "start": 0, "drain": 0, "segment": 0}
        start_takes = 0.3
        for _ in range(o.rounds):
            moment = choose.choices(list(moments), [6, 3, 2, 1])[0]
            moments[moment] += 1
            if moment == "segment":
                files, end = bus.log_files(), time.monotonic() + (5 if o.long else 1)
                while bus.log_files() == files and time.monotonic() < end:
                    bus.must_run()
                    time.sleep(0.0005)
                nap(choose.uniform(0, 0.01))
                bus.kill()
            elif moment == "drain":
                nap(choose.uniform(0, 0.2))
                bus.signal(signal.SIGTERM)
                nap(choose.choice([0, choose.uniform(0, 0.03), choose.uniform(0, 0.3)]))
                if bus.process.poll() is None:
                    bus.kill()
                elif bus.process.poll() not in (0, -signal.SIGTERM):  # by the signal itself: it came before anything listened for it
                    bus.must_run()
            else:
                nap(choose.uniform(0, 0.4))
                bus.kill()
            if moment == "start":
                # Again and again before it is up.
                for _ in range(choose.randint(1, 3)):
                    bus.start(wait=False)
                    nap(choose.uniform(0, start_takes))
                    bus.kill()
            began = time.monotonic()
            bus.start()
            start_takes = 0.9 * start_takes + 0.1 * 1.3 * (time.monotonic() - began)
            # Alive again: everybody comes back, and work goes on.
            if choose.random() < 0.7:
                world.wait_for_acks(choose.randint(1, 200))
        world.settle()
        pause = pause_of(world)
        report = world.judge()
        return {"kills": bus.kills, "moments": moments, "longest publisher pause ms": pause, "last start ms": round(start_takes / 1.3 * 1000),
                **report.counts}


@scenario("calls", "1: the bus dies at the n-th write, flush or rename, by strace", rounds=(4, 300))
def kill_at_calls(o):
    if not shutil.which("strace"):
        return "needs strace"
    with World("calls", o.seed, settings=SMALL_SEGMENTS) as world:
        bus, choose, points = world.bus, world.random, collections.Counter()
        mixed_load(world, rate=150, calls=False, size=1500)
        bus.start()
        world.wait_for_acks(50)
        bus.kill()
        calls = ["pwrite64", "fdatasync", "fdatasync", "fsync", "rename,renameat2", "unlink,ftruncate,fallocate"]
        for _ in range(o.rounds):
            call = choose.choice(calls)
            most = {"pwrite64": 400, "fdatasync": 200}.get(call, 12)
            # Skewed to the first ones, which belong to recovery and to the start of a log's new epoch.
            number = 1 + int(most * choose.random() ** 3)
            bus.wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", "inject=%s:signal=KILL:when=%d" % (call, number)]
            bus.start(wait=False)
            try:
                world.wait_for_end(1.5)
                points[call] += 1
            except TimeoutError:
                # So many calls did not come: it lives, and is ended as ever. (Its tracer would leave it running.)
                points["too few calls of " + call] += 1
                subprocess.run(["/bin/kill", "-9"] + bus.children(), check=True)
                bus.process.wait()
            bus.process = None
            bus.kills += 1
            if choose.random() < 0.3:
                bus.wrapper = []
                bus.start()
                world.wait_for_acks(choose.randint(1, 60))
                bus.kill()
        bus.wrapper = []
        bus.start()
        world.settle()
        report = world.judge()
        return {"points": dict(points), **report.counts}


@scenario("clients", "2: kill -9 of publishers and consumers between their steps", rounds=(14, 600))
def kill_clients(o):
    with World("clients", o.seed) as world:
        world.bus.start()
        chance = 0.003 if o.long else 0.008
        loads = [
            world.load("l0", [world.publisher("p0", topics=["t.p0.a", "t.p0.b"], rate=300, crash=chance)]),
            world.load("l1", [world.publisher("p1", mode="ids", topics=["t.p1.a"], rate=300, crash=chance)]),
            world.load("l2", [world.consumer("c0", crash=chance)]),
            world.load("l3", [world.consumer("c1", position="bus", filters=["t.*.a"], crash=chance)]),
            *[world.load("l4%d" % index, [role]) for index, role in enumerate(world.group(
                "g", ["w0", "w1"], filters=["t.p0.*"], nak=0.02, crash=chance,
                options={"max_deliver": 0, "backoff_ms": [10], "ack_wait_ms": 1000}))],
        ]
        for load in loads:
            load.may_die = True
        deaths, waits = 0, []

        def bury():
            nonlocal deaths
            for load in loads:
                if not load.alive():
                    load.pump()
                    deaths += 1
                    load.start()
            return deaths >= o.rounds
        kill_at = time.monotonic()
        while not bury():
            world.check_all()
            if time.monotonic() - kill_at > 0.5:
                # Beside the chosen steps, any instant.
                kill_at = time.monotonic()
                world.random.choice(loads).kill()
            time.sleep(0.01)
        world.foreign = ["bus"]
        for load in loads:
            load.kill()
            for role in load.roles:
                role.pop("crash", None)
            load.start()
            load.may_die = False
        world.settle()
        report = world.judge()
        return {"deaths": deaths, **report.counts}


@scenario("stopped", "6: SIGSTOP of a worker and of an ordered consumer, longer than the ack wait", rounds=(1, 20))
def stop_consumer(o):
    with World("stopped", o.seed) as world:
        world.bus.start()
        publishing = world.load("publishers", [world.publisher("p0", topics=["t.job"], rate=40, size=20)])
        group = world.group("g", ["w0", "w1"], filters=["t.job"], hold_ms=20, credit_msgs=4, one_by_one=True,
                            options={"max_deliver": 0, "ack_wait_ms": 400})
        first, second = world.load("first", group[:1]), world.load("second", group[1:])
        # Two processes that are one ordered consumer: whoever comes later takes over.
        sleeper = world.load("sleeper", [world.consumer("o0", consumer="o", position="bus", unfinished=True)])
        world.wait("the ordered consumer gets events", lambda: sleeper.total() > 1)
        world.wait("both workers get their share", lambda: first.total() > 4 and second.total() > 4)
        rounds = 0
        for _ in range(o.rounds):
            late_before = sum(event["e"] == "late" for event in first.events)
            os.kill(first.process.pid, signal.SIGSTOP)
            try:
                done = second.total()
                # The other one goes on, also with what the stopped one holds.
                world.wait("the second worker goes on", lambda: second.total() > done + 60)
            finally:
                os.kill(first.process.pid, signal.SIGCONT)
            if world.random.random() < 0.5 or o.rounds == 1:
                world.wait("late verdicts are refused",
                           lambda: sum(event["e"] == "late" for event in first.events) > late_before, 20)
            rounds += 1
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        taker = world.load("taker", [world.consumer("o1", consumer="o", position="bus", **{"from": "cursor"}, unfinished=True)])
        world.wait("the second session of the ordered consumer gets events", lambda: taker.total() > 1)
        os.kill(sleeper.process.pid, signal.SIGCONT)
        world.wait("the one that slept is told that it is over", lambda: any(e["e"] == "fenced" for e in sleeper.events) or (sleeper.pump()), 20)
        if any(event["e"] == "fenced" for event in (taker.pump() or taker.events)):
            raise Failed("the session that took over was fenced, too")
        world.settle()
        world.groups[0]["strict"] = True
        report = world.judge()
        return {"rounds": rounds, **report.counts}


@scenario("pause", "7: SIGSTOP of the bus and of publishers", rounds=(2, 12), seconds=(3.5, 60))
def pause_bus(o):
    with World("pause", o.seed) as world:
        publishers, readers = mixed_load(world)
        world.bus.start()
        world.wait_for_acks(100)
        stops = []
        for index in range(o.rounds):
            # Shorter than the heartbeats' patience, and longer.
            seconds = round(world.random.uniform(0.5, 1.5) if index % 2 else world.random.uniform(3.2, max(3.3, o.seconds)), 1)
            stops.append(seconds)
            target = world.bus.process.pid if index % 3 != 1 else publishers.process.pid
            os.kill(target, signal.SIGSTOP)
            nap(seconds)
            if world.random.random() < 0.3 and target == world.bus.process.pid:
                world.bus.kill()
                world.bus.start()
            else:
                os.kill(target, signal.SIGCONT)
            world.wait_for_acks(200)
        world.settle()
        report = world.judge()
        return {"stops_s": stops, **report.counts}


@scenario("clock", "7: jumps of the bus's wall clock by up to an hour", rounds=(4, 60))
def jump_clock(o):
    library = os.path.join(tempfile.mkdtemp(prefix="slipway-clock-"), "clock.so")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, os.path.join(HERE, "clock.c"), "-ldl"], check=True)
    shift = library + ".shift"
    with open(shift, "wb") as file:
        file.write(struct.pack("=q", 0))
    try:
        with World("clock", o.seed, preload=library, environment={"CLOCK_SHIFT_FILE": shift}) as world:
            mixed_load(world, calls=False)
            world.bus.start()
            world.wait_for_acks(50)
            jumps = []
            for index in range(o.rounds):
                jump = [3600, -3600][index] if index < 2 else world.random.choice([0, -60, 60, world.random.randint(-3600, 3600)])
                jumps.append(jump)
                with open(shift, "r+b") as file:
                    file.write(struct.pack("=q", jump))
                world.wait_for_acks(150)
                if world.random.random() < 0.3:
                    world.bus.kill()
                    world.bus.start()
            world.settle()
            report = world.judge()  # which wants times that never go back
            low, high = times_of(world)
            if high - low < 3500:
                raise Failed("the clock did not jump: the log spans %d s" % (high - low))
            return {"jumps_s": jumps[:20], **report.counts}
    finally:
        for path in (library, shift):
            os.unlink(path)
        os.rmdir(os.path.dirname(library))


def times_of(world):
    db = sqlite3.connect(world.path("log.sqlite"))
    low, high = db.execute("SELECT min(time), max(time) FROM log").fetchone()
    db.close()
    return low // 10**9, high // 10**9


@scenario("partition", "8: partitions by a proxy: none pass, one way, slow, late, flapping, resets in mid-frame", rounds=(7, 120), seconds=(0.5, 4))
def partition(o):
    with World("partition", o.seed) as world:
        proxy = Proxy(("127.0.0.1", world.bus.port), o.seed)
        try:
            mixed_load(world, rate=300, endpoint=proxy.endpoint)
            # One who is not cut off must not notice.
            world.load("near", [world.publisher("near", topics=["t.near"], rate=50), world.consumer("n0", filters=["t.near"])])
            world.bus.start()
            world.wait_for_acks(100)
            seen, kinds = {}, ["hold", "up", "down", "slow", "late", "flap", "reset"]
            for index in range(o.rounds):
                kind = kinds[index] if index < len(kinds) else world.random.choice(kinds)
                seen[kind] = seen.get(kind, 0) + 1
                seconds = world.random.uniform(0.3, 1) * (o.seconds if index % 5 or not o.long else 2 * o.seconds)
                if kind == "hold":
                    proxy.set(up="hold", down="hold")
                elif kind == "up":
                    proxy.set(up="hold")
                elif kind == "down":
                    proxy.set(down="hold")
                elif kind == "slow":
                    proxy.set(up=60_000, down=60_000)
                elif kind == "late":
                    proxy.set(delay=0.2)
                elif kind == "flap":
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        proxy.set(refuse=True)
                        proxy.cut()
                        nap(world.random.uniform(0, 0.1))
                        proxy.set()
                        nap(world.random.uniform(0, 0.2))
                else:
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        proxy.cut(after=world.random.randint(1, 30_000))
                        nap(world.random.uniform(0.02, 0.2))
                if kind not in ("flap", "reset"):
                    nap(seconds)
                if world.random.random() < 0.3:
                    proxy.cut(after=world.random.randint(0, 2000))
                proxy.set()
                world.wait_for_acks(100)
            world.settle()
            pause = world.reports()["near"]["pause_ms"]
            report = world.judge()
            return {"partitions": seen, "resets in flight": proxy.resets, "bytes": proxy.bytes,
                    "longest pause of one who was not cut off, ms": pause, **report.counts}
        finally:
            proxy.close()


@scenario("netns", "8: a network namespace in which iptables drops packets: all, one way, some", rounds=(4, 60), seconds=(0.6, 5))
def partition_by_packets(o):
    if os.environ.get("TORTURE_IN_NAMESPACE") != "1":
        if os.geteuid() != 0 or not shutil.which("iptables") or not shutil.which("unshare"):
            return "needs root, iptables and unshare"
        inner = [sys.executable, os.path.abspath(__file__), "netns", "--seed", str(o.seed), "--rounds", str(o.rounds),
                 "--seconds", str(o.seconds)] + (["--long"] if o.long else [])
        done = subprocess.run(["unshare", "-n", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"] + inner,
                              env=dict(os.environ, TORTURE_IN_NAMESPACE="1"), capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("    ")]
        if done.returncode != 0:
            raise Failed("\n".join(lines) + done.stderr)
        return json.loads(lines[0])
    with World("netns", o.seed) as world:
        mixed_load(world, rate=300)
        world.bus.start()
        world.wait_for_acks(100)
        port, seen = str(world.bus.port), {}
        some = ["-m", "statistic", "--mode", "random", "--probability", "0.1"]
        kinds = {"all": [["--dport", port], ["--sport", port]], "to the bus": [["--dport", port]], "from the bus": [["--sport", port]],
                 "some": [["--dport", port] + some, ["--sport", port] + some]}
        for index in range(o.rounds):
            kind = list(kinds)[index] if index < len(kinds) else world.random.choice(list(kinds))
            seen[kind] = seen.get(kind, 0) + 1
            for rule in kinds[kind]:
                run_quietly("iptables", "-A", "INPUT", "-p", "tcp", *rule, "-j", "DROP")
            # Shorter and longer than the three seconds after which a connection is given up.
            nap(world.random.uniform(0.3, 1) * o.seconds)
            run_quietly("iptables", "-F", "INPUT")
            world.wait_for_acks(100)
        world.settle()
        pause = pause_of(world)
        report = world.judge()
        return {"partitions": seen, "longest pause ms": pause, **report.counts}


def run_quietly(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed("%s: %s" % (" ".join(arguments), done.stderr))


@scenario("storm", "9: the bus is restarted again and again, in good order, under load", rounds=(5, 300), seconds=(0.4, 2))
def restart_storm(o):
    with World("storm", o.seed) as world:
        mixed_load(world, rate=100 if o.long else 400)
        world.bus.start()
        world.wait_for_acks(100)
        programs = [world.bus.program]
        if os.environ.get("SLIPWAY_BIN_NEXT"):
            # A rolling update N → N+1 → N, should there be another build.
            programs.append(os.path.join(os.environ["SLIPWAY_BIN_NEXT"], "slipway-bus"))
        for index in range(o.rounds):
            nap(o.seconds * world.random.uniform(0.5, 1))
            world.bus.stop()
            world.bus.program = programs[(index + 1) % len(programs)]
            world.bus.start()
            world.wait_for_acks(20)
        world.settle()
        pause = pause_of(world)
        report = world.judge()
        return {"restarts": o.rounds, "builds": len(programs), "longest publisher pause ms": pause, **report.counts}


@scenario("duplicates", "11: acknowledgements ignored, every PUB sent three times, across restarts", rounds=(4, 60))
def duplicate_storm(o):
    with World("duplicates", o.seed) as world:
        # At length also what is under way already, in the midst of the rest: PUBACK's b must be the number of its a all the same.
        rate, again = 400, 0.3 if o.long else 0
        world.load("publishers", [
            world.publisher("p0", rate=rate, window=100, times=3, drop_acks=0.5, rehello=1),
            world.publisher("p1", mode="ids", rate=rate, window=100, times=3, drop_acks=0.5, rehello=1),
            world.publisher("p2", mode="ids", rate=rate, window=200, pack=1, times=2, drop_acks=0.3, rehello=0.5, again=again),
            world.publisher("p3", rate=rate, window=200),
            world.publisher("p4", mode="ids", rate=rate, window=200),
        ])
        world.load("readers", [world.consumer("c0"), world.consumer("c1", position="bus")])
        world.bus.start()
        for _ in range(o.rounds):
            world.wait_for_acks(300)
            if world.random.random() < 0.7:
                world.bus.kill()
            else:
                world.bus.stop()
            world.bus.start()
        world.settle()
        resent = sum(report.get("resent", 0) for report in world.reports().values())
        report = world.judge()
        return {"restarts": world.bus.starts - 1, "sent again in a new session": resent, **report.counts}


@scenario("overrun", "3.1: publishers that send more than their window: 429, 425, and again in order", rounds=(1, 40))
def overrun(o):
    with World("overrun", o.seed) as world:
        load = world.load("publishers", [
            world.publisher("p0", window=3000, pack=64, size=50), world.publisher("p1", mode="ids", window=3000, pack=64, size=50),
            world.publisher("p2", mode="ids", window=1200, pack=3, sizes=[10, 100_000, 10, 10]),
        ])
        world.load("readers", [world.consumer("c0"), world.consumer("c1", position="bus")])
        world.bus.start()
        for _ in range(o.rounds):
            world.wait_for_acks(4000)
            world.bus.kill()
            world.bus.start()
        world.settle()
        temporary = sum(report.get("temporary", 0) for report in world.reports().values())
        if not temporary:
            raise Failed("nobody was ever refused with 429: nothing is tested")
        report = world.judge()
        return {"temporary refusals": temporary, **report.counts}


@scenario("full", "5: the disk fills up beside kill -9, and space comes back", rounds=(1, 15))
def disk_full(o):
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        return "needs root"
    with World("full", o.seed, settings=SMALL_SEGMENTS + "  max_bytes: none\n") as world:
        bus, kills = world.bus, 0
        folder = os.path.join(bus.home, "bus")
        run_quietly("mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", folder)
        try:
            publishers = world.load("publishers", [world.publisher("p0", rate=400, size=12_000), world.publisher("p1", mode="ids", rate=200, size=3000)])
            world.load("readers", [world.consumer("c0"), world.consumer("c1", position="bus")])
            bus.start()
            size, refused = 16, 0
            for index in range(o.rounds):
                def is_refused():
                    return sum(report.get("temporary", 0) for report in world.reports().values()) > refused
                world.wait("events are refused with 507", is_refused, 120)
                read = world.asker()
                if not sum(1 for _ in read.read(1)):
                    raise Failed("a full disk, and nothing can be read")
                if index % 2 == 0:
                    # It must come back while the disk is full, too: what is there can be read.
                    bus.kill()
                    kills += 1
                    bus.start()
                    if not sum(1 for _ in world.asker().read(1)):
                        raise Failed("a full disk, and nothing can be read after a new start")
                size += 12
                run_quietly("mount", "-o", "remount,size=%dm" % size, folder)
                # Space is there: they go on by themselves.
                world.wait_for_acks(100, 120)
                refused = sum(report.get("temporary", 0) for report in world.reports().values())
            world.settle()
            report = world.judge()
            return {"kills": kills, "temporary refusals": refused, "MiB at last": size, **report.counts}
        finally:
            bus.end()
            run_quietly("umount", "-l", folder)


@scenario("takeover", "6: sessions take one durable name from each other; who is fenced cannot move the cursor", rounds=(8, 400))
def takeover(o):
    with World("takeover", o.seed) as world:
        world.bus.start()
        world.load("publishers", [world.publisher("p0", rate=400), world.publisher("p1", mode="ids", rate=200)])
        team = ["t0", "t1", "t2"]
        loads = [world.load(name, [world.consumer(name, consumer="shared", position="bus", team=True, credit_msgs=choice, after_fenced="")])
                 for name, choice in zip(team, (16, 64, 256))]
        for _ in range(o.rounds):
            load = world.random.choice(loads)
            # Killed and started again it takes the name from whoever has it.
            load.may_die = True
            load.kill()
            load.start()
            load.may_die = False
            world.wait("it runs", lambda: load.pump() or load.running)
            nap(world.random.uniform(0, 0.15))
            if world.random.random() < 0.2:
                world.bus.kill()
                world.bus.start()
        # The last one stays.
        world.wait_for_acks(10)
        last = world.settle()
        asker = world.asker()
        world.wait("the name has come to the end", lambda: lag_of(world, asker, "shared")["cursor"] >= last, 60)
        fenced = sum(event["e"] == "fenced" for load in loads for event in load.events)
        world.extra["teams"] = [{"name": "shared", "filters": ["t.**"], "journals": [name + ".sqlite" for name in team]}]
        report = world.judge()
        return {"fenced": fenced, **report.counts}


@scenario("window", "11: resends from beyond the dedupe window: exact for an outbox, whatever its age", rounds=(1, 1), seconds=(0, 0))
def dedupe_window(o):
    """Small: 3000 events pass in between. Long: 1.5 million, more than the bus remembers ids."""
    between = 1_500_000 if o.long else 3000
    with World("window", o.seed) as world:
        world.bus.start()
        old = world.load("old", [world.publisher("old", count=200, rate=0)])
        world.wait("the old outbox is sent", lambda: "old" in old.ended)
        flood = world.load("flood", [world.publisher("flood", mode="ids", count=between, window=1000, size=0)])
        world.wait("%d events pass" % between, lambda: "flood" in flood.ended, 3600)
        world.bus.kill()
        world.bus.start()
        send_again(world, old, 200)
        world.settle(600)
        report = world.judge()
        return {"events in between": between, **report.counts}


def send_again(world, old, count):
    """The disk of that publisher comes back from a backup, and it knows of no acknowledgement: all are duplicates."""
    old.say("quit")
    world.wait("the old publisher ends", lambda: old.quitted and not old.alive())
    db = sqlite3.connect(world.path("old.sqlite"), isolation_level=None)
    db.execute("UPDATE events SET state = 'sent', status = NULL, seq = NULL")
    db.close()
    old.ended.clear()
    old.start()
    world.wait("the old outbox is decided", lambda: "old" in old.ended, 120)
    db = sqlite3.connect(world.path("old.sqlite"))
    known = db.execute("SELECT count(*) FROM events WHERE status = 208").fetchone()[0]
    db.close()
    if known != count:
        raise Failed("%d of %d events from before were known as duplicates" % (known, count))


def lag_of(world, asker, name):
    status, rows = asker.call("bus.consumers")
    if status != 200:
        raise Failed("bus.consumers: %d %s" % (status, rows))
    return next((row for row in rows if row["consumer"] == name), None)


@scenario("slow", "12: consumers that never read, read one event a second, never give credit, die holding credit", seconds=(1.5, 60))
def slow_consumers(o):
    with World("slow", o.seed) as world:
        bus = world.bus
        bus.start()
        probe = [world.publisher("probe", topics=["t.probe"], rate=100, pack=1, size=100), world.consumer("watch", filters=["t.probe"])]
        world.load("probe", probe)
        world.wait_for_acks(50)

        def latency(seconds):
            load = world.loads[0]
            load.say("mark")
            aim = load.total("probe") + int(100 * seconds)
            world.wait("the probe goes on", lambda: load.total("probe") >= aim, 120)
            return world.reports()["watch"]["latency"]
        quiet = latency(o.seconds)
        # Those who are in the way. Their names are durable, so that their lag is known.
        key = load_key(world.key("load"))
        deaf = Deaf(key, "deaf", 4096, 16 << 20, 50)
        poor = Deaf(key, "poor", 0, 0, 1000)
        world.load("slow", [world.consumer("snail", rate=1, credit_msgs=4, unfinished=True)])
        dying = world.load("dying", [world.consumer("dying", credit_msgs=4096, credit_bytes=16 << 20, rate=1, unfinished=True)])
        dying.may_die = True
        world.wait("all are subscribed", lambda: deaf.step() and poor.step() and dying.total("dying") > 1)
        dying.kill()
        before = bus.resident()
        many = 150_000 if o.long else 12_000
        flood = world.load("flood", [world.publisher("flood", topics=["t.flood"], count=many, window=1000, size=900)])
        while "flood" not in flood.ended:
            world.check_all()
            poor.step()
            time.sleep(0.02)
        loud = latency(o.seconds)
        after = bus.resident()
        poor.step()
        asker = world.asker()
        rows = {name: lag_of(world, asker, name) for name in ("deaf", "poor", "snail", "dying")}
        for name, row in rows.items():
            if row is None or row["lag"] < many // 2:
                raise Failed("the lag of %s is not told: %s" % (name, row))
        # 10 000 behind is news.
        told = {record[4]: None for record in asker.read(1)}
        if "bus.consumer.lagging" not in told:
            raise Failed("nobody is told of the lag: no bus.consumer.lagging in the log; rows %s" % rows)
        if poor.got:
            raise Failed("a consumer without credit was sent %d events" % poor.got)
        if after - before > 120:
            raise Failed("the bus grew from %d to %d MiB for consumers that do not read" % (before, after))
        deaf.close()
        poor.close()
        world.settle()
        report = world.judge()
        return {"latency undisturbed": quiet, "latency beside them": loud, "bus MiB before, after": [round(before), round(after)],
                "lag": {name: row["lag"] for name, row in rows.items()}, **report.counts}


class Deaf:
    """A session with one subscription that takes nothing more from its socket after it has `most` messages."""

    def __init__(self, key, consumer, credit, bytes_, most):
        self.context = zmq.Context.instance()
        self.consumer, self.credit, self.bytes, self.most = consumer, credit, bytes_, most
        self.got, self.taken, self.subscribed = 0, 0, False
        self.link = Link(self.context, key, self, client=consumer)

    def on_up(self, welcome):
        self.link.send(SUB, handle=1, body={"consumer": self.consumer, "filters": ["t.**"], "from": "first", "credit_msgs": self.credit,
                                            "credit_bytes": self.bytes})

    def on_message(self, command, flags, status, handle, a, b, body):
        self.taken += 1
        if command == SUBOK:
            self.subscribed = True
        elif command == EVENTS and body:
            self.got += 1

    def step(self):
        if self.taken < self.most:
            self.link.tick(time.monotonic())
            self.link.pump(20)
        return self.subscribed

    def close(self):
        self.link.close()


class Narrow(Link):
    room = 1


class Mute:
    """A client that says what it wants, gives signs of life, and never reads after its WELCOME."""

    def __init__(self, key, name):
        self.number = 0
        self.link = Narrow(zmq.Context.instance(), key, self, client=name)
        end = time.monotonic() + 20
        while self.link.welcome is None:
            if time.monotonic() > end:
                raise Failed("%s gets no session" % name)
            self.link.tick(time.monotonic())
            self.link.socket.poll(20)
            self.link.pump()

    def on_up(self, welcome):
        pass

    def on_message(self, *parts):
        pass

    def ask(self, method, count):
        name = method.encode()
        for _ in range(count):
            self.number += 1
            if not self.link.send(REQ, a=self.number, b=5000, body=struct.pack(">H", len(name)) + name + struct.pack(">H", 0) + b"{}"):
                return

    def subscribe(self, handles):
        for handle in range(1, handles + 1):
            self.link.send(SUB, handle=handle, body={"filters": ["t.**"], "from": "first", "credit_msgs": 4096, "credit_bytes": 16 << 20})


def others_have_their_turn(world):
    """Thousands of questions from one client; an event that another one publishes meanwhile is stored before the last is answered: the answers
    themselves say with which event the log ended."""
    world.foreign.append("writer")
    curious = Asker(load_key(world.key("curious", call=("bus.**",))))
    writer = Asker(load_key(world.key("writer", publish=("beside.**",))))
    curious.wait_up()
    writer.wait_up()
    name, count = b"bus.streams", 4000
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", 0) + b"{}"
    for number in range(1, count + 1):
        curious.link.send(REQ, a=number, b=60_000, body=body)
    event = json.dumps({"specversion": "1.0", "id": "turn", "source": "writer", "type": "beside.turn", "data": {}}).encode()
    writer.link.send(PUB, a=1, b=1, body=pack([(b"beside.turn", b"turn", event)]))
    writer.until(lambda: any(part[0] == PUBACK for part in writer.inbox), 60, "the event is stored")
    stored = next(part[5] for part in writer.inbox if part[0] == PUBACK)
    lasts = []

    def answered():
        while curious.inbox:
            command, _, status, _, _, _, rest = curious.inbox.pop(0)
            if command == REP:
                if status >= 400:
                    raise Failed("a question is answered with %d" % status)
                lasts.append(json.loads(rest)[0]["last"])
        return len(lasts) == count
    curious.until(answered, 120, "all questions are answered")
    if lasts[-1] < stored:
        raise Failed("%d questions of one client were answered before another's event was stored (%d, then %d)" % (count, lasts[-1], stored))
    curious.close()
    writer.close()


@scenario("mute", "12: clients that take credit for hundreds of subscriptions, or ask and ask, and never read", seconds=(1.5, 60))
def mute_clients(o):
    with World("mute", o.seed) as world:
        bus = world.bus
        # What is asked for takes some room.
        for number in range(30):
            world.key("other%d" % number, call=["t%d.%s" % (k, "x" * 60) for k in range(12)])
        keys = {name: load_key(world.key(name, call=("bus.**",))) for name in ("asks", "reads")}
        bus.start()
        probe = [world.publisher("probe", topics=["t.probe"], rate=100, pack=1, size=100), world.consumer("watch", filters=["t.probe"])]
        world.load("probe", probe)
        world.wait_for_acks(50)
        before = most = bus.resident()
        load = world.loads[0]
        load.say("mark")
        asks, reads = Mute(keys["asks"], "asks"), Mute(keys["reads"], "reads")
        reads.subscribe(300)
        many = 60_000 if o.long else 6_000
        flood = world.load("flood", [world.publisher("flood", topics=["t.flood"], count=many, window=1000, size=900)])
        end = time.monotonic() + (300 if o.long else 60)

        def ended(name):
            with open(bus.log_path, encoding="utf-8", errors="replace") as log:
                return any(name + ": session" in line and "ended" in line for line in log)
        while "flood" not in flood.ended or not ended("asks"):
            if time.monotonic() > end:
                raise Failed("the client that asks and never reads keeps its session after %d requests, at %d MiB" % (asks.number, most))
            world.check_all()
            asks.ask("bus.metrics", 500)
            reads.link.send(PING)
            most = max(most, bus.resident())
            nap(0.02)
        aim = load.total("probe") + int(100 * o.seconds)
        world.wait("the probe goes on", lambda: load.total("probe") >= aim, 120)
        latency = world.reports()["watch"]["latency"]
        others_have_their_turn(world)
        most = max(most, bus.resident())
        if most - before > 300:
            raise Failed("the bus grew from %d to %d MiB for two clients that do not read" % (before, most))
        asks.link.close()
        reads.link.close()
        world.settle()
        report = world.judge()
        return {"latency beside them": latency, "bus MiB before, at most": [round(before), round(most)], "asked": asks.number, **report.counts}


@scenario("retention", "14: the log is shortened past a stopped consumer, beside kill -9: LOST 410, begun again on purpose, no silent gap", rounds=(1, 60))
def retention(o):
    with World("retention", o.seed, settings="bus:\n  segment_bytes: 1MiB\n  max_bytes: 16MiB\n") as world:
        bus, choose, lost = world.bus, world.random, 0
        world.load("publishers", [world.publisher("p0", rate=250, size=20_000), world.publisher("p1", mode="ids", rate=100, size=500)])
        # It keeps up, and so knows what is no longer in the log; the bus may not shorten it past those who read.
        world.load("everything", [world.consumer("all", filters=["**"], credit_bytes=8 << 20)])
        sleeper = world.load("sleeper", [world.consumer("sleepy", after_lost="first")])
        bus.start()
        old = world.load("old", [world.publisher("old", count=100)])
        world.wait("the old outbox is sent", lambda: "old" in old.ended)
        for index in range(o.rounds):
            world.wait("the sleeper reads", lambda: sleeper.total() > 100)
            os.kill(sleeper.process.pid, signal.SIGSTOP)
            try:
                position, end = consumer_position(world, "sleepy"), time.monotonic() + 120
                # Beyond what it had credit for, which may be on its way to it.
                while first_number(bus) <= position + 300:
                    world.check_all()
                    if time.monotonic() > end:
                        raise Failed("the log was not shortened within 120 s: %s" % bus.log_files())
                    if choose.random() < (0.02 if o.long else 0.005):
                        bus.kill()
                        bus.start()
                    time.sleep(0.05)
                world.wait_for_acks(10)
            finally:
                os.kill(sleeper.process.pid, signal.SIGCONT)
            world.wait("the sleeper is told LOST 410", lambda: len([e for e in sleeper.events if e["e"] == "lost"]) > lost or sleeper.pump())
            event = [e for e in sleeper.events if e["e"] == "lost"][-1]
            if event["status"] != 410 or event["first"] <= event["wanted"]:
                raise Failed("the sleeper was told %s" % event)
            lost = len([e for e in sleeper.events if e["e"] == "lost"])
        # The outbox whose events are no longer there is sent again: its numbers are known all the same.
        bus.kill()
        bus.start()
        send_again(world, old, 100)
        world.settle()
        for load in world.loads:
            load.say("quit")
        world.wait("loads quit", lambda: all(load.quitted for load in world.loads))
        last = world.read_log(first=1)
        # What is no longer there, from the one who saw it all.
        db = sqlite3.connect(world.path("log.sqlite"))
        (first,) = db.execute("SELECT min(seq) FROM log").fetchone()
        db.execute("ATTACH ? AS seen", (world.path("all.sqlite"),))
        db.execute("INSERT INTO log SELECT seq, 0, topic, producer, id FROM seen.effects WHERE seq < ?", (first,))
        db.commit()
        db.close()
        world.extra.update(retention=True, last=last)
        report = world.judge(read=False)
        return {"times lost": lost, "kills": bus.kills, "first number left": first, "of": last, **report.counts}


def first_number(bus):
    numbers = [int(name[:-4]) for name in bus.log_files() if name.endswith(".log") and name[:-4].isdigit()]
    return min(numbers, default=1)


@scenario("poison", "13: poison in each mode, across kill -9 of the bus", rounds=(2, 30))
def poison(o):
    with World("poison", o.seed) as world:
        bus, counts = world.bus, {}
        bus.start()
        for index in range(o.rounds):
            group = "g%d" % index
            verdict = "terminate" if index % 3 == 2 else "nak"
            topic = "t.%s" % group
            load = world.load("p%d" % index, [world.publisher("p%d" % index, producer="p", count=60, rate=300,
                                                              topics=[topic + ".good"] * 5 + [topic + ".poison"])]
                              + world.group(group, ["w%d.0" % index, "w%d.1" % index], filters=[topic + ".*"], poison_verdict=verdict,
                                            nak_ms=1, options={"max_deliver": 4, "backoff_ms": [10]}))
            for _ in range(2):
                nap(world.random.uniform(0, 0.15))
                bus.kill()
                bus.start()
            world.wait("the publisher is done", lambda: "p%d" % index in load.ended)
            world.settle_group(world.asker(), world.groups[-1], 60)
            parked = sorted(world.parked_of(world.groups[-1]))
            rows = [record for record in world.asker().read(1, filters=[topic + ".poison"])]
            wanted = sorted(record[1] for record in rows)
            if parked != wanted:
                raise Failed("%s: parked are %s, poison are %s" % (group, parked, wanted))
            counts[verdict] = counts.get(verdict, 0) + len(parked)
            for name in ("w%d.0" % index, "w%d.1" % index):
                counts["deliveries"] = counts.get("deliveries", 0) + deliveries_of(world, name)
        for policy in ("stop", "park"):
            counts[policy] = ordered_poison(world, policy)
        world.settle()
        report = world.judge()
        return {**counts, **report.counts}


def deliveries_of(world, name):
    db = sqlite3.connect(world.path(name + ".sqlite"))
    (count,) = db.execute("SELECT count(*) FROM work WHERE verdict != 'ack'").fetchone()
    db.close()
    return count


def ordered_poison(world, policy):
    """Refuses one event of an ordered consumer until the bus decides; kills the bus in between; the count must survive within one."""
    most, name = 4, "ordered-" + policy
    publishing = world.load(name, [world.publisher(name, producer="q", count=20, rate=0, topics=["t.q.%s" % policy])])
    world.wait("twenty events", lambda: name in publishing.ended)
    asker = Asker(load_key(world.key("load")))
    world.askers.append(asker)
    state = {"generation": 0, "deliveries": [], "seen": [], "stopped": None, "session": None}
    poison_at = 7
    end = time.monotonic() + 60
    bad, refused = None, False
    while time.monotonic() < end:
        asker.wait_up()
        if state["session"] != asker.link.sessions:
            state["session"], refused = asker.link.sessions, False
            if state["stopped"] is not None:
                break
            asker.link.send(SUB, handle=4, body={"consumer": name, "filters": ["t.q.%s" % policy], "from": "cursor", "max_deliver": most,
                                                 "backoff_ms": [30], "poison": policy, "credit_msgs": 100})
        try:
            asker.until(lambda: asker.inbox or asker.link.sessions != state["session"], 10, "something for %s" % name)
        except TimeoutError as error:
            raise Failed("%s: %s; so far %s" % (name, error, state))
        while asker.inbox and asker.link.sessions == state["session"]:
            command, flags, status, _, a, b, body = asker.inbox.pop(0)
            if command == SUBOK:
                state["generation"] = b
            elif command == EVENTS and a:
                for deliveries, seq, *_ in records(body, flags & 1):
                    if bad is None and len(state["seen"]) == poison_at:
                        bad = seq
                    if refused and seq != bad:
                        continue  # it was on its way already, and comes once more
                    if seq == bad:
                        refused = policy == "stop" or deliveries < most
                        state["deliveries"].append(deliveries)
                        asker.link.send(ACKX, handle=4, b=state["generation"], body=VERDICT.pack(seq, REFUSED, 0, 0, 0))
                        if len(state["deliveries"]) == 2:
                            # Time enough for the bus to write the count down, and then its end.
                            time.sleep(0.3)
                            world.bus.kill()
                            world.bus.start()
                        break
                    if seq not in state["seen"]:
                        state["seen"].append(seq)
                    asker.link.send(ACK, handle=4, a=seq, b=state["generation"])
            elif command == ERR and (status, b) != (409, ACK):  # that would be of an event that was on its way when its turn was over
                state["stopped"] = (status, json.loads(body)["code"], a)
        if len(state["seen"]) == 19 or state["stopped"]:
            break
    got = len(state["deliveries"])
    if not most - 1 <= got <= most + 1:
        raise Failed("%s: %d deliveries of a poisonous event instead of %d (one more or less after a kill): %s" % (name, got, most, state))
    if policy == "stop":
        if state["stopped"] != (500, "poison", bad):
            raise Failed("%s: expected ERR 500 poison for %s, got %s" % (name, bad, state))
        if state["seen"] and max(state["seen"]) > bad:
            raise Failed("%s: events after the poisonous one were delivered and acknowledged" % name)
        topics = [record[4] for record in world.asker().read(1, filters=["bus.**"])]
        if "bus.consumer.stopped" not in topics:
            raise Failed("nobody is told: no bus.consumer.stopped in the log")
    else:
        if state["stopped"] or len(state["seen"]) != 19:
            raise Failed("%s: expected 19 events beside the parked one, got %s" % (name, state))
        status, rows = asker.call("bus.parked.list", {"consumer": name})
        if status != 200 or [row["seq"] for row in rows] != [bad]:
            raise Failed("%s: parked should be %s: %d %s" % (name, bad, status, rows))
    asker.link.send(UNSUB, handle=4)
    return got


@scenario("bookkeeping", "4: the bookkeeping is lost or older than the log: events come again, none is lost", rounds=(3, 60))
def lose_bookkeeping(o):
    with World("bookkeeping", o.seed, settings=SMALL_SEGMENTS) as world:
        bus, done = world.bus, collections.Counter()
        mixed_load(world, rate=200)
        bus.start()
        copies = []
        epoch = 0
        for index in range(o.rounds):
            world.wait_for_acks(150)
            bus.kill()
            path = os.path.join(bus.home, "bus", "state.sqlite")
            kept = {end: open(path + end, "rb").read() for end in ("", "-wal", "-shm") if os.path.exists(path + end)}
            act = ["gone", "older", "empty"][index] if index < 3 else world.random.choice(["gone", "older", "empty"])
            for end in ("", "-wal", "-shm"):
                if os.path.exists(path + end):
                    os.unlink(path + end)
            if act == "older" and copies:
                for end, data in world.random.choice(copies).items():
                    with open(path + end, "wb") as file:
                        file.write(data)
            elif act == "empty":
                open(path, "wb").close()
            copies = (copies + [kept])[-5:]
            done[act] += 1
            bus.start()
            told = world.asker().wait_up()["epoch"]
            if told <= epoch:
                raise Failed("epoch %d after epoch %d" % (told, epoch))
            epoch = told
        world.settle()
        report = world.judge()
        return {"done": dict(done), **report.counts}


@scenario("restored", "15: an older backup of the bus is restored: consumers beyond its end are told so", rounds=(1, 5))
def restored_backup(o):
    with World("restored", o.seed) as world:
        bus = world.bus
        bus.start()
        first = world.load("first", [world.publisher("p0", rate=400), world.consumer("early", unfinished=True)])
        world.wait_for_acks(100)
        bus.stop()
        shutil.copytree(os.path.join(bus.home, "bus"), world.path("backup"))
        bus.start()
        saved = first.total("early")
        world.wait("the consumer goes on", lambda: first.total("early") > saved + 100)
        bus.stop()
        shutil.rmtree(os.path.join(bus.home, "bus"))
        shutil.copytree(world.path("backup"), os.path.join(bus.home, "bus"))
        # The publisher stays away; the consumer keeps its own position, which is beyond the end now.
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            position = consumer_position(world, "early")
            bus.start()
            asker = world.asker()
            last, stream = asker.wait_up()["last"], asker.link.welcome["stream"]
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        if position <= last + 1:
            raise Failed("the consumer is at %d, and the restored log ends at %d: nothing is tested" % (position, last))
        asker.link.send(SUB, handle=6, body={"filters": ["t.**"], "from": {"stream": stream, "seq": position}})
        asker.until(lambda: any(m[0] in (LOST, SUBOK) for m in asker.inbox), 10, "an answer to SUB")
        answer = next(m for m in asker.inbox if m[0] in (LOST, SUBOK))
        if answer[0] != LOST or answer[2] != 409:
            raise Failed("a consumer beyond the end was not told LOST 409, but command %#x status %d" % (answer[0], answer[2]))
        return {"position": position, "last": last}


def consumer_position(world, name):
    db = sqlite3.connect(world.path(name + ".sqlite"))
    (value,) = db.execute("SELECT next FROM position").fetchone()
    db.close()
    return value


@scenario("failover", "10: the bus dies, its replica takes over, the old one returns: one history, nothing acknowledged is missing", rounds=(1, 20))
def failover(o):
    kills = 0
    for index in range(o.rounds):
        with World("failover", o.seed * 1000 + index) as world:
            choose = world.random
            first = world.bus
            second = Bus(world.folder, free_base(random.Random()), name="2", twin=first)
            world.others = [first, second]
            both = ["tcp://127.0.0.1:%d" % first.port, "tcp://127.0.0.1:%d" % second.port]
            settings = SMALL_SEGMENTS + "  endpoints: [%s]\n" % ", ".join('"%s"' % one for one in both)
            first.write_private("suite.yml", settings + "  sync_replica: required\n")
            standby = os.path.join(second.home, "keys/standby.json")
            try:
                first.slipway("key", "create", "standby", "--replicate", "--out", standby)
            except Failed as failed:
                if "sync_replica" in str(failed) or "--replicate" in str(failed) or "endpoints" in str(failed):
                    return "this build has no replica"
                raise
            second.write_private("suite.yml", SMALL_SEGMENTS + "  replica_of: %s\n" % standby)
            mixed_load(world, rate=150, endpoint=both)
            first.start()
            second.start(wait=False)
            world.wait_for_acks(100, 60)
            keys = os.path.join(second.home, "keys/clients.json")
            world.wait("the replica has the keys of the clients", lambda: os.path.getsize(keys) > 10, 30)
            for _ in range(choose.randint(0, 3) if o.long else 0):
                # Neither losing the replica for a while nor the bus costs anything.
                victim = choose.choice([first, second])
                nap(choose.uniform(0, 0.5))
                victim.kill()
                kills += 1
                nap(choose.uniform(0, 0.3))
                victim.start(wait=victim is first)
                world.wait_for_acks(choose.randint(1, 100), 60)
            nap(choose.uniform(0, 0.5))
            first.kill()
            kills += 1
            promote(second)
            world.bus = second
            world.wait_for_acks(200, 60)
            # It returns, and must not be believed by anybody; nor may it write a second history.
            first.start(wait=False)
            world.wait_for_acks(200, 60)
            end_of(first, both)
            if first.process.poll() is None:
                first.kill()
            world.settle()
            report = world.judge()
    return {"rounds": o.rounds, "kills": kills, **report.counts}


def promote(bus):
    """What `slipway bus promote` does. It is refused while the old bus still seems to be there."""
    with open(bus.token) as file:
        headers = {"Authorization": "Bearer " + file.read().strip(), "Content-Type": "application/json"}
    end = time.monotonic() + 30
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", bus.base + 1, timeout=10)
            connection.request("POST", "/v1/bus/promote", "{}", headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except OSError as error:
            status, text = 0, str(error)
        if 200 <= status < 300:
            return
        if time.monotonic() > end:
            raise Failed("the replica is not promoted within 30 s: %d %s" % (status, text))
        time.sleep(0.1)


def end_of(old, both):
    """The old bus refuses everybody, once it was told. A client that knows the old place alone learns it from the answer."""
    with open(os.path.join(old.home, "keys/load.json")) as file:
        key = json.load(file)
    owner = Quiet()
    link = Link(zmq.Context.instance(), key, owner, endpoint=[both[0], both[0]])
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end and not link.superseded and old.process.poll() is None:
            link.tick(time.monotonic())
            link.socket.poll(20)
            link.pump()
        if not link.superseded and old.process.poll() is None:
            raise Failed("the old bus still opens sessions 30 s after another took over")
    finally:
        link.close()


@scenario("keys", "16: no key, a wrong key, a revoked one, a forbidden topic, a forged producer, another's routing id", rounds=(1, 1))
def wrong_keys(o):
    with World("keys", o.seed) as world:
        world.bus.start()
        world.load("traffic", [world.publisher("p0", rate=200), world.consumer("c0")])
        world.wait_for_acks(20)
        key, outcome = load_key(world.key("load")), {}
        limited = load_key(world.key("limited", publish=("t.mine",), subscribe=("t.mine",), call=("echo.say",), serve=()))
        context = zmq.Context.instance()
        # No key, and a key that nobody knows: nothing comes back.
        for name in ("none", "unknown"):
            silent = context.socket(zmq.DEALER)
            silent.setsockopt(zmq.LINGER, 0)
            if name == "unknown":
                silent.curve_serverkey = key["serverKey"].encode()
                silent.curve_publickey, silent.curve_secretkey = zmq.curve_keypair()
            silent.connect(key["endpoint"])
            silent.send(message(HELLO, body={"client": "stranger"}))
            world.wait_for_acks(60)
            if silent.poll(200):
                raise Failed("a stranger (%s) got an answer: %r" % (name, silent.recv()))
            silent.close()
            outcome[name] = "no answer"
        # What a key may not do is refused, each time, and tells the operator once.
        asker = Asker(limited)
        world.askers.append(asker)
        asker.wait_up()

        def answer(send, wanted):
            asker.inbox = []
            send()
            asker.until(lambda: any(m[0] in wanted for m in asker.inbox), 10, "an answer")
            return next(m for m in asker.inbox if m[0] in wanted)
        forged = b'{"specversion":"1.0","id":"x","source":"limited","type":"t.mine","producer":"p0","sequence":"1","data":{}}'
        got = answer(lambda: asker.link.send(PUB, a=1, b=3, body=pack([(b"t.other", b"x1", b"{}"), (b"t.mine", b"x2", forged),
                                                                       (b"bus.denied", b"x3", b"{}")])), [PUBACK])
        refused = {n: code for n, code, _ in EXCEPTION.iter_unpack(got[6])}
        if refused != {1: 403, 3: 403} or got[4] != 3:
            raise Failed("three events of which one is allowed: %s, a %d" % (refused, got[4]))
        stolen = b'{"specversion":"1.0","id":"x","source":"p0","type":"t.mine","data":{}}'
        got = answer(lambda: asker.link.send(PUB, a=4, b=1, body=pack([(b"t.mine", b"x4", stolen)])), [PUBACK])
        if [code for _, code, _ in EXCEPTION.iter_unpack(got[6])] != [403]:
            raise Failed("an event with another key's source: %s" % (got,))
        record = next(r for r in world.asker().read(1, filters=["t.mine"]))
        if record[5] != "limited":
            raise Failed("the producer of a forged event is %s" % record[5])
        got = answer(lambda: asker.link.send(SUB, handle=1, body={"filters": ["t.**"]}), [ERR, SUBOK])
        if got[0] != ERR or got[2] != 403:
            raise Failed("a filter that is too wide: %s" % (got,))
        got = answer(lambda: asker.link.send(SERVE, handle=2, a=1, body={"service": "echo"}), [ERR])
        if got[2] != 403:
            raise Failed("SERVE without the right: %s" % (got,))
        name = b"bus.consumers"
        got = answer(lambda: asker.link.send(REQ, a=9, b=1000, body=len(name).to_bytes(2, "big") + name + bytes(2) + b"{}"), [ERR, REP])
        if got[0] != ERR or got[2] != 403:
            raise Failed("REQ without the right: %s" % (got,))
        world.wait("the operator is told", lambda: any(r[4] == "bus.denied" for r in world.asker().read(1, filters=["bus.**"])), 20)
        # Another's routing id: a first one is there, a second one takes nothing from it.
        twins = []
        for twin_key in (key, limited):
            twin = Link(context, twin_key, Quiet())
            twin.socket.close(0)
            twin.socket = context.socket(zmq.DEALER)
            twin.socket.setsockopt(zmq.LINGER, 0)
            twin.socket.setsockopt(zmq.ROUTING_ID, b"squatter")
            twin.socket.curve_serverkey = twin_key["serverKey"].encode()
            twin.socket.curve_publickey, twin.socket.curve_secretkey = twin_key["publicKey"].encode(), twin_key["secretKey"].encode()
            twin.socket.connect(twin_key["endpoint"])
            twins.append(twin)
            end = time.monotonic() + (10 if not len(twins) > 1 else 1)
            while time.monotonic() < end and twin.welcome is None:
                twin.tick(time.monotonic())
                twin.socket.poll(20)
                twin.pump()
            if len(twins) == 1 and twin.welcome is None:
                outcome["chosen routing id"] = "refused"
        if twins[0].welcome is not None:
            twins[0].send(PUB, a=1, b=1, body=pack([(b"t.mine", b"twin", b"{}")]))
            end = time.monotonic() + 10
            while time.monotonic() < end and not twins[0].owner.messages:
                twins[0].socket.poll(20)
                twins[0].pump()
                twins[1].pump()
            if not any(m[0] == PUBACK for m in twins[0].owner.messages):
                raise Failed("the first one with a routing id lost its answers")
            if any(m[0] == PUBACK for m in twins[1].owner.messages):
                raise Failed("the second one with a routing id got the answers of the first")
            outcome["chosen routing id"] = "useless to another"
        for twin in twins:
            twin.close()
        # A key that is revoked while it is connected, and one that is replaced.
        for name, act in (("limited", "revoke"), ("other", "rotate")):
            if name == "other":
                victim = Asker(load_key(world.key("other")))
                world.askers.append(victim)
            else:
                victim = asker
            victim.wait_up()
            sessions = victim.link.sessions
            world.bus.slipway("key", act, name, *(["--out", world.path("rotated.json")] if act == "rotate" else []))
            victim.until(lambda: victim.link.welcome is None, 20, "the end of the session of a key that was %sd" % act)
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                victim.link.tick(time.monotonic())
                victim.link.socket.poll(50)
                victim.link.pump()
            if victim.link.welcome is not None or victim.link.sessions != sessions:
                raise Failed("a key that was %sd opens a session" % act)
            outcome[act] = "ended"
        fresh = Asker(dict(load_key(world.path("rotated.json"))))
        world.askers.append(fresh)
        fresh.wait_up()
        world.foreign = ["bus", "limited", "load"]
        world.settle()
        report = world.judge()
        return {**outcome, **report.counts}


class Quiet:
    def __init__(self):
        self.messages = []

    def on_up(self, welcome):
        pass

    def on_message(self, *parts):
        self.messages.append(parts)


@scenario("hostile", "17: before the handshake: garbage, ZMTP 1 and 2 greetings, half handshakes, 1000 idle connections", rounds=(1, 10))
def hostile_peers(o):
    many = 1000 if o.long else 400
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    with World("hostile", o.seed) as world:
        bus = world.bus
        bus.start()
        traffic = world.load("traffic", [world.publisher("p0", rate=200, pack=1), world.consumer("c0")])
        world.wait_for_acks(20)
        quiet, before = bus.descriptors(), bus.resident()
        peak, choose = quiet, world.random
        greeting2 = bytes([0xFF] + [0] * 7 + [1, 0x7F, 1, 5])
        greeting3 = bytes([0xFF] + [0] * 7 + [1, 0x7F, 3, 0]) + b"CURVE".ljust(20, b"\0") + bytes(32)
        null3 = bytes([0xFF] + [0] * 7 + [1, 0x7F, 3, 0]) + b"NULL".ljust(20, b"\0") + bytes(32)
        for _ in range(o.rounds):
            sockets = []

            def connect():
                peer = socket.socket()
                peer.setblocking(False)
                try:
                    peer.connect(("127.0.0.1", bus.port))
                except BlockingIOError:
                    pass
                sockets.append(peer)
                return peer
            for _ in range(many):
                connect()
            said = []
            for index in range(60):
                said.append((connect(), [
                    choose.randbytes(choose.randint(1, 3000)), b"\x01\x00", b"\x00" * 64, greeting2 + choose.randbytes(100),
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", greeting3 + choose.randbytes(300), null3 + b"\x04\x19\x05READY" + choose.randbytes(17),
                    greeting3[:choose.randint(1, 63)], greeting3 + b"\x04\xc8\x05HELLO" + bytes([1, 0]) + choose.randbytes(192),
                    greeting3 + b"\x02" + b"\xff" * 8 + choose.randbytes(64)][index % 10]))
            for peer, data in said:
                waiting = select.poll()
                waiting.register(peer, select.POLLOUT)
                waiting.poll(1000)
                try:
                    peer.send(data)
                except OSError:
                    pass
            # Traffic goes on meanwhile.
            world.wait_for_acks(200)
            peak = max(peak, bus.descriptors())
            if bus.process.poll() is not None:
                bus.must_run()
            if choose.random() < 0.5 or not o.long:
                # The bus lets go of them by itself.
                world.wait("the bus closes connections that say nothing", lambda: bus.descriptors() < quiet + 100, 60)
            for peer in sockets:
                peer.close()
        world.wait("the descriptors come back", lambda: bus.descriptors() <= quiet + 10, 60)
        after = bus.resident()
        if after - before > 100:
            raise Failed("the bus grew from %d to %d MiB" % (before, after))
        world.settle()
        report = world.judge()
        return {"descriptors before, peak": [quiet, peak], "MiB before, after": [round(before), round(after)], **report.counts}


@scenario("fuzz", "18: mutated commands of a client that is let in, beside live traffic", rounds=(10_000, 10_000_000))
def fuzz(o):
    with World("fuzz", o.seed) as world:
        world.bus.start()
        world.load("traffic", [world.publisher("p0", rate=200), world.consumer("c0"), world.role("server", "serving"),
                               world.role("caller", "asking", rate=20)])
        world.wait_for_acks(20)
        key = load_key(world.key("fuzzer", publish=("f.**",), subscribe=("f.**",), call=("echo.*", "bus.**"), serve=("fuzzed",)))
        choose, answers = world.random, collections.Counter()

        class Owner:
            def on_up(self, welcome):
                pass

            def on_message(self, command, flags, status, handle, a, b, body):
                answers[(command, status)] += 1
        links = [Link(zmq.Context.instance(), key, Owner(), client="fuzzer") for _ in range(2)]
        sent, checked = 0, time.monotonic()
        before = None
        while sent < o.rounds:
            for link in links:
                now = time.monotonic()
                link.tick(now)
                link.pump(5000)
                if link.welcome is None:
                    link.socket.poll(5)
                    # Also before HELLO.
                    if choose.random() < 0.02:
                        link.send_raw(mutate(choose))
                    continue
                for _ in range(200):
                    odd = choose.random()
                    if odd < 0.01:
                        # Several frames, where one belongs.
                        try:
                            link.socket.send_multipart([mutate(choose) for _ in range(choose.randint(2, 4))], zmq.NOBLOCK)
                        except zmq.Again:
                            break
                    elif odd > 0.9999:
                        # Larger than may be: the connection ends, and ZeroMQ makes another.
                        link.send_raw(bytes(1_310_721))
                        link.restart(0.05)
                        break
                    elif not link.send_raw(mutate(choose)):
                        break
                    sent += 1
                # Not further before all of it was heard.
                marker, session, patience = sent + 1, link.sessions, time.monotonic() + 20
                if link.welcome is not None and link.send(PING, a=marker):
                    while link.pong != marker and link.welcome is not None and link.sessions == session:
                        link.socket.poll(50)
                        link.pump(5000)
                        link.tick(time.monotonic())
                        if time.monotonic() > patience:
                            world.check_all()
                            raise Failed("PING %d was not answered within 20 s" % marker)
            if time.monotonic() - checked > 1:
                checked = time.monotonic()
                world.check_all()
                before = before or world.bus.resident()
        end = time.monotonic() + 60
        # Everything is taken in: a PING of ours is answered.
        for link in links:
            while time.monotonic() < end and link.welcome is None:
                link.tick(time.monotonic())
                link.socket.poll(20)
                link.pump()
        world.wait_for_acks(50)
        after = world.bus.resident()
        for link in links:
            link.close()
        if before and after - before > 200:
            raise Failed("the bus grew from %d to %d MiB" % (before, after))
        world.foreign = ["bus", "fuzzer"]
        world.settle()
        report = world.judge()
        codes = collections.Counter()
        for (command, status), count in answers.items():
            codes["%#x/%d" % (command, status)] += count
        return {"sent": sent, "answers": dict(codes.most_common(30)), "MiB": [round(before or after), round(after)], **report.counts}


NAMES = [b"echo.say", b"bus.consumers", b"bus.lookup", b"bus.parked.list", b"bus.parked.retry", b"bus.drain", b"fuzzed.x", b"x", b""]
BODIES = [
    {"client": "f", "min": 0, "max": 9, "heartbeat_ms": 100}, {"client": "f", "outbox": "f"}, {"min": 2, "max": 3, "client": "f"},
    {"filters": ["f.**"], "consumer": "f", "from": "first", "credit_msgs": 10}, {"filters": ["f.a"], "mode": "group", "consumer": "fg"},
    {"filters": ["f.*"], "from": {"seq": 3}}, {"filters": ["f.*"], "from": {"time": "2026-01-01T00:00:00Z"}}, {"filters": []},
    {"filters": ["f.**"], "mode": "group", "consumer": "fg2", "max_deliver": 1, "ack_wait_ms": 100, "backoff_ms": [0]},
    {"service": "fuzzed"}, {"reason": "x"}, {"service": "echo"}, {"filters": ["f.**"], "from": {"seq": 2 ** 63, "stream": "00"}},
    {"filters": ["f.**"], "credit_msgs": -5, "credit_bytes": 2 ** 62}, {"filters": ["f.**"], "credit_msgs": 1e300},
]


def mutate(choose):
    """One command, more or less wrong: mostly well-formed ones with one thing amiss, some pure noise."""
    kind = choose.random()
    if kind < 0.02:
        return choose.randbytes(choose.randint(0, 200))
    command = choose.choice([0x01, 0x03, 0x04, 0x05, 0x10, 0x10, 0x12, 0x20, 0x20, 0x23, 0x24, 0x25, 0x26, 0x30, 0x31, 0x33, 0x34, 0x35,
                             choose.randrange(256)])
    edge = lambda: choose.choice([0, 1, 2, 3, 16, 255, 4096, 4097, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1,
                                  choose.randrange(100)])
    a, b, body = edge(), edge(), b""
    if command in (0x10, 0x12):
        events = [(choose.choice([b"f.a", b"f.b.c", b"t.no", b"", b"F", b"f..a", b"f." + b"x" * 300, b"f.\xff"]),
                   choose.choice([b"i%d" % choose.randrange(50), choose.randbytes(8).hex().encode(), b"", b"\xff\xfe", b"a b", b"i" * 300]),
                   choose.randbytes(choose.choice([0, 1, 10, 100]))) for _ in range(choose.randint(0, 3))]
        body = pack(events)
        if choose.random() < 0.7:
            b = len(events)
        if choose.random() < 0.5:
            a = choose.randint(1, 4)
    elif command in (0x01, 0x05, 0x20, 0x30):
        body = json.dumps(choose.choice(BODIES)).encode()
        if command in (0x01, 0x05) and choose.random() < 0.9:
            # These end the session, and all that hangs on it: seldom.
            return mutate(choose)
    elif command == 0x25:
        body = b"".join(VERDICT.pack(edge() % 2 ** 64, choose.randrange(6), choose.choice([0, 0, 1]), 0, choose.choice([0, 1, 2 ** 32 - 1]))
                        for _ in range(choose.randint(0, 3)))
    elif command in (0x31, 0x32):
        name, idempotency = choose.choice(NAMES), choose.choice([b"", b"k", b"k" * 300])
        body = (len(name).to_bytes(2, "big") + name + len(idempotency).to_bytes(2, "big") + idempotency
                + choose.choice([b"", b"{}", b"[1]", b'{"consumer":"fg","seq":1}', b'{"id":"i1"}', choose.randbytes(20)]))
        b = choose.choice([0, 1, 10, 100, 2 ** 64 - 1])
    elif command in (0x33, 0x34):
        body = choose.randbytes(choose.randint(0, 50))
    wrong = choose.random()
    data = bytearray(message(command, flags=choose.choice([0, 0, 0, 1, 2, 0x80, 0x100, 0xFFFF]), status=choose.choice([0, 0, 200, 65535]),
                             handle=choose.choice([0, 1, 2, 3, 2 ** 32 - 1]), a=a, b=b, body=bytes(body)))
    if wrong < 0.15 and data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    elif wrong < 0.25:
        del data[choose.randrange(len(data)):]
    elif wrong < 0.35:
        data += choose.randbytes(choose.randint(1, 20))
    elif wrong < 0.45 and len(data) > 36:
        at = choose.randrange(28, len(data) - 3)
        data[at:at + 4] = choose.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(data)


@scenario("replay", "a replay of everything beside live traffic (targets 13 and 14)", rounds=(20_000, 1_000_000))
def replay(o):
    with World("replay", o.seed) as world:
        world.bus.start()
        flood = world.load("flood", [world.publisher("p%d" % index, mode=["ids", "outbox"][index % 2], count=o.rounds // 2, window=1000, size=60)
                                     for index in range(2)])
        world.wait("%d events are stored" % o.rounds, lambda: {"p0", "p1"} <= flood.ended, 7200)
        flood.say("report")
        live = world.load("live", [world.publisher("live", topics=["t.live"], rate=100, pack=1, size=100),
                                   world.consumer("watch", filters=["t.live"], **{"from": "new"})])
        world.wait("live traffic", lambda: live.total("live") > 50)

        def latency(until):
            live.say("mark")
            world.wait("the probe goes on", until, 7200)
            live.reports = None
            live.say("report")
            world.wait("a report", lambda: live.reports is not None)
            return live.reports["watch"]["latency"]
        aim = live.total("live") + 200
        quiet = latency(lambda: live.total("live") >= aim)
        began, before = time.monotonic(), world.bus.resident()
        readers = world.load("readers", [world.consumer("r%d" % index, credit_msgs=4096, credit_bytes=8 << 20) for index in range(2 if o.long else 1)])
        beside = latency(lambda: all(readers.progress.get(role["name"], 0) > o.rounds for role in readers.roles if readers.pump() is None))
        took = time.monotonic() - began
        after = world.bus.resident()
        world.settle(600)
        report = world.judge()
        return {"replayed": o.rounds * len(readers.roles), "s": round(took, 1), "live latency undisturbed": quiet, "beside the replay": beside,
                "MiB before, after": [round(before), round(after)], **report.counts}


@scenario("soak", "20: everything at random", seconds=(3, 3600), rounds=(1, 1))
def soak(o):
    with World("soak", o.seed) as world:
        bus, choose = world.bus, world.random
        proxy = Proxy(("127.0.0.1", bus.port), o.seed)
        try:
            near = world.load("near", [world.publisher("n0", topics=["t.near"], rate=100), world.consumer("everything", filters=["t.**"])])
            publishers, readers = mixed_load(world, rate=150, endpoint=proxy.endpoint, crash=0.0)
            crashing = world.load("crashing", [world.publisher("p9", topics=["t.p9"], rate=100), world.consumer("c9", filters=["t.p9"])])
            crashing.may_die = True
            bus.start()
            world.wait_for_acks(50)
            done = collections.Counter()
            end = time.monotonic() + o.seconds
            while time.monotonic() < end:
                act = choose.choice(["kill", "stop", "restart", "pause", "pause load", "cut", "hold", "slow", "late", "kill load", "flood"])
                done[act] += 1
                if act == "kill":
                    bus.kill()
                    nap(choose.choice([0, choose.uniform(0, 0.5)]))
                    bus.start()
                elif act in ("stop", "restart"):
                    bus.stop()
                    nap(choose.uniform(0, 0.3))
                    bus.start()
                elif act in ("pause", "pause load"):
                    pid = bus.process.pid if act == "pause" else choose.choice([near, publishers, readers]).process.pid
                    os.kill(pid, signal.SIGSTOP)
                    try:
                        nap(choose.choice([0.2, 1, 4]) if o.seconds > 60 else 0.3)
                    finally:
                        os.kill(pid, signal.SIGCONT)
                elif act == "kill load":
                    crashing.kill()
                    crashing.start()
                elif act == "flood":
                    flood = world.load("flood%d" % done[act], [world.publisher("flood%d" % done[act], producer="flood", count=2000, size=300)])
                    world.wait("a flood is over", lambda: flood.ended, 120)
                else:
                    {"cut": lambda: proxy.cut(choose.randint(0, 20_000)), "hold": lambda: proxy.set(up="hold", down=choose.choice(["hold", "pass"])),
                     "slow": lambda: proxy.set(up=100_000, down=100_000), "late": lambda: proxy.set(delay=0.1)}[act]()
                    nap(choose.uniform(0.1, 1 if o.seconds < 60 else 5))
                    proxy.set()
                world.wait_for_acks(choose.randint(1, 100), 120)
            world.settle(300)
            memory = bus.resident()
            report = world.judge()
            return {"done": dict(done), "bus MiB": round(memory), **report.counts}
        finally:
            proxy.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="SCENARIO")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 0))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 0))
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECONDS_EACH") or 0))
    parser.add_argument("--long", action="store_true")
    given = parser.parse_args()
    # So that everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.names == ["list"]:
        for name, function in SCENARIOS.items():
            print("%-12s %s" % (name, function.title))
        return
    seed = given.seed or random.SystemRandom().randrange(1, 10**6)
    names, long = given.names, given.long
    if names in (["small"], ["long"]):
        long = names == ["long"]
        names = list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        sys.exit("no scenario %s; there are: %s" % (unknown[0], " ".join(SCENARIOS)))
    print("seed %d" % seed, flush=True)
    failed, table = [], []
    for name in names:
        function, began = SCENARIOS[name], time.monotonic()
        try:
            result = function(Options(function, seed, given.rounds, given.seconds, long))
            outcome, detail = ("skipped", result) if isinstance(result, str) else ("ok", json.dumps(result))
        except Exception as error:
            outcome, detail = "FAILED", "%s: %s" % (type(error).__name__, error)
            if not isinstance(error, Failed):
                detail += "\n" + traceback.format_exc()
            detail += "\n    again with: Tests/Torture/torture.py %s --seed %d%s" % (name, seed, " --long" if long else "")
            failed.append(name)
        took = time.monotonic() - began
        table.append((name, outcome, took))
        print("%-12s %-8s %6.1f s  %s\n    %s" % (name, outcome, took, function.title, detail), flush=True)
    print("\n| scenario | | s |\n|---|---|---|")
    for name, outcome, took in table:
        print("| %s | %s | %.1f |" % (name, outcome, took))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
