#!/usr/bin/python3
"""Runs clients of the bus that keep journals, in one process: publishers, consumers, workers of a group, callers and servers.

    load.py PLAN.json       PLAN: {"seed": n, "roles": [{"role": "publisher", "name": "p0", "key": FILE, …}, …]}

Commands come as lines on standard input: `stop` (publishers make nothing new and end when all is decided), `finish N` (consumers
end when everything up to number N is examined), `mark` (forget latencies), `report` (print them), `quit`. What happens is
printed as JSON lines. Journals are SQLite files of the names that checker.py documents. A role may have `crash`: the chance that
the process kills itself with SIGKILL at each of its steps.
"""
import collections
import http.client
import json
import os
import random
import signal
import sqlite3
import struct
import sys
import threading
import time
import uuid

import zmq

from eb1 import (ACK, ACKED, ACKX, BYE, CALL, CREDIT, ENTRY, ERR, EVENTS, EXCEPTION, LOST, PART, PING, PUB, PUBACK, REFUSED, REP, REQ, SERVE,
                 SUB, SUBOK, TEMPORARY, TERMINATED, VERDICT, IN_PROGRESS, Damaged, Link, load_key, records)


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def database(path):
    db = sqlite3.connect(path, isolation_level=None)
    # Against the death of this process the page cache is enough; the machine's own death is another test's.
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")
    return db


class Role:
    def __init__(self, config, context, seed):
        self.config, self.name = config, config["name"]
        self.random = random.Random("%s:%s:%d" % (seed, self.name, config.get("life", 0)))
        self.crash_chance = config.get("crash", 0.0)
        self.key = load_key(config["key"])
        self.done = False
        self.link = Link(context, self.key, self, endpoint=config.get("endpoint"), outbox=self.outbox_name(), client=self.name)

    def outbox_name(self):
        return None

    def crash(self):
        """A step between two others: here the process may die."""
        if self.crash_chance and self.random.random() < self.crash_chance:
            os.kill(os.getpid(), signal.SIGKILL)

    def tick(self, now):
        self.link.tick(now)

    def fault(self, what):
        say(e="fault", name=self.name, what=what)

    def on_up(self, welcome):
        pass

    def progress(self):
        return None

    def mark(self):
        pass

    def report(self):
        return None

    def stop(self):
        pass

    def finish(self, last):
        pass


