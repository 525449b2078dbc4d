"""EB/1 for the torture programs, written from docs/wire.md: messages, and a session that does not block.

A `Link` keeps the rules of section 5.3 (HELLO again after ERR 401, BYE 503 and silence); its owner keeps those of publishing and
consuming, and is told of every new session by `on_up`.
"""
import ctypes
import json
import os
import struct
import subprocess
import time

import zmq

HEADER = struct.Struct(">2sBBHHIQQ")
ENTRY = struct.Struct(">HHI")
RECORD = struct.Struct(">IIQQBBHHH")
VERDICT = struct.Struct(">QBBHI")
EXCEPTION = struct.Struct(">QHH")
HELLO, WELCOME, PING, PONG, BYE, ERR = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
PUB, PUBACK, EMIT = 0x10, 0x11, 0x12
SUB, SUBOK, EVENTS, CREDIT, ACK, ACKX, UNSUB, LOST = range(0x20, 0x28)
SERVE, REQ, CALL, PART, REP, CANCEL = range(0x30, 0x36)
ACKED, REFUSED, IN_PROGRESS, TERMINATED = 1, 2, 3, 4
TEMPORARY = (425, 429, 507)


class Damaged(Exception):
    """Bytes that are not what docs/wire.md says."""


def _checksum():
    """crc32c.c when it is compiled or can be; else the same in Python, twenty times slower."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.environ.get("TORTURE_CRC", "")
    if not os.path.exists(path):
        path = "/tmp/slipway-torture-%d-crc32c.so" % os.getuid()
        source = os.path.join(here, "crc32c.c")
        if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
            made = "%s.%d" % (path, os.getpid())
            try:
                subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", made, source], check=True, capture_output=True)
                os.rename(made, path)
            except (OSError, subprocess.CalledProcessError):
                path = None
    if path and os.stat(path).st_uid == os.getuid():
        library = ctypes.CDLL(path)
        library.crc32c.restype = ctypes.c_uint32
        library.crc32c.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        return lambda data: library.crc32c(data, len(data))
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
        table.append(crc)

    def slow(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF

    return slow


crc32c = _checksum()


def message(command, flags=0, status=0, handle=0, a=0, b=0, body=b""):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    return HEADER.pack(b"EB", 1, command, flags, status, handle, a, b) + body


def pack(events):
    """The body of PUB: (topic, id, payload) as bytes."""
    return b"".join(ENTRY.pack(len(t), len(i), len(p)) + t + i + p for t, i, p in events)


def records(body, counted=False):
    """(deliveries, seq, nanoseconds, kind, topic, producer, id, payload) of each record of EVENTS, CRC checked."""
    at, deliveries, size = 0, 1, len(body)
    while at < size:
        if counted:
            (deliveries,) = struct.unpack_from(">I", body, at)
            at += 4
        if size - at < RECORD.size:
            raise Damaged("a record shorter than its head")
        length, crc, seq, nanos, kind, _, topic, producer, name = RECORD.unpack_from(body, at)
        rest = body[at + 8:at + 8 + length]
        if len(rest) != length or length < 24 + topic + producer + name:
            raise Damaged("record %d is cut short" % seq)
        if crc32c(rest) != crc:
            raise Damaged("record %d fails its CRC" % seq)
        at += (8 + length + 7) & ~7
        two, three = 24 + topic, 24 + topic + producer
        yield (deliveries, seq, nanos, kind, rest[24:two].decode(), rest[two:three].decode(), rest[three:three + name].decode(),
               rest[three + name:])


def load_key(path):
    with open(path) as file:
        return json.load(file)


class Link:
    """One DEALER and the session on it. `owner` has on_up(welcome), on_message(command, flags, status, handle, a, b, body)."""

    room = 20000  # messages that wait in this process before TCP itself waits

    def __init__(self, context, key, owner, endpoint=None, outbox=None, client="torture"):
        self.context, self.key, self.owner = context, key, owner
        # Several are tried in turn, three seconds each, while there is no session.
        self.endpoints = endpoint if isinstance(endpoint, list) else [endpoint or key["endpoint"]]
        self.endpoint = self.endpoints[0]
        self.outbox, self.client = outbox, client
        self.welcome = None
        self.sessions = 0
        self.superseded = 0  # how often a bus said that another has taken over
        self.pong = 0  # `a` of the last one
        self.log_seen, self.last_seen = None, 0
        self.make_socket()

    def make_socket(self):
        self.socket = self.context.socket(zmq.DEALER)
        for option, value in [
            (zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.SNDHWM, 20000), (zmq.RCVHWM, self.room), (zmq.MAXMSGSIZE, 1310720),
            (zmq.HEARTBEAT_IVL, 1000), (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.HEARTBEAT_TTL, 3000), (zmq.HANDSHAKE_IVL, 5000),
            (zmq.RECONNECT_IVL, 20), (zmq.RECONNECT_IVL_MAX, 1000), (zmq.TCP_KEEPALIVE, 1),
        ]:
            self.socket.setsockopt(option, value)
        self.socket.curve_serverkey = self.key["serverKey"].encode()
        self.socket.curve_publickey = self.key["publicKey"].encode()
        self.socket.curve_secretkey = self.key["secretKey"].encode()
        self.socket.connect(self.endpoint)
        self.welcome = None
        self.hello_at = 0.0
        self.said = self.heard = self.tried_at = time.monotonic()

    def go_elsewhere(self):
        """To the next endpoint, by a connection of its own."""
        self.endpoint = self.endpoints[(self.endpoints.index(self.endpoint) + 1) % len(self.endpoints)]
        self.socket.close(0)
        self.make_socket()

    def close(self, goodbye=False):
        if goodbye and self.welcome:
            self.send(BYE, status=200)
        self.socket.close(200 if goodbye else 0)

    def send(self, command, flags=0, status=0, handle=0, a=0, b=0, body=b""):
        """False: there is no way to the bus now; nothing was sent."""
        return self.send_raw(message(command, flags, status, handle, a, b, body))

    def send_raw(self, data):
        try:
            self.socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.said = time.monotonic()
        return True

    def restart(self, delay=0.0):
        """The session is over; HELLO goes out after `delay` seconds."""
        self.welcome = None
        self.hello_at = time.monotonic() + delay
        self.tried_at = time.monotonic()

    def tick(self, now):
        if self.welcome is None:
            if len(self.endpoints) > 1 and now - self.tried_at > 3:
                self.go_elsewhere()
            if now >= self.hello_at:
                hello = {"client": self.client, "min": 1, "max": 1, "version": "1", "heartbeat_ms": 1000}
                if self.outbox:
                    hello["outbox"] = self.outbox
                # When nothing can be sent the connection is not up: look again soon.
                self.hello_at = now + (1.0 if self.send(HELLO, body=hello) else 0.02)
            return
        if now - self.heard > 3 * self.welcome["heartbeat_ms"] / 1000:
            self.restart()
        elif now - self.said >= 1:
            self.send(PING)

    def pump(self, most=1000):
        for _ in range(most):
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.take(data)

    def take(self, data):
        if len(data) < HEADER.size:
            raise Damaged("a message of %d bytes" % len(data))
        magic, major, command, flags, status, handle, a, b = HEADER.unpack_from(data)
        if magic != b"EB" or major != 1:
            raise Damaged("not EB/1")
        body = data[HEADER.size:]
        self.heard = time.monotonic()
        if command in (PING, PONG, WELCOME):
            self.grown(command, a, b, body)
        if command == PING:
            self.send(PONG, a=a)
        elif command == PONG:
            self.pong = a
        elif command == WELCOME:
            # Also when one is up: a HELLO that was sent twice began another.
            self.welcome = json.loads(body)
            self.welcome["epoch"], self.welcome["last"] = a, b
            self.sessions += 1
            self.owner.on_up(self.welcome)
        elif command == ERR and status == 401:
            if self.welcome is not None:
                self.restart()
        elif (command == BYE and handle == 0 or command == ERR) and status == 410 and len(self.endpoints) > 1:
            self.superseded += 1
            self.restart(0.1)
            self.tried_at = 0.0  # another has taken over: not here any more
        elif command == BYE and handle == 0:
            if self.welcome is not None or status in (403, 503):
                wait = json.loads(body).get("retry_ms", 0) / 1000 if body else 0
                self.restart(wait if status == 503 else 1.0)
        elif self.welcome is not None:
            self.owner.on_message(command, flags, status, handle, a, b, body)


    def grown(self, command, a, last, body):
        """A log only ever grows: what the bus has once said to be its last event stays there (5.1, 5.3)."""
        what = None
        if command == WELCOME:
            welcome = json.loads(body)
            stream, epoch, chain = welcome["stream"], a, welcome.get("hash")
            before = self.log_seen
            if before and before[0] != stream:
                what = "another log, %s instead of %s" % (stream, before[0])
            elif before and epoch < before[1]:
                what = "epoch %d after %d" % (epoch, before[1])
            elif before and (epoch, last) == (before[1], before[2]) and chain != before[3]:
                what = "another hash at %d" % last
            self.log_seen = (stream, epoch, last, chain)
        if last < self.last_seen:
            what = "the last event was %d, and now it is %d" % (self.last_seen, last)
        self.last_seen = max(self.last_seen, last)
        if what and hasattr(self.owner, "fault"):
            self.owner.fault(what)


class Asker:
    """Blocking helper for the conductor of a test: one session, queries, reading the log."""

    def __init__(self, key, endpoint=None):
        self.context = zmq.Context.instance()
        self.inbox = []
        self.key, self.endpoint = key, endpoint
        self.number = 0
        self.link = Link(self.context, key, self, endpoint=endpoint, client="conductor")

    def on_up(self, welcome):
        self.inbox = []

    def on_message(self, *parts):
        self.inbox.append(parts)

    def wait_up(self, seconds=30):
        self.until(lambda: self.link.welcome is not None, seconds, "a session with the bus")
        return self.link.welcome

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            now = time.monotonic()
            if now >= end:
                raise TimeoutError("not within %d s: %s" % (seconds, what))
            self.link.tick(now)
            self.link.socket.poll(20)
            self.link.pump()

    def call(self, method, data=None, seconds=20):
        """(status, reply); asks again when the session ends meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait_up(seconds)
            self.number += 1
            number, session = self.number, self.link.sessions
            name = method.encode()
            body = struct.pack(">H", len(name)) + name + struct.pack(">H", 0) + json.dumps(data or {}).encode()
            if not self.link.send(REQ, a=number, b=5000, body=body):
                self.link.socket.poll(50)
                self.link.tick(time.monotonic())
                continue
            found, parts = [], {}

            def answered():
                while self.inbox:
                    command, _, status, _, a, b, rest = self.inbox.pop(0)
                    if command == PART and a == number:
                        parts[b] = rest
                    if (command == REP and a == number) or (command == ERR and b == REQ and a == number):
                        found.append((status, b"".join(parts[k] for k in sorted(parts)) + rest))
                return found or self.link.sessions != session or self.link.welcome is None

            try:
                self.until(answered, min(7, max(0.1, end - time.monotonic())), method)
            except TimeoutError:
                self.link.restart()
                continue
            if found:
                status, text = found[0]
                return status, (json.loads(text) if text else None)
        raise TimeoutError("%s: no answer within %d s" % (method, seconds))

    def read(self, first=1, last=None, seconds=300, filters=("**",)):
        """Yields the records from `first` to `last` (default: the last one when the session began), as `records` does.

        Raises `Damaged` when a number is missing."""
        handle, next_seq, end = 77, first, time.monotonic() + seconds
        session = None
        while True:
            self.wait_up()
            if session != self.link.sessions:
                session = self.link.sessions
                if last is None:
                    last = self.link.welcome["last"]
                if next_seq > last:
                    return
                self.link.send(SUB, handle=handle, body={"filters": list(filters), "from": {"seq": next_seq}, "credit_msgs": 4096,
                                                         "credit_bytes": 16 << 20})
            self.until(lambda: self.inbox or session != self.link.sessions, max(1, end - time.monotonic()), "events from %d" % next_seq)
            while self.inbox and session == self.link.sessions:
                command, flags, status, got, a, b, body = self.inbox.pop(0)
                if got != handle:
                    continue
                if command == SUBOK:
                    # Number 1 means the first that there is.
                    next_seq = a + 1 if next_seq <= 1 else next_seq
                    if a + 1 != next_seq:
                        raise Damaged("asked for %d, the bus begins at %d" % (next_seq, a + 1))
                elif command == EVENTS and a:
                    if a != next_seq:
                        raise Damaged("expected %d, the bus sent %d to %d" % (next_seq, a, b))
                    count = 0
                    for record in records(body, flags & 1):
                        count += 1
                        yield record
                    next_seq = b + 1
                    if count:
                        self.link.send(CREDIT, handle=handle, a=count, b=len(body))
                    if next_seq > last:
                        self.link.send(UNSUB, handle=handle)
                        return
                elif command in (ERR, LOST):
                    raise Damaged("the bus refuses to read on at %d: %d %s" % (next_seq, status, body[:300]))

    def close(self):
        self.link.close(goodbye=True)
