"""The rows of section 10 of bus-protocol.md: what is measured, over what, and what it must and should be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    number: str
    what: str
    prototype: str
    must: float
    aim: float
    # (case, what of it). A case of ours stands for itself in the clear and with CURVE, when it has no prefix.
    value: tuple
    over: tuple = None
    more: bool = True  # more is better
    unit: str = ""
    kinds: tuple = ("plain", "curve")
    # What ours with CURVE is measured over, when that is another case.
    over_curve: tuple = None

    def of(self, kind, part):
        """The name of the case, and what of it."""
        case, key = self.over_curve if kind == "curve" and part is self.over and self.over_curve else part
        return (f"{kind}:{case}" if case.startswith("bus ") else case), key

    def cases(self):
        return {self.of(kind, part)[0] for kind in self.kinds for part in (self.value, self.over) if part}


@dataclass(frozen=True)
class Note:
    """A row that is not measured here."""
    number: str
    what: str
    prototype: str
    must: str
    aim: str
    text: str

    def cases(self):
        return set()


RATE, P50, DELIVERED = "thr", "p50", "deliv"
CURVE = ("curve",)

ROWS = [
    Row("1", "durable publish w1024, packed ≤ 16, in the clear / JetStream default (page cache)", "11.7", 3, 6,
        ("bus w1024", RATE), ("jetstream w1024", RATE), kinds=("plain",)),
    Row("2", "the same with CURVE / JetStream default in the clear", "3.6", 1.5, 2.5, ("bus w1024", RATE), ("jetstream w1024", RATE), kinds=CURVE),
    Row("3", "durable publish w1024 / JetStream synchronous", "218", 50, 120, ("bus w1024", RATE), ("jetstream sync w1024", RATE)),
    Row("4", "durable publish w1024 / Redis always", "7.9", 2.5, 5, ("bus w1024", RATE), ("redis always w1024", RATE)),
    Row("5", "durable publish w1024 / C prototype (same framing; both with CURVE or neither)", "1", 0.4, 0.7, ("bus w1024", RATE), ("prototype w1024", RATE),
        over_curve=("prototype curve w1024", RATE)),
    Row("6", "durable ack p50 w1 / bare fdatasync p50 of a zero-filled 4 KiB block", "1.8", 3, 2, ("bus w1", P50), ("fdatasync", P50), more=False),
    Row("7a", "durable ack p50 w1 / JetStream synchronous", "0.52", 0.9, 0.7, ("bus w1", P50), ("jetstream sync w1", P50), more=False),
    Row("7b", "durable ack p50 w1 / Redis always", "0.72", 1.1, 0.9, ("bus w1", P50), ("redis always w1", P50), more=False),
    Row("7c", "durable ack p50 w1 / RabbitMQ quorum", "0.22", 0.5, 0.35, ("bus w1", P50), ("rabbit quorum w1", P50), more=False),
    Row("8a", "group commit: w8 / w1 throughput, one event a message", "6.3", 3, 5, ("bus w8", RATE), ("bus w1", RATE)),
    Row("8b", "group commit: 8 publishers at w1 / one at w1, throughput", "–", 3, 5, ("bus 8 publishers w1", RATE), ("bus w1", RATE)),
    Note("9", "unflushed ack p50 w1 / raw DEALER–ROUTER p50", "1.5–1.8", "≤ 3.5", "≤ 2.2", "not offered: this bus acknowledges only what is on the device (docs/adr/0012)"),
    Row("10", "request/reply through the bus p50 / NATS request p50", "not built", 1.5, 1.1, ("bus call", P50), ("nats request", P50), more=False),
    Row("11a", "fan-out x8, deliveries/s / JetStream x8", "17.9", 5, 10, ("bus x8", DELIVERED), ("jetstream x8", DELIVERED)),
    Row("11b", "fan-out x8, deliveries/s / raw PUB/SUB x8", "about 1.5", 0.5, 0.9, ("bus x8", DELIVERED), ("pub sub x8", DELIVERED)),
    Row("12a", "CURVE packed / plain packed throughput", "0.42", 0.3, 0.4, ("curve:bus w1024", RATE), ("plain:bus w1024", RATE), kinds=CURVE),
    Row("12b", "CURVE / plain, ack p50 at w1", "1.0", 1.3, 1.15, ("curve:bus w1", P50), ("plain:bus w1", P50), more=False, kinds=CURVE),
    Row("13", "replay of 1 M events to one consumer / live delivery rate", "not built", 1, 2, ("bus replay", DELIVERED), ("bus w1024", DELIVERED), kinds=CURVE),
    Row("14a", "live end-to-end p50 of others while one consumer replays / undisturbed", "not built", 2, 1.3,
        ("bus beside a replay", "times"), more=False, kinds=CURVE),
    Row("14b", "the same while one is stopped with 1 M behind / undisturbed", "not built", 1.2, 1.05,
        ("bus beside a stopped consumer", "times"), more=False, kinds=CURVE),
    Row("15a", "publisher pause: planned restart, 1 M events in the log", "–", 500, 150, ("bus planned restart", "pause"), more=False, unit=" ms", kinds=CURVE),
    Row("15b", "publisher pause: kill -9 with supervisor, 1 M events in the log", "–", 2000, 500, ("bus killed", "pause"), more=False, unit=" ms", kinds=CURVE),
    Row("16", "start with a 10 GiB log (mark present), after kill -9", "–", 1, 0.3, ("bus start", "after_kill"), more=False, unit=" s", kinds=CURVE),
    Row("17a", "resident memory with 8 services, 1 M dedupe ids, one stopped consumer", "–", 200, 100, ("bus at rest", "rss"), more=False,
        unit=" MiB", kinds=CURVE),
    Row("17b", "idle processor time, of a core", "–", 1, 0.3, ("bus at rest", "idle"), more=False, unit=" %", kinds=CURVE),
    Note("18", "acked events lost, in every test of section 11", "0 of 870 k in 40 kills", "0", "0", "judged by `make torture-bus`, not here"),
]

# Measured beside them, for the single figures.
BESIDE = {"prototype w1", "prototype x8"}