class Publisher(Role):
    """mode: `outbox` (numbers of its own, exact for ever) or `ids` (the bus remembers ids for a while).

    rate (events a second, 0: as the window allows), count (0: until `stop`), window, pack, size or sizes (bytes of filling), topics,
    times (each PUB is sent so often), again (chance that what is under way is sent once more), drop_acks (chance that a PUBACK is ignored), rehello (chance a second of a new session).
    """

    def __init__(self, config, context, seed):
        self.db = database(config["journal"])
        self.db.execute("CREATE TABLE IF NOT EXISTS about(key TEXT PRIMARY KEY, value TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS events(n INTEGER PRIMARY KEY, id TEXT, topic TEXT, state TEXT, status INTEGER, seq INTEGER)")
        self.db.execute("CREATE INDEX IF NOT EXISTS open ON events(n) WHERE state = 'sent'")
        row = self.db.execute("SELECT value FROM about WHERE key = 'outbox'").fetchone()
        self.outbox = row[0] if row else os.urandom(16).hex()
        self.db.execute("INSERT OR IGNORE INTO about VALUES ('outbox', ?)", (self.outbox,))
        super().__init__(config, context, seed)
        self.exact = config.get("mode", "outbox") == "outbox"
        self.rate, self.limit = config.get("rate", 0), config.get("count", 0)
        self.window, self.pack = config.get("window", 256), config.get("pack", 16)
        self.times, self.drop_acks, self.rehello = config.get("times", 1), config.get("drop_acks", 0.0), config.get("rehello", 0.0)
        self.again = config.get("again", 0.0)
        self.topics = config.get("topics", ["t." + self.name])
        self.sizes = config.get("sizes", [config.get("size", 200)])
        self.pending = collections.deque()  # (n, id, topic), not decided, in order; the first `sent` of them are under way
        for n, name, topic in self.db.execute("SELECT n, id, topic FROM events WHERE state = 'sent' ORDER BY n"):
            self.pending.append((n, name, topic))
        self.made = self.db.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()[0]
        self.decided = self.made - len(self.pending)
        self.sent, self.base, self.resume = 0, 1, False
        self.wait_until, self.refused = 0.0, None
        self.refusals = {}  # number → status, of this session
        self.writes = []
        self.began, self.started_at = time.monotonic(), self.made
        self.stopping = False
        self.acked_at, self.pause = time.monotonic(), 0.0
        self.resent, self.temporary = 0, 0
        self.rehello_at = time.monotonic()

    def outbox_name(self):
        return self.outbox if self.config.get("mode", "outbox") == "outbox" else None

    def number(self, index):
        return self.pending[index][0] if self.exact else self.base + index

    def on_up(self, welcome):
        self.resent += self.sent
        self.sent, self.base, self.resume = 0, 1, False
        self.wait_until, self.refused = 0.0, None
        self.refusals = {}

    def tick(self, now):
        super().tick(now)
        if self.rehello and now - self.rehello_at >= 0.1:
            self.rehello_at = now
            if self.random.random() < self.rehello / 10:
                self.link.restart()
        self.make(now)
        self.flush()
        if self.link.welcome is not None and now >= self.wait_until:
            self.publish()
        if self.stopping and not self.pending and not self.done:
            self.done = True
            say(e="drained", name=self.name, made=self.made)

    def make(self, now):
        """The change of state and its event, in one transaction; only then may it be sent."""
        if self.stopping:
            return
        room = self.window - len(self.pending)
        if self.rate:
            room = min(room, int((now - self.began) * self.rate) - (self.made - self.started_at))
        if self.limit:
            room = min(room, self.limit - self.made)
            if self.made >= self.limit and not self.pending:
                self.stopping = True
        if room <= 0:
            return
        rows = []
        for _ in range(min(room, 256)):
            self.made += 1
            rows.append((self.made, "%s.%d.%s" % (self.name, self.made, os.urandom(4).hex()), self.topics[self.made % len(self.topics)]))
        if self.crash_chance:
            self.db.execute("BEGIN")
            self.db.executemany("INSERT INTO events VALUES (?, ?, ?, 'sent', NULL, NULL)", rows)
            self.crash()
            self.db.execute("COMMIT")
            self.crash()
        else:
            self.db.execute("BEGIN")
            self.db.executemany("INSERT INTO events VALUES (?, ?, ?, 'sent', NULL, NULL)", rows)
            self.db.execute("COMMIT")
        self.pending.extend(rows)

    def publish(self):
        if self.refused is not None:
            return
        while self.sent < len(self.pending):
            rows = [self.pending[k] for k in range(self.sent, min(len(self.pending), self.sent + self.pack))]
            if self.exact:
                # Numbers in one PUB follow each other; an outbox may have gaps where a row was refused.
                run = 1
                while run < len(rows) and rows[run][0] == rows[run - 1][0] + 1:
                    run += 1
                rows = rows[:run]
            room = 1 << 20
            for index, row in enumerate(rows):
                room -= self.sizes[row[0] % len(self.sizes)] + 500
                if room < 0:
                    rows = rows[:max(1, index)]
                    break
            body = self.encode(rows)
            for _ in range(self.times):
                if not self.link.send(PUB, flags=1 if self.resume else 0, a=self.number(self.sent), b=len(rows), body=body):
                    return
                self.resume = False
            if self.sent == 0 and not self.acked_at:
                self.acked_at = time.monotonic()
            self.sent += len(rows)
            self.crash()
            if self.again and self.random.random() < self.again:
                # Some that are under way already, in the midst of the others: b of PUBACK must be the number of a all the same.
                count = self.random.randint(1, min(self.sent, self.pack))
                early = [self.pending[k] for k in range(count)]
                if not self.exact or early[-1][0] == early[0][0] + count - 1:
                    self.link.send(PUB, a=self.number(0), b=count, body=self.encode(early))

    def encode(self, rows):
        """The body of a PUB."""
        t = time.monotonic_ns()
        body = bytearray()
        for n, name, topic in rows:
            payload = ('{"t":%d,"specversion":"1.0","id":"%s","source":"torture","type":"%s","subject":"torture","data":{"n":%d,"x":"%s"}}'
                       % (t, name, topic, n, "x" * self.sizes[n % len(self.sizes)])).encode()
            topic, name = topic.encode(), name.encode()
            body += ENTRY.pack(len(topic), len(name), len(payload)) + topic + name + payload
        return bytes(body)

    def on_message(self, command, flags, status, handle, a, b, body):
        if command == ERR:
            self.fault("ERR %d for command %#x, a %d: %s" % (status, b, a, body[:200]))
            self.link.restart(0.2)
            return
        if command != PUBACK:
            return
        if self.drop_acks and self.random.random() < self.drop_acks:
            return
        self.crash()
        now = time.monotonic()
        if self.acked_at:
            self.pause = max(self.pause, now - self.acked_at)
        self.acked_at = now
        for n, code, _ in EXCEPTION.iter_unpack(body):
            self.refusals[n] = code
        taken = 0
        while taken < self.sent:
            number = self.number(taken)
            if number > a:
                break
            code = self.refusals.pop(number, 0)
            if code in TEMPORARY:
                self.temporary += 1
                # Everything from here on is refused; what follows is decided in this session too, and then sent again.
                self.refusals[number] = code
                self.refused = number
                break
            row = self.pending[taken]
            self.writes.append(("acked" if code in (0, 208) else "refused", code, b if number == a and b else None, row[0]))
            taken += 1
        for _ in range(taken):
            self.pending.popleft()
        self.sent -= taken
        self.base += taken
        self.decided += taken
        if self.refused is not None and (self.sent == 0 or a >= self.number(self.sent - 1)):
            self.sent, self.resume, self.refused, self.refusals = 0, True, None, {}
            self.wait_until = now + 0.1
        if not self.pending:
            self.acked_at = 0.0

    def flush(self):
        if not self.writes:
            return
        self.crash()
        self.db.execute("BEGIN")
        self.db.executemany("UPDATE events SET state = ?, status = ?, seq = coalesce(?, seq) WHERE n = ?", self.writes)
        self.db.execute("COMMIT")
        self.writes = []
        self.crash()

    def progress(self):
        return ["acked", self.decided]

    def mark(self):
        self.pause = 0.0

    def report(self):
        return {"pause_ms": round(self.pause * 1000), "resent": self.resent, "temporary": self.temporary, "sessions": self.link.sessions, "made": self.made}

    def stop(self):
        self.stopping = True


