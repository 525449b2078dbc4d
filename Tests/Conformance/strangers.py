#!/usr/bin/python3
"""Peers that the bus must not let in, or must not mistake for another: row 16 of the failure tests.

    strangers.py KEYFILE OTHERKEYFILE        prints one line a check; exit 0 when all hold

KEYFILE may publish and read test.**; OTHERKEYFILE is another key of the same bus.
"""
import json
import sys
import time

import zmq

import wire


def check(what, holds):
    print("%s: %s" % ("ok" if holds else "WRONG", what), flush=True)
    if not holds:
        sys.exit(1)


def silent(endpoint, prepare):
    """Whether a socket that `prepare` has set up is never answered."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    prepare(socket)
    socket.connect(endpoint)
    hello = wire.HEADER.pack(b"EB", 1, wire.HELLO, 0, 0, 0, 0, 0) + b'{"client":"stranger"}'
    socket.send(hello, zmq.NOBLOCK)
    answered = socket.poll(1500)
    socket.close()
    context.term()
    return not answered


def main():
    with open(sys.argv[1]) as file:
        key = json.load(file)
    check("no key: no answer", silent(key["endpoint"], lambda socket: None))

    def wrong(socket):
        public, secret = zmq.curve_keypair()
        socket.curve_serverkey = key["serverKey"].encode()
        socket.curve_publickey, socket.curve_secretkey = public, secret

    check("a key that the bus does not know: no answer", silent(key["endpoint"], wrong))

    def misled(socket):
        public, _ = zmq.curve_keypair()
        socket.curve_serverkey = public
        socket.curve_publickey, socket.curve_secretkey = key["publicKey"].encode(), key["secretKey"].encode()

    check("a wrong key of the bus: no answer", silent(key["endpoint"], misled))

    resident = wire.Client(sys.argv[1], identity=b"resident")
    check("a client with a routing id of its own choice is served", resident.hello()["you"] == key["name"])
    resident.subscribe(["test.**"], "new")
    check("and subscribes", resident.receive(5)[0] == wire.SUBOK)
    squatter = wire.Client(sys.argv[2], identity=b"resident")
    squatter.welcome = {}
    squatter.send(wire.HELLO, body={"client": "squatter"})
    check("the routing id of another: no answer", squatter.receive(1.5) is None)

    publisher = wire.Client(sys.argv[1])
    publisher.hello()
    stored = publisher.publish("test.one", "shop", {"n": 1})
    publisher.close()
    end = time.monotonic() + 10
    seen = None
    while time.monotonic() < end and not seen:
        answer = resident.receive(1)
        if answer and answer[0] == wire.EVENTS:
            seen = [seq for _, seq, topic, _, _ in resident.records(answer[6], False) if topic == "test.one"]
    check("the other is still served, and gets its events", seen == [stored["seq"]])
    check("none of them reaches whoever took its routing id", squatter.receive(0.5) is None)
    squatter.welcome = None
    squatter.close()
    resident.close()


if __name__ == "__main__":
    main()
