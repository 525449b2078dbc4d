"""Tries what a pushed program must not be able to do, and tells how often it could. Bounded, and only on this machine.

Everything is tried with the same right that the harm would need, and stops before harm is done: signal 0 instead of 9, a
file opened for writing but not written.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TRIED = {}
SUCCEEDED = []


def attempt(kind, name, action):
    """Counts an attempt; it succeeded when `action` returns without an error and not False."""
    TRIED[kind] = TRIED.get(kind, 0) + 1
    try:
        if action() is False:
            return
    except Exception:
        return
    SUCCEEDED.append(f"{kind}: {name}")


def opens(path, flags):
    os.close(os.open(path, flags))


def put(path, data):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def strangers():
    """Every process of another user."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat("/proc/" + entry).st_uid != os.getuid():
                    yield int(entry)
            except OSError:
                pass


def asks(port, path, token):
    """Whether a component answers that request with anything but a refusal."""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        credentials = f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{credentials}\r\n".encode())
        return connection.recv(64).split(b" ")[1][:1] in (b"2", b"3")


def hold(port):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)


def fork_many(count):
    """Whether that many children of ours can live at the same time."""
    children = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            children.append(child)
        return True
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def leave_daemon(marker):
    """A process in a session of its own whose parent is gone; the test looks for it afterwards."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.execvp("sleep", ["sleep", marker])
        os._exit(0)
    os.waitpid(child, 0)


def mount_something():
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0


def everything(targets):
    for path in targets["files"]:
        attempt("read", path, lambda: opens(path, os.O_RDONLY))
        attempt("write", path, lambda: opens(path, os.O_WRONLY))
    for path in targets["directories"]:
        attempt("list", path, lambda: os.listdir(path))
        attempt("create", path, lambda: opens(os.path.join(path, "hostile"), os.O_CREAT | os.O_WRONLY))
    for pid in strangers():
        attempt("environ", pid, lambda: opens(f"/proc/{pid}/environ", os.O_RDONLY))
        attempt("memory", pid, lambda: opens(f"/proc/{pid}/mem", os.O_RDWR))
        attempt("descriptors", pid, lambda: os.listdir(f"/proc/{pid}/fd"))
        attempt("signal", pid, lambda: os.kill(pid, 0))
    for port, path in targets["questions"]:
        attempt("ask", f"{port}{path}", lambda: asks(port, path, None))
        attempt("ask with a made-up token", f"{port}{path}", lambda: asks(port, path, "slp_" + "0" * 49))
    for port in targets["ports"] + [80, 443]:
        attempt("bind", port, lambda: hold(port))
    for path in ("/etc/shadow", "/root", "/var/run/docker.sock", "/proc/1/environ", "/proc/kcore", "/dev/mem"):
        attempt("host", path, lambda: opens(path, os.O_RDONLY) if not path.endswith("sock") else opens(path, os.O_RDWR))
    attempt("host", "/etc/passwd for writing", lambda: opens("/etc/passwd", os.O_WRONLY))
    attempt("privilege", "setuid(0)", lambda: os.setuid(0))
    attempt("privilege", "setgroups", lambda: os.setgroups([0]))
    attempt("privilege", "mount", mount_something)
    attempt("privilege", "chroot", lambda: os.chroot("/tmp"))
    attempt("privilege", "nice -20", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))
    attempt("privilege", "oom_score_adj", lambda: put("/proc/self/oom_score_adj", b"-1000"))
    for tree in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"):
        attempt("cgroup", tree, lambda: opens(tree + "/cgroup.procs", os.O_WRONLY))
    for name, value in os.environ.items():
        attempt("inherited", name, lambda: "slp_" in value or name.startswith("LISTEN_"))
    for descriptor in os.listdir("/proc/self/fd"):
        # What listdir itself had open is gone by now.
        if int(descriptor) > 2:
            attempt("inherited", "descriptor " + descriptor, lambda: os.readlink("/proc/self/fd/" + descriptor))


def run(place):
    with open(os.path.join(HERE, "targets.json"), encoding="utf-8") as file:
        targets = json.load(file)
    everything(targets)
    if place == "instance":
        # What a release is made of stays as it was built.
        attempt("own release", "app.py", lambda: opens(os.path.join(HERE, "app.py"), os.O_WRONLY))
        # Its limit in slipway.yml is 64.
        attempt("fork", "100 processes", lambda: fork_many(100))
        attempt("own release", "a new file", lambda: opens(os.path.join(HERE, "new"), os.O_CREAT | os.O_WRONLY))
    leave_daemon(targets["daemon"][place])
    with open("/proc/self/status", encoding="ascii") as file:
        wanted = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapEff", "CapPrm", "CapInh", "CapAmb")
        status = {key: value.split() for key, value in (line.split(":", 1) for line in file) if key in wanted}
    return {"place": place, "tried": TRIED, "successes": len(SUCCEEDED), "first": SUCCEEDED[:12], "status": status}


if __name__ == "__main__":
    report = run("job")
    # The end of a job's output travels in its event, each line cut: one short line for each thing.
    print("kinds", len(report["tried"]), "tried", sum(report["tried"].values()), "successes", report["successes"])
    for line in report["first"]:
        print("could", line)
    for key, values in report["status"].items():
        print("status", key, *values)
    sys.exit(0)