def producer_time(payload):
    return int(payload[5:payload.index(b",")]) if payload.startswith(b'{"t":') else 0


class Latencies:
    def __init__(self):
        self.values = []

    def note(self, payload):
        sent = producer_time(payload)
        if sent and len(self.values) < 200_000:
            self.values.append(time.monotonic_ns() - sent)

    def summary(self):
        values = sorted(self.values)
        if not values:
            return {"count": 0}
        at = lambda share: round(values[min(len(values) - 1, int(len(values) * share))] / 1000)
        return {"count": len(values), "p50_us": at(0.5), "p99_us": at(0.99), "max_us": at(1.0)}


class Consumer(Role):
    """An ordered durable consumer. position: `own` (kept in the transaction of the effect) or `bus` (ACK).

    filters, consumer (name; empty: ephemeral), credit_msgs, credit_bytes, rate (events a second, 0: all), ack_each (ACK each
    message; default true), after_lost: `first`, to begin again at the first event after LOST.
    """

    def __init__(self, config, context, seed):
        self.db = database(config["journal"])
        self.db.execute("CREATE TABLE IF NOT EXISTS effects(seq INTEGER, id TEXT, producer TEXT, topic TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS position(one INTEGER PRIMARY KEY CHECK (one = 1), stream TEXT, next INTEGER)")
        self.db.execute("CREATE TABLE IF NOT EXISTS ranges(kind TEXT, a INTEGER, b INTEGER)")
        row = self.db.execute("SELECT stream, next FROM position").fetchone()
        self.stream, self.next = row if row else (None, 1)
        super().__init__(config, context, seed)
        self.own = config.get("position", "own") == "own"
        self.credit = (config.get("credit_msgs", 256), config.get("credit_bytes", 1 << 20))
        self.owed = [0, 0]
        self.rate, self.held, self.began = config.get("rate", 0), collections.deque(), time.monotonic()
        self.processed, self.again = 0, 0
        self.expected = None
        self.generation = 0
        self.last = None
        self.latencies = Latencies()
        self.ranges, self.effects = [], []
        self.head_seen = 0

    def on_up(self, welcome):
        self.commit()
        self.expected = None
        self.held.clear()
        self.owed = [0, 0]
        if self.own and self.stream:
            start = {"stream": self.stream, "seq": self.next}
        else:
            start = self.config.get("from", "cursor" if self.config.get("consumer") else "first")
        self.subscribe(start)

    def subscribe(self, start):
        self.asked = start
        sent = self.link.send(SUB, handle=5, body={
            "consumer": self.config.get("consumer", self.name), "filters": self.config.get("filters", ["t.**"]), "from": start,
            "credit_msgs": self.credit[0], "credit_bytes": self.credit[1], "mode": "ordered"})
        if not sent:
            self.link.restart()

    def on_message(self, command, flags, status, handle, a, b, body):
        if command == SUBOK:
            stream = json.loads(body)["stream"]
            if self.stream is not None and stream != self.stream:
                self.fault("another log: %s instead of %s" % (stream, self.stream))
            if self.stream is None and self.next == 1:
                # The first time: wherever the bus begins is the beginning.
                self.next = a + 1
            self.stream, self.generation, self.expected = stream, b, a + 1
            kind = "own" if isinstance(self.asked, dict) else "bus"
            self.ranges.append(("start " + kind, a + 1, self.asked["seq"] if kind == "own" else self.next))
        elif command == EVENTS:
            if a == 0:
                return
            self.held.append((flags, a, b, body))
            self.work(time.monotonic())
        elif command == LOST:
            self.ranges.append(("lost %d" % status, a, b))
            self.commit()
            say(e="lost", name=self.name, status=status, wanted=a, first=b)
            if self.config.get("after_lost") == "first":
                # Deliberately, as one would load a snapshot: what lies between is gone, and that is known.
                self.next = b
                self.subscribe({"seq": b})
        elif command == ERR:
            self.fault("ERR %d for command %#x, a %d: %s" % (status, b, a, body[:300]))
        elif command == BYE:
            say(e="fenced", name=self.name, status=status)
            self.expected = None
            self.ranges.append(("fenced", 0, 0))
            if self.config.get("after_fenced") == "again":
                self.link.restart(0.05)

    def work(self, now):
        while self.held:
            flags, a, b, body = self.held[0]
            if self.rate and (now - self.began) * self.rate < self.processed + 1:
                return
            self.held.popleft()
            self.ranges.append(("events", a, b))
            if self.expected is not None and a != self.expected:
                self.fault("expected %d, got %d to %d" % (self.expected, a, b))
            self.expected = b + 1
            count = 0
            for _, seq, _, kind, topic, producer, name, payload in records(body, flags & 1):
                count += 1
                self.processed += 1
                self.latencies.note(payload)
                if seq < self.next:
                    self.again += 1  # the bus died before it wrote the cursor down; its effect is there
                    continue
                self.effects.append((seq, name, producer, topic))
            self.next = max(self.next, b + 1)
            self.owed[0] += count
            self.owed[1] += len(body)
            self.dirty = True
            if self.rate:
                break

    dirty = False

    def commit(self):
        """The effects and the position, in one transaction."""
        if not (self.ranges or self.effects or self.dirty):
            return
        self.crash()
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO effects VALUES (?, ?, ?, ?)", self.effects)
        self.db.executemany("INSERT INTO ranges VALUES (?, ?, ?)", self.ranges)
        self.db.execute("INSERT OR REPLACE INTO position VALUES (1, ?, ?)", (self.stream, self.next))
        self.crash()
        self.db.execute("COMMIT")
        self.effects, self.ranges, self.dirty = [], [], False
        self.crash()

    def tick(self, now):
        super().tick(now)
        self.work(now)
        had = self.dirty
        self.commit()
        if self.link.welcome is not None and self.expected is not None:
            if had and self.config.get("consumer", self.name) and self.config.get("ack_each", True):
                self.link.send(ACK, handle=5, a=self.expected - 1, b=self.generation)
                self.crash()
            if self.owed[0] * 2 >= self.credit[0] or self.owed[1] * 2 >= self.credit[1] or (self.rate and self.owed[0]):
                if self.link.send(CREDIT, handle=5, a=self.owed[0], b=self.owed[1]):
                    self.owed = [0, 0]
        if self.last is not None and self.next > self.last and not self.done:
            self.done = True
            say(e="finished", name=self.name, next=self.next)

    def progress(self):
        return ["next", self.next]

    def mark(self):
        self.latencies = Latencies()

    def report(self):
        return {"latency": self.latencies.summary(), "again": self.again, "next": self.next, "sessions": self.link.sessions}

    def finish(self, last):
        self.last = last


