#!/usr/bin/python3
"""The common checker: was anything acknowledged lost, stored twice, made up, reordered, skipped or done twice?

    checker.py RUN.json         prints what it found as JSON; exit 0 when nothing is wrong, 1 when something is
    checker.py --self-test      breaks a good history in every way that it knows, and wants each one found

It knows nothing of the bus but docs/wire.md. RUN.json names the files (paths are relative to it):

    {"log": "log.sqlite", "segments": "…/bus/log", "foreign": ["bus"], "complete": true, "last": 1234, "settled": 1230,
     "publishers": [{"name": "p0", "producer": "p0", "journal": "p0.sqlite"}],
     "consumers":  [{"name": "c0", "journal": "c0.sqlite", "filters": ["t.**"], "from": "first"}],
     "groups":     [{"name": "g", "filters": ["t.**"], "journals": ["w0.sqlite"], "parked": [17], "max_deliver": 3, "restarts": 0}],
     "teams":      [{"name": "t", "filters": ["t.**"], "journals": ["t0.sqlite", "t1.sqlite"]}],
     "calls":      [{"callers": ["a.sqlite"], "servers": ["s.sqlite"]}]}

* complete: publishers were told of everything, consumers came to `settled` (default: the end of the log).
* log: what was read through the bus. `log(seq, time, topic, producer, id)`. When retention removed the beginning, it may be
  completed from what a consumer saw.
* segments: the same from the files themselves, without the bus: records, CRCs, batch marks, hash chain. Optional.
* a publisher's journal: `events(n, id, topic, state, status, seq)`; a row is committed before its event is sent. state: `sent`
  (unknown: may be stored or not), `acked`, `refused`. seq where an acknowledgement named it.
* a consumer's journal: `effects(seq, id, producer, topic)` written in the transaction that also moves `position(stream, next)`, and
  `ranges(kind, a, b)` in the order of events: `start own` (a: the first number that the bus says it will send, b: what was asked for),
  `start bus` (b: the next number as the consumer knows it), `events` (the range examined), `lost 410` (a wanted, b first there),
  `fenced`.
* a team: sessions that take one durable ordered name from each other; what one did not acknowledge must come to the next.
* a worker's journal: `work(seq, id, deliveries, verdict, at, life)`, `late(seq, at)`: verdicts that were refused.
* calls: a caller's `calls(key, status, right)`, a server's `calls(key, caller)`.
"""
import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
import sys
import tempfile

from eb1 import RECORD, crc32c

EPOCH_MARK, BATCH_MARK = 2, 3


def matches(pattern, topic):
    """Section 9 of docs/wire.md."""
    wanted, found = pattern.split("."), topic.split(".")
    for at, token in enumerate(wanted):
        if token == "**":
            return len(found) > at
        if at >= len(found) or (token != "*" and token != found[at]):
            return False
    return len(wanted) == len(found)


class Filters:
    def __init__(self, patterns):
        self.patterns, self.known = patterns, {}

    def match(self, topic):
        if topic not in self.known:
            self.known[topic] = any(matches(pattern, topic) for pattern in self.patterns)
        return self.known[topic]


class Report:
    def __init__(self):
        self.violations, self.counts, self.kinds = [], {}, {}

    def wrong(self, kind, text):
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        # The first of each kind say enough.
        if self.kinds[kind] <= 10:
            self.violations.append("%s: %s" % (kind, text))

    def count(self, name, number=1):
        self.counts[name] = self.counts.get(name, 0) + number

    def as_json(self):
        return {"ok": not self.violations, "violations": self.violations, "kinds": self.kinds, "counts": self.counts}


# -- the log

