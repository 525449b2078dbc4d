"""From single results to ratios, and to docs/benchmarks.md."""

import datetime
import os
import re
import statistics
import subprocess

from rows import Note, ROWS

MARK = "## Where the time goes"


def values(results, case, key):
    """Round to value."""
    return {one["round"]: one[key] for one in results if one["case"] == case and one.get(key) is not None}


def failure(results, row, kind):
    """Why a row was not measured."""
    for part in filter(None, (row.value, row.over)):
        case, _ = row.of(kind, part)
        for one in results:
            if one["case"] == case and "failed" in one:
                return one["failed"]
    return "not run"


def outcome(results, row, kind):
    """(median, best, least and greatest) of a row: of the ratios inside rounds, and the ratio of the best runs."""
    best = max if row.more else min
    upper = values(results, *row.of(kind, row.value))
    if row.over is None:
        found = list(upper.values())
        return (statistics.median(found), best(found), min(found), max(found)) if found else None
    lower = values(results, *row.of(kind, row.over))
    ratios = [upper[number] / lower[number] for number in upper if lower.get(number)]
    if not ratios:
        return None
    return statistics.median(ratios), best(upper.values()) / best(lower.values()), min(ratios), max(ratios)


def reaches(row, value, target):
    return value >= target if row.more else value <= target


def level(row, measured):
    """2: aim, 1: must, 0: neither; the median and the best run must agree."""
    return min(2 if reaches(row, value, row.aim) else 1 if reaches(row, value, row.must) else 0 for value in measured[:2])


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(row, measured):
    if measured is None:
        return "not measured"
    return f"**{number(measured[0])}**{row.unit} ({number(measured[2])}–{number(measured[3])}; best {number(measured[1])})"


def judged(results, row):
    """What the verdict goes by: in the clear, as the peers; with CURVE where that is asked or nothing else was measured."""
    for kind in row.kinds:
        measured = outcome(results, row, kind)
        if measured:
            return kind, measured
    return None, None


WORDS = {2: "aim", 1: "must", 0: "**missed**"}


def table(results, only=()):
    lines = ["| # | quantity | prototype | must | aim | in the clear | with CURVE, as shipped | reached |", "|---|---|---|---|---|---|---|---|"]
    for row in ROWS:
        if only and row.number.rstrip("abc") not in only:
            continue
        if isinstance(row, Note):
            lines.append(f"| {row.number} | {row.what} | {row.prototype} | {row.must} | {row.aim} | {row.text} | | |")
            continue
        sign = "≥" if row.more else "≤"
        cells = [cell(row, outcome(results, row, kind)) if kind in row.kinds else "" for kind in ("plain", "curve")]
        kind, measured = judged(results, row)
        word = WORDS[level(row, measured)] if measured else ""
        if measured and kind == "curve" and "plain" in row.kinds:
            word += " (ours with CURVE, the peers in the clear)" if not row.over_curve else " (both with CURVE)"
        lines.append(f"| {row.number} | {row.what} | {row.prototype} | {sign} {row.must:g}{row.unit} | {sign} {row.aim:g}{row.unit} "
                     f"| {cells[0]} | {cells[1]} | {word} |")
    return "\n".join(lines)


def misses(results):
    lines = []
    for row in ROWS:
        if isinstance(row, Note):
            continue
        _, measured = judged(results, row)
        if measured is None:
            lines.append(f"* **{row.number}** ({row.what}): not measured: {failure(results, row, row.kinds[0])}")
            continue
        if level(row, measured) == 2:
            continue
        target, word = (row.must, "must") if level(row, measured) == 0 else (row.aim, "aim")
        lines.append(f"* **{row.number}** ({row.what}): misses its *{word}* of {target:g}{row.unit}: median {number(measured[0])}{row.unit}, "
                     f"best {number(measured[1])}{row.unit}.")
    return "\n".join(lines) or "None: every row reaches its aim."