class Worker(Role):
    """A member of a group. nak, ignore, progress: chances of each verdict; topics that end in `.poison` are always refused.

    hold_ms: how long an event is worked on; one_by_one: each verdict is a message; options: members of SUB.
    """

    def __init__(self, config, context, seed):
        self.db = database(config["journal"])
        self.db.execute("CREATE TABLE IF NOT EXISTS work(seq INTEGER, id TEXT, deliveries INTEGER, verdict TEXT, at INTEGER, life TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS late(seq INTEGER, at INTEGER)")
        super().__init__(config, context, seed)
        self.generation = None
        self.credit = config.get("credit_msgs", 64)
        self.hold = config.get("hold_ms", 0) / 1000
        self.holding = collections.deque()  # (when, seq, id, deliveries, verdict)
        self.owed = [0, 0]
        self.done_count = 0
        self.life = "%d.%d" % (os.getpid(), time.monotonic_ns())
        self.latencies = Latencies()

    def on_up(self, welcome):
        self.generation = None
        self.holding.clear()
        self.owed = [0, 0]
        body = {"consumer": self.config["consumer"], "filters": self.config.get("filters", ["t.**"]), "mode": "group", "from": "first",
                "credit_msgs": self.credit, "credit_bytes": 4 << 20}
        body.update(self.config.get("options", {}))
        if not self.link.send(SUB, handle=9, body=body):
            self.link.restart()

    def on_message(self, command, flags, status, handle, a, b, body):
        now = time.monotonic()
        if command == SUBOK:
            self.generation = b
        elif command == EVENTS and a:
            count = 0
            for deliveries, seq, _, _, topic, _, name, payload in records(body, flags & 1):
                count += 1
                self.latencies.note(payload)
                chance, verdict = self.random.random(), "ack"
                if topic.endswith(".poison"):
                    verdict = self.config.get("poison_verdict", "nak")
                elif chance < self.config.get("nak", 0):
                    verdict = "nak"
                elif chance < self.config.get("nak", 0) + self.config.get("ignore", 0):
                    verdict = "ignore"
                elif chance < self.config.get("nak", 0) + self.config.get("ignore", 0) + self.config.get("progress", 0):
                    verdict = "progress"
                self.holding.append((now + self.hold, seq, name, deliveries, verdict))
            self.owed[0] += count
            self.owed[1] += len(body)
            if count:
                self.crash()
        elif command == ERR and b == ACKX:
            self.db.execute("INSERT INTO late VALUES (?, ?)", (a, time.monotonic_ns()))
            say(e="late", name=self.name, seq=a, status=status)
        elif command in (ERR, LOST):
            self.fault("command %#x, status %d, a %d, b %d: %s" % (command, status, a, b, body[:300]))
        elif command == BYE:
            say(e="fenced", name=self.name, status=status)
            self.link.restart(0.05)

    def tick(self, now):
        super().tick(now)
        ready = []
        while self.holding and self.holding[0][0] <= now:
            ready.append(self.holding.popleft())
        if ready:
            at = time.monotonic_ns()
            self.db.execute("BEGIN")
            self.db.executemany("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)", [
                (seq, name, deliveries, verdict, at, self.life) for _, seq, name, deliveries, verdict in ready])
            self.db.execute("COMMIT")
            self.crash()
            verbs = {"ack": ACKED, "nak": REFUSED, "progress": IN_PROGRESS, "terminate": TERMINATED}
            verdicts = b"".join(
                VERDICT.pack(seq, verbs[verdict], 0, 0, self.config.get("nak_ms", 1) if verdict == "nak" else 0)
                for _, seq, _, _, verdict in ready if verdict in verbs)
            if verdicts and self.generation is not None:
                # ERR 409 names the first late verdict of a message: by itself, each is told.
                size = VERDICT.size if self.config.get("one_by_one") else len(verdicts)
                for at in range(0, len(verdicts), size):
                    self.link.send(ACKX, handle=9, b=self.generation, body=verdicts[at:at + size])
            # Still at it, and then done.
            again = [(now + 0.05, seq, name, deliveries, "ack") for _, seq, name, deliveries, verdict in ready if verdict == "progress"]
            self.holding.extend(again)
            self.done_count += len(ready)
            self.crash()
        if self.generation is not None and self.owed[0] and (self.owed[0] * 2 >= self.credit or not self.holding):
            if self.link.send(CREDIT, handle=9, a=self.owed[0], b=self.owed[1]):
                self.owed = [0, 0]

    def progress(self):
        return ["worked", self.done_count]

    def mark(self):
        self.latencies = Latencies()

    def report(self):
        return {"latency": self.latencies.summary(), "worked": self.done_count, "sessions": self.link.sessions}

    def finish(self, last):
        pass  # a group is over when the bus says that it is; the conductor quits


