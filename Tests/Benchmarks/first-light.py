#!/usr/bin/env python3
"""Measures first light: a suite of its own in a temporary home, on loopback, with the sample app.

  start   slipway up to ready: it has returned, and all eight components answer /ready with 200
  push    git push to the first answer of the new version through the ingress, for an app without a build; beside it the
          app's own start, measured outside Slipway, so that the difference is the platform's share
  memory  PSS of the eight components when nothing happens (smaps_rollup; shared pages are divided among their users)

Medians of --rounds (5). Prints a table, or JSON with --json. Standard library only; needs git, and HAProxy for the push.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE = os.path.join(ROOT, "Tests", "Fixtures", "apps", "hello")
COMPONENTS = ["api", "bus", "deployer", "discovery", "git", "registry", "scheduler", "supervisor"]


def free_base():
    """A port base whose ports are all free at this moment."""
    for base in range(21000, 29000, 500):
        try:
            for port in [*range(base, base + 11), base + 53, base + 80]:
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    sys.exit("first-light: no free range of ports between 21000 and 29000")


def get(port, path, host=None, timeout=2.0):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return time.monotonic()
        time.sleep(0.002)
    raise SystemExit(f"first-light: {what} did not happen within {seconds} s")


class Suite:
    def __init__(self, binaries):
        self.slipway = os.path.join(binaries, "slipway")
        if not os.access(self.slipway, os.X_OK):
            sys.exit(f"first-light: {self.slipway} is not there; build first: make build, or swift build -c release")
        self.directory = tempfile.mkdtemp(prefix="slipway-bench-", dir="/tmp")
        # Apps run as users of their own, who must be able to pass through.
        os.chmod(self.directory, 0o755)
        self.home = os.path.join(self.directory, "home")
        self.base = free_base()
        self.environment = {
            **os.environ, "SLIPWAY_HOME": self.home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost", "GIT_COMMITTER_NAME": "bench",
            "GIT_COMMITTER_EMAIL": "bench@localhost", "SWIFT_BACKTRACE": "enable=no",
        }

    def command(self, *arguments, cwd=None, seconds=120):
        done = subprocess.run(
            list(arguments), cwd=cwd, env=self.environment, timeout=seconds, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"first-light: {' '.join(arguments)} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def up(self):
        """Seconds until `up` has returned, and until all eight are ready."""
        began = time.monotonic()
        self.command(self.slipway, "up", "--detach", "--home", self.home, "--port-base", str(self.base))
        returned = time.monotonic()
        ready = until(lambda: all(get(self.base + n, "/ready")[0] == 200 for n in range(8)), 60, "all eight ready")
        return returned - began, ready - began

    def down(self):
        self.command(self.slipway, "down", "--home", self.home, seconds=60)

    def processes(self):
        """Component name to pid, for the processes of this home."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = self.home in words or f"SLIPWAY_HOME={self.home}".encode() in file.read().split(b"\0")
            except OSError:
                continue
            match = re.fullmatch(r"slipway-([a-z]+)", os.path.basename(words[0]))
            if match and ours and match[1] in COMPONENTS:
                found[match[1]] = int(pid)
        return found

    def memory(self):
        """PSS of each component in MiB."""
        result = {}
        for name, pid in self.processes().items():
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                result[name] = next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024
        return result

    def close(self):
        try:
            self.down()
        except (SystemExit, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr)
        shutil.rmtree(self.directory, ignore_errors=True)


def app_start():
    """Seconds from exec of the sample app to its first answer, without Slipway."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    began = time.monotonic()
    process = subprocess.Popen(
        ["/usr/bin/python3", os.path.join(SAMPLE, "app.py")], env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL)
    try:
        return until(lambda: get(port, "/")[0] == 200, 20, "the app's own start") - began
    finally:
        process.terminate()
        process.wait(10)


def push_rounds(suite, rounds):
    """For each round: seconds until the new version answers, and until `git push` has returned."""
    copy = os.path.join(suite.directory, "hello")
    shutil.copytree(SAMPLE, copy)
    suite.command("git", "init", "-q", "-b", "main", cwd=copy)
    suite.command(suite.slipway, "app", "create", "hello", "--home", suite.home, cwd=copy)
    results = []
    for number in range(rounds + 1):  # the first makes the app; it is not counted
        version = f"bench-{number}"
        with open(os.path.join(copy, "VERSION"), "w", encoding="utf-8") as file:
            file.write(version + "\n")
        suite.command("git", "add", "-A", cwd=copy)
        suite.command("git", "commit", "-q", "-m", version, cwd=copy)
        expected = f"hello {version}\n".encode()
        began = time.monotonic()
        push = subprocess.Popen(
            ["git", "push", "slipway", "main"], cwd=copy, env=suite.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        try:
            live = until(lambda: get(suite.base + 80, "/", host="hello.localhost")[1] == expected, 90, f"{version} answering")
            output, _ = push.communicate(timeout=60)
        except BaseException:
            push.kill()
            print(push.communicate()[0][-2000:], file=sys.stderr)
            raise
        ended = time.monotonic()
        if push.returncode:
            raise SystemExit(f"first-light: git push failed:\n{output[-2000:]}")
        if number:
            results.append((live - began, ended - began))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(ROOT, ".build", "debug"), help="directory of the programs (default: .build/debug)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=10, help="seconds to rest before memory is read")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    binaries = os.path.abspath(arguments.bin)

    starts = []
    for _ in range(arguments.rounds):
        suite = Suite(binaries)
        try:
            starts.append(suite.up())
        finally:
            suite.close()
    suite = Suite(binaries)
    try:
        suite.up()
        time.sleep(arguments.idle)
        memory = suite.memory()
        own = [app_start() for _ in range(arguments.rounds)]
        pushes = push_rounds(suite, arguments.rounds)
    finally:
        suite.close()

    median = statistics.median
    result = {
        "up_returned_s": median(a for a, _ in starts),
        "up_ready_s": median(b for _, b in starts),
        "push_to_live_s": median(a for a, _ in pushes),
        "push_returned_s": median(b for _, b in pushes),
        "app_start_s": median(own),
        "platform_share_s": median(a for a, _ in pushes) - median(own),
        "idle_pss_mib": sum(memory.values()),
        "idle_pss_by_component_mib": {name: round(memory[name], 1) for name in sorted(memory)},
        "components_found": len(memory),
        "rounds": arguments.rounds,
        "spread": {"up_ready_s": [b for _, b in starts], "push_to_live_s": [a for a, _ in pushes], "app_start_s": own},
        "load": os.getloadavg()[0],
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    print(f"programs               {binaries}")
    print(f"slipway up             {result['up_returned_s']:.2f} s until it returns, {result['up_ready_s']:.2f} s until all eight are ready")
    print(f"git push to live       {result['push_to_live_s']:.2f} s; git push returns after {result['push_returned_s']:.2f} s")
    print(f"  the app's own start  {result['app_start_s']:.2f} s, so the platform's share is {result['platform_share_s']:.2f} s")
    print(f"idle memory (PSS)      {result['idle_pss_mib']:.0f} MiB in {len(memory)} components: "
          + ", ".join(f"{name} {memory[name]:.0f}" for name in sorted(memory)))
    print(f"medians of {arguments.rounds}; load average {result['load']:.1f}")


if __name__ == "__main__":
    main()
