#!/usr/bin/env python3
"""Measures slipway-supervisor beside supervisord, runit and s6, and writes docs/benchmarks-supervisor.md.

usage: supervisor.py --bin DIR [--rounds 5] [--peers ../shared/bench/supervisor-discovery] [--page FILE]
The measurements are those of sup_bench.py in --peers; this script runs it and compares."""
import argparse
import collections
import datetime
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Title, metric, whether more is better, ratio to supervisord that fails, ratio that is aimed at.
ROWS = [
    ("a killed child to its successor's first instruction", "crash_to_new_child_main", False, 0.03, 0.01),
    ("100 programs: start to the last one's first instruction", "exec_to_last_child_main_n100", False, 0.6, 0.3),
    ("1000 programs: the same", "exec_to_last_child_main_n1000", False, 0.3, 0.15),
    ("getAllProcessInfo, 1 program", "getAllProcessInfo_n1", True, 2, 5),
    ("getAllProcessInfo, 100 programs", "getAllProcessInfo_n100", True, 15, 40),
    ("getAllProcessInfo, 1000 programs", "getAllProcessInfo_n1000_many", True, 100, 400),
    ("resident memory, no program", "rss_no_programs", False, 0.9, 0.5),
    ("resident memory, 1000 programs", "rss_n1000", False, 1.2, 0.8),
    ("log capture, 100 B a write", "log_100B_writes", True, 0.9, 1.2),
    ("log capture, 8 KiB a write", "log_8192B_writes", True, 0.7, 1.0),
    ("its processor time, 8 KiB a write", "log_8192B_writes_cpu", False, 1.0, 0.5),
    ("shutdown of 1000", "shutdown_n1000", False, 0.3, 0.1),
    ("tail -f, line written to line seen, median", "tail_f_line_delay_median", False, None, 1.0),
]


def measure(arguments):
    command = [
        sys.executable, os.path.join(arguments.peers, "sup_bench.py"), "--rounds", str(arguments.rounds), "--what", arguments.what,
        "--impl", "supervisord=supervisord -n -c {conf}", "--impl", f"ours={os.path.join(arguments.bin, 'slipway-supervisord')} -n -c {{conf}}",
    ]
    samples = collections.defaultdict(list)
    units = {}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=os.environ.get("TMPDIR", "/tmp"))
    for line in run.stdout:
        if not line.startswith("{"):
            continue
        sample = json.loads(line)
        samples[sample["metric"], sample["impl"]].append(sample["value"])
        units[sample["metric"]] = sample["unit"]
        print(line, end="", flush=True)
    if run.wait() != 0:
        sys.exit(f"sup_bench.py ended with {run.returncode}")
    return samples, units


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def page(samples, units, rounds):
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Benchmarks of the supervisor, standing in for supervisord", "",
        f"`make bench-supervisor` measures what follows and writes this page. {datetime.date.today()}, commit {commit}, {rounds} rounds, interleaved;",
        f"{os.cpu_count()} cores, release build. Medians (least to greatest); the ratio is ours to supervisord's 4.2.5. *fail* is the ratio that must be kept, *aim* the one",
        "we want. The client is Python's, whose own time is in what is asked over XML-RPC.", "",
        "| | unit | ours | supervisord | runit | s6 | ratio | fail | aim | reached |", "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, metric, more, fail, aim in ROWS:
        def cell(name):
            values = samples.get((metric, name))
            return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})" if values else "–"

        ours, real = samples.get((metric, "ours")), samples.get((metric, "supervisord"))
        if not ours or not real:
            continue
        ratio = statistics.median(ours) / statistics.median(real) if statistics.median(real) else float("nan")

        def good(limit):
            return ratio >= limit if more else ratio <= limit

        kept = good(fail) if fail is not None else statistics.median(ours) <= 5
        reached = "aim" if kept and good(aim) else "must" if kept else "**missed**"
        lines.append(
            f"| {title} | {units[metric]} | {cell('ours')} | {cell('supervisord')} | {cell('runit')} | {cell('s6')} | {ratio:.3g} | "
            f"{'5 ms' if fail is None else fail} | {aim} | {reached} |")
    rest = sorted({metric for metric, _ in samples} - {row[1] for row in ROWS})
    lines += ["", "Besides:", "", "| metric | unit | ours | supervisord | runit | s6 |", "|---|---|---|---|---|---|"]
    for metric in rest:
        values = [samples.get((metric, name)) for name in ("ours", "supervisord", "runit", "s6")]
        lines.append(f"| {metric} | {units[metric]} | " + " | ".join(number(statistics.median(v)) if v else "–" for v in values) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, ".build-release", "release"))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "5")))
    parser.add_argument("--what", default=os.environ.get("WHAT", "idle,start,crash,tail,rpc,log,many"))
    parser.add_argument("--peers", default=os.path.join(os.environ.get("SLIPWAY_BENCH") or os.path.join(os.path.dirname(ROOT), "shared", "bench"), "supervisor-discovery"))
    parser.add_argument("--page", default=os.path.join(ROOT, "docs", "benchmarks-supervisor.md"))
    arguments = parser.parse_args()
    arguments.bin, arguments.peers, arguments.page = map(os.path.abspath, (arguments.bin, arguments.peers, arguments.page))
    if not os.path.exists(os.path.join(arguments.peers, "sup_bench.py")):
        sys.exit(f"sup_bench.py is not in {arguments.peers}: say where it is with --peers")
    samples, units = measure(arguments)
    text = page(samples, units, arguments.rounds)
    with open(arguments.page, "w") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