class Server(Role):
    """Serves `echo`: the reply is the payload, in parts when it is long; what it executes is in its journal."""

    def __init__(self, config, context, seed):
        self.db = database(config["journal"])
        self.db.execute("CREATE TABLE IF NOT EXISTS calls(key TEXT, caller TEXT)")
        super().__init__(config, context, seed)
        self.count = 0

    def on_up(self, welcome):
        if not self.link.send(SERVE, handle=3, a=self.config.get("calls", 16), body={"service": "echo"}):
            self.link.restart()

    def on_message(self, command, flags, status, handle, a, b, body):
        if command == CALL:
            (length,) = struct.unpack_from(">H", body)
            at = 2 + length
            (about_length,) = struct.unpack_from(">H", body, at)
            about = json.loads(body[at + 2:at + 2 + about_length])
            payload = body[at + 2 + about_length:]
            self.db.execute("INSERT INTO calls VALUES (?, ?)", (about.get("key", ""), about["caller"]))
            self.crash()
            self.count += 1
            half = len(payload) // 2
            if half > 100:
                self.link.send(PART, a=a, b=0, body=payload[:half])
                self.crash()
                self.link.send(REP, status=200, a=a, b=1, body=payload[half:])
            else:
                self.link.send(REP, status=200, a=a, body=payload)
        elif command == ERR:
            self.fault("ERR %d for command %#x: %s" % (status, b, body[:300]))

    def report(self):
        return {"served": self.count}


