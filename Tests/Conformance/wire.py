#!/usr/bin/python3
"""A client of the bus in pyzmq, written from docs/wire.md alone.

    wire.py KEYFILE publish TYPE SUBJECT JSON [--source S]
                                                        publish one event, print {"id", "seq"} once it is on the device
    wire.py KEYFILE follow [--type PREFIX] [--subject S] [--since N] [--until TYPE] [--timeout S] [--count N]
                                                        print events as JSON lines; exit 0 at --until or --count, 3 at the timeout
    wire.py KEYFILE live [--type PREFIX] [--timeout S] [--count N]       print live (unstored) events
    wire.py KEYFILE consume CONSUMER [--type PREFIX] [--count N] [--timeout S]
                                                        read in order under a durable name, acknowledge each event, go on after a restart
    wire.py KEYFILE work CONSUMER [--type PREFIX] [--since N] [--count N] [--timeout S] [--nak N] [--max N]
                                                        share a work queue: print each event with its count of deliveries and
                                                        settle it; --nak: refuse it until it was delivered N times
    wire.py KEYFILE call SERVICE.METHOD JSON [--timeout S]               ask a service, print its reply
    wire.py KEYFILE serve SERVICE [--count N] [--timeout S]             answer calls with what they say; print them
    wire.py KEYFILE hello                                                print what WELCOME says
"""
import argparse
import datetime
import json
import os
import struct
import sys
import time
import uuid

import zmq
from zmq.utils.monitor import recv_monitor_message

HEADER = struct.Struct(">2sBBHHIQQ")
ENTRY = struct.Struct(">HHI")
RECORD = struct.Struct(">IIQQBBHHH")
VERDICT = struct.Struct(">QBBHI")
DONE, REFUSED, IN_PROGRESS, TERMINATE = 1, 2, 3, 4
HELLO, WELCOME, PING, PONG, BYE, ERR = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
PUB, PUBACK, EMIT = 0x10, 0x11, 0x12
SUB, SUBOK, EVENTS, CREDIT, ACK, ACKX, UNSUB, LOST = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27
SERVE, REQ, CALL, PART, REP = 0x30, 0x31, 0x32, 0x33, 0x34
REFUSED_KEY = 0x4000  # ZMQ_EVENT_HANDSHAKE_FAILED_AUTH


class Failure(Exception):
    pass


