#!/usr/bin/env python3
"""Publishes events and says where each is in the log.

    publish.py KEYFILE TYPE SUBJECT JSON [COUNT]
"""
import json
import sys

from slipway_bus import Bus, BusError

keyfile, kind, subject, data = sys.argv[1:5]
count = int(sys.argv[5]) if len(sys.argv) > 5 else 1
try:
    with Bus(keyfile, client="publish.py") as bus:
        if count == 1:
            event = bus.publish(kind, subject, json.loads(data))
            print("%s is event %d" % (event.id, event.seq))
        else:
            # Many at once: none waits for the acknowledgement of the one before.
            for number in range(1, count + 1):
                last = bus.publish(kind, subject, dict(json.loads(data), number=number), wait=None)
            bus.flush(120)
            print("%d events are stored; the last is event %d" % (count, last.seq))
except BusError as error:
    sys.exit("publish.py: %s" % error)