class Caller(Role):
    """Calls `echo.say` at a rate; an open call is asked again in a new session, under the same key."""

    def __init__(self, config, context, seed):
        self.db = database(config["journal"])
        self.db.execute("CREATE TABLE IF NOT EXISTS calls(key TEXT PRIMARY KEY, status INTEGER, right INTEGER)")
        super().__init__(config, context, seed)
        self.rate, self.began, self.made = config.get("rate", 50), time.monotonic(), 0
        self.open = {}  # number → [key, payload, deadline, parts, whether the bus has it for certain]
        self.probe, self.probed = None, []  # `a` of a PING, and the calls that were overdue when it was sent
        self.next_number = 1
        self.stopping = False
        self.outcomes = collections.Counter()

    def ask(self, key, payload):
        number = self.next_number
        self.next_number += 1
        name = b"echo.say"
        body = struct.pack(">H", len(name)) + name + struct.pack(">H", len(key)) + key.encode() + payload
        self.open[number] = [key, payload, time.monotonic() + 3, {}, False]
        return self.link.send(REQ, a=number, b=2000, body=body)

    def on_up(self, welcome):
        before, self.open, self.probe = self.open, {}, None
        for key, payload, *_ in before.values():
            self.ask(key, payload)

    def tick(self, now):
        super().tick(now)
        if self.link.welcome is not None:
            while not self.stopping and len(self.open) < 64 and (now - self.began) * self.rate > self.made:
                self.made += 1
                payload = os.urandom(self.random.choice([0, 10, 300, 20000]))
                if not self.ask("%s.%d.%s" % (self.name, self.made, os.urandom(4).hex()), payload):
                    break
            late = [number for number, call in self.open.items() if now > call[2]]
            if late and self.probe is None:
                # PONG comes after all that was said before it. The first one proves that the bus has the call, and its time runs; the
                # second, when that time is over, that there is no answer.
                self.probe = (1 << 40) + self.next_number
                self.next_number += 1
                self.probed = late
                if not self.link.send(PING, a=self.probe):
                    self.probe = None
            elif self.probe is not None and self.link.pong == self.probe:
                for number in self.probed:
                    call = self.open.get(number)
                    if call and call[4]:
                        del self.open[number]
                        self.fault("call %d got no answer, not even 504" % number)
                    elif call:
                        call[2], call[4] = now + 3, True
                self.probe = None
        if self.stopping and not self.open and not self.done:
            self.done = True
            say(e="drained", name=self.name, made=self.made)

    def on_message(self, command, flags, status, handle, a, b, body):
        call = self.open.get(a)
        if command == PART and call:
            call[3][b] = body
        elif command == REP and call:
            del self.open[a]
            self.outcomes[status] += 1
            right = 1
            if status == 200:
                whole = b"".join(call[3][k] for k in sorted(call[3])) + body
                right = int(whole == call[1] and b == len(call[3]))
                if not right:
                    self.fault("call %s got a wrong reply: %d bytes instead of %d" % (call[0], len(whole), len(call[1])))
            self.db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?)", (call[0], status, right))
        elif command == ERR and (status, b) == (409, REQ) and call:
            # Asked again in a new session, while part of the reply had gone to the one before.
            del self.open[a]
            self.outcomes[status] += 1
            self.db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, 1)", (call[0], status))
        elif command == ERR:
            self.fault("ERR %d for command %#x: %s" % (status, b, body[:300]))

    def report(self):
        return {"outcomes": dict(self.outcomes), "sessions": self.link.sessions}

    def stop(self):
        self.stopping = True