def crc32c_table():
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
        table.append(crc)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Client:
    def __init__(self, keyfile, identity=None):
        """`identity`: a routing id, which no client should choose; for those who try what comes of it."""
        with open(keyfile) as file:
            key = json.load(file)
        self.name = key["name"]
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        for option, value in [
            (zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.SNDHWM, 20000), (zmq.RCVHWM, 20000), (zmq.MAXMSGSIZE, 1310720),
            (zmq.HEARTBEAT_IVL, 1000), (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.HEARTBEAT_TTL, 3000), (zmq.HANDSHAKE_IVL, 5000),
            (zmq.RECONNECT_IVL, 20), (zmq.RECONNECT_IVL_MAX, 1000), (zmq.TCP_KEEPALIVE, 1),
        ]:
            self.socket.setsockopt(option, value)
        self.socket.curve_serverkey = key["serverKey"].encode()
        self.socket.curve_publickey = key["publicKey"].encode()
        self.socket.curve_secretkey = key["secretKey"].encode()
        if identity is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, identity)
        self.monitor = self.socket.get_monitor_socket(REFUSED_KEY)
        self.socket.connect(key["endpoint"])
        self.welcome = None
        self.number = 1  # of the next event in this session
        self.heard = self.said = time.monotonic()

    # -- messages

    def send(self, command, flags=0, status=0, handle=0, a=0, b=0, body=b"", deadline=None):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        message = HEADER.pack(b"EB", 1, command, flags, status, handle, a, b) + body
        wait = 5 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self.socket.poll(int(wait * 1000), zmq.POLLOUT):
            self.check_key()
            raise Failure("no connection to the bus")
        self.socket.send(message, zmq.NOBLOCK)
        self.said = time.monotonic()

    def check_key(self):
        while self.monitor.poll(0):
            if recv_monitor_message(self.monitor)["event"] == REFUSED_KEY:
                raise Failure("the bus refuses this key")

    def receive(self, seconds):
        """One message, or None; answers heartbeats by itself."""
        end = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            self.check_key()
            if self.welcome and now - self.said >= 1:
                self.send(PING)
            if now >= end:
                return None
            if not self.socket.poll(int(1000 * max(0.001, min(end - now, 0.25)))):
                continue
            message = self.socket.recv()
            if len(message) < HEADER.size:
                raise Failure("a message shorter than a header")
            magic, major, command, flags, status, handle, a, b = HEADER.unpack_from(message)
            if magic != b"EB" or major != 1:
                raise Failure("not EB/1")
            self.heard = time.monotonic()
            body = message[HEADER.size:]
            if command == PING:
                self.send(PONG, a=a)
                continue
            if command == PONG:
                continue
            return command, flags, status, handle, a, b, body

    def hello(self, seconds=10):
        """Opens a session; again after ERR 401 or BYE 503."""
        end = time.monotonic() + seconds
        self.welcome = None
        while time.monotonic() < end:
            try:
                self.send(HELLO, body={"client": "wire.py", "min": 1, "max": 1, "version": "1", "heartbeat_ms": 1000},
                          deadline=min(end, time.monotonic() + 1))
            except Failure as failure:
                if "key" in str(failure):
                    raise
                continue
            while True:
                answer = self.receive(1)
                if answer is None:
                    break
                command, _, status, _, a, b, body = answer
                if command == WELCOME:
                    self.number = 1
                    self.welcome = json.loads(body)
                    self.welcome["epoch"] = a
                    return self.welcome
                if command == ERR and status != 401:
                    raise Failure(json.loads(body)["message"])
        raise Failure("the bus does not answer")

    # -- publishing

    def publish(self, kind, subject, data, source=None, seconds=30):
        event = {
            "specversion": "1.0", "id": str(uuid.uuid4()), "source": source or self.name, "type": kind, "subject": subject,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json", "data": data,
        }
        topic, key, payload = kind.encode(), event["id"].encode(), json.dumps(event).encode()
        body = ENTRY.pack(len(topic), len(key), len(payload)) + topic + key + payload
        end = time.monotonic() + seconds
        flags = 0
        while time.monotonic() < end:
            if self.welcome is None:
                self.hello()
                flags = 0
            number = self.number
            self.send(PUB, flags=flags, a=number, b=1, body=body)
            while time.monotonic() < end:
                answer = self.receive(min(3, max(0.01, end - time.monotonic())))
                if answer is None or (answer[0] == ERR and answer[2] == 401) or (answer[0] == BYE):
                    self.welcome = None  # the bus was restarted: say HELLO, send again; it knows the id
                    break
                command, _, status, _, a, b, rest = answer
                if command == ERR:
                    raise Failure(json.loads(rest)["message"])
                if command != PUBACK or a < number:
                    continue
                refused = {n: s for n, s, _ in struct.iter_unpack(">QHH", rest)}.get(number)
                if refused not in (425, 429, 507):
                    self.number = number + 1
                if refused in (None, 208):
                    return {"id": event["id"], "seq": b}
                if refused in (425, 429, 507):
                    time.sleep(0.2)
                    flags = 1  # resume
                    break
                raise Failure({403: "this key may not publish " + kind, 413: "the event is too large", 422: "not an event type: " + kind}
                              .get(refused, "refused with %d" % refused))
        raise Failure("no acknowledgement in time")

    # -- consuming

    def subscribe(self, filters, start):
        self.send(SUB, handle=1, body={"consumer": "", "filters": filters, "from": start, "mode": "ordered",
                                       "credit_msgs": 256, "credit_bytes": 1 << 20})

    def follow(self, filters, start, seconds):
        """Yields (seq, topic, producer, event); seq 0 for live ones. Goes on where it was after a restart of the bus."""
        end = time.monotonic() + seconds
        if self.welcome is None:
            self.hello()
        self.subscribe(filters, start)
        while True:
            answer = self.receive(max(0.0, end - time.monotonic()))
            if answer is None:
                return
            command, flags, status, handle, a, b, body = answer
            if (command == ERR and status == 401) or command == BYE:
                self.hello(max(0.1, end - time.monotonic()))
                self.subscribe(filters, start)
                continue
            if command == SUBOK:
                start = {"seq": a + 1, "stream": json.loads(body)["stream"]}
            elif command == ERR:
                raise Failure(json.loads(body)["message"])
            elif command == LOST:
                raise Failure("event %d is not there, the first is %d (%d)" % (a, b, status))
            elif command == EVENTS:
                if a and isinstance(start, dict) and a > start["seq"]:
                    raise Failure("events %d to %d were skipped" % (start["seq"], a - 1))
                count = 0
                for _, seq, topic, producer, payload in self.records(body, flags & 1):
                    count += 1
                    yield seq, topic, producer, json.loads(payload)
                if a and isinstance(start, dict):
                    start["seq"] = max(start["seq"], b + 1)
                if count:
                    self.send(CREDIT, handle=1, a=count, b=len(body))

    def consume(self, consumer, filters, seconds):
        """Yields (seq, event, done) in order under a durable name; done() acknowledges. What was not acknowledged comes again after a
        restart of the bus, or of this program."""
        end = time.monotonic() + seconds
        start, generation, done = "cursor", None, None
        while True:
            if self.welcome is None:
                self.hello(max(0.1, end - time.monotonic()))
                generation = None
            if generation is None:
                generation = 0
                self.send(SUB, handle=3, body={"consumer": consumer, "filters": filters, "from": start, "credit_msgs": 8,
                                               "credit_bytes": 1 << 20})
            answer = self.receive(max(0.0, end - time.monotonic()))
            if answer is None:
                return
            command, flags, status, handle, a, b, body = answer
            if (command == ERR and status == 401) or (command == BYE and handle == 0):
                self.welcome = None
            elif command == SUBOK:
                generation, done = b, a
                start = {"seq": a + 1, "stream": json.loads(body)["stream"]}
            elif command == EVENTS:
                if a != start["seq"]:
                    raise Failure("examined from %d, expected from %d" % (a, start["seq"]))
                count = 0
                for _, seq, topic, producer, payload in self.records(body, flags & 1):
                    count += 1

                    def settle(seq=seq):
                        self.send(ACK, handle=3, a=seq, b=generation)

                    if seq > done:
                        yield seq, json.loads(payload), settle
                        done = seq
                start["seq"] = b + 1
                if count:
                    self.send(CREDIT, handle=3, a=count, b=len(body))
            elif command == ERR:
                raise Failure(json.loads(body)["message"])
            elif command in (BYE, LOST):
                raise Failure("the consumer is lost (%d)" % status)

    @staticmethod
    def records(body, counted):
        """(deliveries, seq, topic, producer, payload) of each record of EVENTS."""
        at, deliveries = 0, 1
        while at < len(body):
            if counted:
                (deliveries,) = struct.unpack_from(">I", body, at)
                at += 4
            length, crc, seq, nanos, kind, _, topic_n, producer_n, id_n = RECORD.unpack_from(body, at)
            rest = body[at + 8:at + 8 + length]
            if len(rest) != length or crc32c(rest) != crc:
                raise Failure("record %d arrived damaged" % seq)
            names = rest[24:24 + topic_n + producer_n + id_n]
            at += (8 + length + 7) // 8 * 8
            yield deliveries, seq, names[:topic_n].decode(), names[topic_n:topic_n + producer_n].decode(), rest[24 + len(names):]

    # -- sharing work

    def work(self, consumer, filters, start, seconds, options):
        """Yields (seq, deliveries, event, settle) as a member of a group; settle(verb, delay_ms) says what became of the event."""
        end = time.monotonic() + seconds
        body = dict({"consumer": consumer, "filters": filters, "mode": "group", "from": start, "credit_msgs": 16}, **options)
        generation = None
        while True:
            if self.welcome is None:
                self.hello(max(0.1, end - time.monotonic()))
                generation = None
            if generation is None:
                self.send(SUB, handle=2, body=body)
                generation = 0
            answer = self.receive(max(0.0, end - time.monotonic()))
            if answer is None:
                return
            command, flags, status, handle, a, b, rest = answer
            if (command == ERR and status == 401) or (command == BYE and handle == 0):
                self.welcome = None  # join again: what was not settled comes again
            elif command == SUBOK:
                generation = b
            elif command == ERR and b == ACKX:
                continue  # too late: the event went to another member meanwhile, and is its to settle
            elif command == ERR:
                raise Failure(json.loads(rest)["message"])
            elif command in (BYE, LOST):
                raise Failure("the group is lost (%d)" % status)
            elif command == EVENTS:
                count = 0
                for deliveries, seq, topic, producer, payload in self.records(rest, flags & 1):
                    count += 1

                    def settle(verb, delay=0, seq=seq):
                        self.send(ACKX, handle=2, b=generation, body=VERDICT.pack(seq, verb, 0, 0, delay))

                    yield seq, deliveries, json.loads(payload), settle
                if count:
                    self.send(CREDIT, handle=2, a=count, b=len(rest))

    # -- asking

    def call(self, method, data, seconds):
        if self.welcome is None:
            self.hello()
        name, key = method.encode(), str(uuid.uuid4()).encode()
        body = struct.pack(">H", len(name)) + name + struct.pack(">H", len(key)) + key + json.dumps(data).encode()
        end = time.monotonic() + seconds
        self.send(REQ, a=1, b=int(seconds * 1000), body=body)
        reply = b""
        while True:
            answer = self.receive(max(0.0, end + 1 - time.monotonic()))
            if answer is None:
                raise Failure("no reply in time")
            command, _, status, _, a, _, rest = answer
            if command == ERR:
                raise Failure(json.loads(rest)["message"])
            if command == PART and a == 1:
                reply += rest
            if command == REP and a == 1:
                if status >= 400:
                    said = json.loads(rest)["message"] if rest else {502: "the service stopped", 503: "nobody serves that", 504: "no reply in time"}.get(status, "")
                    raise Failure("%d %s" % (status, said))
                return json.loads(reply + rest)

    def serve(self, service, seconds):
        """Answers each call with its own words; yields (method, caller)."""
        end = time.monotonic() + seconds
        serving = False
        while True:
            if self.welcome is None:
                self.hello(max(0.1, end - time.monotonic()))
                serving = False
            if not serving:
                self.send(SERVE, handle=4, a=2, body={"service": service})
                serving = True
            answer = self.receive(max(0.0, end - time.monotonic()))
            if answer is None:
                return
            command, _, status, handle, a, b, body = answer
            if (command == ERR and status == 401) or command == BYE:
                self.welcome = None
            elif command == ERR:
                raise Failure(json.loads(body)["message"])
            elif command == CALL and handle == 4:
                (n,) = struct.unpack_from(">H", body)
                (m,) = struct.unpack_from(">H", body, 2 + n)
                method, about = body[2:2 + n].decode(), json.loads(body[4 + n:4 + n + m])
                reply = json.dumps({"method": method, "caller": about["caller"], "said": json.loads(body[4 + n + m:])}).encode()
                half = len(reply) // 2  # in two parts, because they may come so
                self.send(PART, a=a, b=0, body=reply[:half])
                self.send(REP, status=200, a=a, b=1, body=reply[half:])
                yield method, about["caller"]

    def close(self):
        try:
            if self.welcome:
                self.send(BYE, status=200, body={"reason": "done"}, deadline=time.monotonic())
        except (Failure, zmq.ZMQError):
            pass
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.close()
        self.context.term()


