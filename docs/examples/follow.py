#!/usr/bin/env python3
"""Prints events, each once: goes on where it was when it is started again, and when the bus is.

    follow.py KEYFILE CONSUMER PATTERN [SECONDS]         ends after so many seconds without an event
"""
import json
import sys

from slipway_bus import Bus, BusError

keyfile, consumer, pattern = sys.argv[1:4]
quiet = float(sys.argv[4]) if len(sys.argv) > 4 else None
try:
    with Bus(keyfile, client="follow.py") as bus:
        for event in bus.consume(consumer, [pattern], timeout=quiet):
            print(json.dumps({"seq": event.seq, "type": event.type, "subject": event.subject, "by": event.producer, "data": event.data}),
                  flush=True)
except BusError as error:
    sys.exit("follow.py: %s" % error)
except KeyboardInterrupt:
    pass