class OverHTTP:
    """A role that speaks HTTP, on a thread of its own because it waits for each answer. `base`: such as http://127.0.0.1:7701."""

    def __init__(self, config, context, seed):
        self.config, self.name, self.done = config, config["name"], False
        self.stopping, self.last, self.link = False, None, None
        self.state, self.count = 0, 0
        with open(config["token"]) as file:
            self.headers = {"Authorization": "Bearer " + file.read().strip()}
        threading.Thread(target=self.guarded, daemon=True).start()

    def guarded(self):
        try:
            self.run()
        except Exception as error:
            say(e="fault", name=self.name, what="%s: %s" % (type(error).__name__, error))

    def connect(self):
        host, port = self.config["base"].split("//")[1].split(":")
        return http.client.HTTPConnection(host, int(port), timeout=10)

    def tick(self, now):
        if self.state is None and not self.done:
            self.done = True
            say(e=self.ending, name=self.name)

    def progress(self):
        return [self.counts, self.count]

    def mark(self):
        pass

    def report(self):
        return {self.counts: self.count}

    def stop(self):
        self.stopping = True

    def finish(self, last):
        self.last = last


class HTTPPublisher(OverHTTP):
    """POST /v1/events, some at a time; what got no answer is sent again under the same ids."""

    ending, counts = "drained", "acked"

    def run(self):
        self.count, made, connection, wait = 0, 0, None, 1 / self.config.get("rate", 50)
        db = database(self.config["journal"])
        db.execute("CREATE TABLE IF NOT EXISTS events(n INTEGER PRIMARY KEY, id TEXT, topic TEXT, state TEXT, status INTEGER, seq INTEGER)")
        choose, topic = random.Random(self.name), "t." + self.name
        while not self.stopping:
            rows = [(made + k, str(uuid.uuid4())) for k in range(1, 1 + choose.choice([1, 1, 3]))]
            made += len(rows)
            db.executemany("INSERT INTO events VALUES (?, ?, ?, 'sent', NULL, NULL)", [(n, name, topic) for n, name in rows])
            body = json.dumps([{"id": name, "type": topic, "subject": "torture", "data": {"n": n}} for n, name in rows])
            while True:
                try:
                    connection = connection or self.connect()
                    connection.request("POST", "/v1/events", body, dict(self.headers, **{"Content-Type": "application/json"}))
                    answer = connection.getresponse()
                    text = answer.read()
                except (OSError, http.client.HTTPException):
                    connection = None
                    time.sleep(0.05)
                    continue
                if answer.status == 202:
                    break
                if answer.status not in (500, 502, 503, 504, 507):
                    raise Damaged("POST /v1/events: %d %s" % (answer.status, text[:300]))
                time.sleep(0.05)
            db.executemany("UPDATE events SET state = 'acked', status = ?, seq = ? WHERE id = ?", [
                (208 if each.get("duplicate") else 0, each["seq"] or None, each["id"]) for each in json.loads(text)])
            self.count = made
            time.sleep(wait)
        self.state = None


