"""Slipway's bus for Python programs: one file, which needs pyzmq (Debian: python3-zmq) and nothing else. Copy it.

    from slipway_bus import Bus

    with Bus("script.json") as bus:                       # made with: slipway key create script … --out script.json
        bus.publish("shop.sold", "shop/production", {"item": 7})          # returns when the event is on the device
        print(bus.call("git.file", {"app": "shop", "commit": "…", "path": "slipway.yml"}))

        for event in bus.consume("mailer", ["shop.**"]):   # a durable name: goes on where it was, also tomorrow
            send_mail(event.subject, event.data)           # the event is done when the loop asks for the next one

        for job in bus.work("resizers", ["image.uploaded"]):          # shared with all who use that name and key
            resize(job.data)                               # or job.nak(), job.park(), job.in_progress()

        bus.serve("weather", lambda method, data, caller: {"degrees": 21})
        bus.run()

What it does for you: it says HELLO again when the bus was restarted or the network was gone, sends again what was not acknowledged
(the bus stores it once), subscribes and serves again, and asks open questions again. What it cannot do for you: an event is
delivered *at least* once. Make what you do with it harmless to repeat, or keep `event.seq` in the transaction of what you did and begin with
`start={"seq": last + 1, "stream": stream}`.

A Bus belongs to the thread that made it (that is ZeroMQ's rule), and it is alive only while you are in one of its calls. The bus gives up a
program that was silent for three times `heartbeat` seconds; work that takes longer calls `bus.pump(0)` or `job.in_progress()` now and then.

The protocol is in docs/wire.md.
"""
import collections
import datetime
import json
import struct
import time
import uuid

import zmq
from zmq.utils.monitor import recv_monitor_message

HEADER = struct.Struct(">2sBBHHIQQ")    # magic, major, command, flags, status, handle, a, b
ENTRY = struct.Struct(">HHI")           # of a published event: lengths of topic, id, payload
EXCEPTION = struct.Struct(">QHH")       # of PUBACK: number, status, 0
RECORD = struct.Struct(">IIQQBBHHH")    # length, crc, number, time, kind, flags, lengths of topic, producer, id
VERDICT = struct.Struct(">QBBHI")       # of ACKX: number, verb, 0, 0, milliseconds

HELLO, WELCOME, PING, PONG, BYE, ERR = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
PUB, PUBACK, EMIT = 0x10, 0x11, 0x12
SUB, SUBOK, EVENTS, CREDIT, ACK, ACKX, UNSUB, LOST = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27
SERVE, REQ, CALL, PART, REP, CANCEL = 0x30, 0x31, 0x32, 0x33, 0x34, 0x35
RESUME = REDELIVERED = MAY_HAVE_RUN = 1
TEMPORARY = (425, 429, 507)
KEY_REFUSED = 0x4000                    # ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
LARGEST = 1310687 - HEADER.size         # of a body


class BusError(Exception):
    """The bus refused something. `status` is a number like HTTP's: 403 not allowed, 404, 409, 413 too large, 503 nobody serves that …"""

    def __init__(self, status, message):
        super().__init__("%s (%d)" % (message, status))
        self.status = status


class Unavailable(BusError):
    """The bus did not answer in time. Nothing is lost: what was not acknowledged is still to be sent."""

    def __init__(self, message):
        super().__init__(503, message)


class Lost(BusError):
    """The events that were wanted are not there: no longer kept (410), or this is another log, or an older backup of it (409).
    `first` is the first number there is. Where to go on is your decision: subscribe with another `start`."""

    def __init__(self, status, wanted, first):
        super().__init__(status, "event %d is not there, the first is %d" % (wanted, first))
        self.wanted, self.first = wanted, first


class Fenced(BusError):
    """Another session took over the durable name."""