def absolute(results):
    def pair(case, key, best):
        found = list(values(results, case, key).values())
        return f"{statistics.median(found):,.0f} / {best(found):,.0f}" if found else ""

    lines = ["| measured | runs | events/s | ack p50 µs | ack p99 µs | end-to-end p50 µs | deliveries/s | server's processor time, µs an event | other load, cores |",
             "|---|---|---|---|---|---|---|---|---|"]
    for case in dict.fromkeys(one["case"] for one in results):
        runs = [one for one in results if one["case"] == case and "failed" not in one]
        if not runs or not ({"thr", "p50", "deliv"} & runs[0].keys()):
            continue
        cpu = list(values(results, case, "cpu").values())
        name = {"plain": "bus, in the clear", "curve": "bus, CURVE"}.get(case.split(":")[0])
        name = f"{name}: {case.split(':bus ')[1]}" if name else case
        lines.append(f"| {name} | {len(runs)} | {pair(case, 'thr', max)} | {pair(case, 'p50', min)} | {pair(case, 'p99', min)} "
                     f"| {pair(case, 'e2e_p50', min)} | {pair(case, 'deliv', max)} | {f'{statistics.median(cpu):.1f}' if cpu else ''} "
                     f"| {statistics.median(one['others'] for one in runs):.1f} |")
    others = []
    for case, words in (("curve:bus planned restart", {"stopping": "ms from SIGTERM to the end of the process"}),
                        ("curve:bus start", {"after_stop": "s to start after an orderly stop", "cold": "s to start after kill -9 with no file in the page cache"})):
        for key, what in words.items():
            found = list(values(results, case, key).values())
            if found:
                others.append(f"{number(statistics.median(found))} {what}")
    return "\n".join(lines) + ("\n\nBesides: " + "; ".join(others) + "." if others else "")


def said(*command, pattern=r"\d+\.\d+[\d.]*"):
    """The version in what a program says of itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return "absent"
    found = re.search(pattern, done.stdout + done.stderr)
    return found[0] if found else "absent"


def about(root, arguments):
    """The machine and the versions, found before the measuring."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal:\s*(\d+)", file.read())[1]) / 2**20
    mount = subprocess.run(["findmnt", "-no", "FSTYPE,SOURCE", "-T", arguments.work], capture_output=True, text=True, check=False).stdout.split()
    package = lambda name: said("dpkg-query", "-W", "-f=${Version}", name)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": said("git", "-C", root, "rev-parse", "--short", "HEAD", pattern=r"\w+"),
        "machine": f"{os.cpu_count()} cores ({model[1].strip() if model else os.uname().machine}), {memory:.0f} GiB of memory, Linux {os.uname().release}, "
                   f"{mount[0] if mount else 'unknown file system'}",
        "versions": f"libzmq {package('libzmq5')}, NATS server {package('nats-server')}, Redis {package('redis-server')}, "
                    f"RabbitMQ {package('rabbitmq-server')}, Swift {said('swift', '--version', pattern=r'(?<=Swift version )[0-9.]+')}",
        "rounds": arguments.rounds, "log_gib": arguments.log_gib, "scale": arguments.scale,
    }


PAGE = """# Benchmarks of the bus

`make bench-bus` measures what follows and writes this page, except for the last section. {date}, commit {commit}.

**Machine**: {machine}. {versions}.

**Method**: {rounds} rounds; each measures everything once, one after the other, so that what is compared lies close together. A ratio is taken inside a
round. The table shows the median of the rounds (least–greatest; ratio of the best runs). A target counts as reached when both the median and the best
reach it. 256 bytes of payload (ours: a CloudEvent), one publisher, one subscriber unless said otherwise, everything on one machine over loopback, every server
with its data on the same disk and asleep (SIGSTOP) while another one is measured. Our bus: release build, with everything on that it has (permissions, dedupe, credit,
cursors, hash chain), listening sockets inherited, driven by `Tests/Benchmarks/ebload.c`. Subscribers check every record's CRC and that ranges have no gap. *In the clear*
is the same bus without CURVE, a program that exists for this measurement and is not shipped; the peers are always in the clear. w1024: 1024 events
unacknowledged; w1: one. x8: eight subscribers. JetStream *default* acknowledges what is in the page cache; *synchronous* is its store in a directory where each write reaches the device (`chattr +S`),
as its version in Debian has no such setting. The prototype's column is from the design, measured earlier; row 5 measures it anew beside us.

## Targets and what was measured

{table}

## Missed

{misses}

## Single figures

Median / best run.

{absolute}

"""


def write(path, kept):
    """The page; what stands under the last heading is written by people, and kept."""
    by_hand = f"{MARK}\n\nTo be written.\n"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if MARK in text:
            by_hand = text[text.index(MARK):]
    results = kept["results"]
    text = PAGE.format(table=table(results), misses=misses(results), absolute=absolute(results), **kept["about"])
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + by_hand)