class HTTPFollower(OverHTTP):
    """GET /v1/events/stream with Last-Event-ID; effect and position in one transaction."""

    ending, counts = "finished", "next"

    def run(self):
        db = database(self.config["journal"])
        db.execute("CREATE TABLE IF NOT EXISTS effects(seq INTEGER, id TEXT, producer TEXT, topic TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS position(one INTEGER PRIMARY KEY CHECK (one = 1), stream TEXT, next INTEGER)")
        db.execute("CREATE TABLE IF NOT EXISTS ranges(kind TEXT, a INTEGER, b INTEGER)")
        row = db.execute("SELECT next FROM position").fetchone()
        self.count = row[0] if row else 1
        if not row:
            db.execute("INSERT INTO ranges VALUES ('start bus', 1, 1)")
        while self.last is None or self.count <= self.last:
            try:
                connection = self.connect()
                headers = dict(self.headers) if self.count == 1 else dict(self.headers, **{"Last-Event-ID": str(self.count - 1)})
                connection.request("GET", "/v1/events/stream?since=1", headers=headers)
                answer = connection.getresponse()
                if answer.status >= 500:
                    raise OSError(answer.status)
                if answer.status != 200:
                    raise Damaged("following from %d: %d %s" % (self.count, answer.status, answer.read(300)))
                seq = None
                while self.last is None or self.count <= self.last:
                    line = answer.readline()
                    if not line:
                        break
                    if line.startswith(b"id: "):
                        seq = int(line[4:])
                    elif line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        if int(event["sequence"]) != seq:
                            raise Damaged("id %d with the event %s" % (seq, event["sequence"]))
                        db.execute("BEGIN")
                        # Unfiltered, so that each is the one after the last.
                        db.execute("INSERT INTO ranges VALUES (?, ?, ?)", ("events", seq, seq))
                        db.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", (seq, event["id"], event["producer"], event["type"]))
                        db.execute("INSERT OR REPLACE INTO position VALUES (1, '', ?)", (seq + 1,))
                        db.execute("COMMIT")
                        self.count = seq + 1
                connection.close()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        self.state = None


ROLES = {"publisher": Publisher, "consumer": Consumer, "worker": Worker, "server": Server, "caller": Caller, "http-publisher": HTTPPublisher,
         "http-follower": HTTPFollower}


def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    context = zmq.Context.instance()
    roles = [ROLES[config["role"]](config, context, plan["seed"]) for config in plan["roles"]]
    say(e="running", pid=os.getpid(), seed=plan["seed"])
    poller = zmq.Poller()
    polled = {}
    os.set_blocking(0, False)
    poller.register(0, zmq.POLLIN)
    typed, told, told_at = b"", {}, 0.0
    while True:
        for role in roles:
            if role.link and polled.get(role) is not role.link.socket:
                if role in polled:
                    poller.unregister(polled[role])
                polled[role] = role.link.socket
                poller.register(role.link.socket, zmq.POLLIN)
        ready = dict(poller.poll(5))
        if 0 in ready:
            try:
                part = os.read(0, 4096)
            except BlockingIOError:
                part = None
            if part == b"":
                return  # the conductor is gone
            typed += part or b""
            while b"\n" in typed:
                line, typed = typed.split(b"\n", 1)
                words = line.decode().split()
                for role in roles:
                    if words[0] == "stop":
                        role.stop()
                    elif words[0] == "finish":
                        role.finish(int(words[1]))
                    elif words[0] == "mark":
                        role.mark()
                if words[0] == "report":
                    say(e="report", roles={role.name: role.report() for role in roles})
                elif words[0] == "quit":
                    for role in roles:
                        if role.link:
                            role.link.close(goodbye=True)
                    context.term()
                    say(e="quit")
                    return
        now = time.monotonic()
        for role in roles:
            if role.link and role.link.socket in ready:
                role.link.pump()
            role.tick(now)
        if now - told_at >= 0.05:
            news = {role.name: role.progress() for role in roles if role.progress()}
            if news != told:
                told, told_at = news, now
                say(e="progress", roles=news)


if __name__ == "__main__":
    main()