class Event:
    """What was published. `payload` is the CloudEvent as it came, `data` and `subject` are members of it; `seq` is its number in
    the log, 0 for a live one; `producer` is the name of the key that published it, which nobody can forge; `deliveries` counts."""

    def __init__(self, subscription, seq, nanoseconds, type, producer, id, payload, deliveries):
        self.subscription, self.seq, self.type, self.producer, self.id = subscription, seq, type, producer, id
        self.time = nanoseconds / 1e9   # of the bus, seconds since 1970
        self.raw, self.deliveries, self.settled = payload, deliveries, False
        try:
            self.payload = json.loads(payload)
        except ValueError:
            self.payload = None
        envelope = self.payload if isinstance(self.payload, dict) else {}
        self.subject, self.data, self.source = envelope.get("subject"), envelope.get("data"), envelope.get("source")

    def ack(self):
        """It is done. Of a consumer in order: and all before it."""
        self.subscription._settle(self, 1)

    def nak(self, delay=0):
        """Not done: deliver it again, after `delay` seconds, or after the pause of the subscription."""
        self.subscription._settle(self, 2, delay)

    def park(self):
        """Never again: leave it to a person (slipway bus parked)."""
        self.subscription._settle(self, 4)

    def in_progress(self):
        """Still at it: the bus waits another `ack_wait`."""
        self.subscription._settle(self, 3)

    def __repr__(self):
        return "<Event %d %s %s by %s>" % (self.seq, self.type, self.subject, self.producer)