def segment_records(directory, report):
    """(seq, time, topic, producer, id) of the events in the segment files; what is wrong goes into the report."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".log") and name[:-4].isdigit())
    chain, next_seq, last_time, stream = None, None, 0, None
    result = []
    for index, name in enumerate(names):
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        if len(data) < 96 or data[:8] != b"SLIPWLOG":
            report.wrong("segment", "%s has no header" % name)
            continue
        if crc32c(data[:92]) != struct.unpack_from(">I", data, 92)[0]:
            report.wrong("segment", "%s: the header fails its CRC" % name)
        first, before = struct.unpack_from(">Q", data, 32)[0], data[48:80]
        if stream is not None and data[16:32] != stream:
            report.wrong("segment", "%s belongs to another log" % name)
        stream = data[16:32]
        if first != int(name[:-4]):
            report.wrong("segment", "%s begins with %d" % (name, first))
        if next_seq is not None and first != next_seq:
            report.wrong("segment", "%s should begin with %d" % (name, next_seq))
        if chain is not None and before != chain:
            report.wrong("chain", "%s does not go on from the hash of the segment before" % name)
        next_seq, chain = first if next_seq is None else next_seq, before
        at, batch, pending = 96, None, []
        while at + RECORD.size <= len(data):
            length, crc, seq, nanos, kind, flags, topic_n, producer_n, id_n = RECORD.unpack_from(data, at)
            if length == 0:
                break
            rest = data[at + 8:at + 8 + length]
            if len(rest) != length or crc32c(rest) != crc:
                # A torn batch may lie at the very end; whether the events before it are all there is checked against the journals.
                if index == len(names) - 1:
                    report.count("torn tails")
                else:
                    report.wrong("segment", "%s: byte %d fails its CRC" % (name, at))
                break
            if flags & 1 or batch is None:
                batch, pending = at, []
            if kind == 1:
                texts = rest[24:24 + topic_n + producer_n + id_n].decode()
                pending.append((seq, nanos, texts[:topic_n], texts[topic_n:topic_n + producer_n], texts[topic_n + producer_n:]))
                if seq != next_seq + len(pending) - 1:
                    report.wrong("segment", "%s: number %d where %d belongs" % (name, seq, next_seq + len(pending) - 1))
            elif kind == BATCH_MARK:
                hashed = hashlib.sha256(chain + data[batch:at]).digest()
                if hashed != rest[24 + topic_n + producer_n + id_n:][:32]:
                    report.wrong("chain", "%s: the mark at byte %d does not fit" % (name, at))
                chain = rest[24 + topic_n + producer_n + id_n:][:32]
                result += pending
                next_seq += len(pending)
                batch, pending = None, []
                report.count("batches")
            elif kind != EPOCH_MARK:
                report.count("records of unknown kind")
            if nanos < last_time:
                report.wrong("time", "%s: time goes back at number %d" % (name, seq))
            last_time = max(last_time, nanos)
            at += (8 + length + 7) & ~7
    return result


def load_log(run, folder, report):
    db = sqlite3.connect(os.path.join(folder, run["log"]))
    rows = db.execute("SELECT seq, time, topic, producer, id FROM log ORDER BY seq").fetchall()
    db.close()
    expected, time = None, 0
    for seq, nanos, _, _, _ in rows:
        if expected is not None and seq != expected:
            report.wrong("gap", "number %d follows %d" % (seq, expected - 1))
        expected = seq + 1
        if nanos < time:
            report.wrong("time", "time goes back at number %d" % seq)
        time = max(time, nanos)
    last = rows[-1][0] if rows else 0
    if "last" in run and last < run["last"]:
        report.wrong("gap", "the bus says that %d is the last, but reading ends at %d" % (run["last"], last))
    if rows and run.get("from_first", True) and rows[0][0] != 1:
        report.wrong("gap", "the log begins with %d" % rows[0][0])
    report.count("events", len(rows))
    if run.get("segments"):
        stored = segment_records(os.path.join(folder, run["segments"]), report)
        served = {row[0]: row for row in rows}
        for row in stored:
            if row[0] in served and served[row[0]] != row:
                report.wrong("served", "number %d is %s in the file, but was read as %s" % (row[0], row, served[row[0]]))
        there = {row[0] for row in stored}
        if not run.get("retention"):
            for seq in served:
                if seq not in there:
                    report.wrong("served", "number %d was read, but is not in the files" % seq)
        report.count("records in files", len(stored))
    return rows


# -- who wrote

def check_publishers(run, folder, log, report):
    where, sent_by, foreign = {}, {}, set(run.get("foreign", ["bus"]))
    for seq, _, topic, producer, name in log:
        if (producer, name) in where:
            if producer in foreign:
                continue  # what it meant is not known: with an outbox it is the number that counts, not the id
            report.wrong("duplicate", "%s of %s is number %d and number %d" % (name, producer, where[producer, name][0], seq))
        else:
            where[producer, name] = (seq, topic)
    for publisher in run["publishers"]:
        producer, known = publisher["producer"], sent_by.setdefault(publisher["producer"], set())
        db = sqlite3.connect(os.path.join(folder, publisher["journal"]))
        previous, previous_n = 0, 0
        for n, name, topic, state, status, seq in db.execute("SELECT n, id, topic, state, status, seq FROM events ORDER BY n"):
            known.add(name)
            report.count(state)
            found = where.get((producer, name))
            if found is None:
                if state == "acked":
                    report.wrong("lost", "%s, event %d of %s, was acknowledged (%s, number %s) and is not in the log"
                                 % (name, n, publisher["name"], status, seq))
                continue
            if state == "refused":
                report.wrong("refused", "%s of %s was refused (%s) and is number %d" % (name, publisher["name"], status, found[0]))
            if state == "sent":
                report.count("unknown, stored")
            if seq is not None and seq != found[0]:
                report.wrong("number", "%s of %s was acknowledged as number %d and is number %d" % (name, publisher["name"], seq, found[0]))
            if found[1] != topic:
                report.wrong("phantom", "%s of %s was sent as %s and stored as %s" % (name, publisher["name"], topic, found[1]))
            if found[0] < previous:
                report.wrong("order", "event %d of %s is number %d, but event %d before it is number %d"
                             % (n, publisher["name"], found[0], previous_n, previous))
            previous, previous_n = max(previous, found[0]), n
        if run.get("complete", True):
            (open_rows,) = db.execute("SELECT count(*) FROM events WHERE state = 'sent'").fetchone()
            if open_rows:
                report.wrong("undecided", "%s ended with %d events that were never decided" % (publisher["name"], open_rows))
        db.close()
    for (producer, name), (seq, _) in where.items():
        if producer not in foreign and name not in sent_by.get(producer, ()):
            report.wrong("phantom", "number %d, %s of %s, was never sent" % (seq, name, producer))


# -- who read

def check_consumer(run, folder, consumer, log, report):
    name, filters = consumer["name"], Filters(consumer["filters"])
    db = sqlite3.connect(os.path.join(folder, consumer["journal"]))
    row = db.execute("SELECT next FROM position").fetchone()
    if row is None:
        return report.wrong("skipped", "%s never got anything" % name) if run.get("complete", True) else None
    next_seq, begin, expected, gaps, top = row[0], None, None, [], 0
    pardoned = None
    for kind, a, b in db.execute("SELECT kind, a, b FROM ranges ORDER BY rowid"):
        if kind.startswith("start"):
            if begin is None:
                begin = a
                if consumer.get("from", "first") == "first" and a != 1 and run.get("from_first", True):
                    report.wrong("skipped", "%s wanted the first event, and was begun at %d" % (name, a))
            elif kind == "start own" and b > max(top + 1, begin) and b != pardoned:
                report.wrong("skipped", "%s has everything before %d, and asked for %d" % (name, max(top + 1, begin), b))
            elif kind == "start own" and a != b and b > 1:
                report.wrong("backwards" if a < b else "skipped", "%s asked for %d, and the bus begins at %d" % (name, b, a))
            elif kind == "start bus" and a > b:
                report.wrong("skipped", "%s has everything before %d, and the bus begins at %d" % (name, b, a))
            elif kind == "start bus" and a < b:
                report.count("events again after a restart", b - a)
            expected = a
        elif kind == "events":
            if expected is None:
                report.wrong("backwards", "%s got %d to %d without a subscription" % (name, a, b))
            elif a != expected or b < a - 1:
                report.wrong("backwards" if a < expected else "skipped", "%s got %d to %d, and expected %d" % (name, a, b, expected))
            expected, top = b + 1, max(top, b)
        elif kind.startswith("lost"):
            expected = None
            if kind == "lost 410" and b > a:
                gaps.append((a, b - 1))
                pardoned = b
            else:
                report.wrong("lost consumer", "%s: %s, wanted %d, first %d" % (name, kind, a, b))
        elif kind == "fenced":
            expected = None
    if begin is None:
        return report.wrong("skipped", "%s was never begun" % name)
    settled = run.get("settled", log[-1][0] if log else 0)
    if run.get("complete", True) and next_seq <= settled:
        report.wrong("skipped", "%s ended at %d; it should have come to %d" % (name, next_seq, settled))
    if top >= next_seq:
        report.wrong("skipped", "%s: its position is %d, but it was given events up to %d" % (name, next_seq, top))
    effects = {}
    for seq, event, producer, topic in db.execute("SELECT seq, id, producer, topic FROM effects ORDER BY rowid"):
        if seq in effects:
            report.wrong("twice", "%s: number %d took effect twice" % (name, seq))
        effects[seq] = (event, producer, topic)
    db.close()
    report.count("effects", len(effects))
    for seq, _, topic, producer, event in log:
        if seq < begin or seq >= next_seq or not filters.match(topic):
            if seq in effects and not filters.match(topic):
                report.wrong("foreign", "%s was given number %d, %s, which it did not ask for" % (name, seq, topic))
            continue
        effect = effects.pop(seq, None)
        if effect is None:
            if not any(first <= seq <= last for first, last in gaps):
                report.wrong("skipped", "%s never processed number %d (%s)" % (name, seq, event))
        elif effect != (event, producer, topic):
            report.wrong("served", "%s was given %s as number %d, which is %s" % (name, effect, seq, (event, producer, topic)))
    first = log[0][0] if log else 1
    for seq, effect in effects.items():
        if seq >= first:
            report.wrong("phantom", "%s processed number %d (%s), which is not in the log" % (name, seq, effect[0]))


def check_group(run, folder, group, log, report):
    filters, parked = Filters(group["filters"]), set(group.get("parked", []))
    most, restarts = group.get("max_deliver", 0), group.get("restarts", 0)
    acked, worked, late = {}, {}, set()
    for journal in group["journals"]:
        db = sqlite3.connect(os.path.join(folder, journal))
        for seq, event, deliveries, verdict, at, life in db.execute("SELECT seq, id, deliveries, verdict, at, life FROM work"):
            worked.setdefault(seq, []).append((at, event, deliveries, verdict, journal))
            if verdict == "ack":
                acked.setdefault(seq, []).append(at)
        for seq, at in db.execute("SELECT seq, at FROM late"):
            late.add(seq)
            report.count("late verdicts")
        db.close()
    by_seq = {row[0]: row for row in log}
    for seq, rows in worked.items():
        if seq not in by_seq:
            report.wrong("phantom", "%s worked on number %d, which is not in the log" % (group["name"], seq))
            continue
        if not filters.match(by_seq[seq][2]):
            report.wrong("foreign", "%s was given number %d, %s" % (group["name"], seq, by_seq[seq][2]))
        for _, event, deliveries, _, _ in rows:
            if event != by_seq[seq][4]:
                report.wrong("served", "%s was given %s as number %d" % (group["name"], event, seq))
            # A count may be one too low after a sudden death of the bus.
            if most and deliveries > most + (restarts > 0):
                report.wrong("deliveries", "%s: number %d came as delivery %d of at most %d" % (group["name"], seq, deliveries, most))
        if most and len(rows) > most * (1 + group.get("retries", 0)) + restarts:
            report.wrong("deliveries", "%s: number %d was delivered %d times" % (group["name"], seq, len(rows)))
        if len(rows) > 1:
            report.count("worked on again", len(rows) - 1)
        if group.get("strict") and len(acked.get(seq, [])) > 1 + (seq in late):
            report.wrong("twice", "%s: number %d was settled %d times" % (group["name"], seq, len(acked[seq])))
    if run.get("complete", True):
        for seq, _, topic, _, event in log:
            if filters.match(topic) and seq not in acked and seq not in parked:
                report.wrong("skipped", "%s: number %d (%s) was neither settled nor parked" % (group["name"], seq, event))
    for seq in parked:
        if seq not in by_seq or not filters.match(by_seq[seq][2]):
            report.wrong("phantom", "%s: number %d is parked, and is none of its events" % (group["name"], seq))
        elif most and group.get("parks_only_refused") and len(worked.get(seq, [])) < most:
            report.wrong("deliveries", "%s: number %d was parked after %d deliveries" % (group["name"], seq, len(worked.get(seq, []))))
    report.count("settled", len(acked))
    report.count("parked", len(parked))


def check_team(run, folder, team, log, report):
    filters, done = Filters(team["filters"]), {}
    for journal in team["journals"]:
        db = sqlite3.connect(os.path.join(folder, journal))
        seen = set()
        for seq, event in db.execute("SELECT seq, id FROM effects"):
            if seq in seen:
                report.wrong("twice", "%s: number %d took effect twice in %s" % (team["name"], seq, journal))
            seen.add(seq)
            done[seq] = event
        expected = None
        for kind, a, b in db.execute("SELECT kind, a, b FROM ranges ORDER BY rowid"):
            if kind == "events" and a != expected:
                report.wrong("skipped", "%s in %s got %d to %d, and expected %s" % (team["name"], journal, a, b, expected))
            expected = a if kind.startswith("start") else b + 1 if kind == "events" else None
        db.close()
    settled = run.get("settled", log[-1][0] if log else 0)
    for seq, _, topic, _, event in log:
        if seq <= settled and filters.match(topic) and done.get(seq) != event:
            report.wrong("skipped", "%s: number %d (%s) was processed by nobody" % (team["name"], seq, event))
    report.count("effects", len(done))


def check_calls(folder, calls, report):
    executed = set()
    for journal in calls["servers"]:
        db = sqlite3.connect(os.path.join(folder, journal))
        executed |= {key for (key,) in db.execute("SELECT key FROM calls")}
        db.close()
    asked = set()
    for journal in calls["callers"]:
        db = sqlite3.connect(os.path.join(folder, journal))
        for key, status, right in db.execute("SELECT key, status, right FROM calls"):
            asked.add(key)
            report.count("calls answered %d" % status)
            if status == 200 and key not in executed:
                report.wrong("reply", "call %s was answered, but never executed" % key)
            if not right:
                report.wrong("reply", "call %s got another's reply" % key)
        db.close()


def check(path):
    """The report on RUN.json."""
    folder, report = os.path.dirname(os.path.abspath(path)), Report()
    with open(path) as file:
        run = json.load(file)
    log = load_log(run, folder, report)
    check_publishers(run, folder, log, report)
    for consumer in run.get("consumers", []):
        check_consumer(run, folder, consumer, log, report)
    for group in run.get("groups", []):
        check_group(run, folder, group, log, report)
    for team in run.get("teams", []):
        check_team(run, folder, team, log, report)
    for calls in run.get("calls", []):
        check_calls(folder, calls, report)
    return report


# -- the checker's own test

class History:
    """A small good run in a directory."""

    def __init__(self, folder):
        self.folder = folder
        self.log, self.events = [], []
        for n in range(1, 61):
            seq = len(self.log) + 1
            name = "p0.%d.x" % n
            self.log.append([seq, 1000 + n // 4, "t.a" if n % 3 else "t.b", "p0", name])
            self.events.append([n, name, "t.a" if n % 3 else "t.b", "acked", 0, seq if n % 2 else None])
        self.events.append([61, "p0.61.x", "t.b", "refused", 403, None])
        self.events.append([62, "p0.62.x", "t.b", "acked", 208, None])
        self.log.append([61, 2000, "t.b", "p0", "p0.62.x"])
        wanted = [row for row in self.log if row[2] == "t.a"]
        self.effects = [[row[0], row[4], row[3], row[2]] for row in wanted]
        self.ranges = [["start own", 1, 1], ["events", 1, 20], ["events", 21, 30], ["start own", 31, 31], ["events", 31, 61]]
        self.team_ranges = [["start bus", 1, 1], ["events", 1, 29], ["fenced", 0, 0]]
        self.next = 62
        self.work = [[row[0], row[4], 1, "ack", row[0], "l"] for row in wanted if row[0] != 4]
        self.work += [[4, self.log[3][4], d, "nak", d, "l"] for d in (1, 2, 3)]
        self.parked, self.late = [4], []
        self.calls, self.served = [["k1", 200, 1], ["k2", 503, 1]], [["k1", "a"]]
        self.segment_edit = None
        self.segment_log = None

    def write(self):
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        os.mkdir(os.path.join(self.folder, "segments"))
        tables = {
            "log.sqlite": [("log(seq, time, topic, producer, id)", self.log)],
            "t0.sqlite": [("effects(seq, id, producer, topic)", self.effects[:20]), ("ranges(kind, a, b)", self.team_ranges)],
            "t1.sqlite": [("effects(seq, id, producer, topic)", self.effects[15:]), ("ranges(kind, a, b)", [])],
            "p0.sqlite": [("events(n, id, topic, state, status, seq)", self.events)],
            "c0.sqlite": [("effects(seq, id, producer, topic)", self.effects), ("ranges(kind, a, b)", self.ranges),
                          ("position(stream, next)", [["s", self.next]])],
            "w0.sqlite": [("work(seq, id, deliveries, verdict, at, life)", self.work), ("late(seq, at)", self.late)],
            "a.sqlite": [("calls(key, status, right)", self.calls)], "s.sqlite": [("calls(key, caller)", self.served)],
        }
        for name, contents in tables.items():
            db = sqlite3.connect(os.path.join(self.folder, name))
            for table, rows in contents:
                db.execute("CREATE TABLE " + table)
                if rows:
                    db.executemany("INSERT INTO %s VALUES (%s)" % (table.split("(")[0], ",".join("?" * len(rows[0]))), rows)
            db.commit()
            db.close()
        self.write_segments()
        run = {"log": "log.sqlite", "segments": "segments", "complete": True, "last": 61,
               "publishers": [{"name": "p0", "producer": "p0", "journal": "p0.sqlite"}],
               "consumers": [{"name": "c0", "journal": "c0.sqlite", "filters": ["t.a"], "from": "first"}],
               "groups": [{"name": "g", "filters": ["t.a"], "journals": ["w0.sqlite"], "parked": self.parked, "max_deliver": 3,
                           "parks_only_refused": True, "strict": True}],
               "teams": [{"name": "t", "filters": ["t.a"], "journals": ["t0.sqlite", "t1.sqlite"]}],
               "calls": [{"callers": ["a.sqlite"], "servers": ["s.sqlite"]}]}
        path = os.path.join(self.folder, "run.json")
        with open(path, "w") as file:
            json.dump(run, file)
        return path

    def write_segments(self):
        rows, chain = self.segment_log or self.log, bytes(32)
        for part in (rows[:30], rows[30:]):
            first = part[0][0]
            head = b"SLIPWLOG" + struct.pack(">II", 1, 0) + b"s" * 16 + struct.pack(">QQ", first, 1) + chain + bytes(12)
            data = head + struct.pack(">I", crc32c(head))
            for at in range(0, len(part), 7):
                start = b""
                batch = part[at:at + 7]
                for index, row in enumerate(batch):
                    start += self.record(row[0], row[1], 1, index == 0, row[2], row[3], row[4], b"{}")
                chain = hashlib.sha256(chain + start).digest()
                data += start + self.record(batch[-1][0], batch[-1][1], BATCH_MARK, False, "", "bus", "", chain + bytes(2))
            path = os.path.join(self.folder, "segments", "%020d.log" % first)
            data = bytearray(data + bytes(4096))
            if self.segment_edit:
                self.segment_edit(first, data)
            with open(path, "wb") as file:
                file.write(data)

    @staticmethod
    def record(seq, nanos, kind, starts, topic, producer, name, payload):
        texts = (topic + producer + name).encode() + payload
        rest = struct.pack(">QQBBHHH", seq, nanos, kind, int(starts), len(topic), len(producer), len(name)) + texts
        return (struct.pack(">II", len(rest), crc32c(rest)) + rest + bytes(8))[:(8 + len(rest) + 7) & ~7]


def breakages():
    """(kind that must be found, what to do to a good history)."""
    def cut(rows, at):
        del rows[at]

    def set_at(rows, at, column, value):
        rows[at][column] = value

    def drop_event(h, at):
        # Lost from the log and renumbered, as a log that was shortened and written on would look.
        lost = h.log.pop(at)
        for row in h.log[at:]:
            row[0] -= 1
        return lost

    def flip(first, data, at):
        if first == 1:
            data[at] ^= 1

    yield "lost", lambda h, r: (cut(h.log, 60), setattr(h, "next", 61), h.ranges.__setitem__(4, ["events", 31, 60]))
    yield "lost", lambda h, r: drop_event(h, r.randrange(5, 55))
    yield "gap", lambda h, r: cut(h.log, r.randrange(5, 55))
    yield "gap", lambda h, r: cut(h.log, 0)
    yield "gap", lambda h, r: cut(h.log, 60)
    yield "duplicate", lambda h, r: set_at(h.log, 40, 4, h.log[20][4])
    yield "phantom", lambda h, r: set_at(h.log, 60, 4, "p0.99.x")
    yield "phantom", lambda h, r: set_at(h.log, r.randrange(60), 3, "p1")
    yield "phantom", lambda h, r: set_at(h.events, 11, 2, "t.zzz")
    yield "order", lambda h, r: (set_at(h.log, 20, 4, h.log[21][4]), set_at(h.log, 21, 4, "p0.21.x"))
    yield "number", lambda h, r: set_at(h.events, 8, 5, 10)
    yield "refused", lambda h, r: set_at(h.events, 30, 3, "refused")
    yield "undecided", lambda h, r: set_at(h.events, 30, 3, "sent")
    yield "time", lambda h, r: set_at(h.log, r.randrange(20, 50), 1, 1)
    yield "skipped", lambda h, r: cut(h.effects, r.randrange(len(h.effects)))
    yield "skipped", lambda h, r: cut(h.ranges, 2)
    yield "skipped", lambda h, r: h.ranges.__setitem__(3, ["start own", 33, 31])
    yield "skipped", lambda h, r: h.ranges.__setitem__(3, ["start bus", 33, 31])
    yield "skipped", lambda h, r: h.ranges.__setitem__(0, ["start own", 2, 1])
    yield "skipped", lambda h, r: setattr(h, "next", 50)
    yield "backwards", lambda h, r: h.ranges.__setitem__(3, ["start own", 20, 31])
    yield "backwards", lambda h, r: h.ranges.insert(2, ["events", 1, 20])
    yield "lost consumer", lambda h, r: h.ranges.insert(3, ["lost 409", 31, 1])
    yield "twice", lambda h, r: h.effects.append(list(h.effects[r.randrange(len(h.effects))]))
    yield "foreign", lambda h, r: h.effects.append([3, "p0.3.x", "p0", "t.b"])
    yield "served", lambda h, r: set_at(h.effects, r.randrange(len(h.effects)), 1, "p0.0.x")
    yield "skipped", lambda h, r: cut(h.work, r.randrange(30))
    yield "skipped", lambda h, r: set_at(h.work, r.randrange(30), 3, "nak")
    yield "twice", lambda h, r: h.work.append(list(h.work[3]))
    yield "deliveries", lambda h, r: set_at(h.work, 2, 2, 4)
    yield "deliveries", lambda h, r: cut(h.work, len(h.work) - 1)
    yield "foreign", lambda h, r: h.work.append([3, "p0.3.x", 1, "ack", 9, "l"])
    yield "phantom", lambda h, r: h.parked.append(3)
    yield "skipped", lambda h, r: h.team_ranges.append(["events", 30, 40])
    yield "reply", lambda h, r: h.served.clear()
    yield "reply", lambda h, r: set_at(h.calls, 0, 2, 0)
    yield "segment", lambda h, r: setattr(h, "segment_edit", lambda first, data: flip(first, data, 300))
    yield "segment", lambda h, r: setattr(h, "segment_edit", lambda first, data: flip(first, data, 20))
    yield "chain", lambda h, r: setattr(h, "segment_edit", lambda first, data: reseal(first, data))
    yield "served", lambda h, r: setattr(h, "segment_log", [row[:4] + ["p0.0.y"] if row[0] == 33 else row for row in h.log])
    yield "served", lambda h, r: setattr(h, "segment_log", h.log[:50])


def reseal(first, data):
    """Changes a payload and makes its CRC right again: only the hash chain tells."""
    if first != 1:
        return
    (length,) = struct.unpack_from(">I", data, 96)
    data[96 + 8 + length - 1] ^= 1
    struct.pack_into(">I", data, 100, crc32c(bytes(data[104:104 + length])))


def self_test(seed):
    folder, failures, tried = tempfile.mkdtemp(prefix="slipway-checker-"), 0, 0
    try:
        good = check(History(folder).write())
        if good.violations:
            print("a good history is refused: %s" % good.violations)
            failures += 1
        for kind, change in breakages():
            tried += 1
            history = History(folder)
            change(history, random.Random(seed * 1000 + tried))
            report = check(history.write())
            if kind not in report.kinds:
                print("breakage %d, %r, was not found; found: %s" % (tried, kind, report.violations or "nothing"))
                failures += 1
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"ok": not failures, "broken_histories": tried, "failures": failures, "seed": seed}))
    return failures == 0


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--self-test":
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
        sys.exit(0 if self_test(seed) else 1)
    report = check(sys.argv[1])
    print(json.dumps(report.as_json(), indent=1))
    sys.exit(0 if not report.violations else 1)


if __name__ == "__main__":
    main()