def show(seq, producer, event):
    if seq:
        event["sequence"] = "%020d" % seq
    event["producer"] = producer
    print(json.dumps(event, sort_keys=True), flush=True)


def filters_of(prefix):
    if not prefix:
        return ["**"]
    prefix = prefix.rstrip(".")
    return [prefix, prefix + ".**"]


def main():
    parser = argparse.ArgumentParser(description="Speak EB/1 to the bus.")
    parser.add_argument("keyfile")
    commands = parser.add_subparsers(dest="command", required=True)
    publish = commands.add_parser("publish")
    publish.add_argument("type")
    publish.add_argument("subject")
    publish.add_argument("data")
    publish.add_argument("--source")
    for name in ("follow", "live"):
        reader = commands.add_parser(name)
        reader.add_argument("--type", default="")
        reader.add_argument("--subject")
        reader.add_argument("--since", type=int)
        reader.add_argument("--until")
        reader.add_argument("--timeout", type=float, default=60)
        reader.add_argument("--count", type=int)
    work = commands.add_parser("work")
    work.add_argument("consumer")
    work.add_argument("--type", default="")
    work.add_argument("--since", type=int)
    work.add_argument("--timeout", type=float, default=60)
    work.add_argument("--count", type=int)
    work.add_argument("--nak", type=int, default=0)
    work.add_argument("--max", type=int, default=8)
    consume = commands.add_parser("consume")
    consume.add_argument("consumer")
    consume.add_argument("--type", default="")
    serve = commands.add_parser("serve")
    serve.add_argument("service")
    for counted in (consume, serve):
        counted.add_argument("--timeout", type=float, default=60)
        counted.add_argument("--count", type=int)
    call = commands.add_parser("call")
    call.add_argument("method")
    call.add_argument("data")
    call.add_argument("--timeout", type=float, default=10)
    commands.add_parser("hello")
    options = parser.parse_args()

    client = Client(options.keyfile)
    try:
        if options.command == "hello":
            print(json.dumps(client.hello(), sort_keys=True))
        elif options.command == "publish":
            print(json.dumps(client.publish(options.type, options.subject, json.loads(options.data), options.source)))
        elif options.command == "call":
            print(json.dumps(client.call(options.method, json.loads(options.data), options.timeout)))
        elif options.command == "consume":
            seen = 0
            for seq, event, done in client.consume(options.consumer, filters_of(options.type), options.timeout):
                print(json.dumps({"seq": seq, "data": event.get("data")}), flush=True)
                done()
                seen += 1
                if seen == options.count:
                    return 0
            return 3 if options.count else 0
        elif options.command == "serve":
            seen = 0
            for method, caller in client.serve(options.service, options.timeout):
                print(json.dumps({"method": method, "caller": caller}), flush=True)
                seen += 1
                if seen == options.count:
                    return 0
            return 3 if options.count else 0
        elif options.command == "work":
            start = "cursor" if options.since is None else {"seq": options.since}
            policy = {"ack_wait_ms": 5000, "max_deliver": options.max, "backoff_ms": [50]}
            done = set()
            for seq, deliveries, event, settle in client.work(
                    options.consumer, filters_of(options.type), start, options.timeout, policy):
                refused = deliveries < options.nak
                print(json.dumps({"seq": seq, "deliveries": deliveries, "data": event.get("data"), "done": not refused}), flush=True)
                settle(REFUSED if refused else DONE)
                if not refused:
                    done.add(seq)  # one that was settled just before the bus died may come twice
                if len(done) == options.count:
                    return 0
            return 3 if options.count else 0
        else:
            start = "new" if options.since is None else {"seq": options.since}
            seen = 0
            for seq, topic, producer, event in client.follow(filters_of(options.type), start, options.timeout):
                if (options.command == "live") != (seq == 0):
                    continue
                about = event.get("subject") or ""
                if options.subject and about != options.subject and not about.startswith(options.subject + "/"):
                    continue
                show(seq, producer, event)
                seen += 1
                if topic == options.until or seen == options.count:
                    return 0
            return 3 if options.until or options.count else 0
        return 0
    except Failure as failure:
        print("wire.py: %s" % failure, file=sys.stderr)
        return 1
    finally:
        client.close()


if __name__ == "__main__":
    # `head` and other readers that leave early are no error.
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(0)