class Subscription:
    """Events in order of their arrival; made by `Bus.subscribe`. Iterate over it."""

    def __init__(self, bus, handle, body, timeout):
        self.bus, self.handle, self.body, self.timeout = bus, handle, body, timeout
        self.durable, self.group = bool(body["consumer"]), body["mode"] == "group"
        self.generation = None          # None: not subscribed in this session yet
        self.done = self.handed = None  # numbers: all up to here is done; was handed out
        self.stream = None
        self.waiting = collections.deque()
        self.failure = None

    def _open(self):
        """SUB, from where this subscription is."""
        self.generation = None
        self.waiting.clear()
        body = dict(self.body)
        if self.done is not None and not self.group:
            body["from"] = {"seq": (self.done if self.durable else self.handed) + 1, "stream": self.stream}
        self.bus._send(SUB, handle=self.handle, body=body)

    def _hear(self, command, flags, status, a, b, body):
        if command == SUBOK:
            self.generation, self.stream = b, json.loads(body)["stream"]
            if self.done is None:
                self.done = self.handed = a
        elif command == EVENTS:
            count = 0
            for event in self.bus._records(self, body, flags & REDELIVERED):
                count += 1
                if self.group or event.seq == 0 or event.seq > self.handed or flags & REDELIVERED:
                    self.waiting.append((event, len(body) if count == 1 else 0))
            if count == 0 and b and not self.group and not self.waiting:
                self._passed(b)
        elif command == LOST:
            self.failure = Lost(status, a, b)
        elif command == BYE:
            self.failure = Fenced(status, "another session took over '%s'" % self.body["consumer"])
        elif command == ERR:
            self.failure = BusError(status, json.loads(body)["message"])

    def _passed(self, number):
        """Nothing up to that number was for us: the place in the log moves all the same."""
        if not self.durable:
            self.handed = max(self.handed, number)

    def _settle(self, event, verb, delay=0):
        if not self.durable or event.seq == 0 or (event.settled and verb != 3):
            return
        event.settled = event.settled or verb != 3
        if self.generation is None:
            return                      # the session is over: what was not settled comes again
        if not self.group and verb == 1:
            self.done = max(self.done, event.seq)
            self.bus._send(ACK, handle=self.handle, a=event.seq, b=self.generation)
            return
        if not self.group and verb in (2, 4):
            # In order: everything from here on comes once more.
            self.handed = event.seq - 1
            self.waiting.clear()
        self.bus._send(ACKX, handle=self.handle, b=self.generation, body=VERDICT.pack(event.seq, verb, 0, 0, int(delay * 1000)))

    def next(self, timeout=None):
        """The next event, or None when none came in `timeout` seconds (None: wait for ever)."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.waiting:
            if self.failure:
                failure, self.failure = self.failure, None
                raise failure
            left = 1.0 if end is None else end - time.monotonic()
            if left <= 0:
                return None
            self.bus.pump(min(left, 1.0))
        event, size = self.waiting.popleft()
        # Credit goes back as events are taken, so that no more than that ever waits here.
        self.bus._send(CREDIT, handle=self.handle, a=1, b=size)
        self.handed = max(self.handed, event.seq)
        return event

    def __iter__(self):
        """Ends after `timeout` seconds without an event; never, without one. An event that was not settled is acknowledged when the
        loop comes back for the next."""
        while True:
            event = self.next(self.timeout)
            if event is None:
                return
            yield event
            event.ack()

    def close(self):
        self.bus._subscriptions.pop(self.handle, None)
        if self.generation is not None:
            self.bus._send(UNSUB, handle=self.handle)


class Pending:
    """An event on its way. `status` is None until it is decided; then 200, 208 (stored before), or why it was refused."""

    def __init__(self, topic, id, payload):
        self.topic, self.id, self.payload = topic, id, payload
        self.number = self.status = None
        self.seq = 0                    # in the log; only known of the last one in an acknowledgement

    def entry(self):
        topic, id = self.topic.encode(), self.id.encode()
        return ENTRY.pack(len(topic), len(id), len(self.payload)) + topic + id + self.payload


class Bus:
    def __init__(self, keyfile, client="slipway_bus.py", heartbeat=5.0, connect=10.0):
        """Joins with the key in that file. `connect`: seconds to wait for the bus, then Unavailable."""
        with open(keyfile) as file:
            key = json.load(file)
        self.name, self.client, self.heartbeat = key["name"], client, heartbeat
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in [
            (zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.SNDHWM, 20000), (zmq.RCVHWM, 20000), (zmq.MAXMSGSIZE, 1310720),
            (zmq.HEARTBEAT_IVL, 1000), (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.HEARTBEAT_TTL, 3000), (zmq.HANDSHAKE_IVL, 5000),
            (zmq.RECONNECT_IVL, 20), (zmq.RECONNECT_IVL_MAX, 1000), (zmq.TCP_KEEPALIVE, 1),
        ]:
            self._socket.setsockopt(option, value)
        self._socket.curve_serverkey = key["serverKey"].encode()
        self._socket.curve_publickey, self._socket.curve_secretkey = key["publicKey"].encode(), key["secretKey"].encode()
        self._monitor = self._socket.get_monitor_socket(KEY_REFUSED)
        self._socket.connect(key["endpoint"])
        self.welcome = None             # what the bus said to our HELLO; None: no session
        self._number = 1                # of the next event in this session
        self._pending = collections.OrderedDict()   # number: Pending, not decided
        self._refused = []              # refused for now
        self._subscriptions, self._services, self._calls, self._handle = {}, {}, {}, 0
        self._failure = None
        self._said = self._heard = self._greeted = time.monotonic()
        try:
            self._session(time.monotonic() + connect)
        except BaseException:
            self.close()
            raise

    # -- publishing

    def publish(self, type, subject, data, id=None, source=None, wait=30.0, **attributes):
        """Publishes a CloudEvent; `attributes` are further members of it. Returns its Pending when it is on the device. With wait=None it
        returns at once; then `flush` tells. Give an `id` of your own when the same event may be published by another run of your program:
        it is stored once. Raises BusError when the bus refuses it."""
        event = {
            "specversion": "1.0", "id": id or str(uuid.uuid4()), "source": source or self.name, "type": type, "subject": subject,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json", "data": data,
        }
        event.update(attributes)
        pending = Pending(type, event["id"], json.dumps(event).encode())
        if len(pending.payload) > self.welcome_value("max_payload", 1 << 20):
            raise BusError(413, "the event is larger than a payload may be; publish where it is instead")
        self._make_room(len(pending.payload))
        self._put([pending])
        if wait is None:
            return pending
        self._until(lambda: pending.status is not None, wait, "no acknowledgement in time")
        self._check(pending)
        return pending

    def flush(self, timeout=30.0):
        """Returns when everything that was published is decided. Raises BusError for the first that the bus refused."""
        everything = list(self._pending.values()) + self._refused
        self._until(lambda: not self._pending and not self._refused, timeout, "no acknowledgement in time")
        for pending in everything:
            self._check(pending)

    def emit(self, type, subject, data):
        """Shows an event to whoever subscribes at this moment without a durable name; it is not stored."""
        event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": self.name, "type": type, "subject": subject, "data": data}
        self._send(EMIT, b=1, body=Pending(type, event["id"], json.dumps(event).encode()).entry())

    @staticmethod
    def _check(pending):
        if pending.status not in (200, 208):
            why = {403: "this key may not publish that", 413: "the event is too large", 422: "not an event type, or not an id"}
            raise BusError(pending.status, "%s was refused: %s" % (pending.topic, why.get(pending.status, "see docs/wire.md")))

    def _make_room(self, size):
        def has_room():
            waiting = list(self._pending.values()) + self._refused
            return (len(waiting) < self.welcome_value("window_msgs", 1024)
                    and sum(len(one.payload) for one in waiting) + size <= max(size, self.welcome_value("window_bytes", 4 << 20)))
        self._until(has_room, 600, "the bus takes nothing")

    def _put(self, events, flags=0):
        """PUB, packed; numbered from `self._number` on."""
        batch, size = [], 0
        for event in events + [None]:
            entry = event.entry() if event else b""
            if batch and (event is None or len(batch) == 16 or size + len(entry) > LARGEST):
                self._send(PUB, flags=flags, a=batch[0].number, b=len(batch), body=b"".join(one.entry() for one in batch))
                batch, size, flags = [], 0, 0
            if event:
                event.number, event.status = self._number, None
                self._number += 1
                self._pending[event.number] = event
                batch.append(event)
                size += len(entry)

    def _acknowledged(self, a, b, body):
        exceptions = {number: status for number, status, _ in EXCEPTION.iter_unpack(body)}
        for number in list(self._pending):
            if number > a:
                break
            event = self._pending.pop(number)
            status = exceptions.get(number, 200)
            if status in TEMPORARY:
                self._refused.append(event)
            else:
                event.status = status
            if number == a:
                event.seq = b
        if self._refused and not self._pending:
            # All is decided: begin again with the first that was refused, in the same order.
            again, self._refused = self._refused, []
            time.sleep(0.2)
            self._number = again[0].number
            self._put(again, RESUME)

    # -- consuming

    def subscribe(self, filters, consumer="", start="cursor", mode="ordered", timeout=None, credit=256, ack_wait=30.0, max_deliver=8,
                  backoff=(1, 5, 30, 120, 600), poison="stop"):
        """A Subscription. `filters`: patterns such as "deploy.**". `consumer`: the durable name; empty for one that ends with you. `start`:
        "cursor", "first", "new", {"seq": n}, {"seq": n, "stream": s}, {"time": "2026-11-23T06:56:54Z"}. Times in seconds."""
        self._handle += 1
        subscription = Subscription(self, self._handle, {
            "consumer": consumer, "filters": list(filters), "from": start, "mode": mode, "credit_msgs": credit, "credit_bytes": 4 << 20,
            "ack_wait_ms": int(ack_wait * 1000), "max_deliver": max_deliver, "backoff_ms": [int(1000 * pause) for pause in backoff],
            "poison": poison,
        }, timeout)
        self._subscriptions[subscription.handle] = subscription
        try:
            subscription._open()
            self._until(lambda: subscription.generation is not None or subscription.failure, 30, "no answer to SUB")
            if subscription.failure:
                raise subscription.failure
        except BaseException:
            self._subscriptions.pop(subscription.handle, None)
            raise
        return subscription

    def consume(self, consumer, filters, **options):
        """Events in order, one session of that name at a time."""
        return self.subscribe(filters, consumer, **options)

    def work(self, consumer, filters, credit=16, **options):
        """Events shared with the other members of the group: each goes to one of them."""
        return self.subscribe(filters, consumer, mode="group", credit=credit, **options)

    @staticmethod
    def _records(subscription, body, counted):
        at, deliveries = 0, 1
        while at < len(body):
            if counted:
                (deliveries,) = struct.unpack_from(">I", body, at)
                at += 4
            length, crc, seq, nanoseconds, kind, _, topic_n, producer_n, id_n = RECORD.unpack_from(body, at)
            content = body[at + 8:at + 8 + length]
            if len(content) != length or crc32c(content) != crc:
                raise BusError(500, "event %d arrived damaged" % seq)
            at += (8 + length + 7) // 8 * 8
            start = RECORD.size - 8
            topic, producer, id = (content[start:start + topic_n], content[start + topic_n:start + topic_n + producer_n],
                                   content[start + topic_n + producer_n:start + topic_n + producer_n + id_n])
            if kind == 1:
                yield Event(subscription, seq, nanoseconds, topic.decode(), producer.decode(), id.decode(),
                            content[start + topic_n + producer_n + id_n:], deliveries)

    # -- asking and serving

    def call(self, method, data, timeout=10.0, key=None):
        """Asks a service, such as "git.file". Its answer; or BusError with the service's status. `key`: the same for the same question."""
        self._handle += 1
        number, end = self._handle, time.monotonic() + timeout
        call = {"method": method, "data": json.dumps(data).encode(), "key": key or str(uuid.uuid4()), "end": end, "reply": b"",
                "status": None}
        self._calls[number] = call
        try:
            self._ask(number, call)
            self._until(lambda: call["status"] is not None, timeout + 1, "%s: no reply in time" % method)
        finally:
            del self._calls[number]
        if call["status"] < 400:
            return json.loads(call["reply"]) if call["reply"] else None
        try:
            message = json.loads(call["reply"])["message"]
        except (ValueError, KeyError, TypeError):
            message = {429: "too many calls wait for that", 502: "the service stopped, and the call may have run", 503: "nobody serves that",
                       504: "no reply in time"}.get(call["status"], "refused")
        raise BusError(call["status"], "%s: %s" % (method, message))

    def _ask(self, number, call):
        method, key = call["method"].encode(), call["key"].encode()
        left = max(1, int(1000 * (call["end"] - time.monotonic())))
        call["reply"] = b""
        self._send(REQ, a=number, b=left, body=struct.pack(">H", len(method)) + method + struct.pack(">H", len(key)) + key + call["data"])

    def serve(self, service, handler, parallel=1):
        """Answers calls to SERVICE.METHOD with handler(method, data, caller), while the program is in `run` or another call of this Bus. What
        it returns goes back as JSON; a BusError that it raises with its status, anything else as 500."""
        self._handle += 1
        self._services[self._handle] = (service, handler, parallel)
        self._send(SERVE, handle=self._handle, a=parallel, body={"service": service})

    def _answer(self, handle, number, body):
        service, handler, _ = self._services[handle]
        (n,) = struct.unpack_from(">H", body)
        (m,) = struct.unpack_from(">H", body, 2 + n)
        method, about, payload = body[2:2 + n].decode(), json.loads(body[4 + n:4 + n + m]), body[4 + n + m:]
        try:
            status, reply = 200, handler(method, json.loads(payload) if payload else None, about.get("caller"))
        except BusError as error:
            status, reply = error.status, {"code": "failed", "message": str(error)}
        except Exception as error:
            status, reply = 500, {"code": "failed", "message": "%s failed: %s" % (method, error)}
        data = json.dumps(reply).encode()
        index = 0
        while len(data) > 1 << 20:
            self._send(PART, a=number, b=index, body=data[:1 << 20])
            data, index = data[1 << 20:], index + 1
        self._send(REP, status=status, a=number, b=index, body=data)

    def run(self, seconds=None):
        """Serves, for so long or for ever."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            self.pump(1.0 if end is None else max(0.0, min(1.0, end - time.monotonic())))

    # -- the session

    def welcome_value(self, name, default):
        return (self.welcome or {}).get(name, default)

    def pump(self, seconds=0.0):
        """Does what there is to do with what the bus says, for at most so long. Raises BusError when the key is refused, and what the bus
        says against something that no call is waiting for."""
        if self.welcome is None:
            self._session(time.monotonic() + max(seconds, 10.0))
        message = self._receive(seconds)
        while message:
            self._dispatch(*message)
            message = self._receive(0) if self.welcome else None
        if self.welcome and time.monotonic() - self._heard > 3 * self.welcome.get("heartbeat_ms", 1000) / 1000 + 1:
            self.welcome = None         # three of the bus's intervals of silence
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _until(self, condition, seconds, message):
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                raise Unavailable(message)
            try:
                self.pump(min(left, 0.5))
            except Unavailable:
                if time.monotonic() >= end:
                    raise

    def _session(self, end):
        """HELLO until WELCOME, and everything again that was under way."""
        while True:
            if time.monotonic() >= end:
                raise Unavailable("the bus does not answer")
            try:
                self._send(HELLO, body={"client": self.client, "min": 1, "max": 1, "version": "1",
                                        "heartbeat_ms": int(self.heartbeat * 1000)})
            except Unavailable:
                continue
            answer = self._receive(min(1.0, max(0.0, end - time.monotonic())))
            while answer and not (answer[0] == WELCOME or (answer[0] == ERR and answer[2] != 401)):
                answer = self._receive(0.5)  # left over from the session before
            if answer and answer[0] == ERR:
                raise BusError(answer[2], json.loads(answer[6])["message"])
            if answer:
                break
        self.welcome = dict(json.loads(answer[6]), epoch=answer[4])
        self._number = 1
        again = list(self._pending.values()) + self._refused
        again.sort(key=lambda event: event.number)
        self._pending.clear()
        self._refused = []
        for subscription in self._subscriptions.values():
            subscription._open()
        for handle, (service, _, parallel) in self._services.items():
            self._send(SERVE, handle=handle, a=parallel, body={"service": service})
        for number, call in self._calls.items():
            if call["status"] is None:
                self._ask(number, call)
        self._put(again)

    def _dispatch(self, command, flags, status, handle, a, b, body):
        if command == PUBACK:
            self._acknowledged(a, b, body)
        elif command in (SUBOK, EVENTS, LOST) or (command == BYE and handle):
            if handle in self._subscriptions:
                self._subscriptions[handle]._hear(command, flags, status, a, b, body)
        elif command == CALL and handle in self._services:
            self._answer(handle, a, body)
        elif command in (PART, REP) and a in self._calls:
            self._calls[a]["reply"] += body
            if command == REP:
                self._calls[a]["status"] = status
        elif command == BYE:
            if status == 403:
                self._failure = BusError(403, "this key was revoked or replaced")
            self.welcome = None
            time.sleep(min(5.0, (json.loads(body) if body else {}).get("retry_ms", 0) / 1000))
        elif command == ERR and status == 401:
            self.welcome = None
        elif command == ERR and b == REQ and a in self._calls:
            self._calls[a].update(status=status, reply=body)
        elif command == ERR and b == ACKX and status == 409:
            pass                        # too late: that event is another member's by now
        elif command == ERR and handle in self._subscriptions:
            self._subscriptions[handle]._hear(command, flags, status, a, b, body)
        elif command == ERR:
            self._failure = BusError(status, json.loads(body)["message"])

    def _send(self, command, flags=0, status=0, handle=0, a=0, b=0, body=b""):
        if self.welcome is None and command != HELLO:
            return                      # no session: said again when there is one
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        if len(body) > LARGEST:
            raise BusError(413, "a message of %d bytes" % len(body))
        message = HEADER.pack(b"EB", 1, command, flags, status, handle, a, b) + body
        if not self._socket.poll(1000, zmq.POLLOUT):
            self._look_at_key()
            self.welcome = None
            if command == HELLO:
                raise Unavailable("no connection to the bus")
            return
        self._socket.send(message, zmq.NOBLOCK)
        self._said = time.monotonic()

    def _look_at_key(self):
        while self._monitor.poll(0):
            if recv_monitor_message(self._monitor)["event"] == KEY_REFUSED:
                raise BusError(403, "the bus does not know this key")

    def _receive(self, seconds):
        """One message, or None; sees to heartbeats."""
        end = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if self.welcome and now - self._said >= self.heartbeat:
                self._send(PING)
            if not self._socket.poll(int(1000 * max(0.0, min(end - now, 0.5)))):
                self._look_at_key()
                if time.monotonic() >= end:
                    return None
                continue
            message = self._socket.recv()
            self._heard = time.monotonic()
            if len(message) < HEADER.size or message[:3] != b"EB\x01":
                raise BusError(400, "this is not the bus: it does not speak EB/1")
            _, _, command, flags, status, handle, a, b = HEADER.unpack_from(message)
            if command == PING:
                self._send(PONG, a=a)
            elif command != PONG:
                return command, flags, status, handle, a, b, message[HEADER.size:]

    def close(self):
        """Leaves. What was not acknowledged yet may be lost: `flush` first."""
        if self._socket.closed:
            return
        if self.welcome:
            self._socket.setsockopt(zmq.LINGER, 200)
            if self._socket.poll(0, zmq.POLLOUT):
                self._socket.send(HEADER.pack(b"EB", 1, BYE, 0, 200, 0, 0, 0), zmq.NOBLOCK)
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


def _table():
    for index in range(256):
        for _ in range(8):
            index = (index >> 1) ^ 0x82F63B78 if index & 1 else index >> 1
        yield index


_TABLE = list(_table())


def crc32c(data):
    """CRC-32C (Castagnoli), by which each record proves that it is what the bus took in."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
